"""Starts a run's worker on this machine, watches it, and stops it cleanly. Knows nothing of what the worker does.

The worker runs in a session of its own, so that Ctrl-C reaches it once and through here. Every wait has a deadline: a
worker that shows no sign of life is asked to stop, then killed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selfflow_bench.atomic_files import replace_text
from selfflow_bench.events import EventFollower
from selfflow_bench.plan import RunSpec

SPEC, LOG, EVENTS = "spec.json", "log.txt", "events.jsonl"
SILENCE_SECONDS = 900.0
"""A worker without an event for this long has hung (the longest silent stage takes about a minute)."""
STOP_SECONDS = 90.0
"""How long a worker may take to write its checkpoint when asked to stop."""
_POLL_SECONDS = 0.2


class WorkerHungError(Exception):
    """The worker gave no sign of life and was stopped."""


def run_worker(spec: RunSpec, folder: Path, cache: Path, watch: Callable[[dict[str, Any]], None]) -> int:
    """Do or resume a run; its exit code.

    Args:
        spec: what to run; written into the folder.
        folder: the run's folder.
        cache: shared caches.
        watch: receives every event of this sitting.

    Raises:
        KeyboardInterrupt: SIGINT or SIGTERM arrived here; the worker has been stopped and has a checkpoint.
        WorkerHungError: no event for `SILENCE_SECONDS`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    replace_text(folder / SPEC, spec.model_dump_json(indent=1) + "\n")
    follower = EventFollower(folder / EVENTS, from_end=True)
    command = [sys.executable, "-m", "selfflow_bench.worker", str(folder / SPEC), str(folder), str(cache)]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "TOKENIZERS_PARALLELISM": "false"}
    with (folder / LOG).open("ab") as log, _termination_as_interrupt():
        worker = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
        )
        last_sign = time.monotonic()
        try:
            while worker.poll() is None:
                for event in follower.new():
                    last_sign = time.monotonic()
                    watch(event)
                if time.monotonic() - last_sign > SILENCE_SECONDS:
                    raise WorkerHungError(f"no sign of life for {SILENCE_SECONDS:.0f} s; see {folder / LOG}")
                time.sleep(_POLL_SECONDS)
        finally:
            _stop(worker)
            for event in follower.new():
                watch(event)
    return worker.returncode


def _stop(worker: subprocess.Popen[bytes]) -> None:
    """SIGTERM (the worker writes its checkpoint), a grace, SIGKILL."""
    if worker.poll() is not None:
        return
    worker.send_signal(signal.SIGTERM)
    try:
        worker.wait(timeout=STOP_SECONDS)
    except subprocess.TimeoutExpired:
        worker.kill()
        worker.wait(timeout=10)


@contextmanager
def _termination_as_interrupt() -> Iterator[None]:
    """SIGTERM ends the wait as Ctrl-C does. Signals can be handled in the main thread only."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(_number: int, _frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
