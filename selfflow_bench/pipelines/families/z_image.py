"""Z-Image's published pipeline: Qwen 3 as a user's turn, FLUX.1's autoencoder."""

from __future__ import annotations

import torch
from diffusers import ZImagePipeline
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from selfflow_bench.pipelines.parts.scaled import ScaledAutoencoder
from selfflow_bench.pipelines.parts.shifted_by_size import ShiftedBySize


class ZImagePublished(ShiftedBySize, ScaledAutoencoder):
    """Pictures whose sides are multiples of 16. The pipeline's scale of guidance counts from 0, so 4 is 5 here."""

    pipeline_class = ZImagePipeline
    steps = 50
    guidance = 5.0
    longest = 512

    def text_conditions(self, captions: list[str], length: int) -> dict[str, Tensor]:
        """``text``, zero behind a caption's end, and ``text_attended``: up to there. The template's tokens count."""
        found, _ = self.pipeline.encode_prompt(
            list(captions), do_classifier_free_guidance=False, max_sequence_length=length, device=self.device
        )
        # One more, so that all are as long as was asked for.
        text = pad_sequence([*found, found[0].new_zeros(length, found[0].shape[-1])], batch_first=True)[:-1]
        ends = torch.tensor([len(caption) for caption in found], device=self.device)
        return {"text": text, "text_attended": torch.arange(length, device=self.device) < ends[:, None]}
