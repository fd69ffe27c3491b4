"""Rows of a tensor that lies in several files: too large for memory, and read as it is used. Knows no data sets."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor


class ShardedRows:
    """The tensors of one name in safetensors files, behind each other along their first axis.

    Stands for a tensor where rows are taken by their numbers; the files are mapped, not read.
    """

    def __init__(self, files: Sequence[Path], name: str) -> None:
        opened: list[Any] = [safe_open(file, "pt") for file in files]
        self._parts = [one.get_slice(name) for one in opened]
        shapes = [part.get_shape() for part in self._parts]
        self._ends = list(accumulate(shape[0] for shape in shapes))
        if len({tuple(shape[1:]) for shape in shapes}) != 1:
            raise ValueError(f"{name}: shapes differ between files: {shapes}")
        types = sorted({part.get_dtype() for part in self._parts})
        if len(types) != 1:
            raise ValueError(f"{name}: some files hold {types[0]} and others {types[1]}")
        self.shape = torch.Size((self._ends[-1], *shapes[0][1:]))
        self.dtype: torch.dtype = self._parts[0][0:1].dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, items: Tensor) -> Tensor:
        """Rows ``[M, ...]`` of int64 ``[M]``. Raises IndexError beyond the last."""
        if not len(items):
            return torch.empty(0, *self.shape[1:], dtype=self.dtype)
        return torch.cat([self._row(int(item)) for item in items])

    def _row(self, item: int) -> Tensor:
        if not 0 <= item < len(self):
            raise IndexError(f"row {item} of {len(self)}")
        part = bisect_right(self._ends, item)
        at = item - (self._ends[part - 1] if part else 0)
        row: Tensor = self._parts[part][at : at + 1]
        return row


Rows = Tensor | ShardedRows
"""What rows are taken of by their numbers: in memory, or in files."""
