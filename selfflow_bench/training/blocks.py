"""What can be set of how a transformer's blocks run: checkpointed to save memory, compiled to save time.

Knows nothing of methods and of the loop. Neither changes what is computed, beyond the rounding of compiled code.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from selfflow_bench.errors import FieldError


def checkpoint_blocks(transformer: nn.Module) -> None:
    """Keep only the blocks' inputs for backward, and run them again there. Raises FieldError where a class cannot."""
    try:
        transformer.enable_gradient_checkpointing()  # type: ignore[operator]
    except (AttributeError, ValueError) as error:
        raise FieldError(
            "protocol",
            "training.gradient_checkpointing",
            True,
            f"{type(transformer).__name__} has none",
            "Set it to false.",
        ) from error


def compile_blocks(blocks: Iterable[nn.Module]) -> None:
    """Compile each block's forward. What is hooked onto a block, by methods and by sharding, stays outside."""
    for block in blocks:
        block.forward = torch.compile(block.forward)
