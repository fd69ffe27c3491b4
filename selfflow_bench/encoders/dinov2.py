"""DINOv2 ViT-B/14 (arXiv 2304.07193), the encoder of REPA, through transformers, by revision.

Its weights are fetched in preparation; offline they must be in the hub's cache or in a folder.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from selfflow_bench.encoders.base import Encoder
from selfflow_bench.networks.dinov2 import BASE, PATCH, SIZE, load_dinov2, network_input
from selfflow_bench.networks.torch_module import TorchModule

NAME = "dinov2-vitb14"
_BATCH = 32


class DinoV2(Encoder):
    """Patch tokens of the last layer, after its norm, of pictures resized to 224 x 224."""

    name = NAME
    grid = (SIZE // PATCH, SIZE // PATCH)
    channels = 768
    identity = f"{BASE} {SIZE}"

    def __init__(self, cache: Path, folder: Path | None = None) -> None:
        """``folder``: one in the hub's format; the published revision if not given. The hub has its own cache."""
        model = load_dinov2(BASE, folder)
        self._run = TorchModule(
            model, lambda batch: model(batch).last_hidden_state[:, 1:].unflatten(1, self.grid), batch=_BATCH
        )

    def encode(self, pictures: NDArray[Any]) -> NDArray[np.float32]:
        """``[N, 16, 16, 768]``."""
        return self._run(lambda start, stop: network_input(pictures[start:stop]), len(pictures))

    @classmethod
    def countable(cls) -> tuple[nn.Module, torch.Tensor]:
        """ViT-B/14 with fresh weights, and one picture."""
        from transformers import Dinov2Config, Dinov2Model

        return Dinov2Model(Dinov2Config(image_size=SIZE, patch_size=PATCH)), torch.empty(1, 3, SIZE, SIZE)
