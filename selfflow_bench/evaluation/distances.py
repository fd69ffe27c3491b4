"""How far generated media lie from real ones: KID and a Frechet distance on a named feature network's features.

Both by torch-fidelity's own feature-level functions, so that pictures, clips and notes share one path. Neither is ever
called FID, FAD or FVD: those names belong to other networks. Knows nothing of how media were made, nor of records.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from selfflow_bench.errors import FieldError
from selfflow_bench.evaluation.features.base import FeatureNetwork
from selfflow_bench.networks.array_cache import cached_array, content_key

_SUBSET_SEED = 2020


@dataclass(frozen=True)
class Distance:
    """One distance with what is needed to read it.

    `floor` is the same distance between real media and real media, at the same n: a model cannot be expected below it.
    `spread` is the standard deviation over KID's subsets (None for the Frechet distance); it is not an error of the
    mean, and says nothing about training again with another seed. `rank_deficient` says that n samples cannot span the
    covariance: the Frechet distance is then biased upwards, by as much as its floor shows.
    """

    value: float
    floor: float
    spread: float | None
    n: int
    network: str
    weights_sha256: str
    rank_deficient: bool


@dataclass(frozen=True)
class Distances:
    """KID and Frechet distance of one set of generated media."""

    kid: Distance
    frechet: Distance

    def metrics(self) -> dict[str, dict[str, Any]]:
        """JSON-able, keyed "kid/<network>" and "frechet/<network>": no score without its network's name."""
        return {
            f"{name}/{value.network}": asdict(value) for name, value in (("kid", self.kid), ("frechet", self.frechet))
        }


def measure(
    network: FeatureNetwork,
    generated: NDArray[np.generic],
    reference: NDArray[np.generic],
    training: NDArray[np.generic],
    *,
    cache: Path,
    subsets: int,
    subset_size: int,
) -> Distances:
    """Distances of generated media `[N, ...]` from reference media `[N, ...]`, with their floors.

    `reference` are validation media, `training` as many training media for the floor (see `fixed_choice`). The features
    of these two are cached in `cache` by their content; generated media never are. KID is the unbiased estimate of the
    squared MMD with the kernel (x.y / D + 1)^3, averaged over `subsets` random subsets of `subset_size` (Binkowski et
    al. 2018, section 4), the same subsets in every call.

    Raises FieldError where the three counts differ or are fewer than a subset.
    """
    n = len(generated)
    for name, media in (("reference", reference), ("training", training)):
        if len(media) != n:
            problem = f"the distances need as many as generated ({n})"
            raise FieldError("distances", f"samples of {name}", len(media), problem, "Choose n of each.")
    if not 2 <= subset_size <= n:
        raise FieldError(
            "distances", "kid_subset_size", subset_size, f"must be 2 to n = {n}", "Set it in the protocol."
        )
    found = _double(network(generated))
    wanted = _double(cached_features(network, reference, cache))
    real = _double(cached_features(network, training, cache))
    kid, spread = _kid(found, wanted, subsets, subset_size)
    kid_floor, _ = _kid(real, wanted, subsets, subset_size)
    facts: dict[str, Any] = {"n": n, "network": network.name, "weights_sha256": network.weights_sha256}
    return Distances(
        Distance(kid, kid_floor, spread, rank_deficient=False, **facts),
        Distance(_frechet(found, wanted), _frechet(real, wanted), None, rank_deficient=n <= network.dimension, **facts),
    )


def fixed_choice(total: int, n: int) -> NDArray[np.int64]:
    """Which n of `total` media to take, evenly spaced over their order: no draw to reproduce, every kind represented.

    Raises FieldError where there are fewer than n.
    """
    if not 0 < n <= total:
        raise FieldError("distances", "n", n, f"there are {total} media", f"Set 1 to {total} in the protocol.")
    return np.arange(n, dtype=np.int64) * total // n


def cached_features(network: FeatureNetwork, media: NDArray[np.generic], cache: Path) -> NDArray[np.float32]:
    """Features of real media, stored under a hash of the media, the network and the libraries that run it."""
    import onnxruntime

    identity = json.dumps([network.name, network.weights_sha256, torch.__version__, onnxruntime.__version__])
    return cached_array(cache, f"features-{content_key(identity, media)}", lambda: network(media))


def _double(features: NDArray[np.float32]) -> torch.Tensor:
    return torch.from_numpy(features.astype(np.float64))


def _kid(found: torch.Tensor, wanted: torch.Tensor, subsets: int, subset_size: int) -> tuple[float, float]:
    from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, KEY_METRIC_KID_STD, kid_features_to_metric

    result = kid_features_to_metric(
        found, wanted, kid_subsets=subsets, kid_subset_size=subset_size, rng_seed=_SUBSET_SEED, verbose=False
    )
    return float(result[KEY_METRIC_KID_MEAN]), float(result[KEY_METRIC_KID_STD])


def _frechet(found: torch.Tensor, wanted: torch.Tensor) -> float:
    from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric

    result = fid_statistics_to_metric(
        fid_features_to_statistics(found), fid_features_to_statistics(wanted), verbose=False
    )
    return float(result[KEY_METRIC_FID])
