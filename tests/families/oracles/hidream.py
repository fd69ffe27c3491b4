"""HiDream, one row per token."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from tests.families.expectations import Expectations
from tests.families.oracles.rows import embedded_timestep, picture_ids


def experts(feed_forward, tokens: Tensor) -> Tensor:
    """Every expert on every token, weighted by the gate where it is among the chosen."""
    scores = F.linear(tokens, feed_forward.gate.weight).softmax(-1)
    chosen = torch.zeros_like(scores).scatter(-1, scores.topk(feed_forward.gate.top_k).indices, 1.0)
    every = torch.stack([expert(tokens) for expert in feed_forward.experts], -1)
    return (every * (scores * chosen)[..., None, :]).sum(-1) + feed_forward.shared_experts(tokens)


def forward(model, latents: Tensor, time: Tensor, conditions: Mapping[str, Tensor]) -> Tensor:
    """``time``: ``[B, N]`` in the model's clock."""
    batch, channels, height, width = latents.shape
    length, targets = conditions["text"].shape[1], time.shape[1]
    keep = conditions["text_mask"][..., None].to(latents.dtype)
    pooled = (conditions["text"] * keep).sum(1) / keep.sum(1)
    rows = embedded_timestep(model.t_embedder, time) + model.p_embedder(pooled)[:, None]
    mean = rows.mean(1, keepdim=True)
    cells = latents.view(batch, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 3, 5, 1)
    image = model.x_embedder(cells.reshape(batch, targets, -1))
    layers = [projection(conditions["text"]) for projection in model.caption_projection]
    kept = torch.cat([layers[-1], layers[-2]], 1)
    ids = torch.cat([picture_ids(0, latents), torch.zeros(3 * length, 3)])
    rotary = model.pe_embedder(ids.expand(batch, -1, -1))
    for index, wrapper in enumerate(model.double_stream_blocks):
        block, text = wrapper.block, torch.cat([kept, layers[index]], 1)
        parts = block.adaLN_modulation(rows)[..., : 6 * rows.shape[-1]].chunk(6, -1)
        of_text = block.adaLN_modulation(mean)[..., 6 * rows.shape[-1] :].chunk(6, -1)
        attended, text_attended = block.attn1(
            block.norm1_i(image) * (1 + parts[1]) + parts[0],
            None,
            block.norm1_t(text) * (1 + of_text[1]) + of_text[0],
            image_rotary_emb=rotary,
        )
        image, text = image + parts[2] * attended, text + of_text[2] * text_attended
        image = image + parts[5] * experts(block.ff_i, block.norm3_i(image) * (1 + parts[4]) + parts[3])
        text = text + of_text[5] * block.ff_t(block.norm3_t(text) * (1 + of_text[4]) + of_text[3])
        kept = text[:, : 2 * length]
    joint = torch.cat([image, kept], 1)
    every = torch.cat([rows, mean.expand(-1, 3 * length, -1)], 1)
    for index, wrapper in enumerate(model.single_stream_blocks, start=len(model.double_stream_blocks)):
        block, whole = wrapper.block, torch.cat([joint, layers[index]], 1)
        parts = block.adaLN_modulation(every).chunk(6, -1)
        attended = block.attn1(block.norm1_i(whole) * (1 + parts[1]) + parts[0], None, image_rotary_emb=rotary)
        whole = whole + parts[2] * attended
        whole = whole + parts[5] * experts(block.ff_i, block.norm3_i(whole) * (1 + parts[4]) + parts[3])
        joint = whole[:, : targets + 2 * length]
    shift, scale = model.final_layer.adaLN_modulation(rows).chunk(2, -1)
    out = model.final_layer.linear(model.final_layer.norm_final(joint[:, :targets]) * (1 + scale) + shift)
    patches = out.view(batch, height // 2, width // 2, 2, 2, channels)
    return -patches.permute(0, 5, 1, 3, 2, 4).reshape(latents.shape)


EXPECTED = Expectations(
    forward,
    raw=lambda x0, noise: x0 - noise,
    train=True,  # in eval mode the class gives its experts no gradient
    waits=True,  # experts choose their tokens by index
    time_argument="timesteps",
)
