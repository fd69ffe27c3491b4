"""Two CLIPs, T5, a KL autoencoder (8 cells to one, 16 channels), UniPC; Llama in a folder of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffusers import HiDreamImagePipeline, UniPCMultistepScheduler
from transformers import LlamaConfig, LlamaForCausalLM

from selfflow_bench.pipelines.families.hidream import LLAMA
from tests.pipelines import tiny_parts, tiny_tokenizers

# Its class fills oblong pictures with tokens, and the family does not.
SIZE = {"height": 64, "width": 64}
TRANSFORMER = {
    "patch_size": 2,
    "in_channels": 16,
    "out_channels": 16,
    "num_layers": 1,
    "num_single_layers": 1,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "caption_channels": [tiny_parts.WIDTH, tiny_parts.WIDTH],
    "text_emb_dim": 2 * tiny_parts.CLIP_WIDTH,
    "num_routed_experts": 2,
    "num_activated_experts": 1,
    "axes_dims_rope": [4, 6, 6],
    "max_resolution": [16, 16],
    "llama_layers": [0, 1],
}


def pipeline(transformer: Any) -> HiDreamImagePipeline:
    """With a transformer of the configuration above."""
    clip, t5 = tiny_tokenizers.clip(), tiny_tokenizers.t5()
    return HiDreamImagePipeline(
        tokenizer=clip,
        text_encoder=tiny_parts.clip(clip, projected=True),
        tokenizer_2=clip,
        text_encoder_2=tiny_parts.clip(clip, projected=True),
        tokenizer_3=t5,
        text_encoder_3=tiny_parts.t5(t5),
        tokenizer_4=None,
        text_encoder_4=None,
        vae=tiny_parts.kl(),
        transformer=transformer,
        scheduler=UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0),
    )


def beside(hub: Path) -> None:
    """Save Llama, two layers, below the hub's cache."""
    tokenizer = tiny_tokenizers.phi()
    folder = hub / f"models--{LLAMA.id.replace('/', '--')}" / "snapshots" / LLAMA.revision
    LlamaForCausalLM(LlamaConfig(**tiny_parts.decoder(tokenizer))).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def own(published: Any, _size: dict[str, int]) -> Any:
    """Its pictures are as large as its default, in cells of eight, whatever is asked."""
    published.pipeline.default_sample_size = 8.001
    return published.pipeline
