"""How far generated media lie from real ones: KID and a Frechet distance on a named feature network's features.

Both by torch-fidelity's own functions on features and their statistics, so that pictures, clips and notes share one
path. Every distance has its network in its name. Only the published Inception's Frechet distance is called FID, and
none is called FAD or FVD: those names belong to other networks. Knows nothing of how media were made, nor of records.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from selfflow_bench.errors import FieldError
from selfflow_bench.evaluation.features import inception_v3
from selfflow_bench.evaluation.features.base import FeatureNetwork
from selfflow_bench.evaluation.statistics import FeatureStatistics, Moments
from selfflow_bench.networks.array_cache import cached_array, content_key

_SUBSET_SEED = 2020


@dataclass(frozen=True)
class Distance:
    """One distance with what is needed to read it.

    `floor` is the same distance between real media and real media, at the same n: a model cannot be expected below it
    (None where it was not measured). `spread` is the standard deviation over KID's subsets (None for the Frechet
    distance); it is not an error of the mean, and says nothing about training again with another seed.
    `rank_deficient` says that n samples cannot span the covariance: the Frechet distance is then biased upwards, by as
    much as its floor shows. `reference_sha256` is of the file of statistics that took the place of validation media.
    """

    value: float
    floor: float | None
    spread: float | None
    n: int
    network: str
    weights_sha256: str
    rank_deficient: bool
    reference_sha256: str | None = None


def distances(
    found: FeatureStatistics,
    wanted: FeatureStatistics,
    real: FeatureStatistics | None,
    *,
    subsets: int,
    subset_size: int,
    reference_sha256: str | None = None,
) -> dict[str, dict[str, Any]]:
    """Distances of generated media from reference media, with their floors, JSON-able, by kind and network.

    `found` are the generated media's statistics, `wanted` the reference's, `real` as many training media's for the
    floor (see `fixed_choice`). "kid/<network>" is the unbiased estimate of the squared MMD with the kernel
    (x.y / D + 1)^3, averaged over `subsets` random subsets of `subset_size` (Binkowski et al. 2018, section 4), the
    same subsets in every call; it is left out where the reference keeps no features. "frechet/<network>" is called
    "fid/<network>" on torch-fidelity's Inception with its published weights, and on no other.

    Raises FieldError where statistics to be compared are of different networks, or have fewer features than a subset.
    """
    for name, other in (("reference", wanted), ("training", real)):
        if other is not None and _differ(found, other):
            problem = f"the samples' are {_network(found)}'s"
            raise FieldError("distances", f"statistics of {name}", _network(other), problem, "Use its own.")
    facts: dict[str, Any] = {
        "n": found.moments.count,
        "network": found.network,
        "weights_sha256": found.weights_sha256,
        "reference_sha256": reference_sha256,
    }
    made = {}
    if found.kept is not None and wanted.kept is not None:
        kept = min(len(found.kept), len(wanted.kept))
        if not 2 <= subset_size <= kept:
            problem = f"must be 2 to n = {kept}"
            raise FieldError("distances", "kid_subset_size", subset_size, problem, "Set it in the protocol.")
        kid, spread = _kid(found.kept, wanted.kept, subsets, subset_size)
        floor = None if real is None or real.kept is None else _kid(real.kept, wanted.kept, subsets, subset_size)[0]
        made["kid"] = Distance(kid, floor, spread, rank_deficient=False, **facts)
    is_fid = (found.network, found.weights_sha256) == (inception_v3.NAME, inception_v3.WEIGHTS_SHA256)
    made["fid" if is_fid else "frechet"] = Distance(
        _frechet(found.moments, wanted.moments),
        None if real is None else _frechet(real.moments, wanted.moments),
        None,
        rank_deficient=found.moments.count <= len(found.moments.mean),
        **facts,
    )
    return {f"{kind}/{found.network}": _metric(value) for kind, value in made.items()}


def _metric(distance: Distance) -> dict[str, Any]:
    # A fact that most records have not is left out of theirs.
    return {name: value for name, value in asdict(distance).items() if name != "reference_sha256" or value is not None}


def _differ(one: FeatureStatistics, other: FeatureStatistics) -> bool:
    if len(one.moments.mean) != len(other.moments.mean):
        return True
    return bool(other.network) and _network(one) != _network(other)


def _network(statistics: FeatureStatistics) -> str:
    name, dimension = statistics.network or "unknown", len(statistics.moments.mean)
    return f"{name} ({dimension} numbers, weights {statistics.weights_sha256[:12] or 'unknown'})"


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


def _kid(
    found: NDArray[np.float32], wanted: NDArray[np.float32], subsets: int, subset_size: int
) -> tuple[float, float]:
    from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, KEY_METRIC_KID_STD, kid_features_to_metric

    one, two = (torch.from_numpy(features.astype(np.float64)) for features in (found, wanted))
    result = kid_features_to_metric(
        one, two, kid_subsets=subsets, kid_subset_size=subset_size, rng_seed=_SUBSET_SEED, verbose=False
    )
    return float(result[KEY_METRIC_KID_MEAN]), float(result[KEY_METRIC_KID_STD])


def _frechet(found: Moments, wanted: Moments) -> float:
    from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_statistics_to_metric

    one, two = ({"mu": moments.mean, "sigma": moments.covariance} for moments in (found, wanted))
    return float(fid_statistics_to_metric(one, two, verbose=False)[KEY_METRIC_FID])
