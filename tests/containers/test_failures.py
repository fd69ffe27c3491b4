from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys

import pytest

from selfflow_bench.failures import RETRIED, WORKER_CODES, is_disk_full, trouble_of_exit


@pytest.mark.parametrize(
    ("code", "oom_killed", "expected"),
    [
        (0, False, None),
        (0, True, None),  # a helper process died, the run did not
        (130, False, None),
        (2, False, None),
        (137, True, "out of memory"),
        (137, False, "killed"),
        (143, False, "killed"),
        (-9, False, "killed"),
        (139, False, "crashed"),
        (-11, False, "crashed"),
        (71, False, "out of memory"),
        (74, False, "disk full"),
    ],
)
def test_exit_codes_are_told_apart(code: int, oom_killed: bool, expected: str | None) -> None:
    found = trouble_of_exit(code, oom_killed=oom_killed)
    assert (found.kind if found else None) == expected
    assert found is None or found.is_retried == (found.kind in RETRIED)


@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGSEGV"])
def test_signals_of_real_processes_are_named(name: str) -> None:
    number = int(getattr(signal, name))
    done = subprocess.run([sys.executable, "-c", f"import os; os.kill(os.getpid(), {number})"], check=False)
    through_a_shell = subprocess.run(["sh", "-c", f"kill -{number} $$"], check=False)
    for code in (done.returncode, through_a_shell.returncode, 128 + number):
        found = trouble_of_exit(code)
        assert found is not None
        assert name in found.text


def test_worker_codes_are_no_other_exit_codes() -> None:
    assert not set(WORKER_CODES.values()) & {0, 1, 2, 3, 4, 5, 6, 130}


def write_to_a_full_disk() -> None:
    try:
        with open("/dev/full", "wb", buffering=0) as file:
            file.write(b"x")
    except OSError as error:
        raise RuntimeError("the writer failed") from error


def test_a_full_disk_is_seen_behind_other_errors() -> None:
    with pytest.raises(RuntimeError) as caught:
        write_to_a_full_disk()
    assert is_disk_full(caught.value)
    assert not is_disk_full(RuntimeError("the writer failed"))
    assert not is_disk_full(OSError(errno.EACCES, os.strerror(errno.EACCES)))
