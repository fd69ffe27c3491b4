"""LongCat-Image, one row per token; clean reference tokens with the context's row."""

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
)


def forward(model, latents: Tensor, time: Tensor, conditions: Mapping[str, Tensor]) -> Tensor:
    """``time``: ``[B, N]`` in the model's clock."""
    length, targets = conditions["text"].shape[1], time.shape[1]
    pictures, ids = packed(latents), picture_ids(1, latents, length)
    rows = embedded_timestep(model.time_embed, time.to(latents.dtype) * 1000)
    mean = rows.mean(1, keepdim=True)
    if "reference" in conditions:
        pictures = torch.cat([pictures, packed(conditions["reference"])], 1)
        ids = torch.cat([ids, picture_ids(2, latents, length)])
        rows = torch.cat([rows, mean.expand_as(rows)], 1)
    text, image = model.context_embedder(conditions["text"]), model.x_embedder(pictures)
    diagonal = torch.tensor([[0.0, n, n] for n in range(length)])
    rotary = model.pos_embed(torch.cat([diagonal, ids]))
    for block in model.transformer_blocks:
        text, image = two_stream_block(block, image, text, rows, mean, rotary)
    joint = torch.cat([text, image], 1)
    both = torch.cat([mean.expand(-1, length, -1), rows], 1)
    for block in model.single_transformer_blocks:
        joint = one_stream_block(block, joint, both, rotary)
    out = model.proj_out(continuous_norm(model.norm_out, joint[:, length:], rows))
    return unpacked(out[:, :targets], latents)


EXPECTED = Expectations(
    forward,
    clock=lambda sigma: sigma,
    raw=lambda x0, noise: packed(noise - x0),
)
