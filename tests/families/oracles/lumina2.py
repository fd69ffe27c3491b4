"""Lumina-Image 2.0, one row per token, one sample at a time, so that nothing is padded."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from tests.families.expectations import Expectations


def modulated(block, tokens: Tensor, rows: Tensor, rotary: Tensor) -> Tensor:
    """A modulated block, rows for all its tokens."""
    scale_a, gate_a, scale_f, gate_f = block.norm1.linear(F.silu(rows)).chunk(4, -1)
    entering = block.norm1.norm(tokens) * (1 + scale_a)
    attended = block.attn(
        hidden_states=entering, encoder_hidden_states=entering, attention_mask=None, image_rotary_emb=rotary
    )
    tokens = tokens + gate_a.tanh() * block.norm2(attended)
    return tokens + gate_f.tanh() * block.ffn_norm2(block.feed_forward(block.ffn_norm1(tokens) * (1 + scale_f)))


def forward(model, latents: Tensor, time: Tensor, conditions: Mapping[str, Tensor]) -> Tensor:
    """``time``: ``[B, N]`` in the model's clock."""
    embed, made = model.time_caption_embed, []
    height, width = latents.shape[2] // 2, latents.shape[3] // 2
    for sample in range(len(latents)):
        length = int(conditions["text_mask"][sample].sum())
        text = embed.caption_embedder(conditions["text"][sample : sample + 1, :length])
        rows = embed.timestep_embedder(embed.time_proj(time[sample]).to(latents.dtype))[None]
        cells = latents[sample : sample + 1].view(1, -1, height, 2, width, 2).permute(0, 2, 4, 3, 5, 1)
        image = model.x_embedder(cells.reshape(1, height * width, -1))
        ids = [[n, 0, 0] for n in range(length)] + [[length, y, x] for y in range(height) for x in range(width)]
        rotary = model.rope_embedder._get_freqs_cis(torch.tensor([ids]))
        for block in model.context_refiner:
            text = block(text, None, rotary[:, :length])
        for block in model.noise_refiner:
            image = modulated(block, image, rows, rotary[:, length:])
        joint = torch.cat([text, image], 1)
        every = torch.cat([rows.mean(1, keepdim=True).expand(-1, length, -1), rows], 1)
        for block in model.layers:
            joint = modulated(block, joint, every, rotary)
        scale = model.norm_out.linear_1(F.silu(rows))
        out = model.norm_out.linear_2(model.norm_out.norm(joint[:, length:]) * (1 + scale))
        patches = out.view(height, width, 2, 2, -1)
        made.append(-patches.permute(4, 0, 2, 1, 3).reshape(latents.shape[1:]))
    return torch.stack(made)


EXPECTED = Expectations(
    forward,
    clock=lambda sigma: 1 - sigma,
    raw=lambda x0, noise: x0 - noise,
    waits=True,  # the class reads the captions' lengths on the host
)
