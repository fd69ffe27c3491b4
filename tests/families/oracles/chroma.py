"""Chroma, one row per token: the approximator runs for every token's time."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from tests.families.expectations import Expectations
from tests.families.oracles.rows import packed, picture_ids, unpacked


def forward(model, latents: Tensor, time: Tensor, conditions: Mapping[str, Tensor]) -> Tensor:
    """``time``: ``[B, N]`` in the model's clock."""
    every = model.distilled_guidance_layer(model.time_text_embed(time.flatten().to(latents.dtype) * 1000))
    rows = every.view(*time.shape, *every.shape[1:])  # [B, N, modulations, D]
    mean = rows.mean(1, keepdim=True)
    text, image = model.context_embedder(conditions["text"]), model.x_embedder(packed(latents))
    length = text.shape[1]
    rotary = model.pos_embed(torch.cat([torch.zeros(length, 3), picture_ids(0, latents)]))
    singles, doubles = len(model.single_transformer_blocks), len(model.transformer_blocks)
    for index, block in enumerate(model.transformer_blocks):
        start = 3 * singles + 6 * index
        shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = rows[:, :, start : start + 6].unbind(2)
        of_text = mean[:, :, start + 6 * doubles : start + 6 * doubles + 6].unbind(2)
        attended, text_attended = block.attn(
            hidden_states=block.norm1.norm(image) * (1 + scale_a) + shift_a,
            encoder_hidden_states=block.norm1_context.norm(text) * (1 + of_text[1]) + of_text[0],
            image_rotary_emb=rotary,
        )
        image, text = image + gate_a * attended, text + of_text[2] * text_attended
        image = image + gate_f * block.ff(block.norm2(image) * (1 + scale_f) + shift_f)
        text = text + of_text[5] * block.ff_context(block.norm2_context(text) * (1 + of_text[4]) + of_text[3])
    joint = torch.cat([text, image], 1)
    every = torch.cat([mean.expand(-1, length, -1, -1), rows], 1)
    for index, block in enumerate(model.single_transformer_blocks):
        shift, scale, gate = every[:, :, 3 * index : 3 * index + 3].unbind(2)
        entering = block.norm.norm(joint) * (1 + scale) + shift
        attended = block.attn(hidden_states=entering, image_rotary_emb=rotary)
        joint = joint + gate * block.proj_out(torch.cat([attended, block.act_mlp(block.proj_mlp(entering))], -1))
    shift, scale = rows[:, :, -2:].unbind(2)
    return unpacked(model.proj_out(model.norm_out.norm(joint[:, length:]) * (1 + scale) + shift), latents)


EXPECTED = Expectations(forward, clock=lambda sigma: sigma, raw=lambda x0, noise: packed(noise - x0))
