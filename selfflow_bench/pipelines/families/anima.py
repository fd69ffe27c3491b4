"""Anima's parts: Qwen 3's states, T5's token numbers without T5, Qwen-Image's autoencoder.

diffusers has its pipeline as blocks, of which the parts are used here one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLQwenImage, FlowMatchEulerDiscreteScheduler
from diffusers.modular_pipelines.anima.encoders import AnimaTextEncoderStep
from diffusers.modular_pipelines.anima.modular_pipeline import AnimaModularPipeline
from torch import Tensor
from torch.nn.functional import pad
from transformers import AutoTokenizer, Qwen3Model

from selfflow_bench.pipelines.parts.assembled import Assembled
from selfflow_bench.pipelines.parts.still import StillAutoencoder


class AnimaPublished(StillAutoencoder):
    """Pictures whose sides are multiples of 16. The text conditioner is trained, and so the family's."""

    pipeline_class = AnimaModularPipeline
    steps = 50
    guidance = 4.0
    longest = 512
    of_text = ("text_encoder", "tokenizer", "t5_tokenizer")

    def load(self, snapshot: Path, dtype: torch.dtype, absent: Sequence[str]) -> Any:
        """The folder's parts."""
        return Assembled.of(
            snapshot,
            absent,
            vae=(AutoencoderKLQwenImage, torch.float32),
            text_encoder=(Qwen3Model, dtype),
            tokenizer=(AutoTokenizer, None),
            t5_tokenizer=(AutoTokenizer, None),
            scheduler=(FlowMatchEulerDiscreteScheduler, None),
        )

    def text_conditions(self, captions: list[str], length: int) -> dict[str, Tensor]:
        """``text`` and ``text_mask`` of Qwen, ``text_ids`` and ``text_ids_mask`` of T5's tokenizer."""
        found = []
        for caption in captions:  # one by one: a batch is padded to its longest
            one = AnimaTextEncoderStep.encode_prompt(
                self.pipeline,
                caption,
                prepare_unconditional_embeds=False,
                max_sequence_length=length,
                device=self.device,
                dtype=self.pipeline.text_encoder.dtype,
            )
            states, ids = one["qwen_prompt_embeds"], one["t5_input_ids"]
            after, behind = length - states.shape[1], length - ids.shape[1]
            found.append(
                {
                    "text": pad(states, (0, 0, 0, after)),
                    "text_mask": pad(one["qwen_attention_mask"].bool(), (0, after)),
                    "text_ids": pad(ids, (0, behind)),
                    "text_ids_mask": pad(one["t5_attention_mask"].bool(), (0, behind)),
                }
            )
        return {name: torch.cat([one[name] for one in found]) for name in found[0]}

    def timesteps(self, latent_shape: Sequence[int], steps: int) -> dict[str, Any]:
        """Sigmas in equal steps from 1."""
        return {"sigmas": np.linspace(1.0, 1 / steps, steps)}
