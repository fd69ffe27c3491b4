"""The bands' false alarms and power are what they say: by simulation, with the spread of seeds that was measured."""

import math
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from selfflow_bench.gate.bands import Reference, compare_bands, read_reference, t_statistic, write_reference

TRIALS, SPREAD = 4000, 0.013


def experiments(worse: float, references: int = 10, candidates: int = 3) -> list[tuple[NDArray[np.float64], ...]]:
    rng = np.random.default_rng(references)
    base = rng.normal(1.0, SPREAD, (TRIALS, references))
    return list(zip(base, rng.normal(1.0 + worse, SPREAD, (TRIALS, candidates)), strict=True))


def near(rate: float, wanted: float) -> bool:
    return abs(rate - wanted) < 4 * math.sqrt(wanted * (1 - wanted) / TRIALS)


@pytest.mark.parametrize("references", [5, 10])
def test_unchanged_code_is_called_worse_one_time_in_twenty(references: int) -> None:
    found = [t_statistic(base, new)[1] < 0.05 for base, new in experiments(0.0, references)]
    assert near(float(np.mean(found)), 0.05)


@pytest.mark.parametrize(("worse", "power"), [(0.02, 0.70), (0.03, 0.94)])
def test_what_is_worse_is_called_so_as_often_as_planned(worse: float, power: float) -> None:
    """Against the noncentral t, which plans 70 % at 2 % and 94 % at 3 %."""
    expected = float(stats.nct.sf(stats.t.isf(0.05, 9), 9, worse / (SPREAD * math.sqrt(1 / 10 + 1 / 3))))
    assert expected == pytest.approx(power, abs=0.02)
    found = [t_statistic(base, new)[1] < 0.05 for base, new in experiments(worse)]
    assert near(float(np.mean(found)), expected)


def verdicts(worse: float) -> dict[str, float]:
    found = [
        compare_bands("x", Reference({}, tuple(base)), {}, list(new), margin=0.03, false_alarms=0.05).verdict
        for base, new in experiments(worse)
    ]
    return {verdict: found.count(verdict) / TRIALS for verdict in ("pass", "regression", "inconclusive")}


def test_the_verdicts_are_as_rarely_wrong_as_the_gate_says() -> None:
    """To pass is a claim too: runs that are worse by the margin pass one time in twenty at most."""
    same, little, margin = verdicts(0.0), verdicts(0.02), verdicts(0.03)
    assert near(same["regression"], 0.05)
    assert same["pass"] > 0.85
    assert little["regression"] > 0.65
    assert margin["pass"] < 0.05
    assert margin["regression"] > 0.9


def test_the_statistic_by_hand() -> None:
    t, p = t_statistic([1.0, 2.0, 3.0], [5.0, 5.0])
    assert t == pytest.approx(3 / math.sqrt(1 / 3 + 1 / 2))
    assert p == pytest.approx(stats.t.sf(t, 2))
    assert t_statistic([1.0, 1.0], [1.0])[0] == 0.0
    assert t_statistic([1.0, 1.0], [2.0]) == (math.inf, 0.0)
    with pytest.raises(ValueError, match="2 reference values"):
        t_statistic([1.0], [1.0])


def test_other_runs_are_not_compared_and_the_field_is_named(tmp_path: Path) -> None:
    made = Reference({"recipe_digest": "aa"}, (1.0, 1.1, 1.2))
    write_reference(tmp_path / "a.json", made)
    assert read_reference(tmp_path / "a.json") == made
    found = compare_bands("x", made, {"recipe_digest": "bb"}, [1.0], margin=0.03, false_alarms=0.05)
    assert (found.verdict, "recipe_digest (reference aa, here bb)" in found.text) == ("nothing measured", True)
    assert compare_bands("x", None, {}, [], margin=0.03, false_alarms=0.05).verdict == "nothing measured"
