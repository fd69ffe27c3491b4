"""Which tokens share a timestep: the few times of a sample, and the choice of each token among them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

ContextTime = Literal["embedding_mean", "time_mean", "first"]
"""The timestep of context tokens (text), in models that modulate those too.

``embedding_mean``: the mean over the target tokens of their time embeddings, as the documented trainer has it.
``time_mean``: the embedding of the two times' mean, weighted likewise. ``first``: the first time. All three are the
ordinary call where the times are equal.
"""


class ConditioningError(RuntimeError):
    """A model did something with its timestep that has no rule here."""


@dataclass(frozen=True, eq=False)
class TokenLevels:
    """Which level each token of a sequence takes.

    Args:
        level: int64 ``[B, S]``, values in ``0 .. levels - 1``.
        levels: L, the number of distinct rows per sample.
    """

    level: Tensor
    levels: int
    row: Tensor
    """int64 ``[B * S]``: the row of ``[L * B, ...]`` that each token takes."""
    choice: Tensor
    """float32 ``[B, L, S]``, one-hot over L: sums token gradients into rows."""

    @classmethod
    def of(cls, level: Tensor, levels: int) -> TokenLevels:
        """Index tensors are made here once per forward, not once per modulation."""
        batch, _ = level.shape
        row = level * batch + torch.arange(batch, device=level.device)[:, None]
        choice = (level[:, None] == torch.arange(levels, device=level.device)[None, :, None]).float()
        return cls(level, levels, row.flatten(), choice)

    @property
    def batch(self) -> int:
        """B."""
        return self.level.shape[0]

    @property
    def tokens(self) -> int:
        """S."""
        return self.level.shape[1]

    def select(self, rows: Tensor, like: Tensor) -> Tensor:
        """``[L * B, 1, ..., D] -> [B, ..., D]``, a copy of each token's row, in the shape of the tokens ``like``."""
        return rows.flatten(1).index_select(0, self.row).view(*like.shape[:-1], rows.shape[-1])

    def sum_tokens(self, gradient: Tensor) -> Tensor:
        """``[B, ..., D] -> [L * B, 1, ..., D]``: the transpose of `select`."""
        flat = gradient.reshape(self.batch, self.tokens, gradient.shape[-1])
        per_level = torch.bmm(self.choice.to(gradient.dtype), flat)
        rows = per_level.transpose(0, 1).reshape(self.levels * self.batch, -1)
        return rows.view(self.levels * self.batch, *[1] * (gradient.ndim - 2), -1)


@dataclass(frozen=True, eq=False)
class TokenTimes:
    """A time for every target token, held as a few times per sample and a choice per token.

    Args:
        times: ``[L, B]``, float.
        level: int64 ``[B, N]``, values in ``0 .. L - 1``.
        context: what the context's timestep is.
    """

    times: Tensor
    level: Tensor
    context: ContextTime = "embedding_mean"

    @classmethod
    def mixed(cls, first: Tensor, second: Tensor, mask: Tensor, context: ContextTime = "embedding_mean") -> TokenTimes:
        """Tokens where ``mask`` (bool ``[B, N]``) is true take ``second`` ``[B]``, the others ``first`` ``[B]``."""
        return cls(torch.stack([first, second]), mask.long(), context)

    def per_token(self) -> Tensor:
        """``[B, N]``: the time of each token."""
        return self.times.t().gather(1, self.level)

    def shares(self) -> Tensor:
        """float64 ``[L, B]``: the share of a sample's target tokens at each level."""
        levels = torch.arange(len(self.times), device=self.level.device)
        return (self.level[None] == levels[:, None, None]).double().mean(-1)

    def context_time(self) -> Tensor:
        """``[B]``: the time of the context row. With ``embedding_mean`` a placeholder until the mean is known."""
        if self.context == "time_mean":
            return (self.times * self.shares()).sum(0).to(self.times.dtype)
        return self.times[0]


@dataclass(frozen=True, eq=False)
class TokenSequences:
    """The token sequences in which a model meets its timestep, and what is needed to make the context's row.

    Args:
        sequences: one per sequence; their token counts differ.
        shares: float64 ``[L, B]``, the share of target tokens at each level (0 for context and clean levels).
        context: the level of context tokens, or None in models that do not modulate them.
        mean: whether the context's row is the mean over target tokens of the time embedding.
    """

    sequences: tuple[TokenLevels, ...]
    shares: Tensor
    context: int | None = None
    mean: bool = False

    @classmethod
    def of(
        cls, levels: Sequence[Tensor], shares: Tensor, *, context: int | None = None, mean: bool = False
    ) -> TokenSequences:
        """``levels``: int64 ``[B, S]`` for each sequence. Raises ConditioningError where two are equally long."""
        counts = [level.shape[1] for level in levels]
        if len(set(counts)) < len(counts):
            raise ConditioningError(f"sequences of {counts} tokens cannot be told apart; use another text length")
        return cls(tuple(TokenLevels.of(level, len(shares)) for level in levels), shares, context, mean)

    @property
    def batch(self) -> int:
        """B."""
        return self.shares.shape[1]

    @property
    def levels(self) -> int:
        """L."""
        return self.shares.shape[0]

    def with_tokens(self, tokens: int) -> TokenLevels | None:
        """The sequence of that many tokens."""
        return next((one for one in self.sequences if one.tokens == tokens), None)
