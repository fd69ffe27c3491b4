"""LTX-2, one row per token: its own class takes a timestep per token of each stream."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from tests.families.expectations import Expectations


def forward(model, latents: Tensor, time: Tensor, conditions: Mapping[str, Tensor]) -> Tensor:
    """``time``: ``[B, N]`` in the model's clock, the video's 64 tokens first."""
    tokens = latents.transpose(1, 2)
    prompts = {}
    for name in ("prompt_adaln", "audio_prompt_adaln"):
        module = getattr(model, name)
        rows = module.emb(
            time.flatten(), resolution=None, aspect_ratio=None, batch_size=None, hidden_dtype=tokens.dtype
        )
        prompts[name] = module.linear(module.silu(rows.view(*time.shape, -1).mean(1)))
    # The prompt's modulation takes one time for a sample: put the mean of its rows in its place.
    handles = [
        getattr(model, name).register_forward_hook(lambda _module, _args, out, made=made: (made, out[1]))
        for name, made in prompts.items()
    ]
    try:
        video, audio = model(
            tokens[:, :64],
            tokens[:, 64:],
            conditions["text"],
            conditions["text"],
            timestep=time[:, :64],
            audio_timestep=time[:, 64:],
            sigma=time[:, 0],
            encoder_attention_mask=conditions["text_mask"],
            audio_encoder_attention_mask=conditions["text_mask"],
            num_frames=4,
            height=4,
            width=4,
            audio_num_frames=tokens.shape[1] - 64,
            return_dict=False,
        )
    finally:
        for handle in handles:
            handle.remove()
    return torch.cat([video, audio], 1).transpose(1, 2)


EXPECTED = Expectations(
    forward,
    raw=lambda x0, noise: (noise - x0).transpose(1, 2),
    first_input=lambda args, kwargs: torch.cat([kwargs["hidden_states"], kwargs["audio_hidden_states"]], 1),
    cells=(64 + 9,),
)
