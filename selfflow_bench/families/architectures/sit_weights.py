"""Published weights of SiT-like models, as their authors' files hold them, as this suite's `SiTTransformer2DModel`.

Three layouts, told apart by what they hold beside the transformer: SiT's own; REPA's, whose time runs the other way and
which has ``projectors``; Self-Flow's released one, with a ``projector`` and patches embedded by a linear layer. A file
may hold a state of training with the averaged weights under ``ema``; these are what is published, and are taken.
Projectors are left out. Nothing in a file is run: it is read as tensors and plain values only.
"""

from __future__ import annotations

import argparse
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from selfflow_bench.errors import DamagedFileError
from selfflow_bench.families.architectures.sit import SiTTransformer2DModel

HEADS = {384: 6, 768: 12, 1024: 16, 1152: 16}
"""Heads by width, of the published sizes S, B, L and XL: no file says them."""
_STATES = ("ema", "model", "state_dict")
"""Where a file may keep its weights, the averaged ones first."""
_WRAPPERS = ("module.", "_orig_mod.")
"""What wrappers for several processes and for compiling put into names."""
_PROJECTORS = ("projector.", "projectors.")
_BESIDE = {"opt", "args", "steps"}
"""What else a state of training holds."""


def published_model(path: Path, heads: int | None = None) -> SiTTransformer2DModel:
    """The model of a file, in float32, in evaluation mode, its configuration read off the weights.

    ``heads`` is needed for widths that were not published. Raises DamagedFileError where the file cannot be read, where
    weights are missing or unknown, which it names, and where heads or the sense of time are not known.
    """
    weights = _unwrapped(_weights(path), path)
    config = _config(weights, path, heads)
    state = {name: value.float() for name, value in weights.items() if not name.startswith(_PROJECTORS)}
    with torch.device("meta"):
        model: SiTTransformer2DModel = SiTTransformer2DModel(**config)
    wanted = model.state_dict()
    _check_names(set(state), set(wanted), path)
    # A linear layer on whole patches is the convolution with its weights in a row.
    patches = "x_embedder.proj.weight"
    state[patches] = state[patches].reshape(wanted[patches].shape)
    for name, value in wanted.items():
        if state[name].shape != value.shape:
            raise DamagedFileError(
                f"{path}: {name} is {list(state[name].shape)}, and {list(value.shape)} fits its other weights. "
                "Get the file anew."
            )
    model.load_state_dict(state, assign=True)
    model.pos_embed.requires_grad_(False)
    model.eval()
    return model


def _weights(path: Path) -> Mapping[str, Tensor]:
    try:
        # REPA and SiT keep the command line's arguments in their files: a plain object, and no more is let in.
        with torch.serialization.safe_globals([argparse.Namespace]):
            content: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise DamagedFileError(
            f"{path}: cannot be read as weights ({str(error).splitlines()[0]}). Get the file anew."
        ) from error
    for name in _STATES:
        if isinstance(content, dict) and isinstance(content.get(name), dict):
            unknown = set(content) - {*_STATES, *_BESIDE}
            if unknown:
                raise DamagedFileError(
                    f"{path}: holds {', '.join(sorted(unknown))} beside {name}: no known layout. Give a file as SiT, "
                    "REPA or Self-Flow publish them."
                )
            content = content[name]
            break
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise DamagedFileError(f"{path}: holds no weights by name. Give a file as SiT, REPA or Self-Flow publish them.")
    return content


def _unwrapped(weights: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for name, value in weights.items():
        plain = name
        for wrapper in _WRAPPERS:
            plain = plain.replace(wrapper, "")
        if plain in found:
            raise DamagedFileError(f"{path}: holds {plain} twice. Give a file of one model.")
        found[plain] = value
    return found


def _config(weights: Mapping[str, Tensor], path: Path, heads: int | None) -> dict[str, Any]:
    try:
        _, tokens, width = weights["pos_embed"].shape
        patches = weights["x_embedder.proj.weight"]
        numbers = weights["final_layer.linear.weight"].shape[0]
        classes = weights["y_embedder.embedding_table.weight"].shape[0] - 1
        inner = weights["blocks.0.mlp.fc1.weight"].shape[0]
    except KeyError as error:
        raise DamagedFileError(f"{path}: lacks {error.args[0]}, so it holds no SiT. Get the file anew.") from error
    if heads is None and width not in HEADS:
        raise DamagedFileError(
            f"{path}: is {width} wide, of which no published model is: the number of heads is not known. Give it."
        )
    # Of a linear layer only the whole patch is known; the released one has patches of 2 x 2.
    patch = patches.shape[-1] if patches.ndim == 4 else 2
    channels = patches[0].numel() // patch**2
    depth = 1 + max(int(name.split(".")[1]) for name in weights if name.startswith("blocks."))
    learn_sigma = numbers == 2 * patch**2 * channels
    repa = any(name.startswith("projectors.") for name in weights)
    if not repa and not learn_sigma:
        raise DamagedFileError(
            f"{path}: without variances in its output it is not SiT's or Self-Flow's, and without projectors not "
            "REPA's: which way its time runs is not known. Give the file as its authors published it."
        )
    return {
        "input_size": patch * round(tokens**0.5),
        "patch_size": patch,
        "in_channels": channels,
        "hidden_size": width,
        "depth": depth,
        "num_heads": heads or HEADS[width],
        "mlp_ratio": inner / width,
        "num_classes": classes,
        "learn_sigma": learn_sigma,
        "time_of_data": 0 if repa else 1,
    }


def _check_names(found: set[str], wanted: set[str], path: Path) -> None:
    for names, problem in ((wanted - found, "lacks"), (found - wanted, "holds unknown")):
        if names:
            shown = ", ".join(sorted(names)[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
            raise DamagedFileError(f"{path}: {problem} {shown}. Give a file as SiT, REPA or Self-Flow publish them.")
