"""What a feature network is. Knows nothing of any particular network."""

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class FeatureNetwork(Protocol):
    """A fixed, pretrained map from media to vectors, named everywhere its distances are shown.

    Deterministic: the same media give the same bytes on the same machine and library versions.
    """

    name: str
    dimension: int
    weights_sha256: str

    def __call__(self, media: NDArray[Any]) -> NDArray[np.float32]:
        """Media `[N, ...]` of the network's own kind to `[N, dimension]`. Raises FieldError on a wrong shape."""
        ...
