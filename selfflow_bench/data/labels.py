"""Classes of a source's items, for models that know classes and no text: the categories that its builder recorded.

Read from the source itself: prepared folders hold captions, and a class is no caption. Knows nothing of models.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from selfflow_bench.data import sources
from selfflow_bench.data.prepare import Prepared, Split
from selfflow_bench.data.views import SplitName
from selfflow_bench.errors import FieldError

COLUMN = "category"


def with_labels(prepared: Prepared, source: str) -> Prepared:
    """The prepared data of a source with the condition ``label`` in either split (see `labels`)."""
    train = _labelled(prepared.train, labels(source, "train"))
    validation = _labelled(prepared.validation, labels(source, "validation"))
    return replace(prepared, train=train, validation=validation)


def labels(source: str, split: SplitName) -> Tensor:
    """int64 ``[items]``: the place of each item's category among those of the training split, by the alphabet.

    Raises FieldError where the source has no categories, or one that no training item has.
    """
    known = {name: place for place, name in enumerate(sorted(set(_categories(source, "train"))))}
    found = _categories(source, split)
    for name in found:
        if name not in known:
            raise FieldError(
                f"data set {source}", COLUMN, name, "no training item has it", f"Known: {', '.join(known)}."
            )
    return torch.tensor([known[name] for name in found], dtype=torch.int64)


def _labelled(split: Split, of_items: Tensor) -> Split:
    return replace(split, conditions={**split.conditions, "label": of_items})


def _categories(source: str, split: SplitName) -> list[str]:
    data = sources.load(source, split)
    if COLUMN not in data.column_names:
        raise FieldError(
            f"data set {source}", "columns", data.column_names, f"no {COLUMN} among them", "Name a set of classes."
        )
    return list(data[COLUMN])
