"""Weights that are published under other names than this suite's own classes give them.

What is missing, unknown or of another shape is refused by name. Knows nothing of any model.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from accelerate import init_empty_weights
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from selfflow_bench.errors import DamagedFileError

Names = Sequence[tuple[str, str]]
"""Pairs of a regular expression for a whole layer's name, and what stands for it here."""


def with_weights(
    make: Callable[[], nn.Module],
    folder: Path,
    renamed: Callable[[Mapping[str, Tensor]], dict[str, Tensor]],
    dtype: torch.dtype,
) -> nn.Module:
    """A model with a folder's weights.

    Args:
        make: the model.
        folder: with safetensors.
        renamed: from their names to the model's.
        dtype: of the weights.

    Raises DamagedFileError where they cannot be read, are missing, or have other shapes than the model's.
    """
    weights: dict[str, Tensor] = {}
    try:
        for path in sorted(folder.glob("*.safetensors")):
            weights |= load_file(path)
    except (OSError, SafetensorError) as error:
        raise DamagedFileError(f"{folder}: cannot be read ({error}). Fetch it anew.") from error
    # Tables of positions are no weights: they are made where they are.
    with init_empty_weights(include_buffers=False):
        model = make()
    state = {name: value.to(dtype) for name, value in renamed(weights).items()}
    wanted = {name: value.shape for name, value in model.state_dict().items()}
    wrong = sorted(name for name in {*wanted, *state} if name not in state or state[name].shape != wanted.get(name))
    if wrong:
        some = ", ".join(wrong[:3])
        raise DamagedFileError(f"{folder}: weights missing, unknown, or of another size: {some}. Fetch it anew.")
    model.load_state_dict(state, assign=True)
    return model


def name_here(layer: str, names: Names) -> str:
    """A layer's name here. Raises DamagedFileError for one that is not known."""
    for pattern, ours in names:
        if re.fullmatch(pattern, layer):
            return re.sub(pattern, ours, layer)
    raise DamagedFileError(f"{layer}: no layer of the published model. Fetch its weights anew.")
