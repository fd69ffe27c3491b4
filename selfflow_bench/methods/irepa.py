"""iREPA (arXiv 2512.10794): REPA that keeps space: a convolutional projector, features normalised over space."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import Field
from torch import Tensor, nn

from selfflow_bench.methods.base import Batch, Sizes
from selfflow_bench.methods.parts.homogeneous import AlignmentSettings
from selfflow_bench.methods.repa import Repa


class IrepaSettings(AlignmentSettings):
    """Documented defaults: share 0.6 of the mean taken off, kernel 3; weight as REPA's."""

    weight: float = 0.5
    encoder: str
    mean_share: float = Field(default=0.6, ge=0.0, le=1.0)
    kernel: int = Field(default=3, ge=1)


class Irepa(Repa):
    """REPA against ``(y - a mean(y)) / (std(y) + 1e-6)``, mean and deviation over space."""

    settings_class = IrepaSettings
    summary = "REPA with a convolutional projector and features normalised over space"

    settings: Any

    def heads(self, sizes: Sizes) -> nn.ModuleDict:
        """A convolution over the tokens' grid."""
        kernel = self.settings.kernel
        return nn.ModuleDict({"projector": nn.Conv2d(sizes.hidden, sizes.features[-1], kernel, padding="same")})

    def projected(self, tokens: Tensor, heads: nn.ModuleDict, grid: Sequence[int]) -> Tensor:
        """The tokens as a picture, convolved, as tokens again."""
        picture = tokens.transpose(1, 2).reshape(len(tokens), -1, *grid)
        made: Tensor = heads["projector"](picture).flatten(2).transpose(1, 2)
        return made

    def target(self, batch: Batch) -> Tensor:
        """The features, normalised over rows and columns."""
        features = super().target(batch)
        mean, deviation = features.mean((1, 2), keepdim=True), features.std((1, 2), keepdim=True)
        normalised: Tensor = (features - self.settings.mean_share * mean) / (deviation + 1e-6)
        return normalised
