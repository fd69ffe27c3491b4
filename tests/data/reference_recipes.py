"""The project's recipes of the reference tier, made small: tiny weights in a hub's cache, small media, few of them."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomlkit

from selfflow_bench.networks.dinov2 import BASE
from selfflow_bench.places import Places
from selfflow_bench.recipe import Checkpoint, load_recipe
from tests.pipelines.tiny_hub import tiny, tiny_checkpoint, tiny_transformer

REVISION = "fedcba9876543210" * 2 + "fedcba98"
NETWORKS = {
    "image": "efficientnet-lite0-block10-112",
    "video": "efficientnet-lite0-block10-112-frame-statistics",
}
"""Feature networks whose weights are in packages. Of sounds at published rates there is none."""


def small_recipes(
    project: Places,
    folder: Path,
    hub: Path,
    family: str,
    data: Mapping[str, Any],
) -> Path:
    """A folder of recipes with one recipe and its protocols.

    ``data`` of the reference protocol's ``[data.hub]`` is replaced, and its feature networks by packaged ones.
    """
    where, recipe = load_recipe(project.recipes, family)
    document: Any = tomlkit.parse(where.path.read_text())
    tier = document["tiers"]["reference"]
    checkpoint: Checkpoint = tiny_checkpoint(family, hub)
    if recipe.tiers["reference"].checkpoint is None:
        tier["codec"] = {"name": "autoencoder", **checkpoint.model_dump()}
    else:
        tier["checkpoint"] = checkpoint.model_dump()
    tier["transformer"] = tiny_transformer(family)
    tier["student_block"], tier["teacher_block"] = 1, 2
    (folder / family).mkdir(parents=True)
    (folder / family / "v1.toml").write_text(tomlkit.dumps(document))
    for name, body in recipe.tiers.items():
        protocol = body.protocol.partition("@")[0]
        source, made = project.recipes / "protocols" / protocol, folder / "protocols" / protocol
        made.mkdir(parents=True, exist_ok=True)
        content: Any = tomlkit.parse((source / "v1.toml").read_text())
        if name == "reference":
            content["data"]["text_length"] = getattr(tiny(family), "LENGTH", 8)
            content["data"]["hub"].pop("validation_from", None)
            content["data"]["hub"].update({"revision": REVISION, **data})
            evaluation = content["evaluation"]
            evaluation.pop("networks", None)
            if content["modality"] in NETWORKS:
                evaluation["network"] = NETWORKS[content["modality"]]
                evaluation.pop("reference_statistics", None)
            else:
                evaluation["reference_statistics"] = {evaluation["network"]: "0" * 64}
            for field in [field for field, value in content["data"]["hub"].items() if value == ""]:
                del content["data"]["hub"][field]
        (made / "v1.toml").write_text(tomlkit.dumps(content))
    return folder


def save_encoder(hub: Path) -> None:
    """A small DINOv2, fresh, as the published one lies in the hub's cache."""
    import torch
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    snapshot = hub / f"models--{BASE.repository.replace('/', '--')}" / "snapshots" / BASE.revision
    config = Dinov2Config(hidden_size=768, num_hidden_layers=1, num_attention_heads=12, image_size=224, patch_size=14)
    Dinov2Model(config).save_pretrained(snapshot)


def command(recipes: Path, work: Path, *arguments: str) -> list[str]:
    """The command line of a preparation."""
    options = ["--recipes", str(recipes), "--results", str(work / "results"), "--work", str(work)]
    return [sys.executable, "-m", "selfflow_bench", *options, "prepare", *arguments]


def environment(hub: Path) -> dict[str, str]:
    """Of a process that finds the weights."""
    return {**os.environ, "HF_HUB_CACHE": str(hub), "OMP_NUM_THREADS": "1"}
