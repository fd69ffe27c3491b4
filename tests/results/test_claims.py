"""The ledger is strict, and its committed numbers are those of the two tables."""

from pathlib import Path

import pytest
from report_factory import CLAIMS

from selfflow_bench.errors import DamagedFileError, FieldError
from selfflow_bench.places import default_places
from selfflow_bench.results.claims import read_claims


def read(root: Path, text: str, run_ids: set[str] | None = None) -> object:
    (root / "claims.toml").write_text(text, encoding="utf-8")
    return read_claims(root, run_ids or set())


def test_the_committed_ledger_holds_both_tables_not_run() -> None:
    ours, repa = read_claims(default_places().results, set()).tables
    assert (ours.paper, ours.table, len(ours.claims)) == ("Self-Flow", "Table 1", 6)
    assert ours.metrics == ("FID", "sFID", "IS", "Precision", "Recall")
    assert (repa.paper, repa.table, len(repa.claims)) == ("REPA", "Table 3", 17)
    fid = {(claim.method, claim.steps_k): claim.metrics["FID"] for claim in ours.claims}
    assert fid["Self-Flow", 4000] == 5.7
    assert fid["SiT (vanilla)", 7000] == 8.3
    assert {(c.status, c.reason) for table in (ours, repa) for c in table.claims} == {("not run", "needs a GPU")}


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ('id = "a-paper-self-flow"\n', "", "tables.0.claims.0.id: Field required"),
        ('run = { recipe = "sit", label = "self_flow.paper" }\n', "", "either what runs it"),
        ('status = "not run"', 'not_plannable = "no"\nstatus = "not run"', "either what runs it"),
        ('reason = "needs a GPU"\n', "", "needs its reason"),
        ('status = "not run"', 'status = "reproduced"', "settled claims name their runs"),
        ('status = "not run"', 'status = "confirmed"', "tables.0.claims.0.status: Input should be 'reproduced'"),
        ("FID = 5.7", 'FID = "5.7"', "tables.0.claims.0.metrics.FID: Input should be a valid number"),
        ('here = "self_flow"', 'method_here = "self_flow"', "Extra inputs are not permitted"),
        ("https://", "http://", "tables.0.source"),
        ('status = "not run"', "status = not run", "not TOML"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, before: str, after: str, message: str) -> None:
    with pytest.raises(DamagedFileError, match=message):
        read(tmp_path, CLAIMS.replace(before, after))


def test_an_id_is_of_one_claim(tmp_path: Path) -> None:
    claim = CLAIMS[CLAIMS.index("[[tables.claims]]") :]
    with pytest.raises(DamagedFileError, match="two claims have the id 'a-paper-self-flow'"):
        read(tmp_path, CLAIMS + claim)


def test_a_settled_claim_rests_on_records_that_exist(tmp_path: Path) -> None:
    settled = CLAIMS.replace('status = "not run"', 'status = "not reproduced"\nruns = ["a", "b"]')
    read(tmp_path, settled, {"a", "b"})
    with pytest.raises(FieldError, match=r"tables.0.claims.0.runs = 'b': no such record"):
        read(tmp_path, settled, {"a"})
