"""Sana, one row per token."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from tests.families.expectations import Expectations


def forward(model, latents: Tensor, time: Tensor, conditions: Mapping[str, Tensor]) -> Tensor:
    """``time``: ``[B, N]`` in the model's clock."""
    batch, _, height, width = latents.shape
    hidden = model.patch_embed(latents)
    rows, embedded = model.time_embed(time.flatten(), batch_size=time.numel(), hidden_dtype=hidden.dtype)
    rows, embedded = rows.view(batch, -1, 6, hidden.shape[-1]), embedded.view(batch, -1, hidden.shape[-1])
    text = model.caption_norm(model.caption_projection(conditions["text"]))
    bias = ((1 - conditions["text_mask"].to(hidden.dtype)) * -10000.0)[:, None]
    for block in model.transformer_blocks:
        table = block.scale_shift_table
        shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = (rows + table).unbind(2)
        hidden = hidden + gate_a * block.attn1(block.norm1(hidden) * (1 + scale_a) + shift_a)
        hidden = hidden + block.attn2(hidden, encoder_hidden_states=text, attention_mask=bias)
        normed = block.norm2(hidden) * (1 + scale_f) + shift_f
        convolved = block.ff(normed.transpose(1, 2).reshape(batch, -1, height, width))
        hidden = hidden + gate_f * convolved.flatten(2).transpose(1, 2)
    shift, scale = (model.scale_shift_table + embedded[:, :, None]).unbind(2)
    out = model.proj_out(model.norm_out.norm(hidden) * (1 + scale) + shift)
    return out.transpose(1, 2).reshape(batch, -1, height, width)


EXPECTED = Expectations(forward)
