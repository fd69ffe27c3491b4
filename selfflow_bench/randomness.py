"""Keyed randomness: every draw comes from (run seed, purpose, index) and from nothing else.

So results do not depend on workers, processes or batch split, all methods see the same draws, and a resumed run
continues with the draws it would have had. Draws are made on the CPU, whose generator is the same everywhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import torch
from torch import Tensor

Purpose = Literal[
    "init",
    "order",
    "noise",
    "timestep",
    "mask",
    "dropout",
    "validation",
    "sampling",
    "label",
    "method",
    "method noise",
]


def key(seed: int, purpose: Purpose, *index: int | str) -> int:
    """A 63-bit generator seed for one draw. Different arguments give unrelated streams."""
    text = "/".join(map(str, (seed, purpose, *index)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator(seed: int, purpose: Purpose, *index: int | str) -> torch.Generator:
    """A CPU generator for one keyed draw."""
    return torch.Generator().manual_seed(key(seed, purpose, *index))


def per_sample(
    draw: Callable[[torch.Generator], Tensor], seed: int, purpose: Purpose, samples: Iterable[int], *of: int
) -> Tensor:
    """Stack one draw per sample index: ``[B, ...]``, each row a function of its own index, and of ``of``, alone."""
    source = torch.Generator()
    return torch.stack([draw(source.manual_seed(key(seed, purpose, sample, *of))) for sample in samples])


def normal(shape: Sequence[int], seed: int, purpose: Purpose, samples: Iterable[int], *of: int) -> Tensor:
    """Standard normal float32 ``[B, *shape]``; ``of`` tells several draws of one sample and purpose apart."""
    return per_sample(lambda source: torch.randn(tuple(shape), generator=source), seed, purpose, samples, *of)


class EpochOrder:
    """Which item of the data set each training sample is: a fresh permutation per epoch, keyed by the epoch."""

    def __init__(self, items: int, seed: int) -> None:
        self._items, self._seed = items, seed
        self._epoch = -1
        self._order = torch.empty(0, dtype=torch.int64)

    def item(self, sample: int) -> int:
        """The data set index of the run's ``sample``-th sample (from 0)."""
        epoch, position = divmod(sample, self._items)
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = torch.randperm(self._items, generator=generator(self._seed, "order", epoch))
        return int(self._order[position])
