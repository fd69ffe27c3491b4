"""The processes of one worker, one per GPU: started together, stopped together, and ended when one of them dies.

What torchrun does on one machine, but that exit codes are kept, and that whoever is asked to stop has the time to write
a checkpoint. Knows nothing of what the processes do. Every wait has a deadline.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from datetime import timedelta

from torch.distributed import TCPStore  # type: ignore[attr-defined]

from selfflow_bench.errors import EXIT_INTERRUPTED

GRACE_SECONDS = 15.0
"""How long the others have to end after one has died; they may be waiting for it, and cannot."""
STOP_SECONDS = 80.0
"""How long all have to write their checkpoint and end after they were asked to stop, or after one has ended well."""
_POLL_SECONDS = 0.1
_HOST = "127.0.0.1"


def processes_together(command: Sequence[str], count: int, stop: Callable[[], bool], keep_open: int) -> list[int]:
    """Run a command in ``count`` processes that find each other by torch's environment variables, to their end.

    Args:
        command: what to run.
        count: how many times.
        stop: asked again and again; once true, every process gets SIGTERM.
        keep_open: a file descriptor that the processes inherit, such as a lock's.

    Returns:
        Exit codes, negative for a signal, of those that ended by themselves: what was ended here is left out, so that
        what is there is why. None if all were, having been asked to stop too early to say so.
    """
    store = TCPStore(_HOST, 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=60))
    processes = [
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **_place(rank, count, store.port)},
            pass_fds=[keep_open],
        )
        for rank in range(count)
    ]
    ended: dict[int, int | None] = {}
    asked, deadline = False, float("inf")
    try:
        while len(ended) < count and time.monotonic() < deadline:
            died = False
            for rank, process in enumerate(processes):
                code = process.poll()
                if code is not None and rank not in ended:
                    ended[rank] = None if asked and code == -signal.SIGTERM else code
                    died = died or ended[rank] not in (None, 0, EXIT_INTERRUPTED)
            if died:
                deadline = min(deadline, time.monotonic() + GRACE_SECONDS)
            elif ended or (stop() and not asked):
                deadline = min(deadline, time.monotonic() + STOP_SECONDS)
            if not asked and (died or stop()):
                asked = True
                _signal(processes, signal.SIGTERM)
            time.sleep(_POLL_SECONDS)
    finally:
        _signal(processes, signal.SIGKILL)
        for process in processes:
            process.wait(timeout=10)
    codes = [code for code in ended.values() if code is not None]
    hung = len(ended) < count and set(codes) <= {0, EXIT_INTERRUPTED}
    return [-signal.SIGKILL] if hung else codes


def _place(rank: int, count: int, port: int) -> dict[str, str]:
    """The environment by which torch finds a process's place, and the store that this process keeps."""
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": _HOST,
        "MASTER_PORT": str(port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RESTART_COUNT": "0",
        # Without a network there is no other; and a host's name might not lead back to it.
        "GLOO_SOCKET_IFNAME": os.environ.get("GLOO_SOCKET_IFNAME", "lo"),
    }


def _signal(processes: Sequence[subprocess.Popen[bytes]], number: signal.Signals) -> None:
    for process in processes:
        if process.poll() is None:
            process.send_signal(number)
