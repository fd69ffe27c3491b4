"""AuraFlow, one row per token."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from tests.families.expectations import Expectations
from tests.families.oracles.rows import zero_norm


def forward(model, latents: Tensor, time: Tensor, conditions: Mapping[str, Tensor]) -> Tensor:
    """``time``: ``[B, N]`` in the model's clock."""
    batch, _, height, width = latents.shape
    rows = model.time_step_proj(model.time_step_embed(time.flatten()).to(latents.dtype)).view(*time.shape, -1)
    mean = rows.mean(1, keepdim=True)
    image = model.pos_embed(latents)
    text = torch.cat([model.register_tokens.expand(batch, -1, -1), model.context_embedder(conditions["text"])], 1)
    for block in model.joint_transformer_blocks:
        entering, gate_a, shift_f, scale_f, gate_f = zero_norm(block.norm1, image, rows)
        text_entering, text_gate_a, text_shift, text_scale, text_gate = zero_norm(block.norm1_context, text, mean)
        attended, text_attended = block.attn(hidden_states=entering, encoder_hidden_states=text_entering)
        # The feed-forward's residual is the block's input: the attention reaches the sum through it alone.
        image = image + gate_f * block.ff(block.norm2(image + gate_a * attended) * (1 + scale_f) + shift_f)
        after = block.norm2_context(text + text_gate_a * text_attended)
        text = text + text_gate * block.ff_context(after * (1 + text_scale) + text_shift)
    joint = torch.cat([text, image], 1)
    every = torch.cat([mean.expand(-1, text.shape[1], -1), rows], 1)
    for block in model.single_transformer_blocks:
        entering, gate_a, shift_f, scale_f, gate_f = zero_norm(block.norm1, joint, every)
        after = block.norm2(joint + gate_a * block.attn(hidden_states=entering))
        joint = joint + gate_f * block.ff(after * (1 + scale_f) + shift_f)
    scale, shift = model.norm_out.linear(F.silu(rows)).chunk(2, -1)
    out = model.proj_out(joint[:, text.shape[1] :] * (1 + scale) + shift)
    patches = out.view(batch, height // 2, width // 2, 2, 2, -1)
    return patches.permute(0, 5, 1, 3, 2, 4).reshape(latents.shape)


# Its norms compute in float32 whatever the weights are, so float64 brings no more digits.
EXPECTED = Expectations(forward, clock=lambda sigma: sigma, float64_tolerance=1e-5)
