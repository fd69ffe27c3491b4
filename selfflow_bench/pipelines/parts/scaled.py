"""Autoencoders whose latents are normalised by one shift and one scale, both in their configuration."""

from __future__ import annotations

from torch import Tensor

from selfflow_bench.pipelines.base import PublishedPipeline


class ScaledAutoencoder(PublishedPipeline):
    """Latents less ``shift_factor``, times ``scaling_factor``; a configuration may have no shift."""

    def latents(self, values: Tensor) -> Tensor:
        """Of the posterior's mean."""
        made: Tensor = (self.encoded(values) - self._shift) * self.pipeline.vae.config.scaling_factor
        return made

    def decoded(self, latents: Tensor) -> Tensor:
        """Back to the autoencoder's own range, and through it."""
        made: Tensor = self.pipeline.vae.decode(
            latents / self.pipeline.vae.config.scaling_factor + self._shift, return_dict=False
        )[0]
        return made

    def encoded(self, values: Tensor) -> Tensor:
        """The autoencoder's latents in its own range."""
        mean: Tensor = self.pipeline.vae.encode(values).latent_dist.mode()
        return mean

    @property
    def _shift(self) -> float:
        return float(self.pipeline.vae.config.get("shift_factor") or 0.0)
