"""Per-token timesteps inside an unmodified transformer, at the price of a few timesteps per sample.

Self-Flow gives every token its own timestep, but a sample has only L distinct ones (two; more with clean reference
tokens). The conditioning path (sinusoids, MLPs, modulation tables) therefore runs once per *level*: `LevelRows` stands
in for the timestep argument of the ordinary forward, carries ``L * B`` rows where the model expects ``B``, and becomes
a real ``[B, N, D]`` tensor only where it meets a token tensor, by picking each token's level.

Shapes: B samples, L levels, N target tokens, D channels.

Knows nothing of families, methods or training. An operation it has no rule for raises `ConditioningError`: a silent
wrong broadcast would be a wrong experiment.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


class ConditioningError(RuntimeError):
    """A model did something with its timestep that has no rule here."""


@dataclass(frozen=True, eq=False)
class TokenLevels:
    """Which level each token of a batch takes.

    Args:
        level: int64 ``[B, N]``, values in ``0 .. levels - 1``.
        levels: L, the number of distinct rows per sample.
    """

    level: Tensor
    levels: int
    row: Tensor
    """int64 ``[B * N]``: the row of ``[L * B, ...]`` that each token takes."""
    choice: Tensor
    """float32 ``[B, L, N]``, one-hot over L: sums token gradients into rows."""

    @classmethod
    def of(cls, level: Tensor, levels: int) -> TokenLevels:
        """Index tensors are made here once per batch, not once per modulation."""
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
        """N."""
        return self.level.shape[1]

    def select(self, rows: Tensor) -> Tensor:
        """``[L * B, 1, D] -> [B, N, D]``: a copy of each token's row."""
        return rows.flatten(1).index_select(0, self.row).view(self.batch, self.tokens, *rows.shape[2:])

    def sum_tokens(self, gradient: Tensor) -> Tensor:
        """``[B, N, D] -> [L * B, 1, D]``: the transpose of `select`."""
        per_level = torch.bmm(self.choice.to(gradient.dtype), gradient.flatten(2))
        rows = per_level.transpose(0, 1).reshape(self.levels * self.batch, 1, -1)
        return rows.view(self.levels * self.batch, 1, *gradient.shape[2:])


@dataclass(frozen=True, eq=False)
class TokenTimes:
    """A time for every token, held as L times per sample and a choice per token.

    Args:
        times: ``[L, B]``, float.
        levels: the choice.
    """

    times: Tensor
    levels: TokenLevels

    @classmethod
    def mixed(cls, first: Tensor, second: Tensor, mask: Tensor) -> TokenTimes:
        """Tokens where ``mask`` (bool ``[B, N]``) is true take ``second`` ``[B]``, the others ``first`` ``[B]``."""
        return cls(torch.stack([first, second]), TokenLevels.of(mask.long(), 2))

    def per_token(self) -> Tensor:
        """``[B, N]``: the time of each token."""
        return self.times.flatten().index_select(0, self.levels.row).view(self.levels.batch, self.levels.tokens)

    def map(self, function: Callable[[Tensor], Tensor]) -> TokenTimes:
        """The same choice over transformed times (a family's clock)."""
        return type(self)(function(self.times), self.levels)

    def rows(self) -> LevelRows:
        """What is passed to the model in place of its ``[B]`` timestep."""
        return LevelRows(self.times.flatten(), self.levels)


class _AddLevels(torch.autograd.Function):
    """``tokens + select(rows)`` without keeping the selected rows for backward."""

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, rows: Tensor, levels: TokenLevels) -> Tensor:
        ctx.levels, ctx.dtypes = levels, (tokens.dtype, rows.dtype)
        selected = levels.select(rows)
        return selected.add_(tokens) if selected.dtype == tokens.dtype else tokens + selected

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, Tensor | None, None]:
        (gradient,) = gradients
        tokens_dtype, rows_dtype = ctx.dtypes
        for_tokens = gradient.to(tokens_dtype) if ctx.needs_input_grad[0] else None
        for_rows = ctx.levels.sum_tokens(gradient).to(rows_dtype) if ctx.needs_input_grad[1] else None
        return for_tokens, for_rows, None


class _MultiplyLevels(torch.autograd.Function):
    """``tokens * select(rows)``, saving what a per-sample product would: the tokens and the rows."""

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, rows: Tensor, levels: TokenLevels) -> Tensor:
        ctx.levels = levels
        ctx.save_for_backward(tokens, rows)
        selected = levels.select(rows)
        return selected.mul_(tokens) if selected.dtype == tokens.dtype else tokens * selected

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, Tensor | None, None]:
        (gradient,) = gradients
        tokens, rows = ctx.saved_tensors
        for_tokens = (gradient * ctx.levels.select(rows)).to(tokens.dtype) if ctx.needs_input_grad[0] else None
        for_rows = ctx.levels.sum_tokens(gradient * tokens).to(rows.dtype) if ctx.needs_input_grad[1] else None
        return for_tokens, for_rows, None


class LevelRows:
    """Stands in for a tensor of batch B while holding the rows of L levels, ``[L * B, ...]``.

    Not a `torch.Tensor` subclass: the batch it reports and the rows it holds differ, which a subclass cannot express
    and `torch.compile` cannot trace. Dimension 0 is the batch; operations on the others act on the rows directly.
    """

    __slots__ = ("_levels", "_rows")

    def __init__(self, rows: Tensor, levels: TokenLevels) -> None:
        self._rows, self._levels = rows, levels

    # What models ask of a timestep.

    @property
    def shape(self) -> torch.Size:
        """The shape a per-sample tensor would have: ``[B, ...]``."""
        return torch.Size((self._levels.batch, *self._rows.shape[1:]))

    def size(self, dim: int | None = None) -> Any:
        """As `torch.Tensor.size`, of the reported shape."""
        return self.shape if dim is None else self.shape[dim]

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return self._rows.ndim

    def dim(self) -> int:
        """Number of dimensions."""
        return self._rows.ndim

    @property
    def dtype(self) -> torch.dtype:
        """Type of the rows."""
        return self._rows.dtype

    @property
    def device(self) -> torch.device:
        """Device of the rows."""
        return self._rows.device

    # Operations that leave dimension 0 alone.

    def _same(self, rows: Tensor) -> LevelRows:
        return LevelRows(rows, self._levels)

    def to(self, *args: Any, **kwargs: Any) -> LevelRows:
        """As `torch.Tensor.to`."""
        return self._same(self._rows.to(*args, **kwargs))

    def float(self) -> LevelRows:
        """As `torch.Tensor.float`."""
        return self._same(self._rows.float())

    def type_as(self, other: Tensor) -> LevelRows:
        """As `torch.Tensor.type_as`."""
        return self._same(self._rows.type_as(other))

    def chunk(self, chunks: int, dim: int = 0) -> tuple[LevelRows, ...]:
        """As `torch.Tensor.chunk`, along any dimension but the batch."""
        self._not_the_batch("chunk", dim)
        return tuple(self._same(part) for part in self._rows.chunk(chunks, dim))

    def unsqueeze(self, dim: int) -> LevelRows:
        """As `torch.Tensor.unsqueeze`, behind the batch."""
        if dim % (self.ndim + 1) == 0:
            raise ConditioningError("unsqueeze(0) would move the batch of a per-token timestep; no rule for that")
        return self._same(self._rows.unsqueeze(dim))

    def squeeze(self, dim: int) -> LevelRows:
        """As `torch.Tensor.squeeze`, of one dimension that is not the batch."""
        self._not_the_batch("squeeze", dim)
        return self._same(self._rows.squeeze(dim))

    def unflatten(self, dim: int, sizes: tuple[int, ...]) -> LevelRows:
        """As `torch.Tensor.unflatten`, of a dimension that is not the batch."""
        self._not_the_batch("unflatten", dim)
        return self._same(torch.unflatten(self._rows, dim, sizes))

    def reshape(self, *sizes: int | tuple[int, ...]) -> LevelRows:
        """As `torch.Tensor.reshape`; the first size must be B and becomes ``L * B``."""
        flat: tuple[int, ...] = sizes[0] if isinstance(sizes[0], tuple) else sizes  # type: ignore[assignment]
        if flat[0] != self._levels.batch:
            raise ConditioningError(f"reshape{tuple(flat)} of a per-token timestep with batch {self._levels.batch}")
        return self._same(self._rows.reshape(self._rows.shape[0], *flat[1:]))

    view = reshape

    def __getitem__(self, index: Any) -> LevelRows:
        """Indexing that keeps the whole batch, such as ``[:, None]`` or ``[:, :k]``."""
        first = index[0] if isinstance(index, tuple) else index
        if first != slice(None):
            raise ConditioningError(f"index {index} of a per-token timestep cuts its batch; no rule for that")
        return self._same(self._rows[index])

    def _not_the_batch(self, operation: str, dim: int) -> None:
        if dim % self.ndim == 0:
            raise ConditioningError(f"{operation} along the batch of a per-token timestep; no rule for that")

    # Arithmetic.

    def _combine(self, other: Any, rowwise: Callable[[Any, Any], Tensor], tokenwise: Any) -> Any:
        """Apply to the rows where ``other`` has no tokens; meet the tokens where it has."""
        if isinstance(other, LevelRows):
            if other._levels is not self._levels:
                raise ConditioningError("two timesteps of different batches meet")
            return self._same(rowwise(self._rows, other._rows))
        if not isinstance(other, Tensor) or other.ndim < self.ndim:
            return self._same(rowwise(self._rows, other))
        if other.ndim == self.ndim and self._is_per_sample(other):
            return self._same(rowwise(self._rows, other))
        if other.ndim == self.ndim >= 3 and other.shape[:2] == self._levels.level.shape and self.shape[1] == 1:
            if tokenwise is None:
                raise ConditioningError(f"{rowwise} of tokens and a per-token timestep; no rule for that")
            return tokenwise.apply(other, self._rows, self._levels)
        if other.ndim == self.ndim and other.shape[0] == self._levels.batch and other.shape[1] in (1, self.shape[1]):
            # A per-sample vector beside the timestep (pooled text, guidance): the same for every level.
            return self._same(rowwise(self._rows, other.repeat(self._levels.levels, *[1] * (other.ndim - 1))))
        raise ConditioningError(
            f"a per-token timestep {tuple(self.shape)} meets a tensor {tuple(other.shape)}, which is neither a table "
            f"nor one of the {self._levels.tokens} target tokens of {self._levels.batch} samples"
        )

    def _is_per_sample(self, other: Tensor) -> bool:
        """Whether ``other`` is a table ``[1, ...]`` that all samples share."""
        if other.shape[0] != 1:
            return False
        if self._levels.batch == 1 and other.ndim >= 3 and other.shape[1] == self._levels.tokens:
            if self.shape[1] == 1 and other.shape[1] <= 12:
                raise ConditioningError(
                    f"batch 1 with {self._levels.tokens} tokens cannot be told from a modulation table; use batch 2"
                )
            return self.shape[1] != 1
        return True

    def __add__(self, other: Any) -> Any:
        return self._combine(other, torch.add, _AddLevels)

    __radd__ = __add__

    def __mul__(self, other: Any) -> Any:
        return self._combine(other, torch.mul, _MultiplyLevels)

    __rmul__ = __mul__

    def __sub__(self, other: Any) -> Any:
        return self._combine(other, torch.sub, None)

    def __truediv__(self, other: Any) -> Any:
        return self._combine(other, torch.div, None)

    @classmethod
    def __torch_function__(
        cls, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if function in _ROWWISE and isinstance(args[0], cls):
            return args[0]._same(function(args[0]._rows, *args[1:], **kwargs))
        if function in _SYMMETRIC and len(args) == 2 and not kwargs:
            left, right = args
            stand_in, other = (left, right) if isinstance(left, cls) else (right, left)
            return stand_in + other if function in _ADD else stand_in * other
        if function is torch.cat and all(isinstance(part, cls) for part in args[0]):
            dim = kwargs.get("dim", args[1] if len(args) > 1 else 0)
            args[0][0]._not_the_batch("cat", dim)
            return args[0][0]._same(torch.cat([part._rows for part in args[0]], dim=dim))
        raise ConditioningError(f"{getattr(function, '__name__', function)} of a per-token timestep; no rule for that")


_ROWWISE = frozenset({F.linear, F.silu, F.gelu, torch.sin, torch.cos, torch.tanh, torch.exp})
_ADD = frozenset({torch.add, torch.Tensor.add, torch.Tensor.__add__, torch.Tensor.__radd__})
_MULTIPLY = frozenset({torch.mul, torch.Tensor.mul, torch.Tensor.__mul__, torch.Tensor.__rmul__})
_SYMMETRIC = _ADD | _MULTIPLY
