"""Does one run in a process of its own: ``python -m selfflow_bench.worker SPEC FOLDER CACHE``.

Reads a run specification, writes only into its folder and the cache. SIGTERM and SIGINT make it write a checkpoint and
leave with code 130; started again it goes on where it was. If the process that started it dies, it does the same. What
it found is in ``result.json``, how it went in ``events.jsonl``. Where the budget has several GPUs it starts itself once
for each; the first of these processes writes for all.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import platform
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

import torch
from torch import distributed

from selfflow_bench import __version__
from selfflow_bench.atomic_files import replace_text
from selfflow_bench.errors import (
    EXIT_INTERRUPTED,
    InfrastructureError,
    InterruptedRunError,
    NonFiniteLossError,
    SuiteError,
)
from selfflow_bench.events import EventLog
from selfflow_bench.failures import WORKER_CODES, Kind, is_disk_full
from selfflow_bench.machine import machine_class
from selfflow_bench.plan import RunSpec
from selfflow_bench.stages.cost import count_cost
from selfflow_bench.stages.evaluation import check, evaluate
from selfflow_bench.stages.run import set_up
from selfflow_bench.stages.training import alarms, train
from selfflow_bench.training.loop import Progress
from selfflow_bench.worker_processes import processes_together

RESULT = "result.json"
LOCK = "lock"
_FAILURE = "failure-{}.json"
_VERSIONS = ("accelerate", "datasets", "diffusers", "numpy", "onnxruntime", "torch", "torch-fidelity", "transformers")


def main(arguments: list[str] | None = None) -> int:
    """Run to the end.

    Exit codes: 0 done, 130 interrupted, 2 or 3 failed with the reason in ``result.json``; one of
    `failures.WORKER_CODES`, without a result, where the machine and not the run failed.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("spec", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("cache", type=Path)
    chosen = parser.parse_args(arguments)
    chosen.folder.mkdir(parents=True, exist_ok=True)
    stop = _stop_on_signals()
    for name in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"):  # elsewhere might be read-only, or nothing to run from
        os.environ.setdefault(name, str(chosen.folder / "compiled"))
    spec = RunSpec.model_validate_json(chosen.spec.read_text(encoding="utf-8"))
    if "RANK" in os.environ:  # the one that started this process holds the lock
        return _one_of_several(spec, chosen.folder, chosen.cache, stop, int(os.environ["RANK"]))
    with (chosen.folder / LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            print(f"{chosen.folder}: another process is doing this run", file=sys.stderr)
            return InfrastructureError.exit_code
        if spec.conditions.budget.gpus > 1:
            return _several(spec, chosen, stop, lock.fileno())
        events = EventLog(chosen.folder / "events.jsonl")
        # For the record of a run that never comes to a result.
        events.write("machine", **_machine())
        try:
            result = _run(spec, chosen.folder, chosen.cache, events, stop)
        except InterruptedRunError as error:
            events.write("interrupted", message=str(error))
            return error.exit_code
        except Exception as error:
            kind = _infrastructure(_shown(error))
            if kind is not None:
                return WORKER_CODES[kind]
            result = _failed(_failure(error))
        return _finish(chosen.folder, events, result)


def _several(spec: RunSpec, chosen: argparse.Namespace, stop: Callable[[], bool], lock: int) -> int:
    """Start one process for each GPU of the budget; what they ended with, as one."""
    folder, count, found = chosen.folder, spec.conditions.budget.gpus, torch.cuda.device_count()
    events = EventLog(folder / "events.jsonl")
    if 0 < found < count:
        text = f"budget.gpus = {count}: this machine has {found}"
        return _finish(folder, events, _failed({"class": "refused at start-up", "message": text}))
    for old in folder.glob(_FAILURE.format("*")):
        old.unlink()
    command = [sys.executable, "-m", "selfflow_bench.worker", str(chosen.spec), str(folder), str(chosen.cache)]
    codes = processes_together(command, count, stop, lock)
    died = [code for code in codes if code < 0]
    for code in WORKER_CODES.values():
        if code in codes:
            return code
    if died:
        return 128 - min(died)  # a kill before the aborts that follow from it
    if set(codes) <= {0, EXIT_INTERRUPTED}:
        return max(codes, default=EXIT_INTERRUPTED)
    failures = [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob(_FAILURE.format("*"))]
    if not failures:
        return max(codes)
    # The first to fail is the cause; the others missed it.
    return _finish(folder, events, _failed(min(failures, key=lambda one: float(one["time"]))["failure"]))


def _one_of_several(spec: RunSpec, folder: Path, cache: Path, stop: Callable[[], bool], rank: int) -> int:
    """The run as one of its processes does it. Why it failed is left for the one that started them all."""
    events = EventLog(folder / "events.jsonl" if rank == 0 else Path(os.devnull))
    try:
        result = _run(spec, folder, cache, events, stop)
    except InterruptedRunError as error:
        events.write("interrupted", message=str(error))
        return error.exit_code
    except Exception as error:
        at = time.time()
        kind = _infrastructure(_shown(error))
        if kind is not None:
            return WORKER_CODES[kind]
        replace_text(folder / _FAILURE.format(rank), json.dumps({"time": at, "failure": _failure(error)}))
        return SuiteError.exit_code
    distributed.destroy_process_group()
    return _finish(folder, events, result) if rank == 0 else 0


def _finish(folder: Path, events: EventLog, result: dict[str, Any]) -> int:
    replace_text(folder / RESULT, json.dumps(result, indent=1, sort_keys=True) + "\n")
    events.write("result", status=result["status"])
    events.close()
    return 0 if result["status"] == "success" else SuiteError.exit_code


def _failed(failure: dict[str, str]) -> dict[str, Any]:
    return {"status": "failed", "failure": failure, **_machine()}


def _shown(error: Exception) -> Exception:
    """The error being handled, its traceback in the log."""
    with contextlib.suppress(OSError):  # the log may be on a full disk
        traceback.print_exc()
    return error


def _run(spec: RunSpec, folder: Path, cache: Path, events: EventLog, stop: Callable[[], bool]) -> dict[str, Any]:
    started = time.perf_counter()
    torch.use_deterministic_algorithms(mode=True)
    run = set_up(spec, folder, cache, events, stop)
    check(run)
    cost = count_cost(run)
    training = train(run)
    evaluation = evaluate(run, training.evaluated(), training.processes)
    progress = training.progress
    return {
        "status": "success",
        "curve": progress.rows,
        "validations": progress.validations,
        "alarms": alarms(progress.validations),
        "samples": progress.samples,
        "train_seconds": progress.seconds,
        "processor_share": _processor_share(progress),
        "sitting_seconds": time.perf_counter() - started,
        "cost": {**cost, "peak_memory_mb": _peak_memory_mb()},
        **evaluation,
        **_machine(),
    }


def _processor_share(progress: Progress) -> float | None:
    """The share of its threads' time that training had of the processor; None where a GPU does the work."""
    if torch.cuda.is_available() or not progress.seconds:
        return None
    return progress.processor_seconds / progress.seconds / torch.get_num_threads()


def _stop_on_signals() -> Callable[[], bool]:
    """Whether SIGTERM or SIGINT arrived, or whoever started this process died."""
    asked: list[int] = []
    parent = os.getppid()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _frame: asked.append(received))
    return lambda: bool(asked) or os.getppid() != parent


def _infrastructure(error: Exception) -> Kind | None:
    """The class of a failure of the machine's, or None where it is the run's own."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error):
        return "out of memory"  # the allocator of CPU tensors raises a plain RuntimeError
    return "disk full" if is_disk_full(error) else None


def _failure(error: Exception) -> dict[str, str]:
    """The class of a failure of the run's own, and its message without paths."""
    if isinstance(error, NonFiniteLossError):
        kind = "non-finite loss"
    elif isinstance(error, SuiteError):
        kind = "refused at start-up"
    else:
        kind = type(error).__name__
    return {"class": kind, "message": str(error).splitlines()[0] if str(error) else kind}


def _machine() -> dict[str, Any]:
    """What a record says of software and hardware: classes, never names of hosts or users."""
    return {
        "versions": {
            "python": platform.python_version(),
            "selfflow_bench": __version__,
            **{name: version(name) for name in _VERSIONS},
        },
        "hardware": {
            **machine_class(),
            "threads": torch.get_num_threads(),
            "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        },
    }


def _peak_memory_mb() -> float:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    sys.exit(main())
