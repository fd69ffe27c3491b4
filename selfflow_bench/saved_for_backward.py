"""Bytes that autograd keeps of a forward for its backward. Knows nothing of models and training."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor


def saved_bytes(forward: Callable[[], object], weights: Iterable[Tensor]) -> int:
    """Each storage once, ``weights`` left out.

    What tells a token's level is made once per forward and no part of it.
    """
    known = {value.untyped_storage().data_ptr() for value in weights}
    kept: dict[int, Tensor] = {}

    def keep(value: Tensor) -> Tensor:
        # Held, so that no later storage can have its address.
        kept[value.untyped_storage().data_ptr()] = value
        return value

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        forward()
    return sum(value.untyped_storage().nbytes() for address, value in kept.items() if address not in known)
