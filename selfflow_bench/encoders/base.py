"""What an external encoder is: a frozen, pretrained map from clean pictures to a grid of features.

Knows nothing of methods, of latents and of how features are kept.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn


class Encoder(ABC):
    """A frozen encoder of pictures. Deterministic: the same pictures give the same features on the same machine."""

    name: ClassVar[str]
    grid: ClassVar[tuple[int, int]]
    """Rows and columns of the features of one picture."""
    channels: ClassVar[int]
    identity: ClassVar[str]
    """What the features are made with, for the digest they are kept under: weights by hash or revision."""

    @abstractmethod
    def __init__(self, cache: Path) -> None:
        """``cache`` is a directory for converted networks."""

    @abstractmethod
    def encode(self, pictures: NDArray[Any]) -> NDArray[np.float32]:
        """uint8 ``[N, H, W, 3]`` to features ``[N, rows, columns, channels]``."""

    @classmethod
    @abstractmethod
    def countable(cls) -> tuple[nn.Module, torch.Tensor]:
        """The network with fresh weights and one input for it, both on the current device, for counting FLOPs."""
