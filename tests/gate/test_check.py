"""The gate on real runs: what was committed passes, what is wrong is caught, and the command's exit codes say which."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from selfflow_bench.errors import FieldError
from selfflow_bench.gate.check import Gate
from selfflow_bench.gate.self_test import FAULTS, UNCHANGED, caught, self_test
from selfflow_bench.gate.settings import read_settings
from selfflow_bench.places import Places, default_places

PROJECT = default_places()
CI = PROJECT.recipes.parent / "ci"


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Places:
    return Places(PROJECT.recipes, PROJECT.results, tmp_path_factory.mktemp("work"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copytree(CI, tmp_path / "ci")
    return tmp_path / "ci"


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")


@pytest.mark.parametrize("recipe", ["sana", "wan", "ace_step"])
def test_the_committed_golden_curves_are_this_codes(places: Places, recipe: str) -> None:
    outcomes = Gate(places, CI, read_settings(CI)).run([recipe], bands=False, exact=False, say=lambda _: None)
    assert [outcome.verdict for outcome in outcomes] == ["pass", "pass"], outcomes


def test_golden_curves_catch_every_fault_and_nothing_else(places: Places, folder: Path) -> None:
    counted = self_test(Gate(places, folder, read_settings(folder)), ["sana"], groups=1)
    assert [one.name for one in counted] == [fault.name for fault in FAULTS]
    assert caught(counted), counted
    assert {one.name: sum(one.exact.values()) for one in counted} == {
        fault.name: 1 if "mask" in fault.name else 2 for fault in FAULTS
    }
    by_name = {one.name: one for one in counted}
    assert by_name["a wrong sign"].bands == {"regression": 2}, "far beyond any spread"
    assert "regression" not in by_name[UNCHANGED].bands


def test_the_command_says_which_step_which_field_and_exits_accordingly(places: Places, folder: Path) -> None:
    def check(*words: str) -> tuple[int, dict[str, Any]]:
        options = ["--work", str(places.work), "check", "sana", "--gate", str(folder), "--json", *words]
        line = [sys.executable, "-m", "selfflow_bench", *options]
        done = subprocess.run(line, capture_output=True, text=True, timeout=300, check=False)
        return done.returncode, json.loads(done.stdout)

    path = folder / "golden" / "sana-vanilla.json"
    golden = json.loads(path.read_text(encoding="utf-8"))
    steps = [*golden["steps"][:6], golden["steps"][6] * 1.001, *golden["steps"][7:]]
    edit(path, steps=steps)
    code, found = check()
    assert (code, found["verdict"], found["exit_code"]) == (6, "regression", 6)
    assert [one["verdict"] for one in found["outcomes"]] == ["regression", "pass"]
    assert "the loss of step 7 is" in found["outcomes"][0]["text"]
    assert f"the golden curve has {steps[6]!r}" in found["outcomes"][0]["text"]

    edit(path, steps=golden["steps"], arithmetic=golden["arithmetic"] | {"cpu_capability": "VSX"})
    code, found = check("--exact")
    assert (code, "cpu_capability (golden VSX" in found["outcomes"][0]["text"]) == (5, True)

    path.write_text("{", encoding="utf-8")
    code, found = check()
    assert (code, "is no golden curve" in found["outcomes"][0]["text"]) == (3, True)


def test_what_is_not_there_is_not_measured_and_can_be_made(places: Places, folder: Path) -> None:
    shutil.rmtree(folder / "golden")
    gate = Gate(places, folder, read_settings(folder))
    outcomes = gate.run(["sana"], bands=False, exact=True, say=lambda _: None)
    assert {outcome.verdict for outcome in outcomes} == {"nothing measured"}
    gate.renew(["sana"], bands=False)
    outcomes = gate.run(["sana"], bands=False, exact=True, say=lambda _: None)
    assert {outcome.verdict for outcome in outcomes} == {"pass"}


def test_settings_are_strict(folder: Path) -> None:
    path = folder / "gate.toml"
    path.write_text(path.read_text(encoding="utf-8").replace("steps = 10", "step = 10"), encoding="utf-8")
    with pytest.raises(FieldError, match=r"golden\.step = 10: unknown key\. Allowed: steps, tolerance"):
        read_settings(folder)
