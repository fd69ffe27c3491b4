"""LongCat-Video's published weights as this suite's `LongCatVideoTransformer3DModel`.

The same numbers under other names: there a layer makes queries, keys and values together, and a feed-forward's gate is
a layer of its own. Nothing is left out, and what is missing or unknown is refused by name.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from accelerate import init_empty_weights
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from selfflow_bench.errors import DamagedFileError
from selfflow_bench.families.architectures.longcat_video import LongCatVideoTransformer3DModel

_NAMES = (
    (r"x_embedder\.proj", "patch_embedding"),
    (r"t_embedder\.mlp\.0", "time_embedder.linear_1"),
    (r"t_embedder\.mlp\.2", "time_embedder.linear_2"),
    (r"y_embedder\.y_proj\.0", "text_embedder.linear_1"),
    (r"y_embedder\.y_proj\.2", "text_embedder.linear_2"),
    (r"final_layer\.adaLN_modulation\.1", "modulation_out"),
    (r"final_layer\.linear", "proj_out"),
    (r"blocks\.(\d+)\.adaLN_modulation\.1", r"blocks.\1.modulation"),
    (r"blocks\.(\d+)\.pre_crs_attn_norm", r"blocks.\1.norm2"),
    (r"blocks\.(\d+)\.attn\.([qk])_norm", r"blocks.\1.attn1.norm_\2"),
    (r"blocks\.(\d+)\.attn\.proj", r"blocks.\1.attn1.to_out"),
    (r"blocks\.(\d+)\.cross_attn\.q_linear", r"blocks.\1.attn2.to_q"),
    (r"blocks\.(\d+)\.cross_attn\.([qk])_norm", r"blocks.\1.attn2.norm_\2"),
    (r"blocks\.(\d+)\.cross_attn\.proj", r"blocks.\1.attn2.to_out"),
    (r"blocks\.(\d+)\.ffn\.w2", r"blocks.\1.ffn.net.2"),
)
"""Layers that are one in both."""
_SPLIT = (
    (r"blocks\.(\d+)\.attn\.qkv", "blocks.{}.attn1.to_{}", "qkv"),
    (r"blocks\.(\d+)\.cross_attn\.kv_linear", "blocks.{}.attn2.to_{}", "kv"),
)
"""Layers that are several here."""


def published_model(folder: Path, dtype: torch.dtype) -> LongCatVideoTransformer3DModel:
    """The model of a folder with ``config.json`` and safetensors under the published names.

    Raises DamagedFileError where it cannot be read, and where weights are missing, unknown or of another shape.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        weights: dict[str, Tensor] = {}
        for path in sorted(folder.glob("*.safetensors")):
            weights |= load_file(path)
    except (OSError, ValueError, SafetensorError) as error:
        raise DamagedFileError(f"{folder}: cannot be read ({error}). Fetch it anew.") from error
    known = inspect.signature(LongCatVideoTransformer3DModel.__init__).parameters
    # The tables of positions are no weights: they are made where they are.
    with init_empty_weights(include_buffers=False):
        model: LongCatVideoTransformer3DModel = LongCatVideoTransformer3DModel(
            **{name: value for name, value in config.items() if name in known}
        )
    state = {name: value.to(dtype) for name, value in renamed(weights, folder).items()}
    wanted = {name: value.shape for name, value in model.state_dict().items()}
    wrong = sorted(name for name in {*wanted, *state} if name not in state or state[name].shape != wanted.get(name))
    if wrong:
        raise DamagedFileError(f"{folder}: weights missing, or not as its configuration says: {', '.join(wrong[:3])}")
    model.load_state_dict(state, assign=True)
    return model


def renamed(weights: Mapping[str, Tensor], folder: Path) -> dict[str, Tensor]:
    """Under this suite's names. Raises DamagedFileError for a name that is not known."""
    found: dict[str, Tensor] = {}
    gates: dict[str, dict[str, Tensor]] = {}
    for name, value in weights.items():
        layer, _, kind = name.rpartition(".")
        gate = re.fullmatch(r"blocks\.(\d+)\.ffn\.(w[13])", layer)
        if gate is not None:
            gates.setdefault(gate[1], {})[gate[2]] = value
            continue
        for pattern, several, letters in _SPLIT:
            split = re.fullmatch(pattern, layer)
            if split is not None:
                parts = value.chunk(len(letters))
                found |= {
                    f"{several.format(split[1], letter)}.{kind}": part.clone()
                    for letter, part in zip(letters, parts, strict=True)
                }
                break
        else:
            names = [re.sub(pattern, ours, layer) for pattern, ours in _NAMES if re.fullmatch(pattern, layer)]
            if not names:
                raise DamagedFileError(f"{folder}: {name} is no weight of LongCat-Video. Fetch it anew.")
            found[f"{names[0]}.{kind}"] = value
    for block, pair in gates.items():
        # One layer makes the values, w3, and behind them what gates them, w1.
        found[f"blocks.{block}.ffn.net.0.proj.weight"] = torch.cat([pair["w3"], pair["w1"]])
    return found
