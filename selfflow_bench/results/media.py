"""Generated media as files to look at and listen to: picture grids, moving grids, film strips, spectrograms, WAV.

Takes media as arrays; knows nothing of models or records. Pillow and matplotlib are imported when something is drawn.
"""

from __future__ import annotations

import wave
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from selfflow_bench.atomic_files import replace_file
from selfflow_bench.errors import FieldError

if TYPE_CHECKING:
    from PIL import Image, ImageFont

FIGURES = "figures"
"""The folder of media and curves in a results folder; in it one a recipe and tier."""
_ZOOM, _MARGIN, _TEXT, _LINES = 3, 8, 10, 2
_INK = "#222222"
_PAUSE_S = 0.15


def write_media(
    media: NDArray[Any], captions: Sequence[str], folder: Path, stem: str, title: str, *, rate: int = 8_000
) -> list[Path]:
    """Write media in the form that suits them; the paths written.

    uint8 `[N, H, W, 3]`: `stem.png`, a grid. uint8 `[N, frames, H, W, 3]`: `stem.webp`, the same in motion, and
    `stem.png`, a film strip. int16 `[N, samples]` at `rate` Hz: `stem.wav`, all one after the other, and `stem.png`,
    their spectrograms. Structured media: each field so, the field's name behind the stem. Raises FieldError for other
    arrays, or where captions and media differ in number.
    """
    if media.dtype.names:
        return [
            path
            for field in media.dtype.names
            for path in write_media(media[field], captions, folder, f"{stem}-{field}", f"{title}: {field}", rate=rate)
        ]
    if len(captions) != len(media) or not len(media):
        problem = f"there are {len(media)} media"
        raise FieldError(
            "media", "captions", len(captions), problem, "Give one caption for each of at least one medium."
        )
    kind = (media.ndim, media.dtype.kind, media.shape[-1] if media.ndim > 2 else None)
    if kind == (4, "u", 3):
        return [_save(folder / f"{stem}.png", lambda file: picture_grid(media, captions, title).save(file, "PNG"))]
    if kind == (5, "u", 3):
        frames = [picture_grid(media[:, index], captions, title) for index in range(media.shape[1])]
        options: dict[str, Any] = {"save_all": True, "append_images": frames[1:], "duration": 100, "loop": 0}
        return [
            _save(folder / f"{stem}.webp", lambda file: frames[0].save(file, "WEBP", quality=60, method=4, **options)),
            _save(folder / f"{stem}.png", lambda file: film_strip(media, captions, title).save(file, "PNG")),
        ]
    if kind == (2, "i", None):
        return [
            _save(folder / f"{stem}.wav", lambda file: _wav(media, file, rate)),
            _save(folder / f"{stem}.png", lambda file: _spectrograms(media, captions, title, file, rate)),
        ]
    found = f"{media.dtype} {list(media.shape)}"
    raise FieldError("media", "shape", found, "neither pictures, clips nor notes", "Give one of the three forms.")


def picture_grid(pictures: NDArray[np.generic], captions: Sequence[str], title: str) -> Image.Image:
    """Pictures `[N, H, W, 3]`, up to 8 a row, enlarged three times without smoothing, each over its caption."""
    from PIL import Image, ImageDraw

    columns = min(8, len(pictures))
    cell_width = pictures.shape[2] * _ZOOM
    line_height = _TEXT + 3
    cell_height = pictures.shape[1] * _ZOOM + _LINES * line_height + 4
    rows = -(-len(pictures) // columns)
    top = 28
    size = (columns * (cell_width + _MARGIN) + _MARGIN, top + rows * (cell_height + _MARGIN))
    sheet = Image.new("RGB", (max(size[0], 320), size[1]), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((_MARGIN, 7), title, fill=_INK, font=_font(_TEXT + 3))
    for index, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        x = _MARGIN + index % columns * (cell_width + _MARGIN)
        y = top + index // columns * (cell_height + _MARGIN)
        sheet.paste(_enlarged(picture, _ZOOM), (x, y))
        draw.rectangle((x - 1, y - 1, x + cell_width, y + pictures.shape[1] * _ZOOM), outline="#CCCCCC")
        for number, line in enumerate(_wrapped(caption, cell_width, _font(_TEXT))):
            draw.text((x, y + pictures.shape[1] * _ZOOM + 3 + number * line_height), line, fill=_INK, font=_font(_TEXT))
    return sheet


def film_strip(clips: NDArray[np.generic], captions: Sequence[str], title: str) -> Image.Image:
    """Clips `[N, frames, H, W, 3]`, 8 spread over them: a row each, frames enlarged twice, caption at the left."""
    from PIL import Image, ImageDraw

    zoom, left, top, gap = 2, 132, 28, 2
    rows = min(8, len(clips))
    chosen = [index * len(clips) // rows for index in range(rows)]
    shown = clips[chosen]
    height, width = clips.shape[2] * zoom, clips.shape[3] * zoom
    size = (left + shown.shape[1] * (width + gap) + _MARGIN, top + len(shown) * (height + _MARGIN))
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((_MARGIN, 7), title, fill=_INK, font=_font(_TEXT + 3))
    for row, (clip, caption) in enumerate(zip(shown, (captions[index] for index in chosen), strict=True)):
        y = top + row * (height + _MARGIN)
        for number, line in enumerate(_wrapped(caption, left - 2 * _MARGIN, _font(_TEXT), lines=4)):
            draw.text((_MARGIN, y + 2 + number * (_TEXT + 3)), line, fill=_INK, font=_font(_TEXT))
        for index, frame in enumerate(clip):
            sheet.paste(_enlarged(frame, zoom), (left + index * (width + gap), y))
        draw.line((left, y + height + 3, size[0] - _MARGIN, y + height + 3), fill="#DDDDDD")
    return sheet


def _enlarged(picture: NDArray[np.generic], zoom: int) -> Image.Image:
    from PIL import Image

    return Image.fromarray(np.ascontiguousarray(picture.repeat(zoom, 0).repeat(zoom, 1)))


def _wrapped(caption: str, width: int, font: ImageFont.FreeTypeFont, lines: int = _LINES) -> list[str]:
    """A caption in at most `lines` lines of `width` pixels; what does not fit ends in dots."""
    found: list[str] = []
    for word in caption.replace("-", " ").split():
        joined = f"{found[-1]} {word}" if found else word
        if found and font.getlength(joined) <= width:
            found[-1] = joined
        else:
            found.append(word)
    if len(found) > lines:
        found = [*found[: lines - 1], " ".join(found[lines - 1 :])]
    return [_shortened(line, width, font) for line in found]


def _shortened(line: str, width: int, font: ImageFont.FreeTypeFont) -> str:
    if font.getlength(line) <= width:
        return line
    while line and font.getlength(line + "…") > width:
        line = line[:-1]
    return line.rstrip() + "…"


@lru_cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    import matplotlib
    from PIL import ImageFont

    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")), size)


def _wav(notes: NDArray[np.generic], file: BinaryIO, rate: int) -> None:
    pause = np.zeros(round(_PAUSE_S * rate), np.int16)
    joined = np.concatenate([part for note in notes for part in (note, pause)])
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(rate)
        sound.writeframes(joined.astype("<i2").tobytes())


def _spectrograms(notes: NDArray[np.generic], captions: Sequence[str], title: str, file: BinaryIO, rate: int) -> None:
    """A sheet of magnitude spectrograms, 80 dB below full scale to full scale, time across and frequency up."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image
    from scipy.signal import ShortTimeFFT
    from scipy.signal.windows import hann

    columns = min(8, len(notes))
    rows = -(-len(notes) // columns)
    figure = Figure(figsize=(1.6 * columns + 0.8, 1.55 * rows + 0.8), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False)
    transform = ShortTimeFFT(hann(512, sym=False), hop=128, fs=rate, scale_to="magnitude")
    extent = (0.0, notes.shape[1] / rate, 0.0, rate / 2000)
    image = None
    for index, axis in enumerate(axes.flat):
        if index >= len(notes):
            axis.set_visible(False)
            continue
        magnitude = np.abs(transform.stft(notes[index].astype(np.float64) / 32768))
        level = 20 * np.log10(np.maximum(magnitude, 1e-6))
        image = axis.imshow(level, origin="lower", aspect="auto", extent=extent, vmin=-90, vmax=-20, cmap="magma")
        axis.set_title("\n".join(_wrapped(captions[index], 150, _font(_TEXT))), fontsize=7.5, color=_INK)
        axis.tick_params(labelsize=6, length=2)
        axis.label_outer()
    if image is not None:
        figure.colorbar(image, ax=axes, label="dB of full scale", fraction=0.02, pad=0.01)
    figure.suptitle(f"{title} (s across, kHz up)", fontsize=10)
    canvas.draw()
    drawn = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    # One colour map and a little text: a palette holds it in a third of the bytes.
    drawn.quantize(128, dither=Image.Dither.NONE).save(file, "PNG", optimize=True)


def _save(path: Path, write: Callable[[BinaryIO], object]) -> Path:
    replace_file(path, write)
    return path
