"""SiT, one row per token."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from tests.families.expectations import Expectations


def forward(model, latents: Tensor, time: Tensor, conditions: Mapping[str, Tensor]) -> Tensor:
    """``time``: ``[B, N]`` in the model's clock. From the weights alone, with attention written out."""
    w = dict(model.named_parameters())
    dim, dtype = w["pos_embed"].shape[-1], latents.dtype
    batch, channels, height, width = latents.shape

    def linear(name: str, inputs: Tensor) -> Tensor:
        return inputs @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    # Tokens row by row; a patch's numbers are ordered (channel, row, column).
    patches = latents.reshape(batch, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 1, 3, 5).flatten(3)
    hidden = patches.flatten(1, 2) @ w["x_embedder.proj.weight"].flatten(1).T + w["x_embedder.proj.bias"]
    hidden = hidden + w["pos_embed"]

    angles = time.float()[..., None] * torch.exp(-math.log(10000) * torch.arange(128) / 128)
    embedded = linear("t_embedder.mlp.0", torch.cat([angles.cos(), angles.sin()], -1).to(dtype))
    embedded = linear("t_embedder.mlp.2", embedded * embedded.sigmoid())
    condition = embedded + w["y_embedder.embedding_table.weight"][conditions["label"]][:, None]
    condition = condition * condition.sigmoid()

    def normed(tokens: Tensor) -> Tensor:
        return F.layer_norm(tokens, (dim,), eps=1e-6)

    heads = model.config.num_heads
    for index in range(model.config.depth):
        shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = linear(
            f"blocks.{index}.adaLN_modulation.1", condition
        ).split(dim, -1)
        query, key, value = linear(f"blocks.{index}.attn.qkv", normed(hidden) * (1 + scale_a) + shift_a).split(dim, -1)
        attended = []
        for head in range(heads):
            own = slice(head * dim // heads, (head + 1) * dim // heads)
            scores = query[..., own] @ key[..., own].transpose(1, 2) / math.sqrt(dim / heads)
            attended.append(scores.softmax(-1) @ value[..., own])
        hidden = hidden + gate_a * linear(f"blocks.{index}.attn.proj", torch.cat(attended, -1))
        inner = linear(f"blocks.{index}.mlp.fc1", normed(hidden) * (1 + scale_f) + shift_f)
        hidden = hidden + gate_f * linear(f"blocks.{index}.mlp.fc2", F.gelu(inner, approximate="tanh"))
    shift, scale = linear("final_layer.adaLN_modulation.1", condition).split(dim, -1)
    numbers = linear("final_layer.linear", normed(hidden) * (1 + scale) + shift)
    numbers = numbers.view(batch, height // 2, width // 2, 2, 2, -1).permute(0, 5, 1, 3, 2, 4)
    return -numbers.reshape(batch, -1, height, width)[:, :channels]


EXPECTED = Expectations(
    forward,
    clock=lambda sigma: 1 - sigma,
    raw=lambda x0, noise: x0 - noise,
    modulated=lambda model: (model.blocks[0].attn, "hidden_states"),
    # Positions are those of one square size.
    cells=(16, 16),
)
