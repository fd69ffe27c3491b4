"""PixArt-Sigma's published pipeline: T5, SDXL's autoencoder of 4 channels."""

from __future__ import annotations

from diffusers import PixArtSigmaPipeline
from torch import Tensor

from selfflow_bench.pipelines.parts.scaled import ScaledAutoencoder


class PixArtPublished(ScaledAutoencoder):
    """Captions in lower case; not cleaned further, which would depend on what else is installed."""

    pipeline_class = PixArtSigmaPipeline
    steps = 20
    guidance = 4.5
    longest = 300

    def text_conditions(self, captions: list[str], length: int) -> dict[str, Tensor]:
        """``text`` and ``text_mask``."""
        text, mask, _, _ = self.pipeline.encode_prompt(
            captions,
            do_classifier_free_guidance=False,
            max_sequence_length=length,
            clean_caption=False,
            device=self.device,
        )
        return {"text": text, "text_mask": mask.bool()}
