"""One run, from specification to record. Decides what is done already, what to resume, and what to try again.

The worker's findings become a record here, on the host: what runs inside a container cannot write results. Knows
executors by their interface only.
"""

from __future__ import annotations

import fcntl
import json
import secrets
import shutil
import subprocess
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from selfflow_bench.atomic_files import replace_text
from selfflow_bench.errors import DamagedFileError, FieldError, InfrastructureError, InterruptedRunError, SuiteError
from selfflow_bench.events import EventFollower
from selfflow_bench.execution import EVENTS, LOG, RESULT, SPEC, Ending, Executor, HostExecutor, Watch
from selfflow_bench.failures import RETRIES
from selfflow_bench.machine import machine_class
from selfflow_bench.places import KEPT_STATISTICS, Places
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

RUN_ID, LOCK = "run_id", "lock"
_BEFORE = "before-"
ORCHESTRATOR, ATTEMPTS = "orchestrator", "attempts.jsonl"
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


def named_run(name: str, places: Places, states: Collection[State] | None = None) -> LocalRun:
    """A run of this machine by its folder, name or key, in one of these states. Raises FieldError with those there."""
    runs = [run for run in local_runs(places) if states is None or run.state in states]
    for run in runs:
        if name in (run.folder.name, run.spec.name, run.spec.key):
            return run
    known = ", ".join(run.folder.name for run in runs) or "none"
    wanted = "run" if states is None else f"{' or '.join(sorted(states))} run"
    raise FieldError("command line", "run", name, f"no {wanted} of that name", f"There are: {known}.")


def execute(spec: RunSpec, places: Places, watch: Watch, executor: Executor | None = None) -> Record:
    """Do or resume a run and write its record. Infrastructure failures are tried again from the checkpoint.

    Args:
        spec: the run.
        places: where records, caches and runs are.
        watch: receives the worker's events, and a ``retry`` event before another try.
        executor: where to run it; this machine if not given.

    Raises:
        InterruptedRunError: asked to stop; the same command goes on from the checkpoint.
        InfrastructureError: the worker died without a result or hung, however often it was tried again, which is
            recorded; or another process is doing this run.
    """
    executor = executor or HostExecutor()
    folder = places.runs / spec.folder_name
    with _alone(folder, spec):
        found = executor.has_unfinished(folder)
        if not found:
            if _locked(folder / LOCK):
                raise InfrastructureError(_busy(spec))
            (folder / RESULT).unlink(missing_ok=True)
        name_file = folder / RUN_ID
        if not name_file.exists():
            replace_text(name_file, f"{spec.folder_name}-{secrets.token_hex(3)}")
        ending = _try(spec, folder, places.cache, watch, executor)
        if not (folder / RESULT).exists():
            raise _given_up(spec, folder, ending, places)
        record = make_record(spec, folder, container=_container(ending, folder))
        record_files.write(record, places.results)
    return record


def _try(spec: RunSpec, folder: Path, cache: Path, watch: Watch, executor: Executor) -> Ending:
    """Sittings until there is a result, or an infrastructure failure that is not tried again; the last one's ending."""
    help_line = _help_line(spec, folder)
    tries = 0
    while True:
        try:
            ending = executor.sitting(spec, folder, cache, watch)
        except KeyboardInterrupt:
            raise InterruptedRunError(f"{spec.name}: stopped; its checkpoint is kept. {help_line}") from None
        if (folder / RESULT).exists():
            return ending
        if ending.is_interrupted:
            raise InterruptedRunError(f"{spec.name}: the worker was stopped; its checkpoint is kept. {help_line}")
        trouble = ending.trouble
        if trouble is None:
            text = f"the worker ended with code {ending.exit_code} without a result"
            raise InfrastructureError(f"{spec.name}: {text}. {help_line}\n{_tail(folder / LOG)}")
        _note_attempt(folder, ending)
        if not trouble.is_retried or tries == RETRIES:
            after = f" ({tries + 1} tries)" if tries else ""
            return replace(ending, trouble=replace(trouble, text=trouble.text + after))
        text = f"{trouble.kind}: {trouble.text}"
        tries += 1
        watch({"event": "retry", "time": round(time.time(), 3), "try": tries, "of": RETRIES, "text": text})


def _given_up(spec: RunSpec, folder: Path, ending: Ending, places: Places) -> InfrastructureError:
    """Record that the machine, and not the run, failed; what to tell the user."""
    trouble = ending.trouble
    assert trouble is not None
    result = {
        "status": "infrastructure",
        "failure": {"class": trouble.kind, "message": trouble.text},
        "samples": _state(folder)[1],
        **_machine_of(spec, folder),
    }
    record = make_record(spec, folder, _container(ending, folder), result)
    try:
        said = f"Recorded: {record_files.write(record, places.results)}"
    except OSError as error:
        said = f"No record could be written: {error}"
    # An id names one record: what goes on from the checkpoint has another.
    (folder / RUN_ID).unlink()
    text = f"{spec.name}: {trouble.kind}: {trouble.text}. {_help_line(spec, folder)}. {said}"
    return InfrastructureError(f"{text}\n{_tail(folder / LOG)}")


def _help_line(spec: RunSpec, folder: Path) -> str:
    return f"The log is {folder / LOG}. To go on: selfflow-bench resume {spec.folder_name}"


def _machine_of(spec: RunSpec, folder: Path) -> dict[str, Any]:
    """What the worker said of its software and hardware; of one that did not come to it, this machine's class."""
    said = [event for event in EventFollower(folder / EVENTS).new() if event["event"] == "machine"]
    if said:
        return {name: said[-1][name] for name in ("versions", "hardware")}
    hardware = {**machine_class(), "threads": spec.conditions.training.threads, "accelerator": None}
    return {"versions": {}, "hardware": hardware}


def evaluate_again(
    run: LocalRun, places: Places, watch: Watch, executor: Executor | None = None
) -> tuple[dict[str, float | None], dict[str, float | None]]:
    """Sample and measure a finished run anew from its checkpoint: the metrics now, and as recorded. No record."""
    executor = executor or HostExecutor()
    if executor.has_unfinished(run.folder):
        raise InfrastructureError(_busy(run.spec))
    kept = (run.folder / RESULT).read_text(encoding="utf-8")
    before = {name: value["value"] for name, value in json.loads(kept)["metrics"].items()}
    try:
        (run.folder / RESULT).unlink()
        for path in run.folder.glob(f"{KEPT_STATISTICS}*"):
            path.rename(path.with_name(f"{_BEFORE}{path.name}"))  # with these there, nothing would be sampled
        executor.sitting(run.spec, run.folder, places.cache, watch)
        if not (run.folder / RESULT).exists():
            raise SuiteError(f"{run.spec.name}: could not be evaluated. The log is {run.folder / LOG}")
        result = json.loads((run.folder / RESULT).read_text(encoding="utf-8"))
        if result["status"] != "success":
            raise SuiteError(f"{run.spec.name}: {result['failure']['message']}. The log is {run.folder / LOG}")
    except KeyboardInterrupt:
        raise InterruptedRunError(f"{run.spec.name}: evaluation stopped; the run's own result is kept") from None
    finally:
        replace_text(run.folder / RESULT, kept)
        for path in run.folder.glob(f"{_BEFORE}*"):
            path.replace(path.with_name(path.name.removeprefix(_BEFORE)))
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


def make_record(
    spec: RunSpec,
    folder: Path,
    container: Mapping[str, Any] | None = None,
    result: Mapping[str, Any] | None = None,
) -> Record:
    """The record of what a run's folder holds, and of what the engine said of its container.

    ``result`` stands for the worker's where it left none.
    """
    moment = datetime.now(UTC)
    if result is None:
        moment = datetime.fromtimestamp((folder / RESULT).stat().st_mtime, UTC)
        result = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    succeeded = result["status"] == "success"
    train_s = result.get("train_seconds")
    samples = int(result.get("samples", 0))
    return Record(
        run_id=(folder / RUN_ID).read_text(encoding="utf-8").strip(),
        created=moment.strftime("%Y-%m-%dT%H:%M:%SZ"),
        status=result["status"],
        failure=None if succeeded else _failure(result["failure"]),
        recipe=spec.recipe,
        protocol=spec.protocol,
        tier=spec.tier,
        method=MethodUsed(name=spec.method, label=spec.label, settings=spec.settings),
        overrides=spec.overrides,
        seed=Seed(index=spec.seed_index, value=spec.seed, derivation=SEED_DERIVATION),
        data=spec.data_digests,
        code=_code(),
        versions=result["versions"],
        hardware=Hardware.model_validate(result["hardware"]),
        samples=samples,
        timing=Timing(
            train_s=train_s,
            wall_s=_wall_seconds(folder),
            samples_per_s=samples / train_s if train_s else None,
            processor_share=result.get("processor_share"),
        ),
        cost=result.get("cost", {}),
        metrics={name: Metric.model_validate(value) for name, value in result.get("metrics", {}).items()},
        untrained={name: Metric.model_validate(value) for name, value in result.get("untrained", {}).items()},
        validations=tuple(Validation.model_validate(row) for row in result.get("validations", [])),
        curve=tuple(result.get("curve", [])),
        alarms=tuple(result.get("alarms", [])),
        container=dict(container) if container is not None else None,
        unpinned=spec.unpinned,
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


@contextmanager
def _alone(folder: Path, spec: RunSpec) -> Iterator[None]:
    """Be the one process that looks after a run; the system lets go when the process ends, however it ends."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ORCHESTRATOR).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InfrastructureError(_busy(spec)) from None
        yield


def _busy(spec: RunSpec) -> str:
    return f"{spec.name}: another process is doing this run. Wait for it: selfflow-bench status"


def _note_attempt(folder: Path, ending: Ending) -> None:
    """Keep why a sitting failed, for the record of the run that succeeds in the end."""
    assert ending.trouble is not None
    row = {"class": ending.trouble.kind, "exit_code": ending.exit_code, "samples": _state(folder)[1]}
    with (folder / ATTEMPTS).open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def _container(ending: Ending, folder: Path) -> dict[str, Any] | None:
    """The container's facts for the record, with the infrastructure failures that came before."""
    if ending.container is None:
        return None
    path = folder / ATTEMPTS
    rows = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return {**ending.container, "earlier_failures": [json.loads(row) for row in rows]}


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
