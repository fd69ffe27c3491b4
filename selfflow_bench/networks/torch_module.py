"""A torch module run eagerly, on the GPU where there is one: for networks too large for ONNX Runtime on a CPU.

In full float32, which convolutions on a GPU are not by default, so that features do not depend on the kind of GPU more
than they must. Knows nothing of media or weights files.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn


class TorchModule:
    """A network's map from a batch of inputs to features ``[N, ...]``.

    Args:
        module: what holds the weights.
        features: what to read of it for a batch; ``module`` by default.
        batch: inputs per call.
    """

    def __init__(
        self, module: nn.Module, features: Callable[[Tensor], Tensor] | None = None, *, batch: int = 64
    ) -> None:
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        module.requires_grad_(requires_grad=False).eval().to(self._device)
        self._features, self._batch = features or module, batch

    @torch.no_grad()
    def __call__(self, inputs: Callable[[int, int], Tensor], count: int) -> NDArray[np.float32]:
        """Features ``[count, ...]``; `inputs(start, stop)` prepares one batch."""
        rows = []
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            for start in range(0, count, self._batch):
                batch = inputs(start, min(start + self._batch, count)).to(self._device)
                rows.append(self._features(batch).float().cpu().numpy())
        return np.concatenate(rows)
