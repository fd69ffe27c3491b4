"""Clip features: VideoMAE (arXiv 2203.12602), ViT-B fine-tuned on Kinetics-400, what its classifier reads, 768 numbers.

A video transformer's features see motion where I3D's, which FVD is made of, see mostly frames (Ge et al. 2024, arXiv
2404.12391, on a larger VideoMAE): this is not FVD. Sound is not seen. Knows nothing of distances.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from selfflow_bench.evaluation.features.media import clips
from selfflow_bench.networks.hub_model import HubModel
from selfflow_bench.networks.torch_module import TorchModule

NAME = "videomae-base-kinetics-768"
DIMENSION = 768
PUBLISHED = HubModel("MCG-NJU/videomae-base-finetuned-kinetics", "488eb9a0565f257b32866000305c8178965eb9f6")
FRAMES, SIZE = 16, 224
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class VideoMae:
    """uint8 RGB clips ``[N, frames, H, W, 3]`` to features ``[N, 768]``.

    16 frames, evenly spaced from the first to the last and repeated where there are fewer; each whole frame resized to
    224 x 224 (bilinear, antialiased; the aspect is not kept, so that nothing of it goes unseen).
    """

    name = NAME
    dimension = DIMENSION

    def __init__(self, cache: Path) -> None:
        """Of the hub's cache: ``cache`` is not used. Raises DamagedFileError."""
        from transformers import VideoMAEForVideoClassification

        model = PUBLISHED.load(VideoMAEForVideoClassification)
        self.weights_sha256 = PUBLISHED.weights_sha256()
        self._network = TorchModule(
            model, lambda batch: model.fc_norm(model.videomae(batch).last_hidden_state.mean(1)), batch=8
        )

    def __call__(self, media: NDArray[Any]) -> NDArray[np.float32]:
        """Features ``[N, 768]``. Raises FieldError unless ``media`` is uint8 ``[N, frames, H, W, 3]``, 2 or more.

        Of structured media, clips with audio, the field ``frames``.
        """
        taken = clips(NAME, media, 2)
        return self._network(lambda start, stop: network_input(taken[start:stop]), len(taken))


def network_input(media: NDArray[np.uint8]) -> Tensor:
    """uint8 ``[N, frames, H, W, 3]`` to float32 ``[N, 16, 3, 224, 224]``, normalised as ImageNet."""
    chosen = media[:, np.linspace(0, media.shape[1] - 1, FRAMES).round().astype(np.int64)]
    frames = torch.from_numpy(np.ascontiguousarray(chosen.transpose(0, 1, 4, 2, 3))).flatten(0, 1).float()
    resized = nn.functional.interpolate(frames, size=(SIZE, SIZE), mode="bilinear", antialias=True)
    unit = resized.reshape(len(media), FRAMES, 3, SIZE, SIZE) / 255
    return (unit - torch.tensor(_MEAN).view(3, 1, 1)) / torch.tensor(_STD).view(3, 1, 1)
