"""What a feature network is, and the check its weights must pass. Knows nothing of any particular network."""

import hashlib
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from selfflow_bench.errors import DamagedFileError


class FeatureNetwork(Protocol):
    """A fixed, pretrained map from media to vectors, named everywhere its distances are shown.

    Deterministic: the same media give the same bytes on the same machine and library versions.
    """

    name: str
    dimension: int
    weights_sha256: str

    def __call__(self, media: NDArray[Any]) -> NDArray[np.float32]:
        """Media `[N, ...]` of the network's own kind to `[N, dimension]`. Raises FieldError on a wrong shape."""
        ...


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
