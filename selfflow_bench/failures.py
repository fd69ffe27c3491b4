"""How a run's process can end badly, told apart. Knows nothing of processes, containers and records.

Infrastructure failures are no fault of the run: they are tried again from the checkpoint, at most `RETRIES` times.
What is the run's own (a loss that is not finite, a refusal at start-up) the worker writes into its result: recorded,
never tried again.
"""

from __future__ import annotations

import errno
import signal
from dataclasses import dataclass
from typing import Literal

Kind = Literal["out of memory", "hang", "disk full", "image missing", "engine gone", "killed", "crashed"]

RETRIES = 2
RETRIED: frozenset[Kind] = frozenset({"out of memory", "hang", "disk full", "engine gone", "killed"})
"""An image does not come back by itself, and a process that fell over will fall again."""

WORKER_CODES: dict[Kind, int] = {"out of memory": 71, "disk full": 74}
"""Exit codes by which a worker says what it died of: a file might not fit on the disk any more."""

_KILLERS = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Trouble:
    """An infrastructure failure: its class, and what was seen."""

    kind: Kind
    text: str

    @property
    def is_retried(self) -> bool:
        """Whether another sitting, from the checkpoint, can help."""
        return self.kind in RETRIED


def trouble_of_exit(code: int, *, oom_killed: bool = False) -> Trouble | None:
    """What an exit code says; None where the process ended as it should (0, interrupted, or its result says why).

    Args:
        code: the exit code; a signal is negative, as Python has it, or 128 and more, as engines and shells have it.
        oom_killed: the system says that it killed a process of the run's for memory.
    """
    if oom_killed and code != 0:
        return Trouble("out of memory", "the system killed it at its memory limit")
    for kind, known in WORKER_CODES.items():
        if code == known:
            return Trouble(kind, f"the worker ended: {kind}")
    number = -code if code < 0 else code - 128
    if code == 128 + signal.SIGINT or not 0 < number <= signal.SIGRTMAX:
        return None
    name = _signal_name(number)
    if number in _KILLERS:
        return Trouble("killed", f"was killed by {name} from outside")
    return Trouble("crashed", f"ended by {name}")


def is_disk_full(error: BaseException) -> bool:
    """Whether a full disk is behind an error, however it was wrapped on its way up."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if "No space left on device" in str(seen):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
