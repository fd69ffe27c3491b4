"""FLUX, one row per token."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from tests.families.expectations import Expectations
from tests.families.oracles.rows import (
    continuous_norm,
    embedded_timestep,
    one_stream_block,
    packed,
    picture_ids,
    two_stream_block,
    unpacked,
    with_text,
)


def forward(model, latents: Tensor, time: Tensor, conditions: Mapping[str, Tensor]) -> Tensor:
    """``time``: ``[B, N]`` in the model's clock."""
    keep = conditions["text_mask"][..., None].to(latents.dtype)
    pooled = (conditions["text"] * keep).sum(1) / keep.sum(1)
    rows = embedded_timestep(model.time_text_embed, time.to(latents.dtype) * 1000)
    rows = rows + model.time_text_embed.text_embedder(pooled)[:, None]
    text = model.context_embedder(conditions["text"])
    image = model.x_embedder(packed(latents))
    rotary = model.pos_embed(torch.cat([torch.zeros(text.shape[1], 3), picture_ids(0, latents)]))
    for block in model.transformer_blocks:
        text, image = two_stream_block(block, image, text, rows, rows.mean(1, keepdim=True), rotary)
    joint = torch.cat([text, image], 1)
    for block in model.single_transformer_blocks:
        joint = one_stream_block(block, joint, with_text(rows, text), rotary)
    return unpacked(model.proj_out(continuous_norm(model.norm_out, joint[:, text.shape[1] :], rows)), latents)


EXPECTED = Expectations(
    forward,
    clock=lambda sigma: sigma,
    raw=lambda x0, noise: packed(noise - x0),
)
