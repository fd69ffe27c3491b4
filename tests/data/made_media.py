"""Real files of sound and moving pictures, made by FFmpeg's own libraries."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np


def write_clip(
    path: Path, *, frames: int, fps: int, size: tuple[int, int] = (32, 48), sound_s: float | None = None
) -> Path:
    """A clip whose frame k has the grey level 20 k, coded without loss but in .mp4; with a tone of ``sound_s``."""
    with av.open(str(path), "w") as container:
        coarse = path.suffix == ".mp4"
        video = container.add_stream("mpeg4" if coarse else "ffv1", rate=fps)
        video.height, video.width, video.pix_fmt = *size, "yuv420p" if coarse else "bgr0"
        tone = None
        if sound_s is not None:
            tone = container.add_stream("pcm_s16le", rate=16000)
            tone.layout = "mono"
        for number in range(frames):
            picture = np.full((*size, 3), 20 * number, dtype=np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, fps)
            container.mux(video.encode(frame))
        container.mux(video.encode())
        if tone is not None and sound_s is not None:
            made = av.AudioFrame.from_ndarray(samples(sound_s, 16000).T.copy(), format="s16", layout="mono")
            made.sample_rate, made.pts = 16000, 0
            container.mux(tone.encode(made))
            container.mux(tone.encode())
    return path


def samples(seconds: float, rate: int, channels: int = 1) -> np.ndarray[tuple[int, int], np.dtype[np.int16]]:
    """int16 ``[samples, channels]``: a tone of 440 Hz."""
    time = np.arange(round(seconds * rate)) / rate
    tone = (8000 * np.sin(2 * np.pi * 440 * time)).astype(np.int16)
    return np.repeat(tone[:, None], channels, axis=1)
