"""One run on this machine, from specification to record. Decides what is done already and what to resume.

The worker's findings become a record here, on the host: whatever runs inside a container later cannot write results.
"""

from __future__ import annotations

import fcntl
import json
import secrets
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from selfflow_bench.atomic_files import replace_text
from selfflow_bench.errors import DamagedFileError, InfrastructureError, InterruptedRunError, SuiteError
from selfflow_bench.events import EventFollower
from selfflow_bench.execution import EVENTS, LOG, SPEC, WorkerHungError, run_worker
from selfflow_bench.places import Places
from selfflow_bench.plan import RunSpec
from selfflow_bench.results import record_files
from selfflow_bench.results.privacy import scrub
from selfflow_bench.results.record import (
    Code,
    Failure,
    Hardware,
    MethodUsed,
    Metric,
    Record,
    Seed,
    Timing,
    Validation,
)
from selfflow_bench.seeds import SEED_DERIVATION

RESULT, RUN_ID, LOCK = "result.json", "run_id", "lock"
State = Literal["new", "interrupted", "running", "done", "failed"]


@dataclass(frozen=True)
class LocalRun:
    """A run's folder on this machine."""

    folder: Path
    spec: RunSpec
    state: State
    samples: int

    @property
    def samples_file(self) -> Path:
        """Generated media kept for looking at."""
        return self.folder / "samples.npz"


def local_run(spec: RunSpec, places: Places) -> LocalRun:
    """What this machine has of a run."""
    folder = places.runs / spec.folder_name
    return LocalRun(folder, spec, *_state(folder))


def local_runs(places: Places) -> list[LocalRun]:
    """Every run of the work folder, by name. A folder that is no run is left out."""
    found = []
    for path in sorted(places.runs.glob(f"*/{SPEC}")):
        try:
            spec = RunSpec.model_validate_json(path.read_text(encoding="utf-8"))
        except ValueError:
            continue
        found.append(LocalRun(path.parent, spec, *_state(path.parent)))
    return found


def execute(spec: RunSpec, places: Places, watch: Callable[[dict[str, Any]], None]) -> Record:
    """Do or resume a run and write its record.

    Raises:
        InterruptedRunError: asked to stop; the same command goes on from the checkpoint.
        InfrastructureError: the worker died without a result, hung, or another process is doing this run.
    """
    folder = places.runs / spec.folder_name
    if _locked(folder / LOCK):
        raise InfrastructureError(f"{spec.name}: another process is doing this run. Wait for it: selfflow-bench status")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RESULT).unlink(missing_ok=True)
    name_file = folder / RUN_ID
    if not name_file.exists():
        replace_text(name_file, f"{spec.folder_name}-{secrets.token_hex(3)}")
    help_line = f"The log is {folder / LOG}. To go on: selfflow-bench resume {spec.folder_name}"
    try:
        code = run_worker(spec, folder, places.cache, watch)
    except KeyboardInterrupt:
        raise InterruptedRunError(f"{spec.name}: stopped; its checkpoint is kept. {help_line}") from None
    except WorkerHungError as error:
        raise InfrastructureError(f"{spec.name}: {error}. {help_line}") from error
    if code == InterruptedRunError.exit_code:
        raise InterruptedRunError(f"{spec.name}: the worker was stopped; its checkpoint is kept. {help_line}")
    if not (folder / RESULT).exists():
        how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        raise InfrastructureError(f"{spec.name}: the worker {how} without a result. {help_line}\n{_tail(folder / LOG)}")
    record = make_record(spec, folder)
    record_files.write(record, places.results)
    return record


def evaluate_again(
    run: LocalRun, places: Places, watch: Callable[[dict[str, Any]], None]
) -> tuple[dict[str, float | None], dict[str, float | None]]:
    """Sample and measure a finished run anew from its checkpoint: the metrics now, and as recorded. No record."""
    kept = (run.folder / RESULT).read_text(encoding="utf-8")
    before = {name: value["value"] for name, value in json.loads(kept)["metrics"].items()}
    try:
        (run.folder / RESULT).unlink()
        run_worker(run.spec, run.folder, places.cache, watch)
        if not (run.folder / RESULT).exists():
            raise SuiteError(f"{run.spec.name}: could not be evaluated. The log is {run.folder / LOG}")
        result = json.loads((run.folder / RESULT).read_text(encoding="utf-8"))
        if result["status"] != "success":
            raise SuiteError(f"{run.spec.name}: {result['failure']['message']}. The log is {run.folder / LOG}")
    except KeyboardInterrupt:
        raise InterruptedRunError(f"{run.spec.name}: evaluation stopped; the run's own result is kept") from None
    finally:
        replace_text(run.folder / RESULT, kept)
    return {name: value["value"] for name, value in result["metrics"].items()}, before


def forget(spec: RunSpec, places: Places) -> None:
    """Delete what this machine has of a run, so that it is done afresh. Records stay."""
    run = local_run(spec, places)
    if run.state == "running":
        raise SuiteError(f"{run.folder}: is running. Stop it first, or wait for it.")
    if run.folder.exists():
        shutil.rmtree(run.folder)


def recorded(spec: RunSpec, places: Places) -> Record | None:
    """The record this machine's own finished run has written."""
    folder = places.runs / spec.folder_name
    if _state(folder)[0] not in ("done", "failed"):
        return None
    run_id = (folder / RUN_ID).read_text(encoding="utf-8").strip()
    path = places.results / record_files.RECORDS / spec.recipe.name / spec.tier / f"{run_id}.json"
    return record_files.read(path) if path.exists() else None


def make_record(spec: RunSpec, folder: Path) -> Record:
    """The record of what a run's folder holds."""
    result = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    failed = result["status"] != "success"
    train_s = result.get("train_seconds")
    samples = int(result.get("samples", 0))
    data = spec.conditions.data
    return Record(
        run_id=(folder / RUN_ID).read_text(encoding="utf-8").strip(),
        created=datetime.fromtimestamp((folder / RESULT).stat().st_mtime, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        status="failed" if failed else "success",
        failure=_failure(result["failure"]) if failed else None,
        recipe=spec.recipe,
        protocol=spec.protocol,
        tier=spec.tier,
        method=MethodUsed(name=spec.method, label=spec.label, settings=spec.settings),
        overrides=spec.overrides,
        seed=Seed(index=spec.seed_index, value=spec.seed, derivation=SEED_DERIVATION),
        data={f"{data.source}/train": data.train_sha256, f"{data.source}/validation": data.validation_sha256},
        code=_code(),
        versions=result["versions"],
        hardware=Hardware.model_validate(result["hardware"]),
        samples=samples,
        timing=Timing(
            train_s=train_s,
            wall_s=_wall_seconds(folder),
            samples_per_s=samples / train_s if train_s else None,
        ),
        cost=result.get("cost", {}),
        metrics={name: Metric.model_validate(value) for name, value in result.get("metrics", {}).items()},
        untrained={name: Metric.model_validate(value) for name, value in result.get("untrained", {}).items()},
        validations=tuple(Validation.model_validate(row) for row in result.get("validations", [])),
        curve=tuple(result.get("curve", [])),
        alarms=tuple(result.get("alarms", [])),
    )


def _failure(found: dict[str, str]) -> Failure:
    """Why the run failed, without this machine's paths and names."""
    return Failure.model_validate({"class": found["class"], "message": scrub(found["message"])})


def _state(folder: Path) -> tuple[State, int]:
    """What a folder's files say, and the samples seen. A held lock means a process is at it."""
    if not (folder / SPEC).exists():
        return "new", 0
    samples = 0
    pointer = folder / "checkpoint.json"
    if pointer.exists():
        samples = int(json.loads(pointer.read_text(encoding="utf-8"))["samples"])
    if (folder / RESULT).exists():
        try:
            status = json.loads((folder / RESULT).read_text(encoding="utf-8"))["status"]
        except ValueError as error:
            raise DamagedFileError(f"{folder / RESULT}: not JSON. Delete {folder} to start over.") from error
        return ("done" if status == "success" else "failed"), samples
    return ("running" if _locked(folder / LOCK) else "interrupted"), samples


def _locked(path: Path) -> bool:
    if not path.exists():
        return False
    with path.open("r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
        return False


def _wall_seconds(folder: Path) -> float:
    """Seconds over all sittings, from the events: a sitting is from its first stage to its last event."""
    total, start, last = 0.0, None, 0.0
    for event in EventFollower(folder / EVENTS).new():
        if event["event"] == "stage" and event["name"] == "prepare":
            total += last - start if start is not None else 0.0
            start = event["time"]
        last = event["time"]
    return round(total + (last - start if start is not None else 0.0), 3)


def _code() -> Code:
    """The commit this package runs from; dirty where its code or recipes differ from it."""
    project = Path(__file__).resolve().parents[1]

    def git(*arguments: str) -> str | None:
        command = ["git", "-C", str(project), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        return done.stdout.strip() if done.returncode == 0 else None

    if shutil.which("git") is None or not (project / ".git").exists():
        return Code(commit=None, dirty=True)
    commit = git("rev-parse", "HEAD")
    changed = git("status", "--porcelain", "--", "selfflow_bench", "recipes", "requirements.lock")
    return Code(commit=commit, dirty=commit is None or changed is None or bool(changed))


def _tail(log: Path, lines: int = 12) -> str:
    if not log.exists():
        return ""
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
