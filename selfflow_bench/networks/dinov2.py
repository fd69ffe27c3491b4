"""DINOv2 (arXiv 2304.07193) through transformers, by revision, and what it reads.

Knows nothing of what its features are used for: encoders take its patch tokens, distances its class token.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from selfflow_bench.networks.hub_model import HubModel

BASE = HubModel("facebook/dinov2-base", "f9e44c814b77203eaa57a6bdbbd535f21ede1415")
LARGE = HubModel("facebook/dinov2-large", "47b73eefe95e8d44ec3623f8890bd894b6ea2d6c")
SIZE, PATCH = 224, 14
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def load_dinov2(model: HubModel, folder: Path | None = None) -> Any:
    """The model, of the hub's cache or of a folder. Raises DamagedFileError."""
    from transformers import Dinov2Model

    return model.load(Dinov2Model, folder)


def network_input(pictures: NDArray[np.generic]) -> Tensor:
    """uint8 ``[N, H, W, 3]`` to float32 ``[N, 3, 224, 224]``: bicubic with antialiasing, ImageNet's normalisation."""
    channels_first = torch.from_numpy(np.ascontiguousarray(pictures.transpose(0, 3, 1, 2))).float()
    resized = nn.functional.interpolate(channels_first, size=(SIZE, SIZE), mode="bicubic", antialias=True)
    unit = resized.clamp(0, 255) / 255
    return (unit - torch.tensor(_MEAN).view(3, 1, 1)) / torch.tensor(_STD).view(3, 1, 1)
