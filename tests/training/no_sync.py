"""A guard around code that must not wait for the device."""

from __future__ import annotations

from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode


class Forbids(TorchDispatchMode):
    """Fails on `.item()`, `float()` and `bool()` of a tensor, which all dispatch `_local_scalar_dense`, and on
    `nonzero()`."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func)
        assert "_local_scalar_dense" not in name, "the step waits for the device"
        assert "nonzero" not in name, "the step has a shape that depends on data"
        return func(*args, **(kwargs or {}))
