"""Sana-Video's published pipeline: Gemma 2 behind an instruction, Wan's autoencoder."""

from __future__ import annotations

from diffusers import SanaVideoPipeline

from selfflow_bench.pipelines.parts.instructed_gemma import InstructedGemma
from selfflow_bench.pipelines.parts.standardized import StandardizedAutoencoder


class SanaVideoPublished(InstructedGemma, StandardizedAutoencoder):
    """Clips have one frame more than a multiple of four."""

    pipeline_class = SanaVideoPipeline
    steps = 50
    guidance = 6.0
