"""The object that stands in for a timestep: rows for every level, tokens where it meets them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from selfflow_bench.conditioning.levels import ConditioningError, TokenLevels, TokenSequences


class _AddLevels(torch.autograd.Function):
    """``tokens + select(rows)`` without keeping the selected rows for backward."""

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, rows: Tensor, levels: TokenLevels) -> Tensor:
        ctx.levels, ctx.dtypes = levels, (tokens.dtype, rows.dtype)
        selected = levels.select(rows, tokens)
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
        selected = levels.select(rows, tokens)
        return selected.mul_(tokens) if selected.dtype == tokens.dtype else tokens * selected

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, Tensor | None, None]:
        (gradient,) = gradients
        tokens, rows = ctx.saved_tensors
        for_tokens = (gradient * ctx.levels.select(rows, tokens)).to(tokens.dtype) if ctx.needs_input_grad[0] else None
        for_rows = ctx.levels.sum_tokens(gradient * tokens).to(rows.dtype) if ctx.needs_input_grad[1] else None
        return for_tokens, for_rows, None


class LevelRows:
    """Stands in for a tensor of batch B while holding the rows of L levels, ``[L * B, ...]``.

    Not a `torch.Tensor` subclass: the batch it reports and the rows it holds differ, which a subclass cannot express
    and `torch.compile` cannot trace. Dimension 0 is the batch; operations on the others act on the rows directly.
    """

    __slots__ = ("_rows", "_sequences")

    def __init__(self, rows: Tensor, sequences: TokenSequences) -> None:
        self._rows, self._sequences = rows, sequences

    # What families ask, beside models.

    def with_context_mean(self) -> LevelRows:
        """Applied to the time embedding: fills the context's row with the mean over the target tokens.

        Does nothing in models without a context level, and where the context has a time of its own.
        """
        sequences = self._sequences
        if sequences.context is None or not sequences.mean:
            return self
        rows = torch.unflatten(self._rows, 0, (sequences.levels, sequences.batch))
        shares = sequences.shares.to(rows.dtype).view(*sequences.shares.shape, *[1] * (rows.ndim - 2))
        mean = (rows * shares).sum(0, keepdim=True)
        parts = (rows[: sequences.context], mean, rows[sequences.context + 1 :])
        return self._same(torch.cat(parts).flatten(0, 1))

    def context(self) -> Tensor:
        """The context's row of each sample, ``[B, ...]``: an ordinary tensor."""
        if self._sequences.context is None:
            raise ConditioningError("this model's context takes no timestep")
        start = self._sequences.context * self._sequences.batch
        return self._rows[start : start + self._sequences.batch]

    def part(self, start: int, stop: int) -> LevelRows:
        """The same rows for a part of the target tokens, which meets the model as a sequence of its own."""
        levels = self._sequences.sequences[0]
        of_part = TokenLevels.of(levels.level[:, start:stop], levels.levels)
        return LevelRows(self._rows, replace(self._sequences, sequences=(of_part,)))

    # What models ask of a timestep.

    @property
    def shape(self) -> torch.Size:
        """The shape a per-sample tensor would have: ``[B, ...]``."""
        return torch.Size((self._sequences.batch, *self._rows.shape[1:]))

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
        return LevelRows(rows, self._sequences)

    def to(self, *args: Any, **kwargs: Any) -> LevelRows:
        """As `torch.Tensor.to`."""
        return self._same(self._rows.to(*args, **kwargs))

    def float(self) -> LevelRows:
        """As `torch.Tensor.float`."""
        return self._same(self._rows.float())

    def type_as(self, other: Tensor) -> LevelRows:
        """As `torch.Tensor.type_as`."""
        return self._same(self._rows.type_as(other))

    def contiguous(self) -> LevelRows:
        """As `torch.Tensor.contiguous`."""
        return self._same(self._rows.contiguous())

    def pow(self, exponent: int) -> LevelRows:
        """As `torch.Tensor.pow`."""
        return self._same(self._rows.pow(exponent))

    def mean(self, dim: int, keepdim: bool = False) -> LevelRows:
        """As `torch.Tensor.mean`, along any dimension but the batch."""
        self._not_the_batch("mean", dim)
        return self._same(self._rows.mean(dim, keepdim=keepdim))

    def tanh(self) -> LevelRows:
        """As `torch.Tensor.tanh`."""
        return self._same(self._rows.tanh())

    def chunk(self, chunks: int, dim: int = 0) -> tuple[LevelRows, ...]:
        """As `torch.Tensor.chunk`, along any dimension but the batch."""
        self._not_the_batch("chunk", dim)
        return tuple(self._same(part) for part in self._rows.chunk(chunks, dim))

    def unbind(self, dim: int = 0) -> tuple[LevelRows, ...]:
        """As `torch.Tensor.unbind`, along any dimension but the batch."""
        self._not_the_batch("unbind", dim)
        return tuple(self._same(part) for part in self._rows.unbind(dim))

    def unsqueeze(self, dim: int) -> LevelRows:
        """As `torch.Tensor.unsqueeze`, behind the batch."""
        if dim % (self.ndim + 1) == 0:
            raise ConditioningError("unsqueeze(0) would move the batch of a per-token timestep; no rule for that")
        return self._same(self._rows.unsqueeze(dim))

    def squeeze(self, dim: int) -> LevelRows:
        """As `torch.Tensor.squeeze`, of one dimension that is not the batch."""
        self._not_the_batch("squeeze", dim)
        return self._same(self._rows.squeeze(dim))

    def flatten(self, start_dim: int = 0, end_dim: int = -1) -> LevelRows:
        """As `torch.Tensor.flatten`, behind the batch; of ``[B]`` it is the same."""
        if self.ndim == 1:
            return self
        self._not_the_batch("flatten", start_dim)
        return self._same(self._rows.flatten(start_dim, end_dim))

    def unflatten(self, dim: int, sizes: tuple[int, ...]) -> LevelRows:
        """As `torch.Tensor.unflatten`, of a dimension that is not the batch."""
        self._not_the_batch("unflatten", dim)
        return self._same(torch.unflatten(self._rows, dim, sizes))

    def reshape(self, *sizes: int | tuple[int, ...]) -> LevelRows:
        """As `torch.Tensor.reshape`; the first size must be B (or -1) and becomes ``L * B``."""
        flat: tuple[int, ...] = sizes[0] if isinstance(sizes[0], tuple) else sizes  # type: ignore[assignment]
        if flat[0] == -1 and -1 not in flat[1:] and math.prod(flat[1:]) == math.prod(self._rows.shape[1:]):
            flat = (self._sequences.batch, *flat[1:])
        if flat[0] != self._sequences.batch:
            raise ConditioningError(f"reshape{tuple(flat)} of a per-token timestep with batch {self._sequences.batch}")
        return self._same(self._rows.reshape(self._rows.shape[0], *flat[1:]))

    view = reshape

    def expand(self, *sizes: int) -> LevelRows:
        """As `torch.Tensor.expand` where it leaves the batch; a size-1 token axis stays until it meets tokens."""
        if sizes[0] not in (self._sequences.batch, -1) or len(sizes) != self.ndim:
            raise ConditioningError(f"expand{sizes} of a per-token timestep {tuple(self.shape)}; no rule for that")
        for axis, (size, own) in enumerate(zip(sizes[1:], self._rows.shape[1:], strict=True)):
            tokens = axis == 0 and own == 1 and self._sequences.with_tokens(size) is not None
            if size not in (-1, own) and not tokens:
                raise ConditioningError(f"expand{sizes} of a per-token timestep {tuple(self.shape)}; no rule for that")
        return self

    def repeat(self, *sizes: int) -> LevelRows:
        """As `torch.Tensor.repeat`, leaving the batch as it is."""
        if sizes[0] != 1 or len(sizes) != self.ndim:
            raise ConditioningError(f"repeat{sizes} of a per-token timestep {tuple(self.shape)}; no rule for that")
        return self._same(self._rows.repeat(*sizes))

    def __getitem__(self, index: Any) -> LevelRows:
        """Indexing that keeps the whole batch, such as ``[:, None]`` or ``[:, :k]``."""
        first = index[0] if isinstance(index, tuple) else index
        if first is not Ellipsis and first != slice(None):
            raise ConditioningError(f"index {index} of a per-token timestep cuts its batch; no rule for that")
        return self._same(self._rows[index])

    def _not_the_batch(self, operation: str, dim: int) -> None:
        if dim % self.ndim == 0:
            raise ConditioningError(f"{operation} along the batch of a per-token timestep; no rule for that")

    # Arithmetic.

    def _combine(self, other: Any, rowwise: Callable[[Any, Any], Tensor], tokenwise: Any) -> Any:
        """Apply to the rows where ``other`` has no tokens; meet the tokens where it has."""
        if isinstance(other, LevelRows):
            if other._sequences is not self._sequences:
                raise ConditioningError("two timesteps of different batches meet")
            return self._same(rowwise(self._rows, other._rows))
        if not isinstance(other, Tensor) or other.ndim < self.ndim:
            return self._same(rowwise(self._rows, other))
        if other.ndim == self.ndim:
            met = self._tokens_of(other)
            if met is not None:
                if tokenwise is None:
                    raise ConditioningError(f"{rowwise} of tokens and a per-token timestep; no rule for that")
                return tokenwise.apply(other, self._rows, met)
            if other.shape[0] == 1 or (other.shape[0] == self._sequences.batch and self._broadcasts(other)):
                return self._same(rowwise(self._rows, self._over_levels(other)))
        raise ConditioningError(
            f"a per-token timestep {tuple(self.shape)} meets a tensor {tuple(other.shape)}, which is neither a table "
            f"nor one of the sequences of {', '.join(str(one.tokens) for one in self._sequences.sequences)} tokens of "
            f"{self._sequences.batch} samples"
        )

    def _tokens_of(self, other: Tensor) -> TokenLevels | None:
        """The sequence whose tokens ``other`` holds, ``[B, ..., D]``, where this has one row for all of them."""
        if other.ndim < 3 or other.shape[0] != self._sequences.batch or set(self._rows.shape[1:-1]) != {1}:
            return None
        met = self._sequences.with_tokens(math.prod(other.shape[1:-1]))
        if met is not None and self._sequences.batch == 1 and met.tokens <= 12:
            raise ConditioningError(
                f"batch 1 with {met.tokens} tokens cannot be told from a modulation table; use batch 2"
            )
        return met

    def _broadcasts(self, other: Tensor) -> bool:
        """Whether a per-sample tensor (pooled text, guidance) has no axis that might be tokens."""
        return all(size in (1, own) for size, own in zip(other.shape[1:-1], self._rows.shape[1:-1], strict=True))

    def _over_levels(self, other: Tensor) -> Tensor:
        """A per-sample tensor ``[B, ...]`` repeated for every level; a table ``[1, ...]`` broadcasts as it is."""
        if other.shape[0] == 1:
            return other
        return other.repeat(self._sequences.levels, *[1] * (other.ndim - 1))

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

    def _cat(self, parts: Sequence[Any], dim: int) -> LevelRows:
        self._not_the_batch("cat", dim)
        rows = []
        for part in parts:
            if isinstance(part, Tensor):
                whole = part if part.shape[0] != 1 else part.expand(self._sequences.batch, *part.shape[1:])
                rows.append(whole.repeat(self._sequences.levels, *[1] * (whole.ndim - 1)))
            else:
                rows.append(part._rows)
        return self._same(torch.cat(rows, dim=dim))

    @staticmethod
    def _where(condition: Tensor, first: LevelRows, second: LevelRows) -> Tensor:
        """A model's own choice between two timesteps, for the tokens of a sequence: ``condition`` is ``[B, S, 1]``."""
        met = first._tokens_of(condition) if isinstance(first, LevelRows) and isinstance(second, LevelRows) else None
        if met is None:
            raise ConditioningError(f"where over {tuple(condition.shape)} of a per-token timestep; no rule for that")
        return torch.where(condition, met.select(first._rows, condition), met.select(second._rows, condition))

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
            # By name: with the operators, Dynamo would come back here for ever.
            return stand_in.__add__(other) if function in _ADD else stand_in.__mul__(other)
        if function in _METHODS and isinstance(args[0], cls):
            return _METHODS[function](*args, **kwargs)
        if function is torch.outer and isinstance(args[0], cls) and args[0].ndim == 1:
            return args[0]._same(torch.outer(args[0]._rows, args[1]))
        if function is torch.where and len(args) == 3:
            return cls._where(*args)
        if function is torch.cat:
            dim = kwargs.get("dim", args[1] if len(args) > 1 else 0)
            return next(part for part in args[0] if isinstance(part, cls))._cat(args[0], dim)
        raise ConditioningError(f"{getattr(function, '__name__', function)} of a per-token timestep; no rule for that")


_ROWWISE = frozenset(
    {
        F.linear,
        F.silu,
        F.gelu,
        F.relu,
        F.layer_norm,
        F.rms_norm,
        F.dropout,
        torch.sin,
        torch.cos,
        torch.tanh,
        torch.rsqrt,
    }
    | {torch.exp, torch.sigmoid, torch.rsqrt, torch.ones_like}
)
_METHODS: dict[Any, Callable[..., Any]] = {
    torch.chunk: LevelRows.chunk,
    torch.unbind: LevelRows.unbind,
    torch.unsqueeze: LevelRows.unsqueeze,
    torch.squeeze: LevelRows.squeeze,
    torch.flatten: LevelRows.flatten,
}
_ADD = frozenset({torch.add, torch.Tensor.add, torch.Tensor.__add__, torch.Tensor.__radd__})
_MULTIPLY = frozenset({torch.mul, torch.Tensor.mul, torch.Tensor.__mul__, torch.Tensor.__rmul__})
_SYMMETRIC = _ADD | _MULTIPLY
