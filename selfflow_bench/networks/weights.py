"""Weights files: their bytes, after a check of the published SHA-256, and where those lie that no package has."""

import hashlib
import os
from pathlib import Path

from selfflow_bench.errors import DamagedFileError

FOLDER_VARIABLE = "SELFFLOW_WEIGHTS"
"""The folder of weights files that no package has; ``weights`` in the cache if it is not set."""


def read_weights(path: Path, sha256: str, remedy: str) -> bytes:
    """The bytes of a weights file, after their SHA-256 has been compared with the published one.

    Raises DamagedFileError naming the file and the remedy when it is missing or differs; nothing is unpickled before
    that.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DamagedFileError(f"{path}: cannot be read ({error.strerror}). {remedy}.") from error
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise DamagedFileError(f"{path}: SHA-256 is {found}, expected {sha256}. {remedy}.")
    return content


def weights_folder(cache: Path) -> Path:
    """Where weights files lie that are fetched by hand."""
    chosen = os.environ.get(FOLDER_VARIABLE)
    return Path(chosen) if chosen else cache / "weights"
