"""Picture features: the class token of DINOv2 after its last norm, 768 numbers (ViT-B/14) or 1024 (ViT-L/14).

Trained without labels, these agree with people about generated pictures better than Inception's do (Stein et al. 2023,
arXiv 2306.04675), whose Frechet distance is on ViT-L/14. REPA aligns to patch tokens of the same ViT-B/14: read the
distance of methods that do with that in mind. Knows nothing of distances.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from selfflow_bench.evaluation.features.media import pictures
from selfflow_bench.networks.dinov2 import BASE, LARGE, load_dinov2, network_input
from selfflow_bench.networks.hub_model import HubModel
from selfflow_bench.networks.torch_module import TorchModule


class DinoV2Class:
    """uint8 RGB pictures ``[N, H, W, 3]``, resized to 224 x 224 (bicubic, antialiased), to features ``[N, D]``."""

    name: str
    dimension: int
    published: ClassVar[HubModel]

    def __init__(self, cache: Path) -> None:
        """Of the hub's cache: ``cache`` is not used. Raises DamagedFileError."""
        model = load_dinov2(self.published)
        self.weights_sha256 = self.published.weights_sha256()
        self._network = TorchModule(model, lambda batch: model(batch).last_hidden_state[:, 0])

    def __call__(self, media: NDArray[Any]) -> NDArray[np.float32]:
        """Features ``[N, D]``. Raises FieldError unless ``media`` is uint8 ``[N, H, W, 3]`` with N > 0."""
        taken = pictures(self.name, media)
        return self._network(lambda start, stop: network_input(taken[start:stop]), len(taken))


class DinoV2Base(DinoV2Class):
    """ViT-B/14."""

    name, dimension, published = "dinov2-vitb14-768", 768, BASE


class DinoV2Large(DinoV2Class):
    """ViT-L/14."""

    name, dimension, published = "dinov2-vitl14-1024", 1024, LARGE
