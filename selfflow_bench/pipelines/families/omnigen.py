"""OmniGen's published pipeline: token numbers of an instruction, SDXL's autoencoder of 4 channels."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from diffusers import OmniGenPipeline
from diffusers.pipelines.omnigen.processor_omnigen import OmniGenMultiModalProcessor
from torch import Tensor

from selfflow_bench.pipelines.parts.scaled import ScaledAutoencoder

_END = "<|end|>"
"""Behind the caption; what follows is part of every prompt."""


class OmniGenPublished(ScaledAutoencoder):
    """Pictures whose sides are multiples of 16. Its guidance leads away from a list of faults."""

    pipeline_class = OmniGenPipeline
    steps = 50
    guidance = 2.5
    negative = str(inspect.signature(OmniGenMultiModalProcessor.__call__).parameters["negative_prompt"].default)
    longest = 512

    def text_conditions(self, captions: list[str], length: int) -> dict[str, Tensor]:
        """``text_ids`` and ``text_mask``. The instruction counts; a caption too long loses its last tokens."""
        ids = torch.zeros(len(captions), length, dtype=torch.int64)
        mask = torch.zeros(len(captions), length, dtype=torch.bool)
        end = self.pipeline.tokenizer.convert_tokens_to_ids(_END)
        for row, caption in enumerate(captions):
            found = self.pipeline.multimodal_processor.process_multi_modal_prompt(caption, None)["input_ids"]
            behind = found[::-1].index(end) + 1
            kept = [*found[: min(len(found), length) - behind], *found[-behind:]]
            ids[row, : len(kept)] = torch.tensor(kept)
            mask[row, : len(kept)] = True
        return {"text_ids": ids, "text_mask": mask}

    def scheduler(self) -> Any:
        """From noise to data: the published one counts its sigmas from the other end, for a velocity turned round."""
        scheduler = self.pipeline.scheduler
        return type(scheduler).from_config(scheduler.config, invert_sigmas=False)

    def timesteps(self, latent_shape: Sequence[int], steps: int) -> dict[str, Any]:
        """Sigmas in equal steps from 1."""
        return {"sigmas": np.linspace(1.0, 0.0, steps + 1)[:-1]}
