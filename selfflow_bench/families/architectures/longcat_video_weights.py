"""LongCat-Video's published weights as this suite's `LongCatVideoTransformer3DModel`.

The same numbers under other names: there a layer makes queries, keys and values together, and a feed-forward's gate is
a layer of its own. Nothing is left out.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from selfflow_bench.errors import DamagedFileError
from selfflow_bench.families.architectures.longcat_video import LongCatVideoTransformer3DModel
from selfflow_bench.families.architectures.published_weights import name_here, with_weights

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


def published_model(folder: Path, dtype: torch.dtype) -> nn.Module:
    """The model of a folder with ``config.json`` and safetensors. Raises DamagedFileError."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DamagedFileError(f"{folder}: cannot be read ({error}). Fetch it anew.") from error
    known = inspect.signature(LongCatVideoTransformer3DModel.__init__).parameters
    given = {name: value for name, value in config.items() if name in known}
    return with_weights(lambda: LongCatVideoTransformer3DModel(**given), folder, renamed, dtype)


def renamed(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Under this suite's names. Raises DamagedFileError for a name that is not known."""
    found: dict[str, Tensor] = {}
    gates: dict[str, dict[str, Tensor]] = {}
    for name, value in weights.items():
        layer, _, kind = name.rpartition(".")
        gate = re.fullmatch(r"blocks\.(\d+)\.ffn\.(w[13])", layer)
        several = _several(layer)
        if gate is not None:
            gates.setdefault(gate[1], {})[gate[2]] = value
        elif several:
            parts = zip(several, value.chunk(len(several)), strict=True)
            found |= {f"{ours}.{kind}": part.clone() for ours, part in parts}
        else:
            found[f"{name_here(layer, _NAMES)}.{kind}"] = value
    for block, pair in gates.items():
        # One layer makes the values, w3, and behind them what gates them, w1.
        found[f"blocks.{block}.ffn.net.0.proj.weight"] = torch.cat([pair["w3"], pair["w1"]])
    return found


def _several(layer: str) -> list[str]:
    """The layers that stand for one."""
    for pattern, ours, letters in _SPLIT:
        found = re.fullmatch(pattern, layer)
        if found is not None:
            return [ours.format(found[1], letter) for letter in letters]
    return []
