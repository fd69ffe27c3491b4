"""Autoencoders whose latents are normalised by a mean and a standard deviation of each channel."""

from __future__ import annotations

import torch
from torch import Tensor

from selfflow_bench.pipelines.base import PublishedPipeline


class StandardizedAutoencoder(PublishedPipeline):
    """``latents_mean`` and ``latents_std`` are in the autoencoder's configuration."""

    def latents(self, values: Tensor) -> Tensor:
        """Of the posterior's mean."""
        mean, std = self.statistics()
        encoded: Tensor = self.pipeline.vae.encode(values).latent_dist.mode()
        return (encoded - mean) / std

    def decoded(self, latents: Tensor) -> Tensor:
        """Back to the autoencoder's own range, and through it."""
        mean, std = self.statistics()
        made: Tensor = self.pipeline.vae.decode(latents * std + mean, return_dict=False)[0]
        return made

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation ``[1, C, 1, 1, 1]``."""
        config = self.pipeline.vae.config
        mean, std = (
            torch.tensor(list(found), device=self.device).view(1, -1, 1, 1, 1)
            for found in (config.latents_mean, config.latents_std)
        )
        return mean, std
