"""Image to video where the clean picture is the clip's first latent frame, as Wan 2.2 and LTX do it.

The picture stands before the target frames, at sigma 0, and is cut from what comes out.
"""

from __future__ import annotations

import torch
from torch import Tensor

from selfflow_bench.conditioning import LevelRows
from selfflow_bench.families.base import REFERENCE, Conditions


def with_first_frame(latents: Tensor, conditions: Conditions) -> Tensor:
    """``[B, C, T, H, W]``, one frame longer where there is a reference."""
    return torch.cat([conditions[REFERENCE], latents], 2) if REFERENCE in conditions else latents


def with_first_time(time: Tensor | LevelRows, tokens: int, frame: int, conditions: Conditions) -> Tensor | LevelRows:
    """A plain time of samples ``[B]`` as one per token ``[B, frame + tokens]`` where there is a reference.

    Needs a class that takes times per token, as these do. Levels stay as they are.
    """
    if REFERENCE not in conditions or not isinstance(time, Tensor):
        return time
    return torch.cat([time.new_zeros(len(time), frame), time[:, None].expand(-1, tokens)], 1)


def with_first_levels(target: Tensor, frame: int, clean: int, conditions: Conditions) -> Tensor:
    """Levels ``[B, frame + N]`` where there is a reference."""
    if REFERENCE not in conditions:
        return target
    return torch.cat([target.new_full((len(target), frame), clean), target], 1)
