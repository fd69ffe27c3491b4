"""Z-Image, one row per token; text and padding have their mean."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from tests.families.expectations import Expectations


def modulated(block, tokens: Tensor, rows: Tensor, rotary: Tensor) -> Tensor:
    """A modulated block, rows for all its tokens."""
    scale_a, gate_a, scale_f, gate_f = block.adaLN_modulation(rows).chunk(4, -1)
    attended = block.attention(block.attention_norm1(tokens) * (1 + scale_a), freqs_cis=rotary)
    tokens = tokens + gate_a.tanh() * block.attention_norm2(attended)
    return tokens + gate_f.tanh() * block.ffn_norm2(block.feed_forward(block.ffn_norm1(tokens) * (1 + scale_f)))


def finished(model, tokens: Tensor, rows: Tensor, like: Tensor) -> Tensor:
    """The final layer on the target's tokens, unpatchified; the sign of the suite."""
    final = model.all_final_layer["2-1"]
    scale = final.adaLN_modulation[1](F.silu(rows))
    out = final.linear(final.norm_final(tokens) * (1 + scale))
    height, width = like.shape[2] // 2, like.shape[3] // 2
    patches = out.view(len(like), height, width, 2, 2, -1)
    return -patches.permute(0, 5, 1, 3, 2, 4).reshape(like.shape)


def whole(tokens: int) -> int:
    """Padded to a multiple of 32."""
    return tokens + (-tokens) % 32


def forward(model, latents: Tensor, time: Tensor, conditions: Mapping[str, Tensor]) -> Tensor:
    """``time``: ``[B, N]`` in the model's clock."""
    batch, targets = time.shape
    text = conditions["text"]
    rows = model.t_embedder(time.flatten() * model.t_scale).view(batch, targets, -1)
    mean = rows.mean(1, keepdim=True)
    pictures, captions, _, places, words, picture_pad, caption_pad = model.patchify_and_embed(
        list(latents[:, :, None]), list(text), 2, 1
    )
    image = model.all_x_embedder["2-1"](torch.stack(pictures))
    image = torch.where(torch.stack(picture_pad)[..., None], model.x_pad_token, image)
    caption = model.cap_embedder(torch.stack(captions))
    caption = torch.where(torch.stack(caption_pad)[..., None], model.cap_pad_token, caption)
    of_image = torch.stack([model.rope_embedder(ids) for ids in places])
    # The class makes positions for the padding twice and drops the surplus.
    of_caption = torch.stack([model.rope_embedder(ids) for ids in words])[:, : caption.shape[1]]
    padding = mean.expand(-1, whole(targets) - targets, -1)
    image_rows = torch.cat([rows, padding], 1)
    for block in model.noise_refiner:
        image = modulated(block, image, image_rows, of_image)
    for block in model.context_refiner:
        caption = block(caption, None, of_caption)
    joint, rotary = torch.cat([image, caption], 1), torch.cat([of_image, of_caption], 1)
    every = torch.cat([image_rows, mean.expand(-1, caption.shape[1], -1)], 1)
    for block in model.layers:
        joint = modulated(block, joint, every, rotary)
    return finished(model, joint[:, :targets], rows, latents)


EXPECTED = Expectations(
    forward,
    clock=lambda sigma: 1 - sigma,
    raw=lambda x0, noise: list((x0 - noise)[:, :, None]),
    first_input=lambda args, kwargs: args[0],
    time_argument="t",
)
