"""Published weights as a folder on this machine: the hub's cache, looked up offline.

Knows nothing of what the folder's models are for.
"""

from __future__ import annotations

import json
from pathlib import Path

from selfflow_bench.errors import DamagedFileError, FieldError
from selfflow_bench.recipe import UNPINNED, Checkpoint

_INDEX = "model_index.json"
_CONFIG = "config.json"
"""What a folder has instead that is one model's, such as an autoencoder's."""


def local_snapshot(checkpoint: Checkpoint) -> Path:
    """The folder of a checkpoint in the hub's cache; the network is never asked.

    Raises FieldError for a revision that is not pinned, DamagedFileError where the folder, or a file that it speaks
    of, is not there, saying how to fetch it.
    """
    from huggingface_hub import snapshot_download

    _pinned(checkpoint)
    try:
        folder = Path(snapshot_download(checkpoint.id, revision=checkpoint.revision, local_files_only=True))
    except (OSError, ValueError) as error:
        raise DamagedFileError(
            f"{_named(checkpoint)}: is not in the hub's cache on this machine. {_remedy(checkpoint)}"
        ) from error
    missing = _missing(folder)
    if missing:
        raise DamagedFileError(f"{folder}: lacks {', '.join(missing)}. {_remedy(checkpoint)}")
    return folder


def _remedy(checkpoint: Checkpoint) -> str:
    return f"Fetch it on a connected machine: hf download {checkpoint.id} --revision {checkpoint.revision}"


def _named(checkpoint: Checkpoint) -> str:
    return f"{checkpoint.id}@{checkpoint.revision}"


def _pinned(checkpoint: Checkpoint) -> None:
    if checkpoint.revision == UNPINNED:
        raise FieldError(
            f"checkpoint {checkpoint.id}",
            "revision",
            checkpoint.revision,
            "weights are used only at a commit that the recipe names",
            "Fill it in on a connected machine: selfflow-bench pin <recipe>",
        )


def _missing(folder: Path) -> list[str]:
    """What the pipeline's index and the indices of weights in several files name, and the folder has not."""
    index = folder / _INDEX
    if not index.exists():
        return [] if (folder / _CONFIG).exists() else [_INDEX]
    parts = [
        name
        for name, kind in json.loads(index.read_text(encoding="utf-8")).items()
        if isinstance(kind, list) and kind[0] is not None
    ]
    missing = [f"{name}/" for name in parts if not (folder / name).is_dir()]
    for name in parts:
        for weights in sorted((folder / name).glob("*.safetensors.index.json")):
            files = set(json.loads(weights.read_text(encoding="utf-8"))["weight_map"].values())
            missing += [f"{name}/{file}" for file in sorted(files) if not (folder / name / file).exists()]
    return missing
