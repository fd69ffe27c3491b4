"""Samples as parts of the page: stills and clips as WebP, notes as MP3, all in data URIs, small enough to carry many.

Knows files and nothing of records. The files themselves stay as they are and are linked. Pillow and soundfile are
imported when something is embedded.
"""

from __future__ import annotations

import base64
import io
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfflow_bench.results.report.sections import Sheet

if TYPE_CHECKING:
    from PIL import Image

# Found by eye on the sheets: below these, captions blur and small pictures lose their colours.
_QUALITY = {"pictures": 35, "clips": 50, "notes": 50}
_CLIP_QUALITY, _CLIP_WIDTH = 30, 304
_WIDEST = 900
_FRAME_MS = 100


def sheet_html(sheet: Sheet) -> str:
    """The still, and what plays it: clips in a fold that opens without JavaScript, notes in a player."""
    from PIL import Image

    with Image.open(sheet.still) as still:
        picture = _narrowed(still.convert("RGB"), _WIDEST)
    parts = [_img(_webp(picture, _QUALITY[sheet.kind]), picture.size, sheet.text)]
    if sheet.moving is not None:
        clip, size = _clip(sheet.moving)
        moving = _img(clip, size, f"{sheet.text}, moving")
        parts.append(f"<details><summary>Play the clips of {escape(sheet.label)}</summary>{moving}</details>")
    if sheet.sound is not None:
        label = escape(f"Notes of {sheet.label}, one after the other")
        uri = _uri("audio/mpeg", _mp3(sheet.sound))
        parts.append(f'<audio controls preload="none" aria-label="{label}" src="{uri}"></audio>')
    return "".join(parts)


def _img(webp: bytes, size: tuple[int, int], text: str) -> str:
    uri = _uri("image/webp", webp)
    return f'<img src="{uri}" width="{size[0]}" height="{size[1]}" alt="{escape(text)}">'


def _uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _narrowed(picture: Image.Image, width: int) -> Image.Image:
    from PIL import Image

    if picture.width <= width:
        return picture
    return picture.resize((width, round(picture.height * width / picture.width)), Image.Resampling.LANCZOS)


def _webp(picture: Image.Image, quality: int, **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, "WEBP", quality=quality, method=6, **options)
    return file.getvalue()


def _clip(path: Path) -> tuple[bytes, tuple[int, int]]:
    from PIL import Image, ImageSequence

    with Image.open(path) as clip:
        frames = [_narrowed(frame.convert("RGB"), _CLIP_WIDTH) for frame in ImageSequence.Iterator(clip)]
    first, *rest = frames
    moving = _webp(first, _CLIP_QUALITY, save_all=True, append_images=rest, duration=_FRAME_MS, loop=0)
    return moving, first.size


def _mp3(path: Path) -> bytes:
    import soundfile

    samples, rate = soundfile.read(path, dtype="int16")
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="MP3", subtype="MPEG_LAYER_III", compression_level=0.8)
    return file.getvalue()
