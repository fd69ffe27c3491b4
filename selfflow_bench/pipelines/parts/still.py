"""Qwen-Image's autoencoder: one of clips, used for single frames."""

from __future__ import annotations

from torch import Tensor

from selfflow_bench.pipelines.parts.standardized import StandardizedAutoencoder


class StillAutoencoder(StandardizedAutoencoder):
    """A picture is a clip of one frame, and its latents have no axis of frames."""

    def latents(self, values: Tensor) -> Tensor:
        """Of the one frame."""
        return super().latents(values[:, :, None])[:, :, 0]

    def decoded(self, latents: Tensor) -> Tensor:
        """The one frame."""
        return super().decoded(latents[:, :, None])[:, :, 0]
