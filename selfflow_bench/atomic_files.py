"""Whole files or none: writing where others may write, or die, at the same time.

Knows nothing of what the files hold.
"""

import contextlib
import fcntl
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from selfflow_bench.errors import EXIT_INFRASTRUCTURE, SuiteError


class BusyError(SuiteError):
    """Another process held a lock past the deadline."""

    exit_code = EXIT_INFRASTRUCTURE


def replace_text(path: Path, text: str) -> None:
    """Write a file whole: temporary file in its folder, fsync, rename. Missing folders are made."""
    replace_file(path, lambda file: file.write(text.encode()))


def replace_file(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """`replace_text` for what `write` puts into the open binary file."""
    with _temporary(path, write) as temporary:
        os.replace(temporary, path)


def create_text(path: Path, text: str) -> bool:
    """Write a file whole unless one of that name exists: then leave it and return False. One of many writers wins."""
    with _temporary(path, lambda file: file.write(text.encode())) as temporary:
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        except OSError:  # no hard links on this file system
            with folder_lock(path.parent):
                if path.exists():
                    return False
                os.replace(temporary, path)
    return True


@contextlib.contextmanager
def folder_lock(folder: Path, deadline_s: float = 30.0) -> Iterator[None]:
    """Hold a folder for oneself among processes that ask for the same; the system lets go when the process ends.

    Raises BusyError after `deadline_s` seconds of waiting.
    """
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        waited_until = time.monotonic() + deadline_s
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= waited_until:
                    text = f"{folder}: another process has been writing for {deadline_s:g} s. Wait for it, or end it."
                    raise BusyError(text) from None
                time.sleep(0.02)
        yield
    finally:
        os.close(handle)


@contextlib.contextmanager
def _temporary(path: Path, write: Callable[[BinaryIO], object]) -> Iterator[str]:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            os.fsync(file.fileno())
        yield temporary
    finally:
        Path(temporary).unlink(missing_ok=True)
