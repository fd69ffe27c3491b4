"""ACE-Step, one row per token."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from diffusers.models.embeddings import get_1d_rotary_pos_embed
from torch import Tensor

from tests.families.expectations import Expectations


def forward(model, latents: Tensor, time: Tensor, conditions: Mapping[str, Tensor]) -> Tensor:
    """The block loop with ``temb`` per token; masks and rotary tables made here."""
    frames = latents.transpose(1, 2)
    batch, length, _channels = frames.shape
    silence, chunk = torch.zeros_like(frames), torch.ones_like(frames)
    hidden = model.proj_in_conv(torch.cat([silence, chunk, frames], -1).transpose(1, 2)).transpose(1, 2)
    tokens = hidden.shape[1]
    pairs = [model.time_embed(time.flatten()), model.time_embed_r(torch.zeros_like(time.flatten()))]
    embedded = sum(pair[0] for pair in pairs).view(batch, tokens, -1)
    rows = sum(pair[1] for pair in pairs).view(batch, tokens, 6, -1)
    text = model.condition_embedder(conditions["text"])
    rotary = get_1d_rotary_pos_embed(
        model.head_dim,
        torch.arange(tokens).float(),
        theta=model.rope_theta,
        use_real=True,
        repeat_interleave_real=False,
    )
    rotary = tuple(part.to(hidden.dtype) for part in rotary)
    apart = (torch.arange(tokens)[:, None] - torch.arange(tokens)).abs()
    window = torch.zeros(tokens, tokens, dtype=hidden.dtype)
    window.masked_fill_(apart > model.config.sliding_window, torch.finfo(hidden.dtype).min)
    for kind, block in zip(model.layer_types, model.layers, strict=True):
        shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = (rows + block.scale_shift_table[:, None]).unbind(2)
        attended = block.self_attn(
            hidden_states=block.self_attn_norm(hidden) * (1 + scale_a) + shift_a,
            image_rotary_emb=rotary,
            attention_mask=window[None, None] if kind == "sliding_attention" else None,
        )
        hidden = hidden + attended * gate_a
        hidden = hidden + block.cross_attn(hidden_states=block.cross_attn_norm(hidden), encoder_hidden_states=text)
        hidden = hidden + block.mlp(block.mlp_norm(hidden) * (1 + scale_f) + shift_f) * gate_f
    shift, scale = (model.scale_shift_table[:, None] + embedded[:, :, None]).unbind(2)
    out = model.norm_out(hidden) * (1 + scale) + shift
    return model.proj_out_conv(out.transpose(1, 2))[..., :length]


EXPECTED = Expectations(
    forward,
    clock=lambda sigma: sigma,
    raw=lambda x0, noise: (noise - x0).transpose(1, 2),
    time_dtype=torch.float64,  # the class takes the type of the embedding from the type of the time
)
