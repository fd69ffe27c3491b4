"""Making batches ahead, in a thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from selfflow_bench.errors import InterruptedRunError
from selfflow_bench.training.ahead import Ahead
from tests.conftest import Tiny
from tests.training.test_loop import run, training


def threads() -> list[str]:
    return [each.name for each in threading.enumerate() if each.name.startswith("batches")]


def test_items_are_made_one_ahead_and_in_order() -> None:
    made: list[tuple[range, str]] = []
    started = threading.Event()

    def make(samples: range) -> int:
        made.append((samples, threading.current_thread().name))
        if len(made) == 2:
            started.set()
        return samples.start

    ahead = Ahead(make)
    try:
        assert ahead.take(range(2), range(2, 4)) == 0
        assert started.wait(30), "the following is made without being asked for again"
        assert ahead.take(range(2, 4), range(4, 6)) == 2
        assert ahead.take(range(8, 10), None) == 8, "what was not expected is made when asked for"
    finally:
        ahead.close()
    assert [samples for samples, _ in made[:2]] == [range(2), range(2, 4)]
    assert made[0][1] != made[1][1]
    assert threads() == []


def test_what_making_raises_is_raised_where_it_is_taken() -> None:
    def make(samples: range) -> int:
        return 1 // samples.start

    ahead = Ahead(make)
    try:
        assert ahead.take(range(1, 2), range(1)) == 1
        with pytest.raises(ZeroDivisionError):
            ahead.take(range(1), None)
    finally:
        ahead.close()


def test_a_run_leaves_no_thread_and_sees_the_batches_it_would_make_itself(
    tiny: Callable[[str], Tiny], tmp_path: Path
) -> None:
    made = training(tiny("sana"), tmp_path)
    seen = []
    step = made.method.step

    def recording(transformer, heads, teacher, batch, number):  # type: ignore[no-untyped-def]
        seen.append(batch)
        return step(transformer, heads, teacher, batch, number)

    made.method.step = recording  # type: ignore[method-assign]
    with pytest.raises(InterruptedRunError):
        run(made, 20)
    assert threads() == []
    for number, batch in enumerate(seen):
        expected = made.batches.make(range(4 * number, 4 * number + 4))
        assert torch.equal(batch.noise, expected.noise)
        assert torch.equal(batch.latents, expected.latents)
