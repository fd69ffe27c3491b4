"""Commands over records as a user runs them: what is wrong is said in one line, what is done is on the board."""

import subprocess
import sys
from pathlib import Path

from record_factory import record

from selfflow_bench.results.record_files import read_all, write


def run(results: Path, *words: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "selfflow_bench", "--results", str(results), *words]
    return subprocess.run(line, capture_output=True, text=True, timeout=120, check=False)


def test_a_record_is_invalidated_once_with_reason_and_evidence(tmp_path: Path) -> None:
    run_id = record().run_id
    write(record(), tmp_path)
    done = run(tmp_path, "invalidate", run_id, "--reason", "the machine swapped", "--evidence", "its log")
    assert done.returncode == 0, done.stderr
    assert read_all(tmp_path).records == ()
    assert f"{run_id}. Reason: the machine swapped. Evidence: its log." in (tmp_path / "README.md").read_text("utf-8")
    assert run(tmp_path, "leaderboard", "--check").returncode == 0
    again = run(tmp_path, "invalidate", run_id, "--reason", "x", "--evidence", "y")
    assert (again.returncode, "is invalidated already (the machine swapped)" in again.stderr) == (2, True)
    assert run(tmp_path, "invalidate", run_id, "--reason", "x").returncode == 2


def test_an_index_that_was_changed_stops_the_board_and_is_named_by_verify(tmp_path: Path) -> None:
    write(record(), tmp_path)
    write(record(seed=1), tmp_path)
    index = tmp_path / "index.jsonl"
    index.write_text("".join(index.read_text("utf-8").splitlines(keepends=True)[1:]), encoding="utf-8")
    board = run(tmp_path, "leaderboard")
    assert (board.returncode, "index.jsonl: line 1 follows a line that is not above it" in board.stderr) == (3, True)
    assert not (tmp_path / "README.md").exists()
    found = run(tmp_path, "verify")
    assert found.returncode == 3
    assert "index.jsonl: line 1: follows a line that is not above it" in " ".join(found.stdout.split())
