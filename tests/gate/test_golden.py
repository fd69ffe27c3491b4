"""When golden curves are compared to the bit, within a tolerance or not at all, and what is said."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from selfflow_bench.errors import DamagedFileError
from selfflow_bench.gate.golden import Golden, compare_golden, read_golden, write_golden
from selfflow_bench.gate.outcome import EXIT_CODES, Outcome, overall
from selfflow_bench.gate.short_run import Curve

CURVE = Curve((2.5, 2.25, 0.1 + 0.2), (1.0, 3.0))
GOLDEN = Golden({"recipe": "sana@1", "seed": "7"}, {"torch": "2.14.1", "cpu_capability": "AVX512"}, CURVE)
ELSEWHERE = {"torch": "2.14.1", "cpu_capability": "AVX2"}


def compared(found: Golden, **options: bool) -> Outcome:
    return compare_golden("x", GOLDEN, found, tolerance=1e-4, **options)


def with_step(index: int, value: float) -> Golden:
    steps = list(CURVE.steps)
    steps[index] = value
    return replace(GOLDEN, curve=replace(CURVE, steps=tuple(steps)))


def test_a_file_keeps_every_bit(tmp_path: Path) -> None:
    write_golden(tmp_path / "golden" / "a.json", GOLDEN)
    assert read_golden(tmp_path / "golden" / "a.json") == GOLDEN
    assert read_golden(tmp_path / "none.json") is None
    (tmp_path / "b.json").write_text(json.dumps({"steps": [1]}), encoding="utf-8")
    with pytest.raises(DamagedFileError, match=r"b\.json: is no golden curve"):
        read_golden(tmp_path / "b.json")


def test_the_same_arithmetic_must_give_the_same_bits() -> None:
    assert compared(GOLDEN) == Outcome("x", "pass", "3 steps and the validation after them are equal to the bit")
    outcome = compared(with_step(1, 2.2500000000000004))
    assert outcome.verdict == "regression"
    assert "the loss of step 2 is 2.2500000000000004, but the golden curve has 2.25 (relative" in outcome.text
    worse = replace(GOLDEN, curve=replace(CURVE, validation=(1.0, 3.1)))
    assert "the validation loss of timestep 2 is 3.1" in compared(worse).text


def test_other_arithmetic_may_round_but_no_more() -> None:
    near = replace(with_step(1, 2.25 * (1 + 9e-5)), arithmetic=ELSEWHERE)
    outcome = compared(near)
    assert outcome.verdict == "pass"
    assert (
        "not to the bit, because of cpu_capability (golden AVX512, here AVX2) (largest difference 9e-05)"
        in outcome.text
    )
    assert compared(replace(with_step(1, 2.25 * (1 + 2e-4)), arithmetic=ELSEWHERE)).verdict == "regression"
    assert compared(replace(with_step(1, float("nan")), arithmetic=ELSEWHERE)).verdict == "regression"
    exact = compared(near, exact=True)
    assert (exact.verdict, "cpu_capability (golden AVX512, here AVX2)" in exact.text) == ("nothing measured", True)


def test_another_run_is_not_compared_and_the_field_is_named() -> None:
    outcome = compared(replace(GOLDEN, identity=GOLDEN.identity | {"seed": "8"}))
    assert (outcome.verdict, "seed (golden 7, here 8)" in outcome.text) == ("nothing measured", True)
    assert compare_golden("x", None, GOLDEN, tolerance=1e-4).verdict == "nothing measured"


def test_the_worst_verdict_counts_and_each_has_its_exit_code() -> None:
    assert EXIT_CODES == {
        "pass": 0, "regression": 6, "inconclusive": 4, "infrastructure": 3, "nothing measured": 5,
    }  # fmt: skip
    some = [Outcome("", verdict, "") for verdict in ("pass", "nothing measured", "inconclusive", "infrastructure")]
    assert [overall(some[:count]) for count in range(5)] == [
        "nothing measured", "pass", "nothing measured", "inconclusive", "infrastructure",
    ]  # fmt: skip
    assert overall([*some, Outcome("", "regression", "")]) == "regression"
