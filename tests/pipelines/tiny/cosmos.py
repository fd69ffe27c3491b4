"""T5, Wan's autoencoder (4 frames, 8 cells to one, 16 channels), Euler steps on EDM's levels; no safety checker."""

from __future__ import annotations

import copy
from typing import Any

from diffusers import Cosmos2TextToImagePipeline, FlowMatchEulerDiscreteScheduler, ModelMixin
from diffusers.configuration_utils import ConfigMixin, register_to_config
from torch import nn

from tests.pipelines import tiny_parts, tiny_tokenizers

# Of a family of clips, but its pipeline makes pictures.
SIZE = {"height": 64, "width": 96}
TRANSFORMER = {
    "in_channels": 16,
    "out_channels": 16,
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "num_layers": 2,
    "mlp_ratio": 2.0,
    "text_embed_dim": tiny_parts.WIDTH,
    "adaln_lora_dim": 4,
    "max_size": [4, 16, 16],
    "patch_size": [1, 2, 2],
    "rope_scale": [1.0, 4.0, 4.0],
    "concat_padding_mask": True,
    "extra_pos_embed_type": None,
}


class Unasked(ModelMixin, ConfigMixin):
    """A safety checker that the pipeline can be made with, and that checks nothing."""

    @register_to_config
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.init.zeros_(nn.Parameter(nn.Linear(1, 1).weight)))

    def check_text_safety(self, _prompt: str) -> bool:
        """All is well."""
        return True

    def check_video_safety(self, video: Any) -> Any:
        """As it is."""
        return video


def pipeline(transformer: Any) -> Cosmos2TextToImagePipeline:
    """With a transformer of the configuration above."""
    tokenizer = tiny_tokenizers.t5()
    return Cosmos2TextToImagePipeline(
        tokenizer=tokenizer,
        text_encoder=tiny_parts.t5(tokenizer),
        vae=tiny_parts.wan(),
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(use_karras_sigmas=True),
        safety_checker=Unasked(),
    )


def call(given: dict[str, Any]) -> dict[str, Any]:
    """Its scale of guidance counts from 0."""
    return {**given, "guidance_scale": given["guidance_scale"] - 1}


def own(published: Any, _size: dict[str, int]) -> Cosmos2TextToImagePipeline:
    """diffusers' pipeline, which the product has no use for, of the same parts."""
    parts = published.pipeline
    return Cosmos2TextToImagePipeline(
        **dict(parts.named_children()),
        tokenizer=parts.tokenizer,
        scheduler=copy.deepcopy(parts.scheduler),
        transformer=None,
        safety_checker=Unasked(),
    )


def laid_out(made: Any, _shape: tuple[int, ...]) -> Any:
    """With an axis of frames."""
    return made[:, :, None]
