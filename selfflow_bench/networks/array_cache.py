"""Arrays kept on disk under a content key: written whole or not at all, checked on reading.

Knows nothing of what the arrays mean. Several processes may ask for one key at once: each may build it, all end with a
whole file.
"""

import hashlib
import os
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def content_key(*parts: str | bytes | NDArray[np.generic]) -> str:
    """SHA-256 over parts, each with its kind and length (arrays: type, shape and bytes), so no two lists collide."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            kind, content = f"array {part.dtype.str} {part.shape}", np.ascontiguousarray(part).tobytes()
        else:
            kind, content = "bytes", part.encode() if isinstance(part, str) else part
        digest.update(f"{kind} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()


def cached_array(directory: Path, key: str, build: Callable[[], NDArray[Any]]) -> NDArray[Any]:
    """The array stored under `key`, built and stored if it is missing or damaged (the zip's CRC tells)."""
    path = directory / f"{key}.npz"
    stored = _read(path)
    if stored is not None:
        return stored
    array = build()
    directory.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=directory, prefix=f".{key}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(file, array=array)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return array


def _read(path: Path) -> NDArray[Any] | None:
    try:
        with np.load(path, allow_pickle=False) as archive:
            array: NDArray[Any] = archive["array"]
            return array
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile, zlib.error):
        return None
