"""Makes training batches: clean latents, noise, two timesteps, a token mask, conditions. The same for every method.

Everything is a function of the run seed and the samples' indices, so a batch can be made anywhere, in any order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from selfflow_bench.condition_table import ConditionTable
from selfflow_bench.data.sharded import Rows
from selfflow_bench.flow import TimestepDistribution
from selfflow_bench.methods.base import NOTHING_MORE, Batch, Needs
from selfflow_bench.randomness import EpochOrder, normal, per_sample


class Batches:
    """Makes the batch of any range of sample indices."""

    def __init__(
        self,
        latents: Rows,
        conditions: ConditionTable,
        token_grid: Sequence[int],
        timesteps: TimestepDistribution,
        condition_dropout: float,
        seed: int,
        needs: Needs = NOTHING_MORE,
        features: Callable[[Tensor], Tensor] | None = None,
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
            needs: what the method takes beyond that.
            features: an encoder's features of items, where the method needs them.
            order: sample index to item; by default a fresh permutation every epoch.
        """
        self._latents, self.conditions = latents, conditions
        self._tokens = math.prod(token_grid)
        self._timesteps, self._dropout, self._seed = timesteps, condition_dropout, seed
        self._needs, self._features = needs, features
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
            unconditional=self._unconditional(items),
            features=self._features(items) if self._features else None,
            uniforms=self._uniforms(samples),
            noises=self._noises(latents.shape[1:], samples),
        )

    def _unconditional(self, items: Tensor) -> dict[str, Tensor]:
        if not self._needs.unconditional:
            return {}
        return self.conditions.of(items, torch.ones(len(items), dtype=torch.bool))

    def _uniforms(self, samples: range) -> Tensor | None:
        count = self._needs.uniforms
        if not count:
            return None
        return per_sample(lambda source: torch.rand(count, generator=source), self._seed, "method", samples)

    def _noises(self, shape: Sequence[int], samples: range) -> Tensor | None:
        count = self._needs.noises
        return normal((count, *shape), self._seed, "method noise", samples) if count else None
