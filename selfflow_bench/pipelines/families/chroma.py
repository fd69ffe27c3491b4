"""Chroma1's published pipeline: T5 under a mask, FLUX.1's autoencoder."""

from __future__ import annotations

from diffusers import ChromaPipeline
from torch import Tensor

from selfflow_bench.pipelines.parts.scaled import ScaledAutoencoder
from selfflow_bench.pipelines.parts.shifted_by_size import ShiftedBySize


class ChromaPublished(ShiftedBySize, ScaledAutoencoder):
    """Pictures whose sides are multiples of 16."""

    pipeline_class = ChromaPipeline
    steps = 40
    guidance = 3.0
    longest = 512

    def text_conditions(self, captions: list[str], length: int) -> dict[str, Tensor]:
        """``text``, and ``text_attended``: the caption and one token of padding, as the model was trained.

        The pipeline (diffusers 0.42.1) makes numbers of that mask, which attention adds instead of masking.
        """
        text, _, attended, *_ = self.pipeline.encode_prompt(
            captions, do_classifier_free_guidance=False, max_sequence_length=length, device=self.device
        )
        return {"text": text, "text_attended": attended.bool()}
