"""Wan's published pipeline: UMT5, a causal video autoencoder of 16 channels."""

from __future__ import annotations

from diffusers import WanPipeline
from torch import Tensor

from selfflow_bench.pipelines.parts.standardized import StandardizedAutoencoder


class WanPublished(StandardizedAutoencoder):
    """Clips have one frame more than a multiple of four."""

    pipeline_class = WanPipeline
    steps = 50
    guidance = 5.0
    longest = 512

    def text_conditions(self, captions: list[str], length: int) -> dict[str, Tensor]:
        """``text``, zero behind a caption's end and attended without a mask."""
        text, _ = self.pipeline.encode_prompt(
            captions, do_classifier_free_guidance=False, max_sequence_length=length, device=self.device
        )
        return {"text": text}
