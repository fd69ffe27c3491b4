"""Fixtures of the results tests."""

import pytest
from record_factory import record

from selfflow_bench.results.record import Record


@pytest.fixture
def matched() -> list[Record]:
    """Three seeds of two methods, with the pilot's validation losses (statistics.md)."""
    losses = [(0.5508, 0.5627, 0.31, 0.29), (0.5506, 0.5625, 0.30, 0.31), (0.5548, 0.5674, 0.33, 0.31)]
    return [
        made
        for seed, (one, two, kid_one, kid_two) in enumerate(losses)
        for made in (
            record("vanilla", seed, loss=one, kid=kid_one),
            record("self_flow", seed, loss=two, kid=kid_two),
        )
    ]
