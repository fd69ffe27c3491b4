"""Sana's published pipeline: Gemma 2 behind an instruction, DC-AE."""

from __future__ import annotations

from diffusers import SanaPipeline
from torch import Tensor

from selfflow_bench.pipelines.parts.instructed_gemma import InstructedGemma
from selfflow_bench.pipelines.parts.scaled import ScaledAutoencoder


class SanaPublished(InstructedGemma, ScaledAutoencoder):
    """Pictures whose sides are multiples of 32."""

    pipeline_class = SanaPipeline
    steps = 20
    guidance = 4.5

    def encoded(self, values: Tensor) -> Tensor:
        """DC-AE has no posterior."""
        latents: Tensor = self.pipeline.vae.encode(values).latent
        return latents
