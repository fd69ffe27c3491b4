"""Checkpoints that survive being killed at any moment.

A checkpoint is one file, complete before a pointer names it: temporary file, fsync, rename, then the same for the
pointer, which holds its hash. Whatever instant the process dies at, the pointer names a whole checkpoint or there is
none. A checkpoint belongs to one run (its key); another run's is refused.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import torch

from selfflow_bench.atomic_files import replace_text
from selfflow_bench.errors import DamagedFileError

POINTER = "checkpoint.json"


def save(folder: Path, state: dict[str, Any], samples: int, run_key: str) -> None:
    """Write ``state`` (tensors, numbers, strings, and lists and dicts of them) as the folder's one checkpoint."""
    folder.mkdir(parents=True, exist_ok=True)
    name = f"checkpoint-{samples:012d}.pt"
    temporary = folder / f".{name}.tmp"
    with temporary.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    sha256 = _sha256(temporary)
    temporary.replace(folder / name)
    pointer = {"file": name, "run_key": run_key, "samples": samples, "sha256": sha256}
    replace_text(folder / POINTER, json.dumps(pointer, indent=1, sort_keys=True) + "\n")
    for old in folder.glob("checkpoint-*.pt"):
        if old.name != name:
            old.unlink()


def load(folder: Path, run_key: str, *, mapped: bool = False) -> dict[str, Any] | None:
    """The folder's checkpoint, or None where there is none yet.

    ``mapped`` leaves tensors in the file until they are read: for processes that each take a part of every one.

    Raises DamagedFileError where its content is not what was written, or is another run's.
    """
    pointer_path = folder / POINTER
    if not pointer_path.exists():
        return None
    pointer = json.loads(pointer_path.read_text(encoding="utf-8"))
    path = folder / pointer["file"]
    if pointer["run_key"] != run_key:
        raise DamagedFileError(
            f"{path}: belongs to run {pointer['run_key']}, not to {run_key}. Delete {folder} to start over."
        )
    if not path.exists() or _sha256(path) != pointer["sha256"]:
        raise DamagedFileError(f"{path}: missing or damaged (sha256 differs). Delete {folder} to start over.")
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    return state


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
