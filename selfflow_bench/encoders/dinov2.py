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
from selfflow_bench.errors import DamagedFileError

NAME = "dinov2-vitb14"
MODEL, REVISION = "facebook/dinov2-base", "f9e44c814b77203eaa57a6bdbbd535f21ede1415"
SIZE, PATCH = 224, 14
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_BATCH = 32


class DinoV2(Encoder):
    """Patch tokens of the last layer, after its norm, of pictures resized to 224 x 224."""

    name = NAME
    grid = (SIZE // PATCH, SIZE // PATCH)
    channels = 768
    identity = f"{MODEL}@{REVISION} {SIZE}"

    def __init__(self, cache: Path, model: str | Path = MODEL) -> None:
        """``model``: the hub's id, or a folder in its format. ``cache`` is not used: the hub has its own."""
        from transformers import Dinov2Model

        revision = {} if isinstance(model, Path) else {"revision": REVISION}
        try:
            self._model = Dinov2Model.from_pretrained(model, **revision).eval()
        except (OSError, ValueError) as error:
            raise DamagedFileError(
                f"{model}: DINOv2 cannot be loaded ({str(error).splitlines()[0]}). Fetch revision {REVISION} of "
                f"{MODEL} on a connected machine first."
            ) from error

    @torch.no_grad()
    def encode(self, pictures: NDArray[Any]) -> NDArray[np.float32]:
        """``[N, 16, 16, 768]``."""
        made = []
        for start in range(0, len(pictures), _BATCH):
            states = self._model(network_input(pictures[start : start + _BATCH])).last_hidden_state[:, 1:]
            made.append(states.unflatten(1, self.grid).float().numpy())
        return np.concatenate(made)

    @classmethod
    def countable(cls) -> tuple[nn.Module, torch.Tensor]:
        """ViT-B/14 with fresh weights, and one picture."""
        from transformers import Dinov2Config, Dinov2Model

        return Dinov2Model(Dinov2Config(image_size=SIZE, patch_size=PATCH)), torch.empty(1, 3, SIZE, SIZE)


def network_input(pictures: NDArray[np.generic]) -> torch.Tensor:
    """uint8 ``[N, H, W, 3]`` to float32 ``[N, 3, 224, 224]``: bicubic with antialiasing, ImageNet's normalisation."""
    channels_first = torch.from_numpy(np.ascontiguousarray(pictures.transpose(0, 3, 1, 2))).float()
    resized = nn.functional.interpolate(channels_first, size=(SIZE, SIZE), mode="bicubic", antialias=True)
    unit = resized.clamp(0, 255) / 255
    return (unit - torch.tensor(_MEAN).view(3, 1, 1)) / torch.tensor(_STD).view(3, 1, 1)
