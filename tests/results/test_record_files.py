"""Records on disk: written once, whole, never overwritten; damaged ones named."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from record_factory import record, record_content

from selfflow_bench.errors import DamagedFileError, SuiteError
from selfflow_bench.results.record_files import canonical_text, invalidate, read, read_all, record_text, write
from selfflow_bench.results.record_index import read_index


def test_a_record_lies_under_its_recipe_and_tier(tmp_path: Path) -> None:
    made = record("self_flow", 2)
    path = write(made, tmp_path)
    assert path.relative_to(tmp_path).as_posix() == "records/sana/micro/sana-micro-self_flow-s2.json"
    assert read(path) == made
    assert path.read_text(encoding="utf-8") == record_text(made)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_writing_again_changes_nothing_and_another_record_never_replaces_it(tmp_path: Path) -> None:
    path = write(record(), tmp_path)
    before = path.stat().st_mtime_ns
    assert write(record(), tmp_path) == path
    with pytest.raises(SuiteError, match="holds a different record already"):
        write(record(loss=0.1), tmp_path)
    assert path.stat().st_mtime_ns == before
    assert read(path) == record()


def test_this_machines_name_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "jane.doe")
    content = record_content(status="failed") | {"failure": {"class": "x", "message": "sent to jane.doe today"}}
    with pytest.raises(SuiteError, match=r"failure\.message holds 'jane\.doe'"):
        write(type(record()).model_validate(content), tmp_path)
    host = socket.gethostname()
    assert not list(tmp_path.rglob("*.json")), host


def test_damaged_files_are_named_and_the_others_read(tmp_path: Path) -> None:
    good = write(record(), tmp_path)
    whole = good.read_text(encoding="utf-8")
    for name, text in (
        ("empty", ""),
        ("cut", whole[:700]),
        ("list", "[]"),
        ("field", whole.replace('"status"', '"state"')),
    ):
        good.with_name(f"{name}.json").write_text(text, encoding="utf-8")
    good.with_name("bytes.json").write_bytes(b"\xff\xfe\x00")
    reading = read_all(tmp_path)
    assert [one.run_id for one in reading.records] == [record().run_id]
    assert {Path(one.path).stem for one in reading.damaged} == {"empty", "cut", "list", "field", "bytes"}
    assert all(one.path.startswith("records/sana/micro/") and one.problem for one in reading.damaged)
    assert not any(str(tmp_path) in one.problem for one in reading.damaged)
    with pytest.raises(DamagedFileError, match=r"field\.json: status: Field required"):
        read(good.with_name("field.json"))


def test_an_invalidated_record_stays_and_does_not_count(tmp_path: Path) -> None:
    path = write(record(), tmp_path)
    write(record(seed=1), tmp_path)
    for reason, evidence, missing in ((" ", "log", "reason"), ("it swapped", "", "evidence")):
        with pytest.raises(SuiteError, match=f"needs its {missing}"):
            invalidate(record().run_id, reason, evidence, tmp_path)
    with pytest.raises(SuiteError, match="there is no record nothing"):
        invalidate("nothing", "x", "y", tmp_path)
    invalidate(record().run_id, "the machine swapped", "dmesg of that hour", tmp_path)
    with pytest.raises(SuiteError, match="is invalidated already"):
        invalidate(record().run_id, "again", "y", tmp_path)
    reading = read_all(tmp_path)
    assert [one.run_id for one in reading.records] == [record(seed=1).run_id]
    line = reading.invalidated[record().run_id]
    assert (line.reason, line.evidence) == ("the machine swapped", "dmesg of that hour")
    assert len(line.date) == 10
    assert path.exists()


def test_what_is_not_as_it_was_written_is_named_and_left_out(tmp_path: Path) -> None:
    """Each of these is on disk beside one good record."""
    good = write(record(), tmp_path)
    newer = write(record(seed=1), tmp_path)
    newer.write_text(newer.read_text().replace('"schema_version": 1', '"schema_version": 2'), encoding="utf-8")
    edited = write(record(seed=2), tmp_path)
    content = json.loads(edited.read_text())
    content["samples"] += 640
    edited.write_text(canonical_text(content), encoding="utf-8")
    laid_out = write(record(seed=3), tmp_path)
    laid_out.write_text(json.dumps(json.loads(laid_out.read_text())), encoding="utf-8")
    copied = good.parent / "copies" / good.name
    copied.parent.mkdir()
    copied.write_bytes(good.read_bytes())
    gone = write(record(seed=4), tmp_path)
    gone.unlink()
    reading = read_all(tmp_path)
    assert [one.run_id for one in reading.records] == [record().run_id]
    problems = {one.path.rpartition("/")[2]: one.problem for one in reading.damaged}
    assert "2 is newer than what this suite reads (1)" in problems[newer.name]
    assert "its sha256 is not the index's" in problems[edited.name]
    assert "the text is not as records are written" in problems[laid_out.name]
    assert "is a copy or was moved" in problems[good.name]
    assert problems[gone.stem] == "is in the index, but has no file"
    assert len(problems) == 5


def test_the_hash_is_what_sha256sum_prints_and_smoke_runs_are_not_kept(tmp_path: Path) -> None:
    path = write(record(), tmp_path)
    smoke = write(record(tier="smoke"), tmp_path)
    with pytest.raises(SuiteError, match="smoke run, which never counts"):
        invalidate(smoke.stem, "x", "y", tmp_path)
    printed = subprocess.run(["sha256sum", str(path)], capture_output=True, text=True, check=True).stdout
    assert read_index(tmp_path).hashes == {record().run_id: printed.split()[0]}
    assert read_all(tmp_path).unindexed == ()


def test_of_many_processes_writing_one_name_one_wins_and_the_others_are_refused(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from selfflow_bench.results.record import Record\n"
        "from selfflow_bench.results.record_files import write\n"
        "write(Record.model_validate_json(sys.stdin.read()), Path(sys.argv[1]))\n"
    )
    texts = [json.dumps(record_content(loss=0.5 + index / 10)) for index in range(4)]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in texts
    ]
    errors = []
    for process, text in zip(processes, texts, strict=True):
        assert process.stdin is not None
        process.stdin.write(text)
        process.stdin.close()
    for process in processes:
        assert process.stderr is not None
        errors.append(process.stderr.read())
        process.stderr.close()
        process.wait()
    assert sorted(process.returncode for process in processes) == [0, 1, 1, 1]
    assert sum("holds a different record" in error for error in errors) == 3
    [path] = [found for found in (tmp_path / "records").rglob("*") if found.is_file()]
    assert read(path).run_id == record().run_id
