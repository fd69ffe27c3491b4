"""Pieces that several oracles write out the same way: one row of conditioning for every token."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def embedded_timestep(module, time: Tensor) -> Tensor:
    """A diffusers time embedding (``time_proj`` and ``timestep_embedder``) of every token's time: ``[B, N, D]``."""
    projected = module.time_proj(time.flatten())
    return module.timestep_embedder(projected.to(module.timestep_embedder.linear_1.weight.dtype)).view(*time.shape, -1)


def with_text(rows: Tensor, text: Tensor) -> Tensor:
    """Rows of [text, image] from those of the image: the text's are the image's mean."""
    return torch.cat([rows.mean(1, keepdim=True).expand(-1, text.shape[1], -1), rows], 1)


def zero_norm(norm, tokens: Tensor, rows: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """`AdaLayerNormZero`: normalised tokens, then gate, shift, scale, gate; ``rows`` ``[B, N or 1, D]``."""
    shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = norm.linear(F.silu(rows)).chunk(6, -1)
    return norm.norm(tokens) * (1 + scale_a) + shift_a, gate_a, shift_f, scale_f, gate_f


def continuous_norm(norm, tokens: Tensor, rows: Tensor) -> Tensor:
    """`AdaLayerNormContinuous`."""
    scale, shift = norm.linear(F.silu(rows)).chunk(2, -1)
    return norm.norm(tokens) * (1 + scale) + shift


def two_stream_block(block, image: Tensor, text: Tensor, rows: Tensor, mean: Tensor, rotary) -> tuple[Tensor, Tensor]:
    """A FLUX block: image rows ``[B, N, D]``, the text's row ``mean`` ``[B, 1, D]``."""
    normed, gate_a, shift_f, scale_f, gate_f = zero_norm(block.norm1, image, rows)
    text_normed, text_gate_a, text_shift_f, text_scale_f, text_gate_f = zero_norm(block.norm1_context, text, mean)
    attended, text_attended = block.attn(
        hidden_states=normed, encoder_hidden_states=text_normed, image_rotary_emb=rotary
    )
    image = image + gate_a * attended
    image = image + gate_f * block.ff(block.norm2(image) * (1 + scale_f) + shift_f)
    text = text + text_gate_a * text_attended
    return text + text_gate_f * block.ff_context(block.norm2_context(text) * (1 + text_scale_f) + text_shift_f), image


def one_stream_block(block, joint: Tensor, rows: Tensor, rotary) -> Tensor:
    """A FLUX single block over [text, image], with rows for all."""
    shift, scale, gate = block.norm.linear(F.silu(rows)).chunk(3, -1)
    normed = block.norm.norm(joint) * (1 + scale) + shift
    mlp = block.act_mlp(block.proj_mlp(normed))
    attended = block.attn(hidden_states=normed, image_rotary_emb=rotary)
    return joint + gate * block.proj_out(torch.cat([attended, mlp], -1))


def packed(latents: Tensor) -> Tensor:
    """FLUX's packing of 2x2 cells, by a loop over the cells."""
    rows = [
        latents[:, :, y : y + 2, x : x + 2].flatten(1)
        for y in range(0, latents.shape[2], 2)
        for x in range(0, latents.shape[3], 2)
    ]
    return torch.stack(rows, 1)


def unpacked(tokens: Tensor, like: Tensor) -> Tensor:
    """The inverse of `packed`."""
    made = torch.empty_like(like)
    width = like.shape[3] // 2
    for index in range(tokens.shape[1]):
        y, x = 2 * (index // width), 2 * (index % width)
        made[:, :, y : y + 2, x : x + 2] = tokens[:, index].view(len(like), -1, 2, 2)
    return made


def picture_ids(picture: int, like: Tensor, start: int = 0) -> Tensor:
    """``[N, 3]`` of a picture's 2x2 tokens."""
    return torch.tensor(
        [[picture, start + y, start + x] for y in range(like.shape[2] // 2) for x in range(like.shape[3] // 2)],
        dtype=torch.float32,
    )
