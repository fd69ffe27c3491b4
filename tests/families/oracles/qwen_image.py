"""Qwen-Image, one row per token."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from tests.families.expectations import Expectations
from tests.families.oracles.rows import continuous_norm, embedded_timestep, packed, unpacked


def modulated(normed: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Normed tokens under (shift, scale), and the gate."""
    shift, scale, gate = rows.chunk(3, -1)
    return normed * (1 + scale) + shift, gate


def forward(model, latents: Tensor, time: Tensor, conditions: Mapping[str, Tensor]) -> Tensor:
    """``time``: ``[B, N]`` in the model's clock."""
    rows = embedded_timestep(model.time_text_embed, time.to(latents.dtype))
    mean = rows.mean(1, keepdim=True)
    image, text = model.img_in(packed(latents)), model.txt_in(model.txt_norm(conditions["text"]))
    shape = (1, latents.shape[2] // 2, latents.shape[3] // 2)
    rotary = model.pos_embed([[shape]] * len(latents), max_txt_seq_len=text.shape[1], device=latents.device)
    for block in model.transformer_blocks:
        image_rows, text_rows = block.img_mod(rows).chunk(2, -1), block.txt_mod(mean).chunk(2, -1)
        entering, gate = modulated(block.img_norm1(image), image_rows[0])
        text_entering, text_gate = modulated(block.txt_norm1(text), text_rows[0])
        attended, text_attended = block.attn(
            hidden_states=entering,
            encoder_hidden_states=text_entering,
            encoder_hidden_states_mask=conditions["text_mask"],
            image_rotary_emb=rotary,
        )
        image, text = image + gate * attended, text + text_gate * text_attended
        entering, gate = modulated(block.img_norm2(image), image_rows[1])
        text_entering, text_gate = modulated(block.txt_norm2(text), text_rows[1])
        image, text = image + gate * block.img_mlp(entering), text + text_gate * block.txt_mlp(text_entering)
    return unpacked(model.proj_out(continuous_norm(model.norm_out, image, rows)), latents)


EXPECTED = Expectations(forward, clock=lambda sigma: sigma, raw=lambda x0, noise: packed(noise - x0))
