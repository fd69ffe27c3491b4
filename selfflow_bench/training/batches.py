"""Makes training batches: clean latents, noise, two timesteps, a token mask, conditions. The same for every method.

Everything is a function of the run seed and the samples' indices, so a batch can be made anywhere, in any order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from selfflow_bench.condition_table import ConditionTable
from selfflow_bench.flow import TimestepDistribution
from selfflow_bench.methods.base import Batch
from selfflow_bench.randomness import EpochOrder, normal, per_sample


class Batches:
    """Makes the batch of any range of sample indices."""

    def __init__(
        self,
        latents: Tensor,
        conditions: ConditionTable,
        token_grid: Sequence[int],
        timesteps: TimestepDistribution,
        condition_dropout: float,
        seed: int,
        order: Callable[[int], int] | None = None,
    ) -> None:
        """Hold the training data.

        Args:
            latents: ``[items, C, *cells]``.
            conditions: of the items.
            token_grid: tokens along each axis.
            timesteps: p(sigma).
            condition_dropout: share of samples that get the empty caption.
            seed: the run's seed.
            order: sample index to item; by default a fresh permutation every epoch.
        """
        self._latents, self.conditions = latents, conditions
        self._tokens = math.prod(token_grid)
        self._timesteps, self._dropout, self._seed = timesteps, condition_dropout, seed
        self._item = order or EpochOrder(len(latents), seed).item

    def make(self, samples: range) -> Batch:
        """The batch of these sample indices."""
        items = torch.tensor([self._item(sample) for sample in samples])
        latents = self._latents[items]
        sigma = per_sample(lambda source: self._timesteps.draw(2, source), self._seed, "timestep", samples)
        dropped = per_sample(lambda source: torch.rand(1, generator=source), self._seed, "dropout", samples)[:, 0]
        return Batch(
            latents=latents,
            noise=normal(latents.shape[1:], self._seed, "noise", samples),
            first=sigma[:, 0].contiguous(),
            second=sigma[:, 1].contiguous(),
            mask_draw=per_sample(
                lambda source: torch.rand(self._tokens, generator=source), self._seed, "mask", samples
            ),
            conditions=self.conditions.of(items, dropped < self._dropout),
        )
