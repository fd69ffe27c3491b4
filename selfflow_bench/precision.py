"""Computing in bfloat16 where it is wanted, whatever type the weights are held in. Knows nothing of models."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn


def bfloat16_where(wanted: bool, device: torch.device) -> AbstractContextManager[object]:
    """torch's autocast to bfloat16, or what holds outside. Not on the meta device, which has none."""
    return torch.autocast(device.type, torch.bfloat16) if wanted else nullcontext()


def holds_bfloat16(model: nn.Module) -> bool:
    """Whether any weight is in bfloat16, so that float32 inputs need autocast."""
    return any(value.dtype == torch.bfloat16 for value in model.parameters())
