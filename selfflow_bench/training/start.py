"""The transformer that all methods of a seed start from: published weights or fresh ones, with adapters or without.

Knows nothing of methods, data and the training loop, nor of where published weights come from: they are a folder in
diffusers' format.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from selfflow_bench.errors import DamagedFileError, FieldError
from selfflow_bench.families.base import Family
from selfflow_bench.randomness import key
from selfflow_bench.recipe import Lora
from selfflow_bench.training.adapters import add_adapters


def starting_transformer(
    family: Family,
    seed: int,
    *,
    where: str,
    snapshot: Path | None = None,
    lora: Lora | None = None,
    precision: str = "float32",
) -> nn.Module:
    """The transformer a run starts from, hooks attached.

    Args:
        family: whose transformer.
        seed: the run's, for fresh weights and fresh adapters.
        where: the recipe, for messages.
        snapshot: published weights; fresh ones if there is none.
        lora: train adapters and freeze the rest.
        precision: of the training. What is trained is held in float32 whatever it is; a frozen base in bfloat16 under
            "bf16".

    Raises:
        FieldError: the published configuration is not the recipe's, or a target fits no layer.
        DamagedFileError: the published weights are missing or broken.
    """
    dtype = torch.bfloat16 if lora is not None and precision == "bf16" else torch.float32
    if snapshot is None:
        torch.manual_seed(key(seed, "init"))
        transformer = family.make()
        if dtype != torch.float32:
            transformer.to(dtype)
    else:
        transformer = _published(family, snapshot, dtype, where)
    if lora is not None:
        torch.manual_seed(key(seed, "init", "adapters"))
        add_adapters(transformer, lora, where)
    family.attach(transformer)
    return transformer


def _published(family: Family, snapshot: Path, dtype: torch.dtype, where: str) -> nn.Module:
    try:
        transformer = family.load(snapshot, dtype)
    except (OSError, ValueError, RuntimeError) as error:
        raise DamagedFileError(
            f"{snapshot}: the transformer of these published weights cannot be loaded: {str(error).splitlines()[0]} "
            "Fetch the snapshot anew."
        ) from error
    with torch.device("meta"):
        expected = family.make()
    for name, part in expected.named_modules():
        for field, value in _configuration(part).items():
            found = _configuration(transformer.get_submodule(name)).get(field, value)
            if found != value:
                raise FieldError(
                    where,
                    ".".join(filter(None, ("transformer", name, field))),
                    value,
                    f"the published weights have {found!r}",
                    "Describe the checkpoint as it is, or name another.",
                )
    return transformer


def _configuration(module: nn.Module) -> dict[str, Any]:
    """The constructor's arguments as diffusers keeps them, lists and tuples alike; none of a module without."""
    config: Mapping[str, Any] = getattr(module, "config", {})
    return {name: _plain(value) for name, value in config.items() if not name.startswith("_")}


def _plain(value: Any) -> Any:
    return [_plain(part) for part in value] if isinstance(value, list | tuple) else value
