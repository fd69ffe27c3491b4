"""FLUX.1's published pipeline: T5 for the tokens, CLIP for the pooled vector, a KL autoencoder of 16 channels."""

from __future__ import annotations

from diffusers import FluxPipeline
from torch import Tensor

from selfflow_bench.pipelines.parts.scaled import ScaledAutoencoder


class FluxPublished(ScaledAutoencoder):
    """Its guidance is an input of the transformer (3.5), not classifier-free: no second prediction."""

    pipeline_class = FluxPipeline
    steps = 28
    guidance = 1.0
    longest = 512

    def text_conditions(self, captions: list[str], length: int) -> dict[str, Tensor]:
        """``text`` and ``pooled``; captions are attended without a mask."""
        text, pooled, _ = self.pipeline.encode_prompt(captions, max_sequence_length=length, device=self.device)
        return {"text": text, "pooled": pooled}
