"""Tiny text encoders and autoencoders that several published pipelines have."""

from __future__ import annotations

from typing import Any

from diffusers import AutoencoderKL, AutoencoderKLWan
from torch import nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    Gemma2Config,
    Gemma2Model,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    MistralConfig,
    PixtralVisionConfig,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3Config,
    Qwen3Model,
    T5Config,
    T5EncoderModel,
    UMT5Config,
    UMT5EncoderModel,
)

WIDTH = 16
"""Of every text encoder's states, but CLIP's."""
CLIP_WIDTH = 8


def t5(tokenizer: Any) -> T5EncoderModel:
    """An encoder of two layers."""
    return T5EncoderModel(T5Config(**_t5(tokenizer), feed_forward_proj="gated-gelu"))


def umt5(tokenizer: Any) -> UMT5EncoderModel:
    """An encoder of two layers."""
    return UMT5EncoderModel(UMT5Config(**_t5(tokenizer)))


def clip(tokenizer: Any, *, projected: bool = False) -> CLIPTextModel | CLIPTextModelWithProjection:
    """A text model of two layers, with a projection of its pooled state or not."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=CLIP_WIDTH,
        projection_dim=CLIP_WIDTH,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return (CLIPTextModelWithProjection if projected else CLIPTextModel)(config)


def gemma2(tokenizer: Any) -> Gemma2Model:
    """A decoder of two layers."""
    return Gemma2Model(Gemma2Config(**decoder(tokenizer)))


def gemma3(tokenizer: Any) -> Gemma3ForConditionalGeneration:
    """A decoder of two layers, and a picture encoder of one."""
    config = Gemma3Config(
        text_config=decoder(tokenizer),
        vision_config={**_PICTURES, "image_size": 32, "patch_size": 16},
        mm_tokens_per_image=4,
    )
    return Gemma3ForConditionalGeneration(config)


def qwen_vl(tokenizer: Any) -> Qwen2_5_VLForConditionalGeneration:
    """A decoder of two layers, and a picture encoder of one."""
    text = decoder(tokenizer) | {"rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]}}
    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": WIDTH}
    return Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=vision))


def mistral3(tokenizer: Any) -> Mistral3ForConditionalGeneration:
    """A decoder of 31 layers, and a picture encoder of one."""
    config = Mistral3Config(
        text_config=MistralConfig(**decoder(tokenizer, layers=31)),
        vision_config=PixtralVisionConfig(**_PICTURES),
        image_token_index=tokenizer.convert_tokens_to_ids("[IMG]"),
    )
    return Mistral3ForConditionalGeneration(config)


def qwen3(tokenizer: Any) -> Qwen3Model:
    """A decoder of two layers."""
    return Qwen3Model(Qwen3Config(**decoder(tokenizer)))


def kl(channels: int = 16, scaling: float = 0.3611, shift: float | None = 0.1159) -> AutoencoderKL:
    """8 x 8 cells to one."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(4,) * 4,
        layers_per_block=1,
        norm_num_groups=2,
        latent_channels=channels,
        scaling_factor=scaling,
        shift_factor=shift,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


def wan() -> AutoencoderKLWan:
    """4 frames, 8 x 8 cells to one, 16 channels; the statistics are the published ones."""
    return AutoencoderKLWan(base_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1)


def with_output(transformer: nn.Module) -> None:
    """Weights where a class begins with none, without which a transformer says the same of all captions."""
    for weights in transformer.parameters():
        if not weights.any():
            nn.init.normal_(weights, std=0.1)


def _t5(tokenizer: Any) -> dict[str, int]:
    return {
        "vocab_size": len(tokenizer),
        "d_model": WIDTH,
        "d_kv": 8,
        "d_ff": 32,
        "num_layers": 2,
        "num_heads": 2,
    }


_PICTURES: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}


def decoder(tokenizer: Any, layers: int = 2) -> dict[str, Any]:
    """The configuration of a language model."""
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": WIDTH,
        "intermediate_size": 32,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 8,
    }
