"""Folders in a cache that are found by what they were made of, and appear complete or not at all.

Knows nothing of what lies in them.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import filelock

MANIFEST = "manifest.json"


def made_once(cache: Path, digest: str, write: Callable[[Path], None]) -> Path:
    """The folder of a digest; filled by ``write`` where the cache lacks it, whatever kills its maker.

    Any number of processes may ask at once: one makes it and the others wait.
    """
    directory = cache / digest
    cache.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(_lock(cache, digest)):
        if not directory.exists():
            partial = _partial(cache, digest)
            # Under this digest's lock nobody else is making it: what lies there belongs to a process that died.
            shutil.rmtree(partial, ignore_errors=True)
            _remove_abandoned(cache)
            partial.mkdir()
            write(partial)
            partial.rename(directory)
            _sync(cache)
    return directory


def write_manifest(
    folder: Path, files: Sequence[Path], facts: Mapping[str, Any], hashes: Mapping[str, str] | None = None
) -> None:
    """Write the manifest: the facts, and size and sha256 of every file; then make all of it outlast a power cut.

    ``hashes`` of the files by their names, where they are known.
    """
    known = {} if hashes is None else hashes
    content = {
        **facts,
        "files": {
            file.name: {"bytes": file.stat().st_size, "sha256": known.get(file.name) or sha256_of(file)}
            for file in files
        },
    }
    (folder / MANIFEST).write_text(json.dumps(content, indent=2), encoding="utf-8")
    for path in (*files, folder / MANIFEST, folder):
        _sync(path)


def read_manifest(folder: Path, *, verify: bool = False) -> dict[str, Any]:
    """The manifest, after checking the size of every file, and with ``verify`` its sha256 too.

    Raises OSError, ValueError, KeyError or TypeError where something is missing or differs.
    """
    manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    for name, expected in manifest["files"].items():
        path = folder / name
        size = path.stat().st_size
        if size != expected["bytes"]:
            raise ValueError(f"{name} has {size} bytes, not {expected['bytes']}")
        if verify and (found := sha256_of(path)) != expected["sha256"]:
            raise ValueError(f"{name} has sha256 {found}, not {expected['sha256']}")
    return manifest


def _remove_abandoned(cache: Path) -> None:
    """Remove half-made folders whose maker is gone: a lock that can be had is held by nobody."""
    for partial in cache.glob(_partial(cache, "*").name):
        digest = partial.name.removeprefix(".").removesuffix(".partial")
        with suppress(filelock.Timeout), filelock.FileLock(_lock(cache, digest), timeout=0):
            shutil.rmtree(partial, ignore_errors=True)


def _partial(cache: Path, digest: str) -> Path:
    return cache / f".{digest}.partial"


def _lock(cache: Path, digest: str) -> Path:
    return cache / f".{digest}.lock"


def sha256_of(path: Path) -> str:
    """Of a file's content, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    """Make a file's content, or a folder's entries, outlast a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
