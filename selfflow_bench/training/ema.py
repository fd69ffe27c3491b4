"""The exponential moving average of the transformer: Self-Flow's teacher, and the weights that are evaluated."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor


class Ema:
    """A float32 shadow of a module, updated once per optimizer step.

    float32 whatever the compute type: a bf16 shadow loses updates below its resolution.
    """

    def __init__(self, source: nn.Module, decay: float, model: nn.Module | None = None) -> None:
        """Follow ``source``; ``model`` is an `averaged_copy` of it, made here if there is none yet."""
        model = averaged_copy(source) if model is None else model
        self._follow(model, dict(model.named_parameters()), dict(source.named_parameters()), decay)

    def _follow(
        self, model: nn.Module, shadow: Mapping[str, Tensor], source: Mapping[str, Tensor], decay: float
    ) -> None:
        """Let each of ``shadow`` follow what ``source`` has of the same name; ``model`` is what computes with them."""
        self.model, self.decay = model, decay
        self.values: Mapping[str, Tensor] = shadow
        self._shadow = list(shadow.values())
        self._source = [source[name] for name in shadow]

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
        gap, size = (norms.full_tensor() if isinstance(norms, DTensor) else norms).tolist()
        return gap / size if size else 0.0


def averaged_copy(source: nn.Module) -> nn.Module:
    """A float32 copy of a module, in evaluation mode and without gradients."""
    return copy.deepcopy(source).float().eval().requires_grad_(False)
