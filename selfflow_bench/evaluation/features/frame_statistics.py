"""Clip features: how the picture features of a clip's frames lie and move, 4 x 112 numbers.

No package carries a video network, so a clip is described by the mean and the standard deviation over its frames and
by the mean absolute first and second difference between them. The first two see the frames, the last two see the
motion: frozen, shuffled and trembling clips have ordinary frames and move wrongly. Knows nothing of distances.

The three of movement are raised by fixed factors to about half the size of the mean (root mean square over animated
emoji). As they come they are a tenth of it and KID hardly sees a shuffled clip; at full size they drown the frames.

With fewer clips than 449 the covariance of 448 numbers has no full rank: KID leads here, and the Frechet distance says
of itself that it is rank-deficient.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selfflow_bench.evaluation.features import efficientnet_lite0
from selfflow_bench.evaluation.features.media import clips

NAME = "efficientnet-lite0-block10-112-frame-statistics"
WEIGHTS = (1.0, 4.5, 7.0, 4.5)


class FrameStatistics:
    """uint8 RGB clips `[N, frames, H, W, 3]` to `[N, 448]`: mean, deviation, first, second difference, in order."""

    name = NAME
    dimension = 4 * efficientnet_lite0.DIMENSION
    weights_sha256 = efficientnet_lite0.EfficientNetLite0.weights_sha256

    def __init__(self, cache: Path, weights: Path | None = None) -> None:
        self._pictures = efficientnet_lite0.EfficientNetLite0(cache, weights)

    def __call__(self, media: NDArray[Any]) -> NDArray[np.float32]:
        """Features `[N, 448]`. Raises FieldError unless `media` is uint8 `[N, frames, H, W, 3]` of 3 frames or more.

        Of structured media, clips with audio, the field `frames`: the audio is not seen.
        """
        taken = clips(NAME, media, 3)
        features = self._pictures(taken.reshape(-1, *taken.shape[2:])).reshape(*taken.shape[:2], -1)
        return statistics(features)


def statistics(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Frame features `[N, frames, D]` to clip features `[N, 4 D]`."""
    first = np.diff(features, axis=1)
    second = np.diff(first, axis=1)
    groups = (features.mean(1), features.std(1), np.abs(first).mean(1), np.abs(second).mean(1))
    weighted = [weight * group for weight, group in zip(WEIGHTS, groups, strict=True)]
    return np.concatenate(weighted, axis=1).astype(np.float32)
