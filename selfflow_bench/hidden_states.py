"""Reading the hidden state after a transformer block: with the forward going on, or ending there.

Knows nothing of families: what a block returns is handed over as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


class _BlockReached(Exception):  # noqa: N818 - no error: how a forward ends early
    """Carries a block's output out of a forward that need not go on."""

    def __init__(self, output: Any) -> None:
        super().__init__("block reached")
        self.output = output


@contextmanager
def captured_output(block: nn.Module) -> Iterator[list[Any]]:
    """A list that holds the block's output after a forward inside the context (gradients flow through it).

    Under gradient checkpointing the block runs again in backward, outside the context: nothing is appended then.
    """
    outputs: list[Any] = []
    handle = block.register_forward_hook(lambda _module, _args, output: outputs.append(output))
    try:
        yield outputs
    finally:
        handle.remove()


def output_of_block(block: nn.Module, forward: Callable[[], object]) -> Any:
    """The block's output, without running anything behind the block.

    Bit-equal to the same output in a whole forward: the blocks before it are the same code on the same input.
    """

    def leave(_module: nn.Module, _args: Any, output: Any) -> None:
        raise _BlockReached(output)

    handle = block.register_forward_hook(leave)
    try:
        forward()
    except _BlockReached as reached:
        return reached.output
    finally:
        handle.remove()
    raise RuntimeError(f"the forward ended without running {type(block).__name__}")
