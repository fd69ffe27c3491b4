"""Gemma 2 as Sana's pipelines use it: captions behind an instruction, of whose states the last ones count."""

from __future__ import annotations

import inspect

import torch
from torch import Tensor

from selfflow_bench.pipelines.base import PublishedPipeline


class InstructedGemma(PublishedPipeline):
    """The instruction is the default of the pipeline's call; the empty caption stands without it."""

    longest = 300

    def text_conditions(self, captions: list[str], length: int) -> dict[str, Tensor]:
        """``text`` and ``text_mask``."""
        call = inspect.signature(self.pipeline_class.__call__)
        instruction = call.parameters["complex_human_instruction"].default
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
