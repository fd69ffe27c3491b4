"""Statistics of media in a feature network's eyes, gathered in one pass: mean, covariance, and the features KID needs.

Float64, merged batch by batch and process by process, so that no set of features has to be held whole. Files hold them
under the names that are usual for this (``mu``, ``sigma``), so that samples can be scored again against other
statistics, and published ones can be read. Knows nothing of how media were made, nor of distances.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from selfflow_bench.atomic_files import replace_file
from selfflow_bench.errors import DamagedFileError, FieldError, SuiteError
from selfflow_bench.evaluation.features.base import FeatureNetwork
from selfflow_bench.evaluation.shared_work import ALONE, SharedWork


@dataclass(frozen=True, eq=False)
class Moments:
    """Mean ``[D]`` and covariance ``[D, D]`` (over n - 1) of ``count`` features, in float64."""

    count: int
    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]

    @classmethod
    def none(cls, dimension: int) -> Moments:
        """Of no features yet."""
        return cls(0, np.zeros(dimension), np.zeros((dimension, dimension)))

    @classmethod
    def of(cls, features: NDArray[np.floating[Any]]) -> Moments:
        """Of features ``[N, D]``, N > 0, as torch-fidelity has them."""
        from torch_fidelity.metric_fid import fid_features_to_statistics

        double = features.astype(np.float64)
        if len(double) == 1:
            return cls(1, double[0], np.zeros((double.shape[1], double.shape[1])))
        found = fid_features_to_statistics(torch.from_numpy(double))
        return cls(len(double), found["mu"], found["sigma"].reshape(double.shape[1], double.shape[1]))

    def merged(self, other: Moments) -> Moments:
        """Of both sets of features (Chan, Golub and LeVeque 1983): no difference of large sums is taken."""
        if not self.count or not other.count:
            return self if self.count else other
        count = self.count + other.count
        apart = other.mean - self.mean
        scatter = np.outer(apart, apart) * (self.count * other.count / count)
        scatter += (self.count - 1) * self.covariance + (other.count - 1) * other.covariance
        return Moments(count, self.mean + apart * (other.count / count), scatter / (count - 1))

    def over_processes(self, processes: SharedWork) -> Moments:
        """Of what all processes found, merged in their order. All must ask."""
        counts = processes.gathered(torch.tensor([self.count]))
        means, covariances = (processes.gathered(torch.from_numpy(value)) for value in (self.mean, self.covariance))
        whole = Moments.none(len(self.mean))
        for count, mean, covariance in zip(counts, means, covariances, strict=True):
            whole = whole.merged(Moments(int(count), mean.numpy(), covariance.numpy()))
        return whole


@dataclass(frozen=True, eq=False)
class FeatureStatistics:
    """What is known of a set of media by one network.

    Args:
        network, weights_sha256: which; empty in published statistics, which do not say.
        moments: of all its features.
        kept: float32 ``[K, D]``, features of a fixed choice for KID, or None.
    """

    network: str
    weights_sha256: str
    moments: Moments
    kept: NDArray[np.float32] | None

    @classmethod
    def of(
        cls, network: FeatureNetwork, features: NDArray[np.float32], kept: NDArray[np.int64] | None = None
    ) -> FeatureStatistics:
        """Of features ``[N, D]``, all of them kept if not told which."""
        chosen = features if kept is None else features[kept]
        return cls(network.name, network.weights_sha256, Moments.of(features), chosen)

    def save(self, path: Path, facts: Mapping[str, str]) -> None:
        """Write them whole, with ``facts`` that say where they come from."""
        replace_file(path, lambda file: np.savez(file, **self.arrays(), **facts))  # type: ignore[arg-type]

    def arrays(self) -> dict[str, Any]:
        """As files hold them."""
        moments = {"mu": self.moments.mean, "sigma": self.moments.covariance, "n": np.int64(self.moments.count)}
        kept = {} if self.kept is None else {"features": self.kept}
        return {**moments, "network": self.network, "weights_sha256": self.weights_sha256, **kept}


def load_statistics(path: Path) -> FeatureStatistics:
    """Read a file of `FeatureStatistics.save`, or published statistics: at least ``mu`` and ``sigma``.

    Raises DamagedFileError where it holds none. A count that the file does not tell is 0.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            mean, covariance = (np.asarray(archive[name], dtype=np.float64) for name in ("mu", "sigma"))
            found = {name: archive[name] for name in ("n", "network", "weights_sha256", "features") if name in archive}
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DamagedFileError(
            f"{path}: holds no feature statistics ({error}). It must be an npz with mu [D] and sigma [D, D]."
        ) from error
    if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)) or not np.isfinite(covariance).all():
        raise DamagedFileError(f"{path}: mu {mean.shape} and sigma {covariance.shape} are no mean and its covariance.")
    return FeatureStatistics(
        str(found.get("network", "")),
        str(found.get("weights_sha256", "")),
        Moments(int(found.get("n", 0)), mean, covariance),
        found.get("features"),
    )


def written_for(path: Path, key: str) -> bool:
    """Whether there is a file of statistics that was saved with that ``key`` among its facts."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            return str(archive["key"]) == key
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile):
        return False


def published_path(cache: Path, sha256: str) -> Path:
    """Where published statistics of that hash are looked for."""
    return cache / "statistics" / f"{sha256}.npz"


def load_published(cache: Path, sha256: str, network: FeatureNetwork, where: str | Path) -> FeatureStatistics:
    """Published statistics for a network, by the SHA-256 of their file in the cache's folder ``statistics``.

    Raises FieldError where ``where`` names statistics that are not there or are another network's, DamagedFileError for
    a file that is not what its name says.
    """
    path = published_path(cache, sha256)
    field = f"evaluation.reference_statistics.{network.name}"
    if not path.exists():
        raise FieldError(where, field, sha256, "no such file of statistics here", f"Put it at {path}.")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        raise DamagedFileError(f"{path}: SHA-256 is {found}, not its name's. Fetch or make it again.")
    statistics = load_statistics(path)
    if statistics.network not in ("", network.name) or len(statistics.moments.mean) != network.dimension:
        said = statistics.network or f"a network of {len(statistics.moments.mean)} features"
        raise FieldError(where, field, sha256, f"these are statistics of {said}", f"Name {network.name}'s.")
    return statistics


class Accumulator:
    """The statistics of a set of media by several networks, in the making: what one process has seen of it.

    Args:
        networks: each sees every batch once.
        kept: int64: the samples whose features are kept, by their number in the set.
    """

    def __init__(self, networks: Sequence[FeatureNetwork], kept: NDArray[np.int64]) -> None:
        self._networks = networks
        self._rows = {int(sample): row for row, sample in enumerate(kept)}
        self._moments = {network.name: Moments.none(network.dimension) for network in networks}
        self._kept = {network.name: np.zeros((len(kept), network.dimension), dtype=np.float32) for network in networks}

    def add(self, media: NDArray[Any], samples: Sequence[int]) -> None:
        """Media ``[N, ...]`` and their numbers in the set; each number once in all, over all processes."""
        for network in self._networks:
            features = network(media)
            self._moments[network.name] = self._moments[network.name].merged(Moments.of(features))
            for sample, feature in zip(samples, features, strict=True):
                if sample in self._rows:
                    self._kept[network.name][self._rows[sample]] = feature

    def result(self, of: int, processes: SharedWork = ALONE) -> dict[str, FeatureStatistics]:
        """Of all ``of`` media of all processes, by the network's name. All processes must ask.

        Raises SuiteError where more or fewer were seen.
        """
        made = {}
        for network in self._networks:
            moments = self._moments[network.name].over_processes(processes)
            if moments.count != of:
                raise SuiteError(f"statistics of {moments.count} media were asked for as those of {of}")
            # Each row was filled by one process and is zero in all others.
            kept = processes.total(torch.from_numpy(self._kept[network.name])).numpy()
            made[network.name] = FeatureStatistics(network.name, network.weights_sha256, moments, kept)
        return made

    def save(self, path: Path, key: str, done: int) -> None:
        """Write what was seen so far, whole or not at all.

        Under a key of what is being measured, with the number of this process's batches that are ``done``.
        """
        arrays: dict[str, Any] = {"key": key, "done": np.int64(done)}
        for network in self._networks:
            moments = self._moments[network.name]
            arrays |= {
                f"{network.name} {name}": value
                for name, value in (
                    ("count", np.int64(moments.count)),
                    ("mean", moments.mean),
                    ("covariance", moments.covariance),
                    ("kept", self._kept[network.name]),
                    ("weights", network.weights_sha256),
                )
            }
        replace_file(path, lambda file: np.savez(file, **arrays))

    def restore(self, path: Path, key: str) -> int:
        """Go on from a file of `save`: how many batches are done; 0, where there is none of this key and weights."""
        try:
            with np.load(path, allow_pickle=False) as archive:
                if str(archive["key"]) != key:
                    return 0
                if any(str(archive[f"{one.name} weights"]) != one.weights_sha256 for one in self._networks):
                    return 0
                done = int(archive["done"])
                moments = {
                    one.name: Moments(
                        int(archive[f"{one.name} count"]),
                        archive[f"{one.name} mean"],
                        archive[f"{one.name} covariance"],
                    )
                    for one in self._networks
                }
                kept = {one.name: archive[f"{one.name} kept"] for one in self._networks}
        except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile):
            return 0
        self._moments, self._kept = moments, kept
        return done
