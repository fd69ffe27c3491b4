"""A run whose budget has two GPUs, on the CPU: the real worker in two real processes, killed and stopped."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from selfflow_bench.errors import InterruptedRunError
from selfflow_bench.places import Places
from selfflow_bench.plan import RunSpec, make_plan
from selfflow_bench.results.record import Record
from selfflow_bench.run import execute, local_run

OVERRIDES = {
    "budget.gpus": 2,
    "training.samples": 640,
    "training.checkpoint_every": 64,
    "evaluation.validation_every": 320,
}


@pytest.fixture(scope="module")
def spec(project: Places) -> RunSpec:
    return make_plan(project, "sana", tier="smoke", overrides=OVERRIDES).runs[1]


@pytest.fixture(scope="module")
def site(project: Places, tmp_path_factory: Any) -> Callable[[str], Places]:
    """Places by name, of one cache."""
    work: Path = tmp_path_factory.mktemp("work")

    def make(name: str) -> Places:
        (work / name).mkdir()
        (work / "cache").mkdir(exist_ok=True)
        (work / name / "cache").symlink_to(work / "cache")
        return Places(project.recipes, work / name / "results", work / name)

    return make


def measured(record: Record) -> dict[str, Any]:
    content = record.model_dump(mode="json")
    curve = [{name: value for name, value in row.items() if name != "seconds"} for row in content["curve"]]
    return {"curve": curve, **{name: content[name] for name in ("status", "metrics", "untrained", "validations")}}


def rank_of(folder: Path, rank: int) -> int:
    """The id of one of the processes that do a folder's run."""
    for place in Path("/proc").glob("[0-9]*"):
        try:
            command, environment = (place / "cmdline").read_bytes(), (place / "environ").read_bytes()
        except OSError:
            continue
        if str(folder).encode() in command and f"\0RANK={rank}\0".encode() in b"\0" + environment:
            return int(place.name)
    raise AssertionError("no such process")


@pytest.mark.once
def test_killed_or_stopped_it_ends_as_if_undisturbed(spec: RunSpec, site: Callable[[str], Places]) -> None:
    expected = measured(execute(spec, site("whole"), lambda event: None))
    assert expected["status"] == "success"

    places, seen, killed = site("killed"), [], []

    def kill_one(event: dict[str, Any]) -> None:
        seen.append(event)
        if event["event"] == "checkpoint" and not killed:
            killed.append(rank_of(local_run(spec, places).folder, 1))
            os.kill(killed[0], signal.SIGKILL)

    assert measured(execute(spec, places, kill_one)) == expected
    assert [event["text"] for event in seen if event["event"] == "retry"] == [
        "killed: was killed by SIGKILL from outside"
    ]
    assert sum(event["event"] == "result" for event in seen) == 1, "one process writes"

    places = site("stopped")

    def interrupt(event: dict[str, Any]) -> None:
        if event["event"] == "checkpoint":
            raise KeyboardInterrupt

    with pytest.raises(InterruptedRunError):
        execute(spec, places, interrupt)
    stopped = local_run(spec, places)
    assert stopped.state == "interrupted"
    assert 64 <= stopped.samples < 640
    with pytest.raises(AssertionError, match="no such process"):
        rank_of(stopped.folder, 1)
    assert measured(execute(spec, places, lambda event: None)) == expected


@pytest.mark.once
def test_a_failure_of_the_runs_own_is_recorded_once(spec: RunSpec, site: Callable[[str], Places]) -> None:
    """A batch that two processes cannot share, which every one of them finds out."""
    odd = spec.conditions.model_copy(
        update={"training": spec.conditions.training.model_copy(update={"batch": 1, "log_every": 16})}
    )
    record = execute(spec.model_copy(update={"conditions": odd}), site("odd"), lambda event: None)
    assert record.status == "failed"
    assert record.failure is not None
    assert "cannot be shared equally by 2 processes" in record.failure.message
