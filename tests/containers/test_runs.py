"""Real runs in real containers: the same bits as on the host, and every way in which they can be disturbed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from selfflow_bench.containers import images, life
from selfflow_bench.containers.cleaning import names
from selfflow_bench.containers.engine import connected
from selfflow_bench.containers.executor import DockerExecutor
from selfflow_bench.containers.settings import work_labels
from selfflow_bench.errors import EXIT_INTERRUPTED, InfrastructureError
from selfflow_bench.execution import HostExecutor
from selfflow_bench.places import Places
from selfflow_bench.plan import RunSpec, make_plan
from selfflow_bench.results.record import Record
from selfflow_bench.results.record_files import read_all
from selfflow_bench.run import ATTEMPTS, execute, local_run
from tests.containers.conftest import PrivateEngine, Site, make_site, wait_for

DEADLINE = 900
OVERRIDES = {"training.samples": 960, "training.checkpoint_every": 96, "evaluation.validation_every": 480}
"""Enough steps that a disturbance arrives while training."""


def bits(record: Record) -> dict[str, Any]:
    """All that a run measured, without times and identity."""
    content = record.model_dump(mode="json")
    curve = [{name: value for name, value in row.items() if name != "seconds"} for row in content["curve"]]
    return {"curve": curve, **{name: content[name] for name in ("metrics", "untrained", "validations", "seed")}}


@pytest.fixture(scope="module")
def spec(project: Places) -> RunSpec:
    return make_plan(project, "sana", tier="smoke", labels=["vanilla"], overrides=OVERRIDES).runs[0]


@pytest.fixture(scope="module")
def on_host(
    engine: PrivateEngine, system_image: images.Pin, spec: RunSpec, project: Places, tmp_path_factory: Any
) -> tuple[Record, Path]:
    """The run on the host, and the cache it has filled but for what is measured of untrained weights."""
    site = make_site(tmp_path_factory.mktemp("host"), project, system_image)
    record = execute(spec, site.places, lambda event: None, HostExecutor())
    for path in (site.places.cache / "untrained").iterdir():
        path.unlink()
    return record, site.places.cache


@pytest.fixture
def new_site(
    on_host: tuple[Record, Path], system_image: images.Pin, project: Places, tmp_path: Path
) -> Iterator[Callable[[str], Site]]:
    """Work folders with a filled cache, whose containers are gone after the test."""
    made = []

    def make(name: str) -> Site:
        made.append(make_site(tmp_path / name, project, system_image, on_host[1]))
        return made[-1]

    yield make
    for site in made:
        with connected() as client:
            for left in life.find(client, work_labels(site.places.runs)):
                left.remove(force=True)


def folder_of(site: Site, spec: RunSpec) -> Path:
    return local_run(spec, site.places).folder


def events(site: Site, spec: RunSpec) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder_of(site, spec) / "events.jsonl").read_text().splitlines()]


def attempts(site: Site, spec: RunSpec) -> list[dict[str, Any]]:
    path = folder_of(site, spec) / ATTEMPTS
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


class Running(threading.Thread):
    """A run in a thread of its own; what became of it."""

    def __init__(self, site: Site, spec: RunSpec, executor: DockerExecutor) -> None:
        super().__init__(daemon=True)
        self.seen: list[dict[str, Any]] = []
        self.record: Record | None = None
        self.error: BaseException | None = None
        self._arguments = (spec, site.places, self.seen.append, executor)
        self.start()

    def run(self) -> None:
        try:
            self.record = execute(*self._arguments)
        except BaseException as error:
            self.error = error

    def wait_for_checkpoint(self) -> None:
        wait_for(lambda: "checkpoint" in self.kinds or not self.is_alive(), "a checkpoint", DEADLINE)
        assert self.is_alive(), self.error

    @property
    def kinds(self) -> list[str]:
        return [event["event"] for event in self.seen]

    def result(self) -> Record:
        self.join(DEADLINE)
        assert not self.is_alive()
        assert self.record is not None, self.error
        return self.record


def test_two_runs_side_by_side_one_of_which_hangs_end_in_the_bits_of_the_host(
    on_host: tuple[Record, Path], spec: RunSpec, new_site: Callable[[str], Site]
) -> None:
    quiet, hung = new_site("quiet"), new_site("hung")
    undisturbed = Running(quiet, spec, quiet.executor())
    disturbed = Running(hung, spec, hung.executor(silence_seconds=30, stop_seconds=2))
    disturbed.wait_for_checkpoint()
    with connected() as client:
        (container,) = life.find(client, work_labels(hung.places.runs))
        container.exec_run(["sh", "-c", "kill -STOP -1"], user=f"{os.getuid()}")
    first, second = undisturbed.result(), disturbed.result()

    assert bits(first) == bits(on_host[0])
    assert bits(second) == bits(on_host[0])
    assert "retry" not in undisturbed.kinds
    assert disturbed.kinds.count("retry") == 1
    assert [row["class"] for row in attempts(hung, spec)] == ["hang"]
    assert any(event.get("resumed") for event in disturbed.seen)

    assert on_host[0].container is None
    for record, site in ((first, quiet), (second, hung)):
        assert record.container is not None
        assert record.container["image_id"] == site.image.id
        assert record.container["packages"] == "mounted"
        assert record.container["exit_code"] == 0
        assert record.container["oom_killed"] is False
        limits = record.container["limits"]
        assert limits["network"] == "none"
        assert limits["memory_mb"] == limits["memory_and_swap_mb"] == spec.conditions.budget.memory_mb
        assert limits["cpus"] == spec.conditions.training.threads
        assert list((site.places.cache / "untrained").iterdir()), "what it has added to the cache is kept"
        folder = folder_of(site, spec)
        assert {path.stat().st_uid for path in folder.rglob("*")} == {os.getuid()}
        assert not (folder / "cache").exists()
    assert first.container["earlier_failures"] == []
    assert [row["class"] for row in second.container["earlier_failures"]] == ["hang"]
    with connected() as client:
        assert not life.find(client, {}), "no container is left"


def test_an_orchestrator_interrupted_then_killed_loses_nothing(
    on_host: tuple[Record, Path], spec: RunSpec, new_site: Callable[[str], Site]
) -> None:
    site = new_site("one")
    overrides = [text for name, value in OVERRIDES.items() for text in ("--set", f"{name}={value}")]
    line = site.command("run", "sana", "--tier", "smoke", "--methods", "vanilla", "--executor", "docker", *overrides)
    pointer = folder_of(site, spec) / "checkpoint.json"

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)

    process = start()
    wait_for(lambda: pointer.exists() or process.poll() is not None, "a checkpoint", DEADLINE)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=DEADLINE)
    assert process.returncode == EXIT_INTERRUPTED, stderr
    assert "selfflow-bench resume" in stderr
    assert local_run(spec, site.places).state == "interrupted"
    samples = local_run(spec, site.places).samples
    assert 0 < samples < 960
    with connected() as client:
        assert not names(client, site.places.runs), "Ctrl-C leaves no container"

    process = start()
    wait_for(lambda: local_run(spec, site.places).samples > samples or process.poll() is not None, "more", DEADLINE)
    process.kill()
    process.communicate(timeout=DEADLINE)
    with connected() as client:
        (container,) = life.find(client, work_labels(site.places.runs))
        assert container.status == "running", "it goes on without its orchestrator"

    done = subprocess.run(line, capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert done.returncode == 0, done.stderr
    assert sum(event["event"] == "stage" and event["name"] == "train" for event in events(site, spec)) == 2, (
        "the third orchestrator went on with the second's container"
    )
    (path,) = site.places.results.glob("records/*/*/*.json")
    record = Record.model_validate_json(path.read_bytes())
    assert bits(record) == bits(on_host[0])
    assert record.container is not None
    assert record.container["exit_code"] == 0
    with connected() as client:
        assert not names(client, site.places.runs)


def test_an_engine_that_restarts_is_waited_for_and_the_run_goes_on(
    engine: PrivateEngine, on_host: tuple[Record, Path], spec: RunSpec, new_site: Callable[[str], Site]
) -> None:
    site = new_site("one")
    running = Running(site, spec, site.executor())
    running.wait_for_checkpoint()
    engine.stop()
    engine.start()
    record = running.result()
    assert [row["class"] for row in attempts(site, spec)] == ["engine gone"]
    assert any(event.get("resumed") for event in running.seen)
    assert bits(record) == bits(on_host[0])


@pytest.mark.once
def test_what_is_compiled_while_a_run_goes_is_compiled_in_its_container(
    project: Places, new_site: Callable[[str], Site]
) -> None:
    overrides = {"training.compile": True}
    spec = make_plan(project, "sana", tier="smoke", labels=["vanilla"], overrides=overrides).runs[0]
    site = new_site("one")
    record = execute(spec, site.places, lambda event: None, site.executor())
    assert record.status == "success", record.failure
    assert record.container is not None


def test_a_run_over_its_memory_limit_is_tried_twice_more_and_given_up(
    spec: RunSpec, new_site: Callable[[str], Site]
) -> None:
    site = new_site("one")
    budget = spec.conditions.budget.model_copy(update={"memory_mb": 96})
    small = spec.model_copy(update={"conditions": spec.conditions.model_copy(update={"budget": budget})})
    seen: list[dict[str, Any]] = []
    with pytest.raises(InfrastructureError, match=r"out of memory.*memory limit \(3 tries\)"):
        execute(small, site.places, seen.append, site.executor())
    assert [event["event"] for event in seen].count("retry") == 2
    assert [(row["class"], row["exit_code"]) for row in attempts(site, spec)] == [("out of memory", 137)] * 3
    assert local_run(spec, site.places).state == "interrupted"
    (record,) = read_all(site.places.results).records
    assert record.status == "infrastructure"
    assert record.failure is not None
    assert record.failure.kind == "out of memory"
    assert record.container is not None
    assert record.container["earlier_failures"] == attempts(site, spec)
    with connected() as client:
        assert not names(client, site.places.runs)


def test_a_full_disk_is_told_from_the_run_s_own_failures(spec: RunSpec, new_site: Callable[[str], Site]) -> None:
    site = new_site("one")
    folder = folder_of(site, spec)
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)], check=True)
    try:
        ending = site.executor().sitting(spec, folder, site.places.cache, lambda event: None)
        assert ending.trouble is not None
        assert ending.trouble.kind == "disk full"
        assert not (folder / "result.json").exists()
    finally:
        subprocess.run(["umount", str(folder)], check=True)
