"""The conditions of a data set's items: what belongs to a caption is held once per caption, the rest once per item."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from selfflow_bench.data.sharded import Rows


@dataclass(frozen=True, eq=False)
class ConditionTable:
    """Conditions of ``items``.

    Args:
        caption: int64 ``[items]``, rows of the tensors of ``by_caption``; row 0 is the empty caption.
        by_caption: tensors ``[captions, ...]``.
        by_item: tensors ``[items, ...]``, such as references and sounds.
    """

    caption: Tensor
    by_caption: Mapping[str, Rows]
    by_item: Mapping[str, Rows] = field(default_factory=dict)

    @classmethod
    def of_classes(cls, label: Tensor, classes: int, by_item: Mapping[str, Rows]) -> ConditionTable:
        """Of items known by their class alone, int64 ``[items]``: no class takes the place of the empty caption.

        The class behind the last of ``classes`` stands for none.
        """
        return cls(label + 1, {"label": torch.tensor([classes, *range(classes)])}, by_item)

    def of(self, items: Tensor, dropped: Tensor | None = None) -> dict[str, Tensor]:
        """Conditions ``[M, ...]`` of items (int64 ``[M]``); where ``dropped`` (bool ``[M]``), of the empty caption."""
        rows = self.caption[items]
        if dropped is not None:
            rows = torch.where(dropped, 0, rows)
        captions = {name: value[rows] for name, value in self.by_caption.items()}
        return captions | {name: value[items] for name, value in self.by_item.items()}

    def shapes(self) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
        """Of one sample, by name."""
        return {
            name: (tuple(value.shape[1:]), value.dtype)
            for name, value in (*self.by_caption.items(), *self.by_item.items())
        }
