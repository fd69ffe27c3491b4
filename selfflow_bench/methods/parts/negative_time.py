"""Running a model at negative times: a learned sign is added to its time embedding. Positive times stay as they are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn


@contextmanager
def at_negative_time(time_embedding: nn.Module | None, sign: Tensor) -> Iterator[None]:
    """Inside, the output ``[..., D]`` of the time embedding has ``sign`` ``[D]`` added."""
    if time_embedding is None:
        raise ValueError("the family has no single time embedding")
    handle = time_embedding.register_forward_hook(lambda _module, _args, output: output + sign.to(output.dtype))
    try:
        yield
    finally:
        handle.remove()
