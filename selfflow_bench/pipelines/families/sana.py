"""Sana's published pipeline: Gemma 2 behind an instruction, DC-AE."""

from __future__ import annotations

import inspect

import torch
from diffusers import SanaPipeline
from torch import Tensor

from selfflow_bench.pipelines.parts.scaled import ScaledAutoencoder


class SanaPublished(ScaledAutoencoder):
    """Captions follow the pipeline's instruction to enhance them; the empty one stands alone."""

    pipeline_class = SanaPipeline
    steps = 20
    guidance = 4.5
    longest = 300

    def text_conditions(self, captions: list[str], length: int) -> dict[str, Tensor]:
        """``text`` and ``text_mask``."""
        instruction = inspect.signature(SanaPipeline.__call__).parameters["complex_human_instruction"].default
        parts = [
            self.pipeline.encode_prompt(
                caption,
                do_classifier_free_guidance=False,
                max_sequence_length=length,
                complex_human_instruction=instruction if caption else None,
                device=self.device,
            )[:2]
            for caption in captions
        ]
        text, mask = (torch.cat(column) for column in zip(*parts, strict=True))
        return {"text": text, "text_mask": mask.bool()}

    def encoded(self, values: Tensor) -> Tensor:
        """DC-AE has no posterior."""
        latents: Tensor = self.pipeline.vae.encode(values).latent
        return latents
