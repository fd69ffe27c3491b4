"""The registry of feature networks: a protocol names one, `network` builds it.

Knows the networks by name only; what each does with its media is its own module's affair. Knows nothing of distances.
"""

from collections.abc import Callable
from pathlib import Path

from selfflow_bench.errors import FieldError
from selfflow_bench.evaluation.features import (
    aisfx_embedding,
    clap,
    dinov2,
    efficientnet_lite0,
    frame_statistics,
    inception_v3,
    videomae,
)
from selfflow_bench.evaluation.features.base import FeatureNetwork
from selfflow_bench.networks.efficientnet_lite0 import checked_weights

_NETWORKS: dict[str, Callable[[Path], FeatureNetwork]] = {
    efficientnet_lite0.NAME: efficientnet_lite0.EfficientNetLite0,
    frame_statistics.NAME: frame_statistics.FrameStatistics,
    aisfx_embedding.NAME: aisfx_embedding.AisfxEmbedding,
    # Their weights are in no package: of a file, and of the hub's cache.
    inception_v3.NAME: inception_v3.InceptionV3,
    dinov2.DinoV2Base.name: dinov2.DinoV2Base,
    dinov2.DinoV2Large.name: dinov2.DinoV2Large,
    videomae.NAME: videomae.VideoMae,
    clap.NAME: clap.Clap,
}


def names() -> tuple[str, ...]:
    """The names a protocol may ask for, in alphabetical order."""
    return tuple(sorted(_NETWORKS))


def network(name: str, cache: Path, where: str | Path = "protocol") -> FeatureNetwork:
    """Build the feature network called `name`.

    `cache` is a directory for the exported graphs (made if missing); `where` is the file named in the error.
    Raises FieldError for a name that is not registered, DamagedFileError for weights that are not the published ones.
    """
    if name not in _NETWORKS:
        raise FieldError(
            where, "network", name, "there is no such feature network", f"Use one of: {', '.join(names())}."
        )
    return _NETWORKS[name](cache)


def hearing(one: FeatureNetwork, rate: int | None) -> FeatureNetwork:
    """The network for media whose sound, if they have one, is at that rate (Hz)."""
    return one.at(rate) if rate is not None and isinstance(one, clap.Clap) else one


def check_weights() -> None:
    """Compare the weights of packages with their sha256. Raises DamagedFileError for the first that differ."""
    checked_weights()
    aisfx_embedding.checked_weights()
