"""HunyuanVideo 1.5, one row per token; one sample at a time, without masked tokens."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from tests.families.expectations import Expectations
from tests.families.oracles.rows import continuous_norm, zero_norm


def refined(model, text: Tensor, time: Tensor) -> Tensor:
    """The text's refiner under the mean of its own embedding of the tokens' times."""
    embed = model.context_embedder.time_text_embed
    projected = embed.time_proj(time).to(text.dtype)
    row = embed.timestep_embedder(projected).mean(0) + embed.text_embedder(text.mean(1))
    tokens = model.context_embedder.proj_in(text)
    for block in model.context_embedder.token_refiner.refiner_blocks:
        gate_a, gate_f = block.norm_out.linear(block.norm_out.nonlinearity(row)).chunk(2, -1)
        tokens = tokens + gate_a[:, None] * block.attn(block.norm1(tokens))
        tokens = tokens + gate_f[:, None] * block.ff(block.norm2(tokens))
    return tokens


def forward(model, latents: Tensor, time: Tensor, conditions: Mapping[str, Tensor]) -> Tensor:
    """``time``: ``[B, N]`` in the model's clock."""
    made, kinds = [], model.cond_type_embed.weight
    for sample in range(len(latents)):
        length = int(conditions["text_mask"][sample].sum())
        words = conditions["text"][sample : sample + 1, :length]
        clip = latents[sample : sample + 1]
        padded = torch.cat([clip, torch.zeros_like(clip), torch.zeros_like(clip[:, :1])], 1)
        rotary = model.rope(padded)
        projected = model.time_embed.time_proj(time[sample]).to(latents.dtype)
        rows = model.time_embed.timestep_embedder(projected)[None]
        mean = rows.mean(1, keepdim=True)
        video = model.x_embedder(padded)
        glyphs = model.context_embedder_2(words) + kinds[1]
        text = torch.cat([glyphs, refined(model, words, time[sample]) + kinds[0]], 1)
        for block in model.transformer_blocks:
            entering, gate_a, shift_f, scale_f, gate_f = zero_norm(block.norm1, video, rows)
            text_entering, text_gate_a, text_shift, text_scale, text_gate = zero_norm(block.norm1_context, text, mean)
            attended, text_attended = block.attn(
                hidden_states=entering,
                encoder_hidden_states=text_entering,
                attention_mask=torch.ones(1, text.shape[1], dtype=torch.bool),
                image_rotary_emb=rotary,
            )
            video, text = video + gate_a * attended, text + text_gate_a * text_attended
            video = video + gate_f * block.ff(block.norm2(video) * (1 + scale_f) + shift_f)
            text = text + text_gate * block.ff_context(block.norm2_context(text) * (1 + text_scale) + text_shift)
        out = model.proj_out(continuous_norm(model.norm_out, video, rows))
        made.append(out.transpose(1, 2).reshape(clip.shape[1:]))
    return torch.stack(made)


EXPECTED = Expectations(
    forward,
    time_dtype=torch.float64,  # the class takes the type of the embedding from the type of the time
    modulated=lambda model: (model.transformer_blocks[0].attn, "hidden_states"),
    waits=True,  # the class sorts text tokens by their masks
)
