"""Encoded pictures, clips and sounds, decoded and brought to one size by fixed rules.

What cannot be used is said with a reason and left to the caller. Knows nothing of where media come from.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

Encoded = bytes | Path
"""A medium as its file has it: the content, or where the file is."""
UNREADABLE, TOO_SHORT, SOUNDLESS = "cannot be read", "too short", "has no sound"
_ROUNDING = Fraction(1, 1000)
"""Files that count in milliseconds say of a frame that it begins up to so many seconds late."""
MISSING_SHARE = 0.01
"""A sound that lacks at most this share of its length is filled up with silence: coders cut that much off."""


class UnusableError(Exception):
    """A medium that has to be left out; `reason` is one of few, so that they can be counted."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason


@dataclass(frozen=True)
class MediaSize:
    """What media are brought to.

    Args:
        resolution: height and width of pictures and frames; None for sound alone.
        frames: of a clip; None for pictures.
        fps: frames a second that are taken; None for every frame there is.
        seconds: of a sound; of a clip's own sound, its frames' time.
    """

    resolution: tuple[int, int] | None = None
    frames: int | None = None
    fps: float | None = None
    seconds: float | None = None


def picture(encoded: Encoded, resolution: tuple[int, int]) -> NDArray[np.uint8]:
    """uint8 ``[H, W, 3]``, turned as its camera was held, then `fitted`. Raises UnusableError."""
    try:
        with Image.open(_file(encoded)) as opened:
            return fitted(ImageOps.exif_transpose(opened).convert("RGB"), resolution)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UnusableError(UNREADABLE, str(error)) from error


def fitted(opened: Image.Image, resolution: tuple[int, int]) -> NDArray[np.uint8]:
    """A picture scaled to cover ``resolution`` (height, width), its middle cut out.

    Halved by averaging while both sides stay large enough, then scaled bicubically: the way of ADM (Dhariwal and
    Nichol 2021), which the comparisons on ImageNet share.
    """
    height, width = resolution
    while opened.width >= 2 * width and opened.height >= 2 * height:
        opened = opened.resize((opened.width // 2, opened.height // 2), Image.Resampling.BOX)
    scale = max(width / opened.width, height / opened.height)
    size = max(width, round(opened.width * scale)), max(height, round(opened.height * scale))
    opened = opened.resize(size, Image.Resampling.BICUBIC)
    left, top = (opened.width - width) // 2, (opened.height - height) // 2
    return np.array(opened.crop((left, top, left + width, top + height)))


def clip(encoded: Encoded, size: MediaSize) -> NDArray[np.uint8]:
    """uint8 ``[T, H, W, 3]``: the first frames, each `fitted`, at ``fps`` those shown at each moment.

    Raises UnusableError for a clip that ends before the last of them has been shown for its time.
    """
    assert size.frames is not None
    assert size.resolution is not None
    made: list[NDArray[np.uint8]] = []
    try:
        for shown, ends in _shown(encoded):
            times = 1
            if size.fps is not None:
                times = math.ceil((ends - _ROUNDING) * Fraction(size.fps)) - len(made)
            if times > 0:
                made += [fitted(shown(), size.resolution)] * min(times, size.frames - len(made))
            if len(made) == size.frames:
                return np.stack(made)
    except _media_errors() as error:
        raise UnusableError(UNREADABLE, str(error)) from error
    raise UnusableError(TOO_SHORT, f"{len(made)} of {size.frames} frames")


def sound(encoded: Encoded, seconds: float, rate: int) -> NDArray[np.int16]:
    """int16 ``[samples, channels]`` of one or two channels: the first ``seconds`` at ``rate`` a second.

    Resampled by FFmpeg; of more than two channels two are made. Raises UnusableError for less than that, but for
    `MISSING_SHARE`.
    """
    wanted = round(seconds * rate)
    parts: list[NDArray[np.int16]] = []
    try:
        have = 0
        for part in _samples(encoded, rate):
            parts.append(part)
            have += len(part)
            if have >= wanted:
                break
    except _media_errors() as error:
        raise UnusableError(UNREADABLE, str(error)) from error
    if have < wanted * (1 - MISSING_SHARE):
        raise UnusableError(TOO_SHORT, f"{have / rate:.3g} of {seconds:g} s")
    made = np.concatenate(parts)[:wanted]
    return np.pad(made, ((0, wanted - len(made)), (0, 0)))


def _shown(encoded: Encoded) -> Iterator[tuple[Any, Fraction]]:
    """Of each frame what makes its picture, and when it ends, in seconds from the first one's beginning."""
    import av

    with av.open(_file(encoded), metadata_errors="ignore") as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        usual = 1 / Fraction(stream.average_rate) if stream.average_rate else Fraction(0)
        before: Any = None
        first = Fraction(0)
        for frame in container.decode(stream):
            begins = _begin(frame)
            if before is None:
                first = begins
            else:
                yield _picture_of(before), begins - first
            before = frame
        if before is not None:
            yield _picture_of(before), _begin(before) - first + usual


def _begin(frame: Any) -> Fraction:
    if frame.pts is None or frame.time_base is None:
        raise ValueError("a frame does not say when it is shown")
    return Fraction(frame.pts * frame.time_base)


def _picture_of(frame: Any) -> Any:
    """Turned as its camera was held."""
    turns = round(getattr(frame, "rotation", 0) or 0)

    def made() -> Image.Image:
        opened: Image.Image = frame.to_image()
        return opened.rotate(turns, expand=True) if turns else opened

    return made


def _samples(encoded: Encoded, rate: int) -> Iterator[NDArray[np.int16]]:
    """int16 ``[samples, channels]``, part by part."""
    import av

    with av.open(_file(encoded), metadata_errors="ignore") as container:
        if not container.streams.audio:
            raise UnusableError(SOUNDLESS)
        stream = container.streams.audio[0]
        layout = "mono" if stream.codec_context.channels == 1 else "stereo"
        resampler = av.AudioResampler(format="s16", layout=layout, rate=rate)
        channels = 1 if layout == "mono" else 2
        for frame in container.decode(stream):
            for made in resampler.resample(frame):
                yield _interleaved(made, channels)
        for made in resampler.resample(None):
            yield _interleaved(made, channels)


def _interleaved(frame: Any, channels: int) -> NDArray[np.int16]:
    samples: NDArray[np.int16] = frame.to_ndarray()
    return samples.reshape(-1, channels)


def _media_errors() -> tuple[type[Exception], ...]:
    import av

    return (av.FFmpegError, OSError, ValueError, IndexError, EOFError)


def _file(encoded: Encoded) -> Any:
    return io.BytesIO(encoded) if isinstance(encoded, bytes) else str(encoded)
