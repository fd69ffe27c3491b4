"""A run as the orchestrator does it, with real workers."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from selfflow_bench.errors import FieldError, InfrastructureError
from selfflow_bench.execution import write_spec
from selfflow_bench.places import Places
from selfflow_bench.plan import make_plan
from selfflow_bench.results.record_files import read_all
from selfflow_bench.run import execute, named_run


def workers() -> list[int]:
    """The processes that this one has started."""
    return [int(pid) for pid in Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()]


@pytest.mark.once
def test_a_run_that_is_killed_again_and_again_is_recorded_as_the_machine_s_failure(
    project: Places, tmp_path: Path
) -> None:
    places = Places(project.recipes, tmp_path / "results", tmp_path / "work")
    spec = make_plan(places, "sana", tier="smoke", labels=["vanilla"]).runs[0]
    before = workers()
    seen: list[dict[str, Any]] = []

    def kill_it(event: dict[str, Any]) -> None:
        seen.append(event)
        if event["event"] == "machine":
            (worker,) = set(workers()) - set(before)
            os.kill(worker, signal.SIGKILL)

    with pytest.raises(InfrastructureError, match=r"killed by SIGKILL.*\(3 tries\)\. The log is .* Recorded: "):
        execute(spec, places, kill_it)
    (given_up,) = read_all(places.results).records
    assert given_up.status == "infrastructure"
    assert given_up.failure is not None
    assert (given_up.failure.kind, given_up.samples) == ("killed", 0)
    said = [event for event in seen if event["event"] == "machine"]
    assert len(said) == 3
    assert given_up.hardware.model_dump() == said[-1]["hardware"]
    assert given_up.versions == said[-1]["versions"]

    # The same command goes on, and what it comes to is a record of its own.
    record = execute(spec, places, lambda event: None)
    assert record.status == "success"
    assert {one.run_id for one in read_all(places.results).records} == {given_up.run_id, record.run_id}
    assert given_up.run_id != record.run_id


def test_a_run_is_found_by_any_of_its_names_in_the_states_asked_for(project: Places, tmp_path: Path) -> None:
    places = Places(project.recipes, tmp_path / "results", tmp_path / "work")
    spec = make_plan(places, "sana", tier="smoke", labels=["vanilla"]).runs[0]
    folder = places.runs / spec.folder_name
    folder.mkdir(parents=True)
    write_spec(spec, folder)
    for name in (spec.folder_name, spec.name, spec.key):
        assert named_run(name, places).folder == folder
    with pytest.raises(FieldError, match=r"no done run of that name\. There are: none"):
        named_run(spec.name, places, ["done"])
    with pytest.raises(FieldError, match=rf"no run of that name\. There are: {spec.folder_name}"):
        named_run("another", places)


def test_a_run_on_other_data_has_not_the_hashes_of_its_protocol_s(project: Places) -> None:
    spec = make_plan(project, "sana", tier="smoke", labels=["vanilla"]).runs[0]
    assert set(spec.data_digests) == {"pictures/train", "pictures/validation"}
    assert spec.model_copy(update={"overrides": {"data.source": "own:ab"}}).data_digests == {}
