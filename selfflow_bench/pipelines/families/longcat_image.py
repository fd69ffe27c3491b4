"""LongCat-Image's published pipeline: Qwen 2.5-VL between a template's ends, FLUX.1's autoencoder."""

from __future__ import annotations

from diffusers import LongCatImagePipeline
from torch import Tensor

from selfflow_bench.families.parts.packing import pack, unpack
from selfflow_bench.pipelines.base import Guide
from selfflow_bench.pipelines.parts.same_length import of_same_length
from selfflow_bench.pipelines.parts.scaled import ScaledAutoencoder
from selfflow_bench.pipelines.parts.shifted_by_size import ShiftedBySize


class LongCatImagePublished(ShiftedBySize, ScaledAutoencoder):
    """Captions as they are: the pipeline's rewriting of prompts, for which alone the text processor is, stays out."""

    pipeline_class = LongCatImagePipeline
    steps = 50
    guidance = 4.0
    longest = 512
    absent = ("transformer", "text_processor")

    def text_conditions(self, captions: list[str], length: int) -> dict[str, Tensor]:
        """``text``: padding has states too, and is attended; the template's own tokens do not count."""
        self.pipeline.tokenizer_max_length = length
        text, _ = self.pipeline.encode_prompt(captions)
        return {"text": text}

    def guide(self, scale: float) -> Guide:
        """Each token of the guided prediction is no longer than without guidance."""
        patch = (2, 2)

        def guided(predicted: Tensor, away: Tensor) -> Tensor:
            grid = [size // 2 for size in predicted.shape[2:]]
            kept = of_same_length(pack(away + scale * (predicted - away), patch), pack(predicted, patch), 1.0)
            return unpack(kept, grid, patch)

        return guided
