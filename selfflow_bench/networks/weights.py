"""Weights files of packages: their bytes, after a check of the published SHA-256."""

import hashlib
from pathlib import Path

from selfflow_bench.errors import DamagedFileError


def read_weights(path: Path, sha256: str, package: str) -> bytes:
    """The bytes of a weights file, after their SHA-256 has been compared with the published one.

    Raises DamagedFileError naming the file when it is missing or differs; nothing is unpickled before that.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DamagedFileError(f"{path}: cannot be read ({error.strerror}). Reinstall {package}.") from error
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise DamagedFileError(f"{path}: SHA-256 is {found}, expected {sha256}. Reinstall {package}.")
    return content
