"""The exponential moving average of the transformer: Self-Flow's teacher, and the weights that are evaluated."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


class Ema:
    """A float32 shadow of a module, updated once per optimizer step.

    float32 whatever the compute type: a bf16 shadow loses updates below its resolution.
    """

    def __init__(self, source: nn.Module, decay: float) -> None:
        self.decay = decay
        self.model = copy.deepcopy(source).float().eval().requires_grad_(False)
        self._shadow: list[Tensor] = list(self.model.parameters())
        self._source: list[Tensor] = list(source.parameters())

    @torch.no_grad()
    def update(self) -> None:
        """``shadow += (1 - decay) (source - shadow)``, all parameters in a few fused calls."""
        source: list[Tensor] = [value if value.dtype == torch.float32 else value.float() for value in self._source]
        torch._foreach_lerp_(self._shadow, source, 1.0 - self.decay)

    @torch.no_grad()
    def distance(self) -> float:
        """How far the weights have left their average: ``|source - shadow| / |shadow|``. Waits for the device."""
        gaps = torch._foreach_sub([value.float() for value in self._source], self._shadow)
        norms = torch.stack([torch.stack(torch._foreach_norm(values)).norm() for values in (gaps, self._shadow)])
        gap, size = norms.tolist()
        return gap / size if size else 0.0
