"""A pretrained model of transformers by repository and commit, from the hub's cache on this machine; never the network.

Knows nothing of what its features are for.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfflow_bench.errors import DamagedFileError

_WEIGHTS = ("model.safetensors", "pytorch_model.bin")


@dataclass(frozen=True)
class HubModel:
    """Where a model is published: its repository and the commit of it."""

    repository: str
    revision: str

    def __str__(self) -> str:
        return f"{self.repository}@{self.revision}"

    def folder(self) -> Path:
        """The snapshot in the hub's cache. Raises DamagedFileError where it is not there, saying how to fetch it."""
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError

        try:
            return Path(snapshot_download(self.repository, revision=self.revision, local_files_only=True))
        except (LocalEntryNotFoundError, OSError, ValueError) as error:
            raise DamagedFileError(f"{self}: is not in the hub's cache on this machine. {self._remedy}") from error

    def load(self, model_class: Any, folder: Path | None = None) -> Any:
        """The model, in evaluation mode, of the snapshot or another folder in its format. Raises DamagedFileError."""
        folder = folder or self.folder()
        try:
            return model_class.from_pretrained(folder, local_files_only=True).eval()
        except (OSError, ValueError) as error:
            problem = str(error).splitlines()[0]
            raise DamagedFileError(f"{folder}: cannot be loaded ({problem}). {self._remedy}") from error

    def weights_sha256(self) -> str:
        """Of the snapshot's weights. Raises DamagedFileError where they are not what the hub's cache says they are.

        The cache stores a large file under its SHA-256, to which the snapshot links.
        """
        folder = self.folder()
        path = next((folder / name for name in _WEIGHTS if (folder / name).exists()), None)
        if path is None:
            raise DamagedFileError(f"{folder}: has neither {' nor '.join(_WEIGHTS)}. {self._remedy}")
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        stored_as = path.resolve().name
        if len(stored_as) == len(found) and stored_as != found:
            raise DamagedFileError(f"{path}: SHA-256 is {found}, stored as {stored_as}. Delete it. {self._remedy}")
        return found

    @property
    def _remedy(self) -> str:
        return f"Fetch it on a connected machine: hf download {self.repository} --revision {self.revision}"
