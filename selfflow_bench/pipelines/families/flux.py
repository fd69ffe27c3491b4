"""FLUX.1's published pipeline: T5 for the tokens, CLIP for the pooled vector, a KL autoencoder of 16 channels."""

from __future__ import annotations

from diffusers import FluxPipeline
from torch import Tensor

from selfflow_bench.pipelines.parts.scaled import ScaledAutoencoder
from selfflow_bench.pipelines.parts.shifted_by_size import ShiftedBySize


class FluxPublished(ShiftedBySize, ScaledAutoencoder):
    """Pictures whose sides are multiples of 16."""

    pipeline_class = FluxPipeline
    steps = 28
    guidance = 3.5
    guided_by = "embedded"
    longest = 512

    def text_conditions(self, captions: list[str], length: int) -> dict[str, Tensor]:
        """``text`` and ``pooled``; captions are attended without a mask."""
        text, pooled, _ = self.pipeline.encode_prompt(captions, max_sequence_length=length, device=self.device)
        return {"text": text, "pooled": pooled}
