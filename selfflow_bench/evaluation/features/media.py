"""Which media a feature network takes: pictures, clips, or sound; anything else is refused by its type and shape."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from selfflow_bench.errors import FieldError


def pictures(network: str, media: NDArray[Any]) -> NDArray[np.uint8]:
    """The media, if they are uint8 ``[N, H, W, 3]`` with N > 0. Raises FieldError."""
    if media.ndim != 4 or media.shape[-1] != 3 or media.dtype != np.uint8 or not len(media):
        raise _refusal(network, media, "not a batch of pictures", "Give uint8 [N, H, W, 3].")
    return media


def clips(network: str, media: NDArray[Any], least: int) -> NDArray[np.uint8]:
    """The media, if they are uint8 ``[N, frames, H, W, 3]`` of ``least`` frames or more. Raises FieldError.

    Of structured media, clips with audio, the field ``frames``: the audio is not seen.
    """
    frames: NDArray[Any] = media["frames"] if media.dtype.names else media
    if frames.ndim != 5 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or not len(frames):
        raise _refusal(network, frames, "not a batch of clips", f"Give uint8 [N, frames >= {least}, H, W, 3].")
    if frames.shape[1] < least:
        raise _refusal(network, frames, "too few frames", f"Give uint8 [N, frames >= {least}, H, W, 3].")
    return frames


def sound(network: str, media: NDArray[Any], rate: int) -> NDArray[np.int16]:
    """The media, if they are int16 ``[N, samples]`` of 0.1 s or more, or of several channels. Raises FieldError.

    Of structured media, clips with audio, the field ``audio``.
    """
    media = media["audio"] if media.dtype.names else media
    if media.ndim not in (2, 3) or media.dtype != np.int16 or not len(media) or media.shape[1] < rate // 10:
        raise _refusal(network, media, "not a batch of sounds", f"Give int16 [N, samples] at {rate} Hz.")
    return media


def _refusal(network: str, media: NDArray[Any], problem: str, remedy: str) -> FieldError:
    return FieldError(network, "media", f"{media.dtype} {list(media.shape)}", problem, remedy)
