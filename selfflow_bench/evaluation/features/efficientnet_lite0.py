"""Picture features: EfficientNet-Lite0 (ImageNet), block 10, global average, 112 numbers.

Why block 10: on drawn pictures the 1280 numbers of the head tell real from damaged no better than raw pixels do
(measured), the 112 of block 10 do. Knows nothing of distances.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from selfflow_bench.evaluation.features.media import pictures
from selfflow_bench.networks.efficientnet_lite0 import SIZE, WEIGHTS_SHA256, Blocks, checked_weights, network_input
from selfflow_bench.networks.onnx_graph import OnnxGraph

NAME = "efficientnet-lite0-block10-112"
DIMENSION = 112
# Root mean square of the raw features over embedded pictures, once and for all rounded. Dividing by it makes the
# terms of KID's kernel (x.y / D + 1)^3 comparable; undivided, the cubic term alone decides and the spread grows.
SCALE = 3.7
_BLOCK = 10


class EfficientNetLite0:
    """uint8 RGB pictures `[N, H, W, 3]` to features `[N, 112]`."""

    name = NAME
    dimension = DIMENSION
    weights_sha256 = WEIGHTS_SHA256

    def __init__(self, cache: Path, weights: Path | None = None) -> None:
        content = checked_weights(weights)
        self._graph = OnnxGraph(
            cache,
            f"{NAME} {SIZE} {WEIGHTS_SHA256}",
            lambda: load_tap(content),
            torch.zeros(3, SIZE, SIZE),
        )

    def __call__(self, media: NDArray[Any]) -> NDArray[np.float32]:
        """Features `[N, 112]`. Raises FieldError unless `media` is uint8 `[N, H, W, 3]` with N > 0."""
        taken = pictures(NAME, media)
        return self._graph(lambda start, stop: network_input(taken[start:stop]).numpy(), len(taken)) / np.float32(SCALE)


def load_tap(content: bytes) -> nn.Module:
    """The network up to block 10 with global average, `[N, 3, 128, 128] -> [N, 112]`, undivided, from checked bytes."""
    return _Tap(Blocks(_BLOCK, content))


class _Tap(nn.Module):
    def __init__(self, network: Blocks) -> None:
        super().__init__()
        self.network = network

    def forward(self, pictures: Tensor) -> Tensor:
        features: Tensor = self.network(pictures)
        return features.mean((2, 3))
