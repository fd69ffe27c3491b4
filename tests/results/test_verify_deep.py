"""Deep verification derives from the recipe files: real records are sound, and what only it can find is found."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from selfflow_bench.places import Places, default_places
from selfflow_bench.plan import lock_entries
from selfflow_bench.results.record_files import canonical_text
from selfflow_bench.results.verify_deep import verify_deep
from selfflow_bench.seeds import derive_seed

PROJECT = default_places()


@pytest.fixture
def places(tmp_path: Path) -> Places:
    """The real records of sana, not indexed, with its recipe, all protocols and a lock of these."""
    found = Places(tmp_path / "recipes", tmp_path / "results", tmp_path / "work")
    for folder in ("sana", "protocols"):
        shutil.copytree(PROJECT.recipes / folder, found.recipes / folder)
    shutil.copytree(PROJECT.results / "records" / "sana" / "micro", found.results / "records" / "sana" / "micro")
    (found.recipes / "lock.json").write_text(json.dumps(lock_entries(found)), encoding="utf-8")
    return found


def record(places: Places, label: str, seed: int) -> Path:
    [path] = (places.results / "records").rglob(f"sana-micro-{label}-s{seed}-*.json")
    return path


def test_the_real_records_can_be_derived_again(places: Places) -> None:
    assert verify_deep(places) == []


def test_a_recipe_changed_together_with_its_lock_is_found(places: Places) -> None:
    """The lock alone would not show it: it agrees with the recipe."""
    path = places.recipes / "sana" / "v1.toml"
    block = "[methods.self_flow]\nmask_ratio = 0.25\nweight = 0."
    assert f"{block}5" in path.read_text(encoding="utf-8")
    path.write_text(path.read_text(encoding="utf-8").replace(f"{block}5", f"{block}4"), encoding="utf-8")
    moved = verify_deep(places)
    assert {one.field for one in moved} >= {"methods.sana@1.micro.self_flow", "method.settings", "run_id"}
    (places.recipes / "lock.json").write_text(json.dumps(lock_entries(places)), encoding="utf-8")
    assert {one.field for one in verify_deep(places)} == {"method.settings", "run_id"}


def changed(content: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return content | fields


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda r: changed(r, seed=r["seed"] | {"value": derive_seed(r["recipe"]["digest"], 9)}), "seed.value"),
        (lambda r: changed(r, data=r["data"] | {"pictures/train": "00" * 32}), "data"),
        (lambda r: changed(r, curve=r["curve"][1:]), "curve"),
        (lambda r: changed(r, curve=[*r["curve"][:-1], r["curve"][-1] | {"loss": 0.5}]), "curve[29].loss"),
        (lambda r: changed(r, curve=[*r["curve"][:-1], r["curve"][-1] | {"seconds": 60.0}]), "timing.train_s"),
        (lambda r: changed(r, validations=[r["validations"][0], *r["validations"][2:]]), "validations"),
        (lambda r: changed(r, cost=r["cost"] | {"flops_over_vanilla": 1.1}), "cost.flops_over_vanilla"),
        (
            lambda r: changed(r, validations=[r["validations"][0] | {"loss": 2.3}, *r["validations"][1:]]),
            "untrained validation_loss",
        ),
    ],
)
def test_what_does_not_follow_is_found_by_its_field(places: Places, change: Any, field: str) -> None:
    path = record(places, "self_flow", 1)
    path.write_text(canonical_text(change(json.loads(path.read_text()))), encoding="utf-8")
    findings = verify_deep(places)
    assert {one.field for one in findings} == {field}, findings
    assert findings[0].path == f"records/sana/micro/{path.name}"


def test_a_recipe_that_is_gone_is_said(places: Places) -> None:
    shutil.rmtree(places.recipes / "sana")
    assert any("cannot be planned again" in one.problem for one in verify_deep(places))
