"""Meta tensors that know their values where these are small and do not depend on data: masks, positions, lengths.

Some models read such values on the host in their forward (``tolist``, ``if``, boolean indexing), which plain meta
tensors cannot answer. Inside `MetaValues` every operation on tensors whose values are known is also done for real.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torch.utils.weak import WeakTensorKeyDictionary

aten = torch.ops.aten
LARGEST = 1 << 20
"""Elements of a tensor whose values are kept."""
_FRESH = {
    function
    for packet in (
        aten.zeros,
        aten.ones,
        aten.full,
        aten.arange,
        aten.zeros_like,
        aten.ones_like,
        aten.full_like,
        aten.new_zeros,
        aten.new_ones,
        aten.new_full,
    )
    for function in (getattr(packet, name) for name in packet.overloads())  # type: ignore[no-untyped-call]
}
"""Operations whose values follow from their sizes alone."""


class MetaValues(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows known values beside the meta tensors that stand for them."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._values: Any = WeakTensorKeyDictionary()

    def give(self, value: Tensor) -> Tensor:
        """A meta tensor that stands for ``value``."""
        made = torch.empty_like(value, device="meta")
        self._values[made] = value
        return made

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is aten._local_scalar_dense.default and args[0] in self._values:
            return func(self._values[args[0]])
        if func is aten._to_copy.default and torch.device(kwargs.get("device") or "meta").type == "cpu":
            return func(self._values[args[0]], **kwargs) if args[0] in self._values else func(*args, **kwargs)
        if func is aten.index.Tensor:
            args = (args[0], [self._as_places(index) for index in args[1]])
        if func is aten.nonzero.default and args[0] in self._values:
            return self.give(func(self._values[args[0]]))
        made = func(*args, **kwargs)
        several = list(made) if isinstance(made, list | tuple) else [made]
        if all(isinstance(one, Tensor) and one.device.type == "meta" and one.numel() <= LARGEST for one in several):
            known = self._known(func, args, kwargs)
            if known is not None:
                for one, value in zip(several, known if isinstance(made, list | tuple) else [known], strict=True):
                    self._values[one] = value
        return made

    def _as_places(self, index: Tensor | None) -> Tensor | None:
        """A boolean index of one axis as the places where it is true."""
        if index is None or index.dtype != torch.bool or index not in self._values:
            return index
        return self.give(self._values[index].nonzero()[:, 0])

    def _known(self, func: Any, args: Any, kwargs: Any) -> Any:
        tensors: list[Tensor] = []
        tree_map_only(Tensor, tensors.append, (args, kwargs))
        real = {"device": "cpu"} if "device" in kwargs else {}
        if func in _FRESH:
            shaped = [torch.empty(one.shape, dtype=one.dtype) if isinstance(one, Tensor) else one for one in args]
            return func(*shaped, **(kwargs | real))
        if not tensors or any(one not in self._values for one in tensors):
            return None
        values = tree_map_only(Tensor, lambda one: self._values[one], (args, kwargs))
        return func(*values[0], **(values[1] | real))
