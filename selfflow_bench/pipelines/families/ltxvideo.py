"""LTX-Video's published pipeline: T5, a video autoencoder of 128 channels whose decoder takes a time."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from diffusers import LTXPipeline
from torch import Tensor

from selfflow_bench.pipelines.parts.shifted_by_size import ShiftedBySize
from selfflow_bench.pipelines.parts.standardized import StandardizedAutoencoder


class LTXVideoPublished(ShiftedBySize, StandardizedAutoencoder):
    """Clips have one frame more than a multiple of eight."""

    pipeline_class = LTXPipeline
    steps = 50
    guidance = 3.0
    longest = 128

    def text_conditions(self, captions: list[str], length: int) -> dict[str, Tensor]:
        """``text`` and ``text_mask``."""
        text, mask, _, _ = self.pipeline.encode_prompt(
            captions, do_classifier_free_guidance=False, max_sequence_length=length, device=self.device
        )
        return {"text": text, "text_mask": mask.bool()}

    def tokens(self, latent_shape: Sequence[int]) -> int:
        """Of one cell each."""
        return math.prod(latent_shape[1:])

    def decoded(self, latents: Tensor) -> Tensor:
        """At time 0, the pipeline's own choice: the decoder is not to remove noise."""
        mean, std = self.statistics()
        time = torch.zeros(len(latents), device=self.device) if self.pipeline.vae.config.timestep_conditioning else None
        made: Tensor = self.pipeline.vae.decode(latents * std + mean, time, return_dict=False)[0]
        return made

    def statistics(self) -> tuple[Tensor, Tensor]:
        """The autoencoder holds them beside its weights, and a scale in its configuration."""
        vae = self.pipeline.vae
        mean, std = (found.view(1, -1, 1, 1, 1) for found in (vae.latents_mean, vae.latents_std))
        return mean, std / vae.config.scaling_factor
