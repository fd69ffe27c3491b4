"""Independent per-token-row forwards: one conditioning row for every token, written out from each model's parts.

Built otherwise than the product: no stand-in, no levels; the modulation runs once per token, as other trainers do it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from diffusers.models.embeddings import get_1d_rotary_pos_embed
from torch import Tensor

from selfflow_bench.families.base import Conditions

Oracle = Callable[..., Tensor]


def sana(model, latents: Tensor, time: Tensor, conditions: Conditions) -> Tensor:
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


def wan(model, latents: Tensor, time: Tensor, conditions: Conditions) -> Tensor:
    """Wan's own class takes a timestep per token."""
    return model(latents, timestep=time, encoder_hidden_states=conditions["text"], return_dict=False)[0]


def ace_step(model, latents: Tensor, time: Tensor, conditions: Conditions) -> Tensor:
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


ORACLES: dict[str, Oracle] = {"sana": sana, "wan": wan, "ace_step": ace_step}
