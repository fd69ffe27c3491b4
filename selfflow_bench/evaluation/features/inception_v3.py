"""Picture features of FID: the 2048 numbers of Inception v3 (2015) before its last layer, as torch-fidelity has it.

A port of TensorFlow's published graph, with its resizing, to the last bits; not torchvision's network of that name. The
Frechet distance on these features, and on no others, is the one the field calls FID. Knows nothing of distances.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from selfflow_bench.evaluation.features.media import pictures
from selfflow_bench.networks.torch_module import TorchModule
from selfflow_bench.networks.weights import read_weights, weights_folder

NAME = "inception-v3-2048"
DIMENSION = 2048
WEIGHTS_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
FILE = "weights-inception-2015-12-05-6726825d.pth"
URL = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{FILE}"


class InceptionV3:
    """uint8 RGB pictures ``[N, H, W, 3]`` of any size to features ``[N, 2048]``.

    Resized to 299 x 299 bilinearly without antialiasing, as TensorFlow 1 did, and not rounded after.
    """

    name = NAME
    dimension = DIMENSION

    def __init__(self, cache: Path, weights: Path | None = None, sha256: str = WEIGHTS_SHA256) -> None:
        """``weights``: the published file, by default in the folder of weights. Never downloaded here.

        Raises DamagedFileError, with where to fetch it, where it is missing or another.
        """
        path = weights or weights_folder(cache) / FILE
        remedy = f"Fetch {URL} (SHA-256 {sha256}) and put it there"
        content = read_weights(path, sha256, remedy)
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        extractor = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], io.BytesIO(content))
        self.weights_sha256 = sha256
        self._network = TorchModule(extractor, lambda batch: extractor(batch)[0])

    def __call__(self, media: NDArray[Any]) -> NDArray[np.float32]:
        """Features ``[N, 2048]``. Raises FieldError unless ``media`` is uint8 ``[N, H, W, 3]`` with N > 0."""
        channels_first = pictures(NAME, media).transpose(0, 3, 1, 2)
        return self._network(
            lambda start, stop: torch.from_numpy(np.ascontiguousarray(channels_first[start:stop])), len(media)
        )
