"""Where a run's worker is started, watched and stopped: the interface, and this machine as the simplest of them.

A worker reads ``spec.json`` and writes ``events.jsonl`` and ``result.json`` into the run's folder, whatever the place.
Knows nothing of what the worker does. Every wait has a deadline: a worker that shows no sign of life is asked to stop,
then killed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from selfflow_bench.atomic_files import replace_text
from selfflow_bench.errors import EXIT_INTERRUPTED
from selfflow_bench.events import EventFollower
from selfflow_bench.failures import Trouble, trouble_of_exit
from selfflow_bench.plan import RunSpec

SPEC, LOG, EVENTS, RESULT = "spec.json", "log.txt", "events.jsonl", "result.json"
SILENCE_SECONDS = 900.0
"""A worker without an event for this long has hung (the longest silent stage takes about a minute)."""
START_SECONDS = 300.0
"""How long it may be silent before its first event: importing PyTorch from a cold disk takes a while."""
STOP_SECONDS = 90.0
"""How long a worker may take to write its checkpoint when asked to stop."""
_POLL_SECONDS = 0.2

Watch = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Ending:
    """How a sitting ended.

    Args:
        exit_code: of the worker; None where none is known.
        trouble: an infrastructure failure, or None.
        container: what the engine said of the container, for the record; None where there was none.
    """

    exit_code: int | None
    trouble: Trouble | None = None
    container: Mapping[str, Any] | None = None

    @property
    def is_interrupted(self) -> bool:
        """The worker was asked to stop, and has written its checkpoint."""
        return self.trouble is None and self.exit_code == EXIT_INTERRUPTED


class Executor(Protocol):
    """A place where a worker can do a run."""

    def has_unfinished(self, folder: Path) -> bool:
        """Whether a sitting of this folder's run goes on, or has ended, with nobody watching it."""
        ...

    def sitting(self, spec: RunSpec, folder: Path, cache: Path, watch: Watch) -> Ending:
        """Start the worker, or go on watching one that is there, to its end.

        Args:
            spec: what to run; written into the folder.
            folder: the run's folder, there already.
            cache: shared caches.
            watch: receives every event of this sitting.

        Raises:
            KeyboardInterrupt: SIGINT or SIGTERM arrived here; the worker has been stopped and has a checkpoint.
            SuiteError: the place cannot be used; the message says what is missing.
        """
        ...


class Vigil:
    """The signs of life of a worker: hands its events on and knows how long there has been none."""

    def __init__(self, events: Path, watch: Watch, silence_seconds: float) -> None:
        self._follower = EventFollower(events, from_end=True)
        self._watch, self._silence = watch, silence_seconds
        self._last, self._allowed = time.monotonic(), max(silence_seconds, START_SECONDS)

    def look(self) -> None:
        """Hand on what is new."""
        for event in self._follower.new():
            self._last, self._allowed = time.monotonic(), self._silence
            self._watch(event)

    @property
    def trouble(self) -> Trouble | None:
        """A hang, once the silence has been too long."""
        if time.monotonic() - self._last > self._allowed:
            return Trouble("hang", f"no sign of life for {self._allowed:.0f} s")
        return None


@dataclass(frozen=True)
class HostExecutor:
    """This machine. The worker runs in a session of its own, so that Ctrl-C reaches it once and through here."""

    silence_seconds: float = SILENCE_SECONDS

    def has_unfinished(self, folder: Path) -> bool:
        """Never: a worker on the host stops when whoever started it dies."""
        return False

    def sitting(self, spec: RunSpec, folder: Path, cache: Path, watch: Watch) -> Ending:
        """See `Executor`."""
        write_spec(spec, folder)
        vigil = Vigil(folder / EVENTS, watch, self.silence_seconds)
        command = [sys.executable, "-m", "selfflow_bench.worker", str(folder / SPEC), str(folder), str(cache)]
        environment = {**os.environ, **worker_environment(spec)}
        hang = None
        with (folder / LOG).open("ab") as log, termination_as_interrupt():
            worker = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
            )
            try:
                while worker.poll() is None and hang is None:
                    vigil.look()
                    hang = vigil.trouble
                    time.sleep(_POLL_SECONDS)
            finally:
                _stop(worker)
                vigil.look()
        ending = Ending(worker.returncode, trouble_of_exit(worker.returncode))
        return replace(ending, trouble=hang) if hang else ending


def worker_environment(spec: RunSpec) -> dict[str, str]:
    """What every worker's environment says, wherever it runs.

    Libraries that count cores are told the protocol's number: the last bits of a matrix product depend on it.
    """
    return {
        "PYTHONUNBUFFERED": "1",
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "OMP_NUM_THREADS": str(spec.conditions.training.threads),
    }


def write_spec(spec: RunSpec, folder: Path) -> None:
    """Put a run's specification where its worker reads it."""
    replace_text(folder / SPEC, spec.model_dump_json(indent=1) + "\n")


@contextmanager
def termination_as_interrupt() -> Iterator[None]:
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


def _stop(worker: subprocess.Popen[bytes]) -> None:
    """SIGTERM (the worker writes its checkpoint), a grace, SIGKILL."""
    if worker.poll() is not None:
        return
    worker.send_signal(signal.SIGTERM)
    try:
        worker.wait(timeout=STOP_SECONDS)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        worker.kill()
        worker.wait(timeout=10)
