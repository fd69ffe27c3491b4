"""FLUX.2, one row per token; clean reference tokens with the context's row."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from tests.families.expectations import Expectations
from tests.families.oracles.rows import continuous_norm, embedded_timestep


def ids(picture: float, like: Tensor) -> Tensor:
    """``[N, 4]`` of a picture's cells."""
    return torch.tensor([[picture, y, x, 0] for y in range(like.shape[2]) for x in range(like.shape[3])])


def forward(model, latents: Tensor, time: Tensor, conditions: Mapping[str, Tensor]) -> Tensor:
    """``time``: ``[B, N]`` in the model's clock."""
    length, targets = conditions["text"].shape[1], time.shape[1]
    image, places = latents.flatten(2).transpose(1, 2), ids(0.0, latents)
    rows = embedded_timestep(model.time_guidance_embed, time.to(latents.dtype) * 1000)
    mean = rows.mean(1, keepdim=True)
    if "reference" in conditions:
        image = torch.cat([image, conditions["reference"].flatten(2).transpose(1, 2)], 1)
        places = torch.cat([places, ids(10.0, latents)])
        rows = torch.cat([rows, mean.expand_as(rows)], 1)
    words = torch.tensor([[0.0, 0, 0, n] for n in range(length)])
    rotary = tuple(torch.cat(pair) for pair in zip(model.pos_embed(words), model.pos_embed(places), strict=True))
    image, text = model.x_embedder(image), model.context_embedder(conditions["text"])
    shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = model.double_stream_modulation_img(rows).chunk(6, -1)
    of_text = model.double_stream_modulation_txt(mean).chunk(6, -1)
    for block in model.transformer_blocks:
        attended, text_attended = block.attn(
            hidden_states=(1 + scale_a) * block.norm1(image) + shift_a,
            encoder_hidden_states=(1 + of_text[1]) * block.norm1_context(text) + of_text[0],
            image_rotary_emb=rotary,
        )
        image, text = image + gate_a * attended, text + of_text[2] * text_attended
        image = image + gate_f * block.ff(block.norm2(image) * (1 + scale_f) + shift_f)
        text = text + of_text[5] * block.ff_context(block.norm2_context(text) * (1 + of_text[4]) + of_text[3])
    joint = torch.cat([text, image], 1)
    every = torch.cat([mean.expand(-1, length, -1), rows], 1)
    shift, scale, gate = model.single_stream_modulation(every).chunk(3, -1)
    for block in model.single_transformer_blocks:
        entering = (1 + scale) * block.norm(joint) + shift
        joint = joint + gate * block.attn(hidden_states=entering, image_rotary_emb=rotary)
    out = model.proj_out(continuous_norm(model.norm_out, joint[:, length:], rows))
    return out[:, :targets].transpose(1, 2).reshape(latents.shape)


EXPECTED = Expectations(
    forward,
    clock=lambda sigma: sigma,
    raw=lambda x0, noise: (noise - x0).flatten(2).transpose(1, 2),
)
