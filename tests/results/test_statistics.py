"""Intervals cover, verdicts are rarely false and often found, each as often as it is said to be: by simulation."""

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from selfflow_bench.results.significance import detectable, difference_p, equivalence_p, holm
from selfflow_bench.results.statistics import (
    BETTER,
    EQUIVALENT,
    IDENTICAL,
    INCONCLUSIVE,
    NOT_MEASURED,
    ONE_SEED,
    WORSE,
    difference_of_means,
    over_family,
    paired_difference,
)
from selfflow_bench.results.variance import variance_components

pairs = st.lists(st.tuples(st.floats(0.1, 10), st.floats(0.1, 10)), min_size=2, max_size=12)
TRIALS = 40_000


def near(rate: object, wanted: float, trials: int = TRIALS) -> bool:
    """Within four standard errors of a share of this many trials."""
    return abs(float(np.mean(rate)) - wanted) < 4 * math.sqrt(wanted * (1 - wanted) / trials)  # type: ignore[arg-type]


def experiments(n: int, true: float, *, sd: float = 0.3, family: int = 1) -> tuple[NDArray[np.float64], ...]:
    """Means and standard errors [trials, family] of paired differences."""
    values = true + sd * np.random.default_rng(n).standard_normal((TRIALS, family, n))
    return values.mean(-1), values.std(-1, ddof=1) / math.sqrt(n)


@pytest.mark.parametrize("n", [2, 3, 5, 10])
def test_identical_methods_are_called_different_one_time_in_twenty(n: int) -> None:
    mean, error = experiments(n, 0.0)
    assert near(difference_p(mean, error, n - 1) < 0.05, 0.05)


@pytest.mark.parametrize("alpha", [0.05, 0.05 / 3])
@pytest.mark.parametrize("n", [2, 3, 5, 10])
def test_the_detectable_difference_is_detected_4_times_in_5(n: int, alpha: float) -> None:
    mean, error = experiments(n, detectable(0.3 / math.sqrt(n), n - 1, alpha))
    assert near(difference_p(mean, error, n - 1) < alpha, 0.8)


@pytest.mark.parametrize("n", [5, 10, 50])
def test_the_detectable_difference_agrees_with_scipys_noncentral_t(n: int) -> None:
    noncentrality = detectable(1.0, n - 1)
    assert stats.nct.sf(stats.t.ppf(0.975, n - 1), n - 1, noncentrality) == pytest.approx(0.8, abs=1e-4)


@pytest.mark.parametrize("n", [3, 10])
def test_a_difference_of_the_margin_is_called_equivalent_at_most_one_time_in_twenty(n: int) -> None:
    mean, error = experiments(n, 0.5)
    assert near(equivalence_p(mean, error, n - 1, 0.5) < 0.05, 0.05), "and exactly so where the spread is small"
    mean, error = experiments(n, 0.05)
    assert np.mean(equivalence_p(mean, error, n - 1, 0.05) < 0.05) < 0.03, "a margin below the spread shows nothing"


@pytest.mark.parametrize(("n", "margin"), [(5, 0.5), (10, 0.3)])
def test_equal_methods_are_called_equivalent_as_often_as_the_formula_says(n: int, margin: float) -> None:
    """Given the spread s, the 90 % interval lies within the margin where |mean| < margin - t s / sqrt(n)."""
    mean, error = experiments(n, 0.0)
    room = np.maximum(0.0, margin - stats.t.ppf(0.95, n - 1) * error)
    expected = float((2 * stats.norm.cdf(room * math.sqrt(n) / 0.3) - 1).mean())
    assert 0.5 < expected < 0.999
    assert near(equivalence_p(mean, error, n - 1, margin) < 0.05, expected)


def test_equivalence_agrees_with_scipys_one_sided_tests() -> None:
    values = np.random.default_rng(1).normal(0.1, 0.3, 7)
    expected = max(
        stats.ttest_1samp(values, -0.4, alternative="greater").pvalue,
        stats.ttest_1samp(values, 0.4, alternative="less").pvalue,
    )
    assert equivalence_p(values.mean(), stats.sem(values), 6, 0.4) == pytest.approx(expected)


@pytest.mark.parametrize("false_ones", [1, 3, 6])
def test_in_a_family_any_false_alarm_happens_at_most_one_time_in_twenty(false_ones: int) -> None:
    """Six comparisons, of which some are truly different: Holm; unadjusted, six would give 26 %."""
    mean, error = experiments(4, 0.0, family=6)
    mean = mean + np.where(np.arange(6) < false_ones, 0.0, 5.0)
    adjusted = holm(difference_p(mean, error, 3))
    any_false = (adjusted[:, :false_ones] < 0.05).any(-1)
    assert np.mean(any_false) < 0.05 + 4 * math.sqrt(0.05 * 0.95 / TRIALS)
    assert np.mean(any_false) > 0.035, "and not out of mere caution"
    if false_ones == 6:
        unadjusted = (difference_p(mean, error, 3) < 0.05).any(-1)
        assert near(unadjusted, 1 - 0.95**6)


def test_holm_by_hand_and_in_any_order() -> None:
    assert holm([0.01, 0.04, 0.03]).tolist() == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.04, 0.03, 0.01]).tolist() == pytest.approx([0.06, 0.06, 0.03])
    assert holm([0.9, 0.8]).tolist() == [1.0, 1.0]
    assert holm([0.02]).tolist() == [0.02]


def test_both_false_claims_are_rare_in_the_verdicts_of_a_table() -> None:
    """The words themselves, on three metrics: none really different, and none really within the margin."""
    rng = np.random.default_rng(7)
    trials, counts = 1500, {"different": 0, "equivalent": 0}
    for _ in range(trials):
        base = rng.normal(10, 0.1, (3, 4))
        same = [paired_difference(one, one + rng.normal(0, 0.1, 4), margin=0.05) for one in base]
        counts["different"] += any(one.verdict in (BETTER, WORSE) for one in over_family(same))
        apart = [paired_difference(one, one + rng.normal(0.5, 0.1, 4), margin=0.05) for one in base]
        counts["equivalent"] += any(one.within_margin for one in over_family(apart))
    limit = 0.05 + 4 * math.sqrt(0.05 * 0.95 / trials)
    assert 0.02 < counts["different"] / trials < limit
    assert 0.02 < counts["equivalent"] / trials < limit


@pytest.mark.parametrize("n", [3, 8])
def test_the_interval_covers_the_true_difference_95_times_in_100(n: int) -> None:
    rng = np.random.default_rng(n)
    found = [paired_difference(one, one - 0.7 + rng.normal(0, 0.3, n)) for one in rng.normal(10, 1, (2000, n))]
    assert near([one.low is not None and one.low <= -0.7 <= (one.high or 0) for one in found], 0.95, 2000)


def test_means_that_share_no_seeds_are_compared_by_welchs_t() -> None:
    rng = np.random.default_rng(3)
    one, two = rng.normal(1.0, 0.2, 5), rng.normal(1.4, 0.05, 3)
    found, expected = difference_of_means(one, two), stats.ttest_ind(two, one, equal_var=False)
    interval = expected.confidence_interval(0.95)
    assert (found.p, found.low, found.high) == pytest.approx((expected.pvalue, interval.low, interval.high))
    assert (found.n, found.by_seed, found.correlation) == (3, False, None)
    assert difference_of_means([1.0, 2.0], [1.5]).verdict == ONE_SEED
    assert difference_of_means([], [1.5]).verdict == NOT_MEASURED


def test_two_levels_of_variance_are_told_apart() -> None:
    rng = np.random.default_rng(11)
    trials, seeds, again = 3000, 4, 3
    tables = 10 + rng.normal(0, 3, (trials, seeds, 1)) + rng.normal(0, 1, (trials, seeds, again))
    found = [variance_components(table) for table in tables]
    between = np.array([one.error**2 * seeds - one.sampling_sd**2 / again for one in found])
    for values, wanted in ((between, 9.0), (np.array([one.sampling_sd**2 for one in found]), 1.0)):
        assert abs(values.mean() - wanted) < 4 * values.std() / math.sqrt(trials), "unbiased"
    critical = stats.t.ppf(0.975, seeds - 1)
    assert near([abs(one.mean - 10) < critical * one.error for one in found], 0.95, trials)
    alone = [abs(one.mean - 10) < 1.96 * one.error_by_sampling_alone for one in found]
    assert np.mean(alone) < 0.35, "an interval over samplings alone misses the truth most times"


def test_re_training_that_adds_nothing_is_called_a_source_one_time_in_twenty() -> None:
    tables = np.random.default_rng(5).normal(10, 1, (4000, 4, 3))
    found = [variance_components(table) for table in tables]
    assert near([one.p < 0.05 for one in found], 0.05, 4000)
    assert min(one.training_sd for one in found) == 0.0
    same = variance_components([[1.0, 1.0], [2.0, 2.0]])
    assert (same.p, same.sampling_sd, same.df) == (0.0, 0.0, 1)
    with pytest.raises(ValueError, match="sampling seeds >= 2"):
        variance_components([[1.0], [2.0]])


def test_the_numbers_of_the_pilot() -> None:
    found = paired_difference([0.5508, 0.5506, 0.5548], [0.5627, 0.5625, 0.5674])
    expected = stats.ttest_rel([0.5627, 0.5625, 0.5674], [0.5508, 0.5506, 0.5548])
    assert found.verdict == WORSE
    assert found.mean == pytest.approx(0.0121333, abs=1e-6)
    assert found.p == pytest.approx(expected.pvalue, rel=1e-9)
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval(0.95)), rel=1e-9)
    assert found.correlation == pytest.approx(0.99998, abs=1e-5)
    assert found.detectable_percent == pytest.approx(0.239, abs=1e-3)


def test_the_four_verdicts() -> None:
    base = [1.0, 1.01, 0.99, 1.0]
    by = {
        BETTER: [-0.1, -0.11, -0.09, -0.1],
        WORSE: [0.1, 0.11, 0.09, 0.1],
        EQUIVALENT: [0.002, -0.001, 0.001, -0.003],
        INCONCLUSIVE: [0.1, -0.08, 0.03, -0.04],
    }
    for word, moved in by.items():
        candidate = [one + change for one, change in zip(base, moved, strict=True)]
        assert paired_difference(base, candidate, margin=0.01).verdict == word
        assert paired_difference(base, candidate).verdict == (INCONCLUSIVE if word == EQUIVALENT else word)


def test_a_difference_that_is_there_but_does_not_matter_is_both() -> None:
    base = [1.0, 1.01, 0.99, 1.0]
    found = paired_difference(base, [one + 0.001 + 1e-5 * index for index, one in enumerate(base)], margin=0.01)
    assert found.verdict == WORSE
    assert found.within_margin
    assert found.margin_percent == pytest.approx(1.0)


def test_a_family_decides_what_one_alone_would_not() -> None:
    near_miss = paired_difference([1.0, 1.1, 1.2, 1.3], [1.05, 1.12, 1.26, 1.33])
    assert near_miss.verdict == WORSE
    family = over_family([near_miss] * 4 + [paired_difference([1.0], [2.0])])
    assert [one.verdict for one in family] == [INCONCLUSIVE] * 4 + [ONE_SEED]
    assert (family[0].family, family[0].p) == (4, near_miss.p)
    assert family[0].p_adjusted == pytest.approx(4 * (near_miss.p or 0))
    assert (family[0].detectable or 0) > (near_miss.detectable or 0)


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
    found = paired_difference([0.5], [0.4], margin=0.5)
    assert found.verdict == ONE_SEED == "n = 1: no verdict"
    assert (found.mean, found.mean_percent) == pytest.approx((-0.1, -20))
    assert (found.low, found.high, found.p, found.sd, found.detectable, found.correlation) == (None,) * 6
    assert (found.p_equivalent, found.p_adjusted) == (None, None)
    assert paired_difference([], []).verdict == NOT_MEASURED


def test_equal_values_are_identical_and_a_negative_baseline_has_no_percentage() -> None:
    found = paired_difference([0.5, 0.6], [0.5, 0.6])
    assert (found.verdict, found.p, found.detectable) == (IDENTICAL, 1.0, 0.0)
    below = paired_difference([-0.1, 0.05], [0.2, 0.3], margin=0.01)
    assert (below.mean_percent, below.p_equivalent) == (None, None), "a share of nothing is no margin"


def test_unequal_lengths_and_missing_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="equal lengths"):
        paired_difference([1.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="finite"):
        paired_difference([1.0, math.nan], [1.0, 2.0])
