"""OmniGen, one row per token in the last norm, their mean in the time token; one sample at a time, unpadded."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from tests.families.expectations import Expectations


def forward(model, latents: Tensor, time: Tensor, conditions: Mapping[str, Tensor]) -> Tensor:
    """``time``: ``[B, N]`` in the model's clock."""
    made, height, width = [], latents.shape[2] // 2, latents.shape[3] // 2
    for sample in range(len(latents)):
        length = int(conditions["text_mask"][sample].sum())
        projected = model.time_proj(time[sample]).to(latents.dtype)
        token, rows = model.time_token(projected).mean(0)[None, None], model.t_embedder(projected)[None]
        text = model.embed_tokens(conditions["text_ids"][sample : sample + 1, :length])
        image = model.patch_embedding(latents[sample : sample + 1], is_input_image=False)
        hidden = torch.cat([text, token, image], 1)
        count, before = hidden.shape[1], length + 1
        hidden_from = torch.zeros(count, count, dtype=latents.dtype)
        for row in range(before):
            hidden_from[row, row + 1 :] = torch.finfo(latents.dtype).min
        rotary = model.rope(hidden, torch.arange(count)[None] + conditions["text_mask"].shape[1] - length)
        for block in model.layers:
            hidden = block(hidden, attention_mask=hidden_from[None, None], image_rotary_emb=rotary)
        tokens = model.norm(hidden)[:, before:]
        shift, scale = model.norm_out.linear(F.silu(rows)).chunk(2, -1)
        out = model.proj_out(model.norm_out.norm(tokens) * (1 + scale) + shift)
        made.append(-out.view(height, width, 2, 2, -1).permute(4, 0, 2, 1, 3).reshape(latents.shape[1:]))
    return torch.stack(made)


EXPECTED = Expectations(
    forward,
    clock=lambda sigma: 1 - sigma,
    raw=lambda x0, noise: x0 - noise,
    # Nothing is modulated before the last norm.
    modulated=lambda model: (model.proj_out, "input"),
    waits=True,  # the class compares the largest position with a bound on the host
    target=lambda tokens, count: tokens[:, -count:],
)
