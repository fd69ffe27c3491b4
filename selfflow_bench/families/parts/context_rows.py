"""Where context tokens (text) get their timestep, in models that modulate them: hooks on the model's own modules.

With a plain timestep they do nothing.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from selfflow_bench.conditioning import LevelRows


def fill_context_mean(embedding: nn.Module) -> None:
    """The time embedding puts out the context's row too: the mean over the target tokens of its output.

    A module that returns a tuple has the mean taken of each stand-in in it.
    """
    embedding.register_forward_hook(_fill)


def take_context_row(module: nn.Module) -> None:
    """A module that modulates context tokens alone gets their row, an ordinary ``[B, ...]`` tensor, as its timestep."""
    module.register_forward_pre_hook(_take, with_kwargs=True)


def put_out_context_row(embedding: nn.Module) -> None:
    """A time embedding that becomes a token of the context puts out the context's row, an ordinary tensor."""
    embedding.register_forward_hook(_put_out)


def _put_out(_module: nn.Module, _args: Any, output: Any) -> Any:
    return output.with_context_mean().context() if isinstance(output, LevelRows) else output


def _fill(_module: nn.Module, _args: Any, output: Any) -> Any:
    if isinstance(output, tuple):
        return tuple(part.with_context_mean() if isinstance(part, LevelRows) else part for part in output)
    return output.with_context_mean() if isinstance(output, LevelRows) else output


def _take(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return tuple(_row(value) for value in args), {name: _row(value) for name, value in kwargs.items()}


def _row(value: Any) -> Any:
    taken: Tensor | Any = value.context() if isinstance(value, LevelRows) else value
    return taken
