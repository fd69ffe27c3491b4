"""The interval covers, the verdict is rarely false, and the detectable difference is detected: by simulation."""

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from selfflow_bench.results.statistics import (
    BETTER,
    IDENTICAL,
    NO_DIFFERENCE,
    NOT_MEASURED,
    ONE_SEED,
    WORSE,
    detectable_difference,
    paired_difference,
)

pairs = st.lists(st.tuples(st.floats(0.1, 10), st.floats(0.1, 10)), min_size=2, max_size=12)
TRIALS = 2000


@pytest.mark.parametrize("n", [2, 3, 5, 10])
def test_identical_methods_are_called_different_one_time_in_twenty(n: int) -> None:
    rng = np.random.default_rng(n)
    base = rng.normal(10, 1, (TRIALS, n))
    found = [paired_difference(one, one + rng.normal(0, 0.3, n)) for one in base]
    false_alarms = sum(one.verdict in (BETTER, WORSE) for one in found) / TRIALS
    assert 0.035 < false_alarms < 0.065
    assert all((one.verdict == NO_DIFFERENCE) == (one.p >= 0.05) for one in found if one.p is not None)


@pytest.mark.parametrize("n", [3, 8])
def test_the_interval_covers_the_true_difference_95_times_in_100(n: int) -> None:
    rng = np.random.default_rng(n)
    found = [paired_difference(one, one - 0.7 + rng.normal(0, 0.3, n)) for one in rng.normal(10, 1, (TRIALS, n))]
    assert 0.935 < np.mean([one.low <= -0.7 <= one.high for one in found]) < 0.965


@pytest.mark.parametrize("n", [2, 3, 5, 10])
def test_the_detectable_difference_is_detected_4_times_in_5(n: int) -> None:
    rng = np.random.default_rng(n)
    true = detectable_difference(0.3, n)
    found = [paired_difference(one, one - true + rng.normal(0, 0.3, n)) for one in rng.normal(10, 1, (TRIALS, n))]
    assert 0.77 < np.mean([one.verdict == BETTER for one in found]) < 0.83


@pytest.mark.parametrize("n", [5, 10, 50])
def test_the_detectable_difference_agrees_with_scipys_noncentral_t(n: int) -> None:
    noncentrality = detectable_difference(1.0, n) * math.sqrt(n)
    assert stats.nct.sf(stats.t.ppf(0.975, n - 1), n - 1, noncentrality) == pytest.approx(0.8, abs=1e-4)


def test_the_numbers_of_the_pilot() -> None:
    found = paired_difference([0.5508, 0.5506, 0.5548], [0.5627, 0.5625, 0.5674])
    expected = stats.ttest_rel([0.5627, 0.5625, 0.5674], [0.5508, 0.5506, 0.5548])
    assert found.verdict == WORSE
    assert found.mean == pytest.approx(0.0121333, abs=1e-6)
    assert found.p == pytest.approx(expected.pvalue, rel=1e-9)
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval(0.95)), rel=1e-9)
    assert found.correlation == pytest.approx(0.99998, abs=1e-5)
    assert found.detectable_percent == pytest.approx(0.239, abs=1e-3)


@given(pairs)
def test_exchanging_the_arms_turns_everything_round(values: list[tuple[float, float]]) -> None:
    one, two = zip(*values, strict=True)
    there, back = paired_difference(one, two), paired_difference(two, one)
    assert there.mean is not None
    assert there.mean == pytest.approx(-(back.mean or 0.0))
    assert (there.low, there.high) == pytest.approx((-(back.high or 0.0), -(back.low or 0.0)))
    assert there.p == pytest.approx(back.p)
    assert {BETTER: WORSE, WORSE: BETTER}.get(there.verdict, there.verdict) == back.verdict
    other = paired_difference(one, two, lower_is_better=False).verdict
    assert {BETTER: WORSE, WORSE: BETTER}.get(there.verdict, there.verdict) == other


@given(pairs, st.floats(0.01, 100), st.floats(0, 5))
def test_units_scale_and_a_common_offset_cancels(
    values: list[tuple[float, float]], scale: float, offset: float
) -> None:
    one, two = (np.array(side) for side in zip(*values, strict=True))
    plain = paired_difference(one, two)
    assume(plain.sd is not None and plain.sd > 1e-6)
    moved = paired_difference(scale * (one + offset), scale * (two + offset))
    assert moved.mean == pytest.approx(scale * (plain.mean or 0), rel=1e-6, abs=1e-9 * scale)
    assert moved.sd == pytest.approx(scale * (plain.sd or 0), rel=1e-6)
    assert moved.detectable == pytest.approx(scale * (plain.detectable or 0), rel=1e-6)
    assert moved.p == pytest.approx(plain.p, rel=1e-4, abs=1e-9)


def test_one_seed_gives_no_verdict_and_no_interval() -> None:
    found = paired_difference([0.5], [0.4])
    assert found.verdict == ONE_SEED == "n = 1: no verdict"
    assert (found.mean, found.mean_percent) == pytest.approx((-0.1, -20))
    assert (found.low, found.high, found.p, found.sd, found.detectable, found.correlation) == (None,) * 6
    assert paired_difference([], []).verdict == NOT_MEASURED


def test_equal_values_are_identical_and_a_negative_baseline_has_no_percentage() -> None:
    found = paired_difference([0.5, 0.6], [0.5, 0.6])
    assert (found.verdict, found.p, found.detectable) == (IDENTICAL, 1.0, 0.0)
    assert paired_difference([-0.1, 0.05], [0.2, 0.3]).mean_percent is None


def test_unequal_lengths_and_missing_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="equal lengths"):
        paired_difference([1.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="finite"):
        paired_difference([1.0, math.nan], [1.0, 2.0])
