"""EfficientNet-Lite0's last spatial map, 320 x 4 x 4: the small tiers' stand-in for DINOv2.

Why block 15 and not 10: block 10, averaged, is what the distances of the same tiers are measured on, and a method must
not be trained on the very features that judge it. It is still the same network: read KID of methods that align to it
with that in mind, and the validation loss first.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from selfflow_bench.encoders.base import Encoder
from selfflow_bench.networks.efficientnet_lite0 import SIZE, WEIGHTS_SHA256, Blocks, checked_weights, network_input
from selfflow_bench.networks.onnx_graph import OnnxGraph

NAME = "efficientnet-lite0-block15-320"
_BLOCK = 15


class EfficientNetLite0Maps(Encoder):
    """Maps of block 15 of pictures resized to 128 x 128."""

    name = NAME
    grid = (4, 4)
    channels = 320
    identity = f"{NAME} {SIZE} {WEIGHTS_SHA256}"

    def __init__(self, cache: Path) -> None:
        content = checked_weights()
        self._graph = OnnxGraph(cache, self.identity, lambda: Blocks(_BLOCK, content), torch.zeros(3, SIZE, SIZE))

    def encode(self, pictures: NDArray[Any]) -> NDArray[np.float32]:
        """``[N, 4, 4, 320]``."""
        maps = self._graph(lambda start, stop: network_input(pictures[start:stop]).numpy(), len(pictures))
        return np.ascontiguousarray(maps.transpose(0, 2, 3, 1))

    @classmethod
    def countable(cls) -> tuple[nn.Module, torch.Tensor]:
        """The blocks with fresh weights, and one picture."""
        return Blocks(_BLOCK, None), torch.empty(1, 3, SIZE, SIZE)
