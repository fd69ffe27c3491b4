"""What evaluation needs to know of the processes that share it. Knows nothing of how they are joined."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class SharedWork(Protocol):
    """The processes that share an evaluation, this one among them."""

    index: int
    count: int

    def any(self, flag: bool) -> bool:
        """Whether any process says so. All must ask."""
        ...

    def total(self, values: Tensor) -> Tensor:
        """The sum of all processes' values. All must ask."""
        ...

    def gathered(self, values: Tensor) -> Tensor:
        """One row for each process's values, on the host. All must ask."""
        ...


class _Alone:
    index, count = 0, 1

    def any(self, flag: bool) -> bool:
        return flag

    def total(self, values: Tensor) -> Tensor:
        return values

    def gathered(self, values: Tensor) -> Tensor:
        return values.detach().cpu()[None]


ALONE: SharedWork = _Alone()
