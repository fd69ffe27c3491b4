"""Weights files: their bytes, after a check of the published SHA-256, and where those lie that no package has."""

import hashlib
from pathlib import Path

from selfflow_bench.errors import DamagedFileError


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
    """Where weights files lie that are in no package."""
    return cache / "weights"
