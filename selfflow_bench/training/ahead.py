"""The next batch, made in a thread while the device works at this one. Knows nothing of what a batch is.

A batch is a function of its samples' indices alone, so that it is the same whoever makes it, and when.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Ahead(Generic[Item]):
    """Makes items one ahead, in one thread."""

    def __init__(self, make: Callable[[range], Item]) -> None:
        self._make = make
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="batches")
        self._next: tuple[range, Future[Item]] | None = None

    def take(self, samples: range, following: range | None) -> Item:
        """The item of ``samples``; then begin with that of ``following``, if any. Raises what making it raised."""
        prepared, self._next = self._next, None
        item = prepared[1].result() if prepared is not None and prepared[0] == samples else self._make(samples)
        if following is not None:
            self._next = following, self._thread.submit(self._make, following)
        return item

    def close(self) -> None:
        """Let go of what is being made."""
        self._next = None
        self._thread.shutdown(wait=True, cancel_futures=True)
