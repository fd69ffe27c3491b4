"""Cosmos, one row per token."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from tests.families.expectations import Expectations


def low_rank(norm, rows: Tensor, temb: Tensor) -> Tensor:
    """The modulation of one norm: its own low-rank map of the embedding, plus the shared rows."""
    made = norm.linear_2(norm.linear_1(F.silu(rows)))
    return made + temb[..., : made.shape[-1]]


def transformed(model, latents: Tensor, time: Tensor, text: Tensor) -> Tensor:
    """``time``: ``[B, N]``; ``latents`` ``[B, C, T, H, W]``; the model's output."""
    batch, _, frames, height, width = latents.shape
    padded = torch.cat([latents, torch.zeros_like(latents[:, :1])], 1)
    rotary = model.rope(padded, fps=None)
    hidden = model.patch_embed(padded).flatten(1, 3)
    projected = model.time_embed.time_proj(time.flatten()).to(hidden.dtype)
    temb = model.time_embed.t_embedder(projected).view(*time.shape, -1)
    rows = model.time_embed.norm(projected).view(*time.shape, -1)
    for block in model.transformer_blocks:
        for norm, layer in (
            (block.norm1, lambda h, block=block: block.attn1(h, image_rotary_emb=rotary)),
            (block.norm2, lambda h, block=block: block.attn2(h, encoder_hidden_states=text)),
            (block.norm3, block.ff),
        ):
            shift, scale, gate = low_rank(norm, rows, temb).chunk(3, -1)
            hidden = hidden + gate * layer(norm.norm(hidden) * (1 + scale) + shift)
    shift, scale = low_rank(model.norm_out, rows, temb).chunk(2, -1)
    out = model.proj_out(model.norm_out.norm(hidden) * (1 + scale) + shift)
    cells = out.view(batch, frames, height // 2, width // 2, 2, 2, -1)  # each token: rows, columns, channels
    return cells.permute(0, 6, 1, 2, 4, 3, 5).reshape(batch, -1, frames, height, width)


def forward(model, latents: Tensor, time: Tensor, conditions: Mapping[str, Tensor]) -> Tensor:
    """``time``: ``[B, N]`` in the model's clock."""
    return transformed(model, latents, time, conditions["text"])


EXPECTED = Expectations(forward, clock=lambda sigma: sigma)
