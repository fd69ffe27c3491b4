"""The rule by which a published number counts as reproduced: by hand, and its error rates by simulation."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from report_factory import CLAIMS

from selfflow_bench.errors import DamagedFileError, FieldError
from selfflow_bench.results.claims import read_claims, settle
from selfflow_bench.results.reproduction import judge


def test_by_hand() -> None:
    """Three seeds with standard deviation 0.1: the error is 0.1 sqrt(4/3), t(2) at 97.5 % is 4.3027."""
    found = judge(10.0, [10.0, 10.1, 10.2], margin=0.05)
    reach = 4.302653 * 0.1 * math.sqrt(4 / 3)
    assert (found.low, found.high) == pytest.approx((0.1 - reach, 0.1 + reach), abs=1e-5)
    assert (found.status, found.margin) == ("reproduced", 0.5)
    # (0.5 - 0.1) / 0.11547 is beyond t(2) at 95 %, 2.92; with a margin of 0.4 it is not.
    assert judge(10.0, [10.0, 10.1, 10.2], margin=0.04).status == "inconclusive"
    assert judge(10.0, [10.9, 11.0, 11.1], margin=0.05).status == "not reproduced"
    assert judge(10.0, [8.9, 9.0, 9.1], margin=0.05).status == "not reproduced", "better is another number too"
    # Shown to be there, and shown to be too small to matter.
    assert judge(10.0, [10.2, 10.2001, 10.1999], margin=0.05).status == "reproduced"


def test_one_seed_settles_nothing() -> None:
    found = judge(5.7, [5.7], margin=0.05)
    assert (found.status, found.low, found.high) == ("inconclusive", None, None)
    assert "one seed" in found.text


@pytest.mark.parametrize("measured", [[], [1.0, float("nan")]])
def test_nothing_measured_is_an_error(measured: list[float]) -> None:
    with pytest.raises(ValueError, match="finite"):
        judge(5.7, measured, margin=0.05)


@pytest.mark.parametrize("n", [3, 5])
def test_its_errors_are_as_rare_as_it_says(n: int) -> None:
    """Numbers with a spread of 1.3 %, as FID has from seed to seed, the published one too."""
    rng = np.random.default_rng(0)
    draws, spread, margin = 4000, 0.013, 0.05
    same = rng.normal(1.0, spread, (draws, n + 1))
    apart = np.concatenate([same[:, :1], same[:, 1:] + margin], 1)
    wrong_difference = np.mean([judge(row[0], row[1:].tolist(), margin).status == "not reproduced" for row in same])
    # The margin is a share of the published number, which varies too, so that the edge is not quite where it is here.
    wrong_sameness = np.mean([judge(row[0], row[1:].tolist(), margin).status == "reproduced" for row in apart])
    assert wrong_difference <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / draws)
    assert wrong_sameness <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / draws)


def test_a_verdict_is_written_where_it_belongs_and_nowhere_else(tmp_path: Path) -> None:
    comment = "# A comment that stays.\n"
    (tmp_path / "claims.toml").write_text(comment + CLAIMS, encoding="utf-8")
    path = settle(tmp_path, "a-paper-self-flow", "not reproduced", "6.0 measured", ["run-0", "run-1"])
    claim = read_claims(tmp_path, {"run-0", "run-1"}).claim("a-paper-self-flow")
    assert (claim.status, claim.reason, claim.runs) == ("not reproduced", "6.0 measured", ("run-0", "run-1"))
    written = path.read_text(encoding="utf-8")
    assert written.startswith(comment)
    assert "metrics = { FID = 5.7, IS = 151.4 }" in written


def test_what_cannot_be_written_leaves_the_ledger_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "claims.toml"
    path.write_text(CLAIMS, encoding="utf-8")
    with pytest.raises(FieldError, match="no such claim"):
        settle(tmp_path, "another", "reproduced", "", ["run-0"])
    with pytest.raises(DamagedFileError, match="Nothing was written"):
        settle(tmp_path, "a-paper-self-flow", "reproduced", "well", [])
    assert path.read_text(encoding="utf-8") == CLAIMS
