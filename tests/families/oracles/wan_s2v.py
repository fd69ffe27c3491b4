"""Wan S2V, one row per token: every token of [video, reference, motion] has its own, the last two at time 0."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from tests.families.expectations import Expectations

CELLS = (3, 8, 10)
"""At least 8 cells a side: the oldest frames before a clip have patches of 8 x 8."""
TARGET = 60


def positions(frames: int, rows: int, columns: int) -> list[tuple[int, int, int]]:
    """(time, row, column) of every token; the 2 and 16 frames before the newest make 2 x 2 and 4 tokens."""
    picture = [(row, column) for row in range(rows) for column in range(columns)]
    made = [(time, *place) for time in range(frames) for place in picture]
    made += [(30, *place) for place in picture]
    made += [(-1, *place) for place in picture]
    made += [(-3, row, column) for row in (0, rows - 1) for column in (0, columns - 1)]
    made += [(time, 0, 0) for time in (-19, -14, -9, -4)]
    return made


def rotary(head: int, places: list[tuple[int, int, int]]) -> tuple[Tensor, Tensor]:
    third = head // 6 * 2
    angles = torch.tensor(places).double()
    turned = [
        angles[:, axis, None] / 10000.0 ** (torch.arange(0, size, 2).double() / size)
        for axis, size in enumerate((head - 2 * third, third, third))
    ]
    table = torch.cat(turned, -1).repeat_interleave(2, -1)[None, :, None]
    return table.cos().float(), table.sin().float()


def forward(model, latents: Tensor, time: Tensor, conditions: Mapping[str, Tensor]) -> Tensor:
    """``time``: ``[B, N]`` in the model's clock."""
    batch, channels, frames, height, width = latents.shape
    reference, sound = conditions["reference"], conditions["sound"]

    def patched(project, cells: Tensor) -> Tensor:
        return project(cells).flatten(2).transpose(1, 2)

    def zeros(count: int) -> Tensor:
        return latents.new_zeros(batch, channels, count, height, width)

    packed = zip(model.frame_packer.projections, (reference, zeros(2), zeros(16)), strict=True)
    parts = [
        patched(model.patch_embedding, latents) + model.pose_embedding.bias + 0 * model.pose_embedding.weight.sum(),
        patched(model.patch_embedding, reference),
        torch.cat([patched(project, cells) for project, cells in packed], 1),
    ]
    hidden = torch.cat([part + model.kind_embedding.weight[kind] for kind, part in enumerate(parts)], 1)
    tables = rotary(32, positions(frames, height // 2, width // 2))
    time = torch.cat([time, time.new_zeros(batch, hidden.shape[1] - TARGET)], 1)
    embedded = model.time_embedder(model.time_proj(time.flatten()).to(hidden.dtype))
    rows = model.time_modulation(F.silu(embedded)).view(batch, -1, 6, hidden.shape[-1])
    embedded = embedded.view(batch, -1, hidden.shape[-1])
    text = model.text_embedder(conditions["text"])
    # Twelve frames of sound from as many as there are, the first and the last kept, linear between.
    at = torch.arange(4.0 * frames).to(sound.dtype) * (sound.shape[1] - 1) / (4 * frames - 1)
    before, share = at.long().clamp_max(sound.shape[1] - 2), (at - at.long().clamp_max(sound.shape[1] - 2))[:, None]
    heard = model.audio_encoder((sound[:, before] * (1 - share) + sound[:, before + 1] * share)[:, None])
    for index, block in enumerate(model.blocks):
        shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = (block.scale_shift_table[:, None] + rows).unbind(2)
        hidden = hidden + gate_a * block.attn1(block.norm1(hidden) * (1 + scale_a) + shift_a, rotary_emb=tables)
        hidden = hidden + block.attn2(block.norm2(hidden), text)
        hidden = hidden + gate_f * block.ffn(block.norm3(hidden) * (1 + scale_f) + shift_f)
        if index in model.config.audio_inject_layers:
            video = model.injectors[str(index)](hidden[:, :TARGET], *heard)
            hidden = torch.cat([video, hidden[:, TARGET:]], 1)
    shift, scale = (model.scale_shift_table[:, None] + embedded[:, :TARGET, None]).unbind(2)
    out = model.proj_out(model.norm_out(hidden[:, :TARGET]) * (1 + scale) + shift)
    out = out.view(batch, frames, height // 2, width // 2, 2, 2, -1).permute(0, 6, 1, 2, 4, 3, 5)
    return out.reshape(batch, channels, frames, height, width)


EXPECTED = Expectations(
    forward,
    # Modulation, norms and rotation are computed in float32 whatever the weights are: float64 brings no more digits.
    float64_tolerance=1e-5,
    cells=CELLS,
)
