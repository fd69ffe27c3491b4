"""HiDream-I1's published pipeline: two CLIP text encoders, T5, all layers of Llama 3.1, FLUX.1's autoencoder.

Llama is not in its folder: it is in another repository, which has terms of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import HiDreamImagePipeline, UniPCMultistepScheduler
from diffusers.pipelines.hidream_image.pipeline_hidream_image import calculate_shift
from torch import Tensor
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from selfflow_bench.pipelines.parts.scaled import ScaledAutoencoder
from selfflow_bench.pipelines.snapshot import local_snapshot
from selfflow_bench.recipe import Checkpoint

LLAMA = Checkpoint(id="meta-llama/Llama-3.1-8B-Instruct", revision="0e9e39f249a16976918f6564b8830bc894c89659")
_MOST_TOKENS = 4096


class HiDreamPublished(ScaledAutoencoder):
    """Pictures whose sides are multiples of 16; the pipeline itself makes them a megapixel large, whatever is asked."""

    pipeline_class = HiDreamImagePipeline
    steps = 50
    guidance = 5.0
    longest = 128
    beside = (LLAMA,)

    def load(self, snapshot: Path, dtype: torch.dtype, absent: Sequence[str]) -> Any:
        """With Llama from its own folder, unless this one has it."""
        others: dict[str, Any] = dict.fromkeys(absent)
        if "text_encoder_4" not in absent and not (snapshot / "text_encoder_4").exists():
            llama = local_snapshot(LLAMA)
            others["tokenizer_4"] = PreTrainedTokenizerFast.from_pretrained(llama, local_files_only=True)
            others["text_encoder_4"] = LlamaForCausalLM.from_pretrained(
                llama, dtype=dtype, local_files_only=True, attn_implementation="eager"
            )
        return self.pipeline_class.from_pretrained(
            snapshot, dtype={"vae": torch.float32, "default": dtype}, local_files_only=True, **others
        )

    def text_conditions(self, captions: list[str], length: int) -> dict[str, Tensor]:
        """``text`` of T5, ``text_layers`` of Llama, ``pooled`` of both CLIPs. Padding is attended.

        The layers of one caption are as large as 32 others' text: 34 MB at full length.
        """
        text, _, layers, _, pooled, _ = self.pipeline.encode_prompt(
            captions, do_classifier_free_guidance=False, max_sequence_length=length, device=self.device
        )
        return {"text": text, "text_layers": layers.transpose(0, 1), "pooled": pooled}

    def timesteps(self, latent_shape: Sequence[int], steps: int) -> dict[str, Any]:
        """A scheduler that shifts by size is told the largest, as the pipeline does."""
        found = super().timesteps(latent_shape, steps)
        if not isinstance(self.pipeline.scheduler, UniPCMultistepScheduler):
            found["mu"] = calculate_shift(_MOST_TOKENS)
        return found
