"""The averaged weights of a checkpoint, as files that diffusers' ordinary classes and pipelines load.

Never a method's heads, nor a teacher beside what is exported: the average is the teacher. A folder appears whole or not
at all. Knows nothing of runs and records.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffusers.loaders.lora_base import LORA_WEIGHT_NAME_SAFE, LoraBaseMixin
from torch import Tensor

from selfflow_bench.errors import FieldError
from selfflow_bench.families.base import Family
from selfflow_bench.recipe import Lora
from selfflow_bench.training.adapters import adapter_config

PROVENANCE = "selfflow_bench.json"


def export_weights(
    family: Family, average: Mapping[str, Tensor], lora: Lora | None, folder: Path, provenance: Mapping[str, Any]
) -> Path:
    """Write averaged weights into a new folder, and return it.

    A whole transformer is written as ``transformer/``, for ``from_pretrained`` and in place of the published
    pipeline's; adapters as one file for the published pipeline's ``load_lora_weights``.

    Args:
        family: of the transformer.
        average: what a checkpoint's ``ema`` holds.
        lora: the adapters' settings, or None for a whole transformer.
        folder: must not exist yet.
        provenance: what the weights come from, written beside them.

    Raises:
        FieldError: the folder exists.
    """
    if folder.exists():
        raise FieldError("command line", "folder", str(folder), "exists already", "Name a new one, or delete it.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        if lora is None:
            transformer = family.make()
            transformer.load_state_dict(_with_buffers(average, transformer.state_dict()))
            family.save(transformer, partial)
        else:
            _write_adapters(average, lora, family.adapter_prefix, partial)
        (partial / PROVENANCE).write_text(json.dumps(provenance, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        partial.chmod(0o755)
        os.rename(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _with_buffers(average: Mapping[str, Tensor], fresh: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The average, and of a fresh transformer what is no parameter and so is not averaged."""
    return {name: average.get(name, value) for name, value in fresh.items()}


def _write_adapters(average: Mapping[str, Tensor], lora: Lora, prefix: str, folder: Path) -> None:
    config = {name: value for name, value in _settings(lora).items() if value is not None}
    LoraBaseMixin.write_lora_layers(
        state_dict={f"{prefix}{name}": value.contiguous() for name, value in average.items()},
        save_directory=str(folder),
        is_main_process=True,
        weight_name=LORA_WEIGHT_NAME_SAFE,
        save_function=None,
        safe_serialization=True,
        lora_adapter_metadata={f"transformer.{name}": value for name, value in config.items()},
    )


def _settings(lora: Lora) -> dict[str, Any]:
    found: dict[str, Any] = adapter_config(lora).to_dict()  # type: ignore[no-untyped-call]
    return found
