"""Kandinsky 5, one row per token."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from tests.families.expectations import Expectations


def transformed(model, clips: Tensor, time: Tensor, conditions: Mapping[str, Tensor]) -> Tensor:
    """``clips`` ``[B, C, T, H, W]``, ``time`` ``[B, N]``; the prediction, channels first."""
    batch, _, frames, height, width = clips.shape
    keep = conditions["text_mask"][..., None].to(clips.dtype)
    pooled = (conditions["text"] * keep).sum(1) / keep.sum(1)
    cells = clips.movedim(1, -1)
    if model.visual_cond:
        cells = torch.nn.functional.pad(cells, (0, clips.shape[1] + 1))
    rows = model.time_embeddings(time.flatten()).view(*time.shape, -1) + model.pooled_text_embeddings(pooled)[:, None]
    mean = rows.mean(1, keepdim=True)
    text = model.text_embeddings(conditions["text"])
    turn = model.text_rope_embeddings(torch.arange(text.shape[1]))[None]
    for block in model.text_transformer_blocks:
        shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = block.text_modulation(mean).chunk(6, -1)
        entering = block.self_attention_norm(text) * (1 + scale_a) + shift_a
        text = text + gate_a * block.self_attention(entering, rotary_emb=turn)
        text = text + gate_f * block.feed_forward(block.feed_forward_norm(text) * (1 + scale_f) + shift_f)
    grid = (frames, height // 2, width // 2)
    tokens = model.visual_embeddings(cells).flatten(1, 3)
    places = [torch.arange(size) for size in grid]
    rotary = model.visual_rope_embeddings((batch, *grid), places, (1.0, 1.0, 1.0)).flatten(1, 3)
    for block in model.visual_transformer_blocks:
        parts = block.visual_modulation(rows).chunk(9, -1)
        entering = block.self_attention_norm(tokens) * (1 + parts[1]) + parts[0]
        tokens = tokens + parts[2] * block.self_attention(entering, rotary_emb=rotary)
        entering = block.cross_attention_norm(tokens) * (1 + parts[4]) + parts[3]
        tokens = tokens + parts[5] * block.cross_attention(entering, encoder_hidden_states=text)
        entering = block.feed_forward_norm(tokens) * (1 + parts[7]) + parts[6]
        tokens = tokens + parts[8] * block.feed_forward(entering)
    shift, scale = model.out_layer.modulation(rows).chunk(2, -1)
    out = model.out_layer.out_layer(model.out_layer.norm(tokens) * (1 + scale) + shift)
    # In a token: channels, then frames, rows and columns of its patch.
    patches = out.view(batch, *grid, -1, 1, 2, 2)
    return patches.permute(0, 4, 1, 5, 2, 6, 3, 7).reshape(batch, -1, frames, height, width)


# The rotary embedding rounds queries and keys to bfloat16 whatever the weights are: rounding in another order can move
# one by a bfloat16 step.
ROUNDED = {
    "tolerance": 1e-3,
    "float64_tolerance": None,
    "equal_tolerance": 1e-3,
    "modulated": lambda model: (model.visual_transformer_blocks[0].self_attention, "hidden_states"),
}
EXPECTED = Expectations(transformed, raw=lambda x0, noise: (noise - x0).movedim(1, -1), **ROUNDED)
