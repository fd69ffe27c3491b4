"""AuraFlow's published pipeline: an encoder of UMT5's class, SDXL's autoencoder of 4 channels."""

from __future__ import annotations

from diffusers import AuraFlowPipeline
from torch import Tensor

from selfflow_bench.pipelines.parts.scaled import ScaledAutoencoder


class AuraFlowPublished(ScaledAutoencoder):
    """Pictures whose sides are multiples of 16."""

    pipeline_class = AuraFlowPipeline
    steps = 50
    guidance = 3.5
    longest = 256

    def text_conditions(self, captions: list[str], length: int) -> dict[str, Tensor]:
        """``text``, zero behind a caption's end and attended without a mask."""
        text = self.pipeline.encode_prompt(
            captions, do_classifier_free_guidance=False, max_sequence_length=length, device=self.device
        )[0]
        return {"text": text}
