"""Published weights as a folder on this machine: the hub's cache, looked up offline.

Knows nothing of what the folder's models are for.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from selfflow_bench.errors import DamagedFileError, FieldError
from selfflow_bench.recipe import Checkpoint
from selfflow_bench.strict_model import UNPINNED

INDEX = "model_index.json"
INDICES = (INDEX, "modular_model_index.json")
"""What the parts of a pipeline's folder are, if it is one of diffusers', or of its blocks."""
LOOSE = "vae/config.json"
"""Of a folder of parts without an index."""
_CONFIGS = ("config.json", "scheduler_config.json", "tokenizer_config.json")
_UNUSED = ("safety_checker",)
_ALONE = "config.json"
"""Of a repository that is one model and no pipeline."""


def local_snapshot(checkpoint: Checkpoint) -> Path:
    """The folder of a checkpoint in the hub's cache; the network is never asked.

    Raises FieldError for a revision that is not pinned, DamagedFileError where the folder, or a file that it speaks
    of, is not there, saying how to fetch it.
    """
    from huggingface_hub import try_to_load_from_cache

    _pinned(checkpoint)
    marks = (*INDICES, LOOSE, _ALONE)
    found = {name: try_to_load_from_cache(checkpoint.id, name, revision=checkpoint.revision) for name in marks}
    path = next(((name, one) for name, one in found.items() if isinstance(one, str)), None)
    if path is None:
        named = f"{checkpoint.id}@{checkpoint.revision}"
        raise DamagedFileError(f"{named}: is not in the hub's cache on this machine. {_remedy(checkpoint)}")
    folder = Path(path[1]).parents[path[0].count("/")]
    missing = _missing(folder)
    if missing:
        raise DamagedFileError(f"{folder}: lacks {', '.join(missing)}. {_remedy(checkpoint)}")
    return folder


def _remedy(checkpoint: Checkpoint) -> str:
    return f"Fetch it on a connected machine: hf download {checkpoint.id} --revision {checkpoint.revision}"


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
    index = next((folder / name for name in INDICES if (folder / name).exists()), None)
    if index is not None:
        parts = parts_of(json.loads(index.read_text(encoding="utf-8")))
    elif (folder / LOOSE).exists():
        parts = parts_in(str(file.relative_to(folder)) for file in folder.glob("*/*.json"))
    else:
        parts = ["."]
    missing = [f"{name}/" for name in parts if not (folder / name).is_dir()]
    for name in parts:
        here = folder / name
        for weights in sorted(here.glob("*.safetensors.index.json")):
            files = set(json.loads(weights.read_text(encoding="utf-8"))["weight_map"].values())
            missing += [f"{name}/{file}" for file in sorted(files) if not (here / file).exists()]
        # A fetch that was stopped leaves a configuration without its weights.
        has_weights = [file for ending in ("safetensors", "bin") for file in here.glob(f"*.{ending}")]
        if (here / _ALONE).exists() and not has_weights and _is_model(here / _ALONE):
            missing.append(f"{name}/*.safetensors")
    return missing


def parts_of(index: dict[str, Any]) -> list[str]:
    """The folders that a pipeline's index names, and that are loaded."""
    return [
        name for name, kind in index.items() if isinstance(kind, list) and kind[0] is not None and name not in _UNUSED
    ]


def parts_in(names: Iterable[str]) -> list[str]:
    """The folders that hold a model, a scheduler or a tokenizer, by the names of a repository's files."""
    paths = [PurePosixPath(name) for name in names]
    return sorted({str(path.parent) for path in paths if len(path.parts) == 2 and path.name in _CONFIGS})


def _is_model(config: Path) -> bool:
    """Whether a configuration is of something with weights: some tokenizers have one too, of nothing but a type."""
    content = json.loads(config.read_text(encoding="utf-8"))
    return "_class_name" in content or "architectures" in content
