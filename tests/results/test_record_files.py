"""Records on disk: written once, whole, never overwritten; damaged ones named."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from record_factory import record, record_content

from selfflow_bench.errors import DamagedFileError, SuiteError
from selfflow_bench.results.record_files import invalidate, read, read_all, record_text, write


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
    with pytest.raises(SuiteError, match="needs its reason"):
        invalidate(record().run_id, " ", tmp_path)
    with pytest.raises(SuiteError, match="there is no record nothing"):
        invalidate("nothing", "x", tmp_path)
    invalidate(record().run_id, "the machine swapped", tmp_path)
    invalidate(record(seed=1).run_id, "so did this", tmp_path)
    reading = read_all(tmp_path)
    assert reading.records == ()
    assert reading.invalidated[record().run_id] == "the machine swapped"
    assert path.exists()
    (tmp_path / "invalidated.jsonl").write_text("{}\n")
    with pytest.raises(DamagedFileError, match="line 1"):
        read_all(tmp_path)


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
