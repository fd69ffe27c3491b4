"""The codec of clips with audio: two streams packed along one token axis, for models that make both."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from torch import Tensor

from selfflow_bench.data.codecs import DIVIDE, Codec, Media, SpaceToDepth, Statistics
from selfflow_bench.data.sources import joint_media
from selfflow_bench.data.spectrogram import LogSpectrogram
from selfflow_bench.errors import FieldError


@dataclass(frozen=True)
class ClipAndNote(Codec):
    """Structured media with fields ``frames`` (uint8 [T, H, W, 3]) and ``audio`` (int16 [samples]).

    Latents are [N, C, cells of the clip + frames of the spectrogram]: the clip's space-to-depth cells in row-major
    order, then the note's log spectrogram. Both have C channels: 3 time space^2 numbers a cell, as many bands.
    """

    name: ClassVar[str] = "clip_and_note"
    space: int = 4
    time: int = 2
    frames: int = 8
    size: int = 16
    samples: int = 6144

    def fit(self, media: Media) -> Self:  # noqa: D102
        clip, note = (codec.fit(media[field]).statistics for field, codec in self._streams().items())
        assert clip is not None
        assert note is not None
        return replace(self, statistics=Statistics(clip.mean + note.mean, clip.std + note.std))

    def encode(self, media: Media) -> Tensor:  # noqa: D102
        return torch.cat([codec.encode(media[field]).flatten(2) for field, codec in self._fitted_streams().items()], 2)

    def decode(self, latents: Tensor) -> Media:  # noqa: D102
        streams, grid = self._fitted_streams(), self._grid()
        cells = math.prod(grid)
        frames = streams["frames"].decode(torch.unflatten(latents[..., :cells], 2, grid))
        return joint_media({"frames": frames, "audio": streams["audio"].decode(latents[..., cells:])})

    def latent_shape(self, media_shape: Sequence[int]) -> tuple[int, ...]:  # noqa: D102
        if tuple(media_shape) != (self.frames, self.size, self.size, 3):
            raise FieldError("codec", "frames, size", (self.frames, self.size), f"not those of {media_shape}", DIVIDE)
        channels, frames = self._streams()["audio"].latent_shape((self.samples,))
        return channels, math.prod(self._grid()) + frames

    def _grid(self) -> tuple[int, ...]:
        return self._streams()["frames"].latent_shape((self.frames, self.size, self.size, 3))[1:]

    def _streams(self) -> dict[str, Codec]:
        clip = SpaceToDepth(space=self.space, time=self.time)
        return {"frames": clip, "audio": LogSpectrogram(channels=3 * self.time * self.space**2)}

    def _fitted_streams(self) -> dict[str, Codec]:
        """The first mean and deviation are the clips', the others the spectrogram's bands'."""
        found, streams = self._fitted(), self._streams()
        parts = {"frames": slice(0, 1), "audio": slice(1, None)}
        return {
            name: replace(codec, statistics=Statistics(found.mean[parts[name]], found.std[parts[name]]))
            for name, codec in streams.items()
        }
