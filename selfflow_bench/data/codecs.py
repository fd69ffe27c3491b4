"""Codecs between media and the latents a transformer is trained on: here the lossless one of pictures and clips.

A codec is made from a recipe's table (`codec_from`), fitted to the training media (`fit`), and then encodes and
decodes. Nothing here is learned: no registry package holds a pretrained autoencoder, and a lossless codec keeps every
error in a sample the model's own. Notes have theirs in `selfflow_bench.data.spectrogram`. Knows nothing of files and
data sets.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from selfflow_bench.errors import FieldError

Media = NDArray[Any]


@dataclass(frozen=True)
class Statistics:
    """What is subtracted from and divides the coefficients: one number, or one per channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, mean: NDArray[np.float64], std: NDArray[np.float64]) -> Self:
        """From arrays; a channel that never varies is divided by one."""
        std = np.where(std > 0, std, 1.0)
        return cls(tuple(mean.tolist()), tuple(std.tolist()))


@dataclass(frozen=True)
class Codec(ABC):
    """Turns media into float32 latents, channels first, and back.

    The fields of a subclass but `statistics` are its parameters in a recipe.
    """

    name: ClassVar[str]
    statistics: Statistics | None = None

    @abstractmethod
    def fit(self, media: Media) -> Self:
        """The codec with the statistics of these media, under which their latents have mean 0 and variance 1."""

    @abstractmethod
    def encode(self, media: Media) -> Tensor:
        """Latents float32 [N, *latent_shape] of media [N, ...]. Raises ValueError before `fit` and for a wrong type."""

    @property
    def frames_per_cell(self) -> int:
        """Frames of a clip that become one along the latents' time axis."""
        return 1

    @abstractmethod
    def decode(self, latents: Tensor) -> Media:
        """Media [N, ...] of latents, rounded and clamped to their type. Raises ValueError for values not finite."""

    @abstractmethod
    def latent_shape(self, media_shape: Sequence[int]) -> tuple[int, ...]:
        """Shape of one latent, given that of one medium, both without N.

        Raises FieldError where sizes do not divide.
        """

    def spec(self) -> dict[str, str | int]:
        """The recipe's table for this codec, every parameter spelled out."""
        return {"name": self.name} | {field: getattr(self, field) for field in _parameters(type(self))}

    def state(self) -> dict[str, Any]:
        """Everything needed to make this codec again, as JSON values."""
        return {"spec": self.spec(), "statistics": None if self.statistics is None else asdict(self.statistics)}

    def _fitted(self) -> Statistics:
        if self.statistics is None:
            raise ValueError(f"codec {self.name}: not fitted; call fit() with the training media first")
        return self.statistics


@dataclass(frozen=True)
class SpaceToDepth(Codec):
    """Moves each block of pixels into the channels: pictures [N, H, W, 3] and clips [N, T, H, W, 3], both uint8.

    Latents are [N, C, H / space, W / space] and [N, C, T / time, H / space, W / space]. Channel
    ((color * time + frame) * space + row) * space + column holds that pixel of each block, as `pixel_unshuffle` orders
    them. Statistics are one mean and one standard deviation, so the codec keeps all distances up to scale.
    """

    name: ClassVar[str] = "space_to_depth"
    space: int = 1
    time: int = 1

    @property
    def frames_per_cell(self) -> int:  # noqa: D102
        return self.time

    def fit(self, media: Media) -> Self:  # noqa: D102
        require(media, np.uint8, self.name)
        counts = np.bincount(media.reshape(-1), minlength=256)
        values = np.arange(256)
        mean = np.average(values, weights=counts)
        variance = np.average((values - mean) ** 2, weights=counts)
        return replace(self, statistics=Statistics.of(np.atleast_1d(mean), np.atleast_1d(np.sqrt(variance))))

    def encode(self, media: Media) -> Tensor:  # noqa: D102
        require(media, np.uint8, self.name)
        statistics = self._fitted()
        shape = self.latent_shape(media.shape[1:])
        count, s, t = len(media), self.space, self.time
        height, width, colors = media.shape[-3:]
        blocks = torch.from_numpy(media.copy()).reshape(count, -1, t, height // s, s, width // s, s, colors)
        latents = blocks.permute(0, 7, 2, 4, 6, 1, 3, 5).reshape(count, *shape)
        return latents.float().sub_(statistics.mean[0]).div_(statistics.std[0])

    def decode(self, latents: Tensor) -> Media:  # noqa: D102
        statistics = self._fitted()
        s, t = self.space, self.time
        is_picture = latents.ndim == 4
        grid = latents.unsqueeze(2) if is_picture else latents
        count, channels, frames, height, width = grid.shape
        blocks = grid.reshape(count, channels // (t * s * s), t, s, s, frames, height, width)
        pixels = blocks.permute(0, 5, 2, 6, 3, 7, 4, 1).reshape(count, frames * t, height * s, width * s, -1)
        values = finite(pixels, self.name).float().mul(statistics.std[0]).add_(statistics.mean[0])
        media: Media = values.round_().clamp_(0, 255).to(torch.uint8).cpu().numpy()
        return media[:, 0] if is_picture else media

    def latent_shape(self, media_shape: Sequence[int]) -> tuple[int, ...]:  # noqa: D102
        *time, height, width, colors = media_shape
        for field, value, sizes in (("space", self.space, (height, width)), ("time", self.time, time or [1])):
            if any(size % value for size in sizes):
                raise FieldError("codec", field, value, f"does not divide media of shape {tuple(media_shape)}", DIVIDE)
        frames = [size // self.time for size in time]
        return (colors * self.time * self.space**2, *frames, height // self.space, width // self.space)


DIVIDE = "Set a size that divides the media evenly."


def codec_from(spec: Mapping[str, Any]) -> Codec:
    """The unfitted codec of a recipe's table, for example ``{name = "space_to_depth", space = 4, time = 1}``.

    Raises FieldError for an unknown codec, for an unknown parameter, and for one that is not a positive integer.
    """
    known = _codecs()
    kind = known.get(str(spec.get("name")))
    if kind is None:
        raise FieldError("codec", "name", spec.get("name"), "unknown codec", f"Known: {', '.join(sorted(known))}.")
    parameters = _parameters(kind)
    for field, value in spec.items():
        if field == "name":
            continue
        if field not in parameters:
            raise FieldError(
                "codec", field, value, f"{kind.name} has no such parameter", f"It has: {', '.join(parameters)}."
            )
        if type(value) is not int or value < 1:
            raise FieldError("codec", field, value, "must be a positive integer", "Set 1 or more.")
    return kind(**{field: value for field, value in spec.items() if field != "name"})


def from_state(state: Mapping[str, Any]) -> Codec:
    """The codec that wrote this `state()`."""
    codec, statistics = codec_from(state["spec"]), state["statistics"]
    if statistics is None:
        return codec
    return replace(codec, statistics=Statistics(tuple(statistics["mean"]), tuple(statistics["std"])))


def _codecs() -> dict[str, type[Codec]]:
    from selfflow_bench.data.joint import ClipAndNote
    from selfflow_bench.data.spectrogram import LogSpectrogram

    return {kind.name: kind for kind in (SpaceToDepth, LogSpectrogram, ClipAndNote)}


def _parameters(kind: type[Codec]) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind) if field.name != "statistics")


def require(media: Media, dtype: type[np.generic], name: str) -> None:
    """Raise ValueError where media have another type."""
    if media.dtype != dtype:
        raise ValueError(f"codec {name}: media are {media.dtype}, not {np.dtype(dtype)}")


def finite(latents: Tensor, name: str) -> Tensor:
    """The latents. Raises ValueError where one is not finite."""
    if not torch.isfinite(latents).all():
        raise ValueError(f"codec {name}: latents hold values that are not finite")
    return latents
