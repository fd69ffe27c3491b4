"""Every kind of tampering is found and named; sound records give no findings."""

import json
from pathlib import Path
from typing import Any

import pytest
from record_factory import record, record_content, seed_of

from selfflow_bench.canonical import digest
from selfflow_bench.results.record import Record
from selfflow_bench.results.record_files import canonical_text, invalidate, write
from selfflow_bench.results.verify import Finding, verify

LABELS = ("vanilla", "self_flow", "self_flow.paper")
LOCK = {
    "recipes": {"sana@1": {"micro": record().recipe.digest}},
    "protocols": {"image-micro@1": record().protocol.digest},
    "methods": {"sana@1": {"micro": {label: digest(record(label).method.settings) for label in LABELS}}},
}


def found(root: Path) -> list[Finding]:
    return verify(root, lock=LOCK, derive_seed=seed_of)


def tamper(path: Path, **changes: Any) -> None:
    path.write_text(canonical_text(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")


def test_sound_records_give_no_findings(tmp_path: Path, matched: list[Record]) -> None:
    for made in (*matched, record("self_flow", 3, status="failed"), record("vanilla", 3)):
        write(made, tmp_path)
    assert found(tmp_path) == []
    assert found(tmp_path / "nothing") == []


@pytest.mark.parametrize(
    ("changes", "field", "problem"),
    [
        ({"seed": {"index": 0, "value": 7, "derivation": "chosen"}}, "seed.value", "7, but index 0 derives"),
        ({"samples": 6400}, "curve", "ends at 12800 samples, but the run saw 6400"),
        ({"recipe": {"name": "sana", "version": 1, "digest": "00" * 32}}, "recipe.digest", "is not the locked one"),
        (
            {"recipe": {"name": "sana", "version": 9, "digest": "00" * 32}},
            "recipe.digest",
            "which the lock does not have",
        ),
        (
            {"protocol": {"name": "image-micro", "version": 1, "digest": "00" * 32}},
            "protocol.digest",
            "is not the locked",
        ),
        (
            {"validations": [{"samples": 12800, "loss": 0.5, "per_timestep": [0.5, 0.7]}]},
            "validations[0].loss",
            "average 0.6",
        ),
        ({"timing": {"train_s": 80.0, "wall_s": 90.0, "samples_per_s": 200.0}}, "timing.samples_per_s", "are 160"),
        ({"timing": {"train_s": 80.0, "wall_s": 9.0, "samples_per_s": 160.0}}, "timing.train_s", "in a run of 9.0 s"),
        (
            {"method": {"name": "self_flow", "label": "self_flow", "settings": {"mask_ratio": 0.4}}},
            "method.settings",
            "is not the locked one",
        ),
        ({"run_id": "other"}, "run_id", "the file must be records/sana/micro/other.json"),
        ({"tier": "reference"}, "run_id", "the file must be records/sana/reference/"),
        ({"host": "x"}, "schema", "'host' was unexpected"),
        ({"failure": {"class": "x", "message": "y"}}, "schema", "null exactly when"),
    ],
)
def test_tampering_is_found_by_its_field(tmp_path: Path, changes: dict[str, Any], field: str, problem: str) -> None:
    tamper(write(record(), tmp_path), **changes)
    findings = [one for one in found(tmp_path) if one.field == field]
    assert findings, found(tmp_path)
    assert any(problem in one.problem for one in findings), findings
    assert findings[0].severity == "error"
    assert findings[0].path == "records/sana/micro/sana-micro-vanilla-s0.json"


def test_an_edited_layout_a_cut_file_and_a_dirty_tree_are_found(tmp_path: Path) -> None:
    first, second = write(record(), tmp_path), write(record(seed=2), tmp_path)
    write(record(seed=1, code={"commit": None, "dirty": True}), tmp_path)
    first.write_text(json.dumps(json.loads(first.read_text(encoding="utf-8"))), encoding="utf-8")
    second.write_bytes(second.read_bytes()[:900])
    assert [(one.severity, one.field) for one in found(tmp_path)] == [
        ("error", "canonical form"),
        ("error", "index"),
        ("error", "file"),
        ("error", "index"),
        ("note", "code.dirty"),
    ]


def test_a_hole_in_the_seeds_is_an_error_and_a_repeat_a_note(tmp_path: Path) -> None:
    write(record(seed=0), tmp_path)
    write(record(seed=3), tmp_path)
    write(record(seed=1, status="failed"), tmp_path)
    write(record(seed=0, run_id="again", created="2026-02-02T00:00:00Z"), tmp_path)
    hole, repeat = found(tmp_path)
    assert "has seed 3 but not 2; seeds go from 0 without holes" in str(hole)
    assert (repeat.severity, repeat.problem) == ("note", "repeats seed 0; the board counts the first one made")
    invalidate("sana-micro-vanilla-s3", "a hole", "the list of seeds", tmp_path)
    assert [one.severity for one in found(tmp_path)] == ["note"]


def test_one_run_id_in_two_places_is_found(tmp_path: Path) -> None:
    path = write(record(), tmp_path)
    path.with_name("copy.json").write_bytes(path.read_bytes())
    assert {one.problem for one in found(tmp_path) if one.severity == "error"} == {
        "the file must be records/sana/micro/sana-micro-vanilla-s0.json",
        "sana-micro-vanilla-s0 is also in records/sana/micro/copy.json",
        "is not in the index; add it: selfflow-bench leaderboard",
    }


def test_an_overridden_protocol_needs_no_lock(tmp_path: Path) -> None:
    content = record_content(overrides={"training.samples": 12_800})
    content["protocol"]["digest"] = "77" * 32
    write(Record.model_validate(content), tmp_path)
    assert found(tmp_path) == []


def test_the_index_and_the_files_are_held_against_each_other(tmp_path: Path) -> None:
    path, gone = write(record(), tmp_path), write(record(seed=1), tmp_path)
    tamper(path, samples=12_800, hardware=record().hardware.model_dump() | {"cores": 3})
    gone.unlink()
    index = tmp_path / "index.jsonl"
    index.write_text(index.read_text(encoding="utf-8") + "{}\n", encoding="utf-8")
    assert [(one.path, one.field) for one in found(tmp_path)] == [
        ("index.jsonl", "line 3"),
        ("index.jsonl", "sana-micro-vanilla-s1"),
        ("records/sana/micro/sana-micro-vanilla-s0.json", "index"),
    ]


def test_a_record_of_a_newer_schema_is_named(tmp_path: Path) -> None:
    tamper(write(record(), tmp_path), schema_version=2)
    assert any("schema_version 2 is newer" in one.problem for one in found(tmp_path))
