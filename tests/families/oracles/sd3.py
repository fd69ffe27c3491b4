"""SD3.5, one row per token, with and without the second attention."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor
from torch.nn import functional as F

from tests.families.expectations import Expectations
from tests.families.oracles.rows import continuous_norm, embedded_timestep, zero_norm


def forward(model, latents: Tensor, time: Tensor, conditions: Mapping[str, Tensor]) -> Tensor:
    """``time``: ``[B, N]`` in the model's clock."""
    batch, _, height, width = latents.shape
    keep = conditions["text_mask"][..., None].to(latents.dtype)
    pooled = (conditions["text"] * keep).sum(1) / keep.sum(1)
    rows = embedded_timestep(model.time_text_embed, time) + model.time_text_embed.text_embedder(pooled)[:, None]
    mean = rows.mean(1, keepdim=True)
    image, text = model.pos_embed(latents), model.context_embedder(conditions["text"])
    for block in model.transformer_blocks:
        second = None
        if block.attn2 is not None:
            parts = block.norm1.linear(F.silu(rows)).chunk(9, -1)
            normed = block.norm1.norm(image)
            entering, second = normed * (1 + parts[1]) + parts[0], normed * (1 + parts[7]) + parts[6]
            gate_a, shift_f, scale_f, gate_f = parts[2:6]
        else:
            entering, gate_a, shift_f, scale_f, gate_f = zero_norm(block.norm1, image, rows)
        if block.context_pre_only:
            text_entering = continuous_norm(block.norm1_context, text, mean)
        else:
            text_entering, text_gate_a, text_shift, text_scale, text_gate = zero_norm(block.norm1_context, text, mean)
        attended, text_attended = block.attn(hidden_states=entering, encoder_hidden_states=text_entering)
        image = image + gate_a * attended
        if second is not None:
            image = image + parts[8] * block.attn2(hidden_states=second)
        image = image + gate_f * block.ff(block.norm2(image) * (1 + scale_f) + shift_f)
        if not block.context_pre_only:
            text = text + text_gate_a * text_attended
            text = text + text_gate * block.ff_context(block.norm2_context(text) * (1 + text_scale) + text_shift)
    out = model.proj_out(continuous_norm(model.norm_out, image, rows))
    # Rows of a patch first, channels last.
    patches = out.view(batch, height // 2, width // 2, 2, 2, -1)
    return patches.permute(0, 5, 1, 3, 2, 4).reshape(batch, -1, height, width)


EXPECTED = Expectations(forward)
