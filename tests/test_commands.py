"""The commands as a user runs them: real processes on real data, killed with real signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from selfflow_bench.errors import EXIT_INFRASTRUCTURE, EXIT_INTERRUPTED, EXIT_NOTHING_MEASURED, EXIT_USAGE

DEADLINE = 300
LONGER = ("--set", "training.samples=1600", "--set", "training.checkpoint_every=160")
"""Enough steps that a signal arrives while training."""
LONGER_RUN = ("run", "sana", "--tier", "smoke", "--methods", "vanilla", *LONGER)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Caches are shared; runs have a folder of their own by what they are."""
    return tmp_path_factory.mktemp("work")


@pytest.fixture
def command(work: Path, tmp_path: Path) -> Callable[..., list[str]]:
    """A command line on results of its own and, with ``runs``, a work folder of its own with the shared cache."""

    def make(*arguments: str, runs: Path | None = None) -> list[str]:
        folder = runs or work
        folder.mkdir(exist_ok=True)
        if folder != work and not (folder / "cache").exists():
            (work / "cache").mkdir(exist_ok=True)
            (folder / "cache").symlink_to(work / "cache")
        options = ["--results", str(tmp_path / "results"), "--work", str(folder)]
        return [sys.executable, "-m", "selfflow_bench", *options, *arguments]

    return make


def finish(line: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(line, capture_output=True, text=True, timeout=DEADLINE, check=False, **options)


def records(results: Path) -> dict[str, dict[str, Any]]:
    found = [json.loads(path.read_text()) for path in sorted(results.glob("records/*/*/*.json"))]
    return {record["method"]["label"]: record for record in found}


def what_must_be_equal(record: dict[str, Any]) -> dict[str, Any]:
    """All a run measured, without times and identity."""
    curve = [{name: value for name, value in row.items() if name != "seconds"} for row in record["curve"]]
    return {"curve": curve, **{name: record[name] for name in ("metrics", "untrained", "validations", "seed")}}


@pytest.mark.parametrize(
    "recipe", ["sana", pytest.param("wan", marks=pytest.mark.once), pytest.param("ace_step", marks=pytest.mark.once)]
)
def test_run_does_it_all_and_again_does_nothing(recipe: str, command: Callable[..., list[str]], tmp_path: Path) -> None:
    done = finish(command("run", recipe, "--tier", "smoke"))
    assert done.returncode == 0, done.stderr
    found = records(tmp_path / "results")
    assert set(found) == {"vanilla", "self_flow"}
    for record in found.values():
        assert record["status"] == "success"
        assert {name.partition("/")[0] for name in record["metrics"]} == {"kid", "frechet"}
        assert all(metric["floor"] is not None and metric["n"] for metric in record["metrics"].values())
        assert record["untrained"] == found["vanilla"]["untrained"]
        assert record["validations"][0]["samples"] == 0
        assert len(record["validations"][-1]["per_timestep"]) == 8
        assert str(tmp_path) not in json.dumps(record)
    assert {"alignment_score", "alignment_weight", "loss_alignment", "loss_generative"} <= set(
        found["self_flow"]["curve"][0]
    )
    assert found["self_flow"]["cost"]["flops_over_vanilla"] > 1.2
    assert found["vanilla"]["validations"][0] == found["self_flow"]["validations"][0], "equal weights at the start"
    figures = {path.name for path in (tmp_path / "results/figures" / f"{recipe}-smoke").iterdir()}
    assert {"curves.png", "vanilla.png", "self_flow.png"} <= figures
    assert "n = 1: no verdict" in done.stdout
    board = (tmp_path / "results/README.md").read_text()
    assert "| self_flow |" not in board, "smoke runs are never ranked"
    for check in (["verify"], ["leaderboard", "--check"]):
        assert finish(command(*check)).returncode == 0

    again = finish(command("run", recipe, "--tier", "smoke"))
    assert again.returncode == 0
    assert again.stdout.count("done already") == 2
    compared = finish(command("run", recipe, "--tier", "smoke", "--when", "never", "--json"))
    assert json.loads(compared.stdout.splitlines()[-1])["event"] == "comparison"


def test_methods_with_encoder_and_few_steps_record_what_they_need(
    command: Callable[..., list[str]], tmp_path: Path
) -> None:
    """REPA's encoder is counted and its features cached; TwinFlow is also sampled in few steps; both are compared."""
    done = finish(command("run", "sana", "--tier", "smoke", "--methods", "repa,twinflow", "--json"))
    assert done.returncode == 0, done.stderr
    found = records(tmp_path / "results")
    assert set(found) == {"vanilla", "repa", "twinflow"}
    assert found["repa"]["cost"]["encoder_flops_per_sample"] > 0
    assert found["vanilla"]["cost"]["encoder_flops_per_sample"] == 0
    assert 0 <= found["repa"]["curve"][-1]["alignment_score"] <= 1
    assert found["twinflow"]["cost"]["flops_over_vanilla"] == pytest.approx(2.0, abs=0.1)
    network = "efficientnet-lite0-block10-112"
    few = {f"{kind}/{network}/{steps}-step" for kind in ("kid", "frechet") for steps in (1, 2, 4)}
    assert set(found["twinflow"]["metrics"]) == {f"kid/{network}", f"frechet/{network}", *few}
    assert found["repa"]["validations"][-1]["health"]["ema_distance"] > 0
    assert {"alarms"}.isdisjoint(found["vanilla"])
    events = [json.loads(line) for line in done.stdout.splitlines()]
    (comparison,) = events[-1]["comparisons"]
    assert {arm["label"] for arm in comparison["arms"]} == set(found)


def test_evaluate_gives_the_recorded_metrics(command: Callable[..., list[str]], tmp_path: Path) -> None:
    """Also shows two runs of one plan to be bit-equal: this one has folders of its own."""
    runs = tmp_path / "runs"
    assert finish(command("run", "sana", "--tier", "smoke", "--methods", "vanilla", runs=runs)).returncode == 0
    first = records(tmp_path / "results")["vanilla"]
    (folder,) = (runs / "runs").iterdir()
    sampled = [event["event"] for event in events_of(folder)].count("sampling")
    again = finish(command("evaluate", "sana-smoke-vanilla-s0", "--json", runs=runs))
    assert again.returncode == 0, again.stderr
    found = json.loads(again.stdout.splitlines()[-1])
    assert found["equal"]
    # Measured anew, not read from what the run has kept, which is there as before.
    assert [event["event"] for event in events_of(folder)].count("sampling") > sampled > 0
    assert len(list(folder.glob("*statistics-*"))) == 1
    assert found["metrics"] == {name: metric["value"] for name, metric in first["metrics"].items()}
    repeated = finish(command("run", "sana", "--tier", "smoke", "--methods", "vanilla", "--when", "always", runs=runs))
    assert repeated.returncode == 0
    both = [json.loads(path.read_text()) for path in (tmp_path / "results").glob("records/sana/smoke/*.json")]
    assert len(both) == 2
    assert what_must_be_equal(both[0]) == what_must_be_equal(both[1])


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, f"waited too long for {what}"
        time.sleep(0.05)


def start_and_wait_for_checkpoint(line: list[str], runs: Path) -> tuple[subprocess.Popen[str], Path, int]:
    """The orchestrator, the run's folder, and the worker's process id, once the first checkpoint is written."""
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    wait_for(lambda: bool(list(runs.glob("runs/*/checkpoint.json"))) or process.poll() is not None, "a checkpoint")
    assert process.poll() is None, process.communicate()
    (folder,) = [path.parent for path in runs.glob("runs/*/checkpoint.json")]
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    workers = [int(pid) for pid in children if b"selfflow_bench.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    assert len(workers) == 1
    return process, folder, workers[0]


def events_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().split()[2]


@pytest.fixture(scope="module")
def uninterrupted(work: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the longer run measures when nothing stops it."""
    results = tmp_path_factory.mktemp("uninterrupted")
    options = ["--results", str(results), "--work", str(work)]
    done = finish([sys.executable, "-m", "selfflow_bench", *options, *LONGER_RUN])
    assert done.returncode == 0, done.stderr
    return what_must_be_equal(records(results)["vanilla"])


def test_a_killed_worker_goes_on_from_its_checkpoint(
    command: Callable[..., list[str]], tmp_path: Path, uninterrupted: dict[str, Any]
) -> None:
    runs = tmp_path / "runs"
    process, folder, worker = start_and_wait_for_checkpoint(command(*LONGER_RUN, runs=runs), runs)
    os.kill(worker, signal.SIGKILL)
    _, stderr = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0, stderr
    assert "killed: was killed by SIGKILL from outside; going on from the checkpoint, retry 1 of 2" in stderr
    assert any(event["event"] == "stage" and event.get("resumed") for event in events_of(folder))
    assert what_must_be_equal(records(tmp_path / "results")["vanilla"]) == uninterrupted


@pytest.mark.parametrize("how", ["SIGINT", "SIGTERM", "orchestrator killed"])
def test_a_run_killed_anywhere_resumes_to_the_same_bits(
    how: str, command: Callable[..., list[str]], tmp_path: Path, uninterrupted: dict[str, Any]
) -> None:
    runs = tmp_path / "runs"
    arguments = LONGER_RUN
    process, folder, worker = start_and_wait_for_checkpoint(command(*arguments, runs=runs), runs)
    if how == "orchestrator killed":
        process.kill()
        expected = -signal.SIGKILL
    else:
        process.send_signal(getattr(signal, how))
        expected = EXIT_INTERRUPTED
    _, stderr = process.communicate(timeout=DEADLINE)
    assert process.returncode == expected, stderr
    wait_for(lambda: not alive(worker), "the worker to leave")
    if how != "orchestrator killed":
        assert "selfflow-bench resume" in stderr
        assert str(folder / "log.txt") in stderr
    assert not records(tmp_path / "results")
    status = finish(command("status", "--json", runs=runs))
    (state,) = json.loads(status.stdout)
    assert state["state"] == "interrupted"
    assert 0 < state["samples"] < 1600

    resumed = finish(command("resume", runs=runs) if how == "SIGINT" else command(*arguments, runs=runs))
    assert resumed.returncode == 0, resumed.stderr
    assert any(event["event"] == "stage" and event.get("resumed") for event in events_of(folder))

    assert what_must_be_equal(records(tmp_path / "results")["vanilla"]) == uninterrupted


def test_a_diverged_run_is_recorded_as_failed(command: Callable[..., list[str]], tmp_path: Path) -> None:
    overrides = ("--set", "training.learning_rate=1e30", "--set", "training.warmup_samples=0")
    done = finish(command("run", "sana", "--tier", "smoke", "--methods", "vanilla", *overrides, runs=tmp_path / "runs"))
    assert done.returncode == EXIT_INFRASTRUCTURE
    record = records(tmp_path / "results")["vanilla"]
    assert record["status"] == "failed"
    assert record["failure"]["class"] == "non-finite loss"
    assert "samples" in record["failure"]["message"]
    assert record["overrides"] == {"training.learning_rate": 1e30, "training.warmup_samples": 0}


def test_two_orchestrators_do_not_do_one_run_twice(command: Callable[..., list[str]], tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    line = command(*LONGER_RUN, runs=runs)
    process, _, worker = start_and_wait_for_checkpoint(line, runs)
    os.kill(worker, signal.SIGSTOP)  # or it could be done before the second has started
    try:
        second = finish(line)
    finally:
        os.kill(worker, signal.SIGCONT)
    assert second.returncode == EXIT_INFRASTRUCTURE
    assert "another process is doing this run" in second.stderr
    _, stderr = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0, stderr
    assert len(records(tmp_path / "results")) == 1


def test_without_a_recipe_the_recipes_are_listed(command: Callable[..., list[str]]) -> None:
    for arguments in ((), ("run",), ("plan",)):
        done = finish(command(*arguments))
        assert done.returncode == EXIT_USAGE
        assert "sana@1" in done.stdout
        assert "nox -s bench -- sana" in done.stdout


def test_looking_at_things_changes_nothing(command: Callable[..., list[str]], tmp_path: Path) -> None:
    shown = finish(command("show", "wan", "--json"))
    assert json.loads(shown.stdout)["tiers"]["micro"]["methods"]["self_flow"]["mask_ratio"] == 0.10
    planned = finish(command("run", "wan", "--dry-run", "--seeds", "2", "--json", runs=tmp_path / "empty"))
    assert [run["state"] for run in json.loads(planned.stdout)["runs"]] == ["new"] * 4
    never = finish(command("run", "wan", "--when", "never", runs=tmp_path / "empty"))
    assert never.returncode == EXIT_NOTHING_MEASURED
    assert not (tmp_path / "results").exists()
    assert {row["recipe"] for row in json.loads(finish(command("list", "--json")).stdout)} >= {"sana@1", "wan@1"}


def test_the_reference_tier_is_planned_with_all_that_is_missing_and_refused(
    command: Callable[..., list[str]], tmp_path: Path
) -> None:
    environment = {**os.environ, "HF_HUB_CACHE": str(tmp_path / "no hub")}
    planned = finish(command("plan", "sit", "--tier", "reference", "--json"), env=environment)
    assert planned.returncode == 0, planned.stderr
    reference = json.loads(planned.stdout)["reference"]
    assert reference["latent_shape"] == [4, 32, 32]
    assert reference["estimates"] == {"sit": None}  # an empty folder of results has no cost table
    lacking = {one["what"]: one["remedy"] for one in reference["lacking"] if one["prevents"]}
    assert "weights-inception-2015-12-05" in lacking["the weights of inception-v3-2048"]
    assert lacking["the published statistics for inception-v3-2048"].endswith(".npz.")
    assert lacking["its prepared data"] == "Prepare: selfflow-bench prepare sit"
    assert lacking["image cuda: this work folder has none"] == "Build it: selfflow-bench images build cuda"
    refused = finish(command("run", "sit", "--tier", "reference", "--executor", "host"), env=environment)
    assert refused.returncode != 0
    assert "- a container (leave --executor out, or give docker)" in refused.stderr
    assert not (tmp_path / "results" / "records").exists()


def test_the_command_line_imports_without_torch() -> None:
    code = "import sys, selfflow_bench.cli as cli; cli.main(['list']); assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


def test_errors_are_one_line_for_people(command: Callable[..., list[str]]) -> None:
    for arguments in (("run", "nope"), ("run", "sana", "--set", "training.batch"), ("evaluate", "nope"), ("show", "x")):
        done = finish(command(*arguments))
        assert done.returncode == EXIT_USAGE
        assert done.stderr.startswith("error: ")
        assert "Traceback" not in done.stderr
