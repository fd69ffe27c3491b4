"""LongCat-Video, one row per token."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor
from torch.nn import functional as F

from tests.families.expectations import Expectations


def forward(model, latents: Tensor, time: Tensor, conditions: Mapping[str, Tensor]) -> Tensor:
    """``time``: ``[B, N]`` in the model's clock."""
    batch, _, frames, height, width = latents.shape
    hidden = model.patch_embedding(latents).flatten(2).transpose(1, 2)
    dtype = hidden.dtype
    embedded = F.silu(model.time_embedder(model.time_proj(time.flatten()).to(dtype))).view(batch, time.shape[1], -1)
    # Text is zeroed behind the caption's end only once it has been projected.
    text = model.text_embedder(conditions["text"]) * conditions["text_mask"][..., None]
    rotary = model.rope(latents)
    for block in model.blocks:
        shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = block.modulation(embedded).chunk(6, -1)
        hidden = hidden + gate_a * block.attn1(block.norm1(hidden) * (1 + scale_a) + shift_a, rotary=rotary)
        hidden = hidden + block.attn2(block.norm2(hidden), text)
        hidden = hidden + gate_f * block.ffn(block.norm3(hidden) * (1 + scale_f) + shift_f)
    shift, scale = model.modulation_out(embedded).chunk(2, -1)
    out = model.proj_out(model.norm_out(hidden) * (1 + scale) + shift)
    out = out.view(batch, frames, height // 2, width // 2, 2, 2, -1).permute(0, 6, 1, 2, 4, 3, 5)
    return -out.reshape(batch, -1, frames, height, width)


# Modulation, norms and rotation are computed in float32 whatever the weights are: float64 brings no more digits.
EXPECTED = Expectations(forward, raw=lambda x0, noise: x0 - noise, float64_tolerance=1e-5)
