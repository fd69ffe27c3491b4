"""HunyuanVideo 1.5 (Tencent): two-stream blocks over video and two texts, without patches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, HunyuanVideo15Transformer3DModel
from diffusers.models.transformers.transformer_hunyuan_video15 import HunyuanVideo15ByT5TextProjection
from torch import Tensor, nn

from selfflow_bench.conditioning import LevelRows
from selfflow_bench.families.base import Conditions, Family
from selfflow_bench.families.parts.context_rows import fill_context_mean, put_out_context_row, take_context_row


class HunyuanVideo(Family):
    """Video, from text alone. Output: noise - data. Time: 1000 sigma.

    Both text encoders' places are fed the same states. The class sorts text tokens by their masks, which waits for the
    device. Its glyph projection has a fixed width of 2048; ``glyph_width`` in the configuration makes one for small
    models, the only part that is not the class's own.
    """

    modality = "video"
    modulates_context = True
    transformer_class = HunyuanVideo15Transformer3DModel

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__(config)
        self._glyph_width = self.config.pop("glyph_width", None)

    def make(self) -> nn.Module:
        """The class, with a narrower glyph projection if one is asked for."""
        transformer: Any = super().make()
        if self._glyph_width is not None:
            width = transformer.x_embedder.proj.out_channels
            transformer.context_embedder_2 = HunyuanVideo15ByT5TextProjection(
                transformer.config.text_embed_2_dim, self._glyph_width, width
            )
        made: nn.Module = transformer
        return made

    def attach(self, transformer: nn.Module) -> None:
        """Text gets the mean of the time embedding; its refiner the mean of the refiner's own."""
        fill_context_mean(transformer.get_submodule("time_embed"))
        put_out_context_row(transformer.get_submodule("context_embedder.time_text_embed"))
        for block in self.blocks(transformer):
            take_context_row(block.get_submodule("norm1_context"))

    def patch(self) -> tuple[int, ...]:
        """(time, height, width)."""
        size = int(self.config.get("patch_size", 1))
        return (int(self.config.get("patch_size_t", 1)), size, size)

    def blocks(self, transformer: nn.Module) -> Sequence[nn.Module]:
        """Each returns (video, text)."""
        return list(transformer.get_submodule("transformer_blocks").children())

    def arguments(self, latents: Tensor, time: Tensor | LevelRows, conditions: Conditions) -> dict[str, Any]:
        """No first frame and no picture: zeros, of which one token is enough."""
        text, mask = conditions["text"], conditions["text_mask"]
        width = int(self.config.get("image_embed_dim", 1152))
        return {
            "hidden_states": torch.cat([latents, torch.zeros_like(latents), torch.zeros_like(latents[:, :1])], 1),
            "timestep": time,
            "encoder_hidden_states": text,
            "encoder_attention_mask": mask,
            "encoder_hidden_states_2": conditions.get("text_2", text),
            "encoder_attention_mask_2": conditions.get("text_2_mask", mask),
            "image_embeds": latents.new_zeros(len(latents), 1, width),
        }

    def hidden_tokens(self, output: Any, latents: Tensor, conditions: Conditions) -> Tensor:
        """Of (video, text) the video."""
        tokens: Tensor = output[0]
        return tokens

    def scheduler(self, shift: float) -> FlowMatchEulerDiscreteScheduler:
        """As in the published pipeline: Euler steps on shifted flow sigmas."""
        return FlowMatchEulerDiscreteScheduler(shift=shift)
