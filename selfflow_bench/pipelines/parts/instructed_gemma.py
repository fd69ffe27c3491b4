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

        def encoded(prompts: list[str], before: list[str] | None) -> tuple[Tensor, Tensor]:
            text, mask, _, _ = self.pipeline.encode_prompt(
                prompts,
                do_classifier_free_guidance=False,
                max_sequence_length=length,
                complex_human_instruction=before,
                device=self.device,
            )
            return text, mask.bool()

        text, mask = encoded(captions, instruction)
        no_text, no_mask = encoded([""], None)
        empty = torch.tensor([not caption for caption in captions], device=self.device)
        return {
            "text": torch.where(empty[:, None, None], no_text, text),
            "text_mask": torch.where(empty[:, None], no_mask, mask),
        }
