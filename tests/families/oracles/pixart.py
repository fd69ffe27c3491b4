"""PixArt, one row per token."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from tests.families.expectations import Expectations


def forward(model, latents: Tensor, time: Tensor, conditions: Mapping[str, Tensor]) -> Tensor:
    """``time``: ``[B, N]``, whole DDPM steps."""
    batch, channels, height, width = latents.shape
    hidden = model.pos_embed(latents)
    rows, embedded = model.adaln_single(time.flatten(), None, batch_size=time.numel(), hidden_dtype=hidden.dtype)
    rows, embedded = rows.view(batch, -1, 6, hidden.shape[-1]), embedded.view(batch, -1, hidden.shape[-1])
    text = model.caption_projection(conditions["text"])
    bias = ((1 - conditions["text_mask"].to(hidden.dtype)) * -10000.0)[:, None]
    for block in model.transformer_blocks:
        shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = (rows + block.scale_shift_table).unbind(2)
        hidden = hidden + gate_a * block.attn1(block.norm1(hidden) * (1 + scale_a) + shift_a)
        hidden = hidden + block.attn2(hidden, encoder_hidden_states=text, attention_mask=bias)
        hidden = hidden + gate_f * block.ff(block.norm2(hidden) * (1 + scale_f) + shift_f)
    shift, scale = (model.scale_shift_table + embedded[:, :, None]).unbind(2)
    out = model.proj_out(model.norm_out(hidden) * (1 + scale) + shift)
    patches = out.view(batch, height // 2, width // 2, 2, 2, -1)
    return patches.permute(0, 5, 1, 3, 2, 4).reshape(batch, -1, height, width)[:, :channels]


EXPECTED = Expectations(
    forward,
    clock=lambda sigma: torch.round(999 * sigma),
    raw=lambda x0, noise: torch.cat([noise, x0], 1),
)
