"""Statistics merged from parts are those of the whole, in whatever parts it comes; files are whole or refused."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from selfflow_bench.errors import DamagedFileError, FieldError, SuiteError
from selfflow_bench.evaluation.statistics import (
    Accumulator,
    FeatureStatistics,
    Moments,
    load_published,
    load_statistics,
    published_path,
    written_for,
)


class Projection:
    """A network of one matrix: pictures ``[N, 5]`` to ``[N, D]``."""

    weights_sha256 = "d" * 64

    def __init__(self, dimension: int = 4, name: str = "projection") -> None:
        self.name, self.dimension = name, dimension
        self._matrix = np.random.default_rng(dimension).normal(size=(5, dimension))

    def __call__(self, media: NDArray[Any]) -> NDArray[np.float32]:
        found: NDArray[np.float32] = (media @ self._matrix + 1000).astype(np.float32)
        return found


MEDIA = np.random.default_rng(0).normal(size=(60, 5))
EVERY_THIRD = np.arange(0, 60, 3)


@given(cuts=st.lists(st.integers(1, 59), max_size=12, unique=True))
@settings(deadline=None, max_examples=50)
def test_parts_merge_to_the_whole(cuts: list[int]) -> None:
    network, borders = Projection(), [0, *sorted(cuts), 60]
    seen = Accumulator([network], EVERY_THIRD)
    for start, stop in pairwise(borders):
        seen.add(MEDIA[start:stop], range(start, stop))
    found, features = seen.result(60)["projection"], network(MEDIA).astype(np.float64)
    # Features lie around 1000, so that a difference of sums of squares would be wrong in the fourth digit.
    np.testing.assert_allclose(found.moments.mean, features.mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.moments.covariance, np.cov(features, rowvar=False), rtol=1e-9)
    assert found.kept is not None
    np.testing.assert_array_equal(found.kept, network(MEDIA)[EVERY_THIRD])


class Joined:
    """One of several threads that share the media: what each lays down, all pick up."""

    def __init__(self, index: int, table: list[torch.Tensor], barrier: Barrier) -> None:
        self.index, self.count = index, len(table)
        self._table, self._barrier = table, barrier

    def any(self, flag: bool) -> bool:
        return bool(self.total(torch.tensor([flag])).any())

    def total(self, values: torch.Tensor) -> torch.Tensor:
        return self.gathered(values).sum(0)

    def gathered(self, values: torch.Tensor) -> torch.Tensor:
        self._table[self.index] = values
        self._barrier.wait(timeout=30)
        rows = torch.stack(self._table)
        self._barrier.wait(timeout=30)
        return rows


def test_those_who_share_the_media_all_find_what_one_finds() -> None:
    table, barrier = [torch.empty(0)] * 3, Barrier(3)

    def share(index: int) -> FeatureStatistics:
        seen = Accumulator([Projection()], EVERY_THIRD)
        for start in range(index * 20, index * 20 + 20, 10):
            seen.add(MEDIA[start : start + 10], range(start, start + 10))
        return seen.result(60, Joined(index, table, barrier))["projection"]

    alone = Accumulator([Projection()], EVERY_THIRD)
    alone.add(MEDIA, range(60))
    one = alone.result(60)["projection"]
    with ThreadPoolExecutor(3) as threads:
        for found in threads.map(share, range(3)):
            np.testing.assert_allclose(found.moments.covariance, one.moments.covariance, rtol=1e-9)
            np.testing.assert_array_equal(found.kept, one.kept)  # type: ignore[arg-type]


def test_media_left_out_or_seen_twice_are_noticed() -> None:
    for count in (50, 70):
        seen = Accumulator([Projection()], EVERY_THIRD)
        seen.add(np.resize(MEDIA, (count, 5)), range(count))
        with pytest.raises(SuiteError, match=f"statistics of {count} media were asked for as those of 60"):
            seen.result(60)


def test_an_interrupted_accumulation_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    def half(seen: Accumulator, start: int) -> None:
        for at in range(start, start + 30, 10):
            seen.add(MEDIA[at : at + 10], range(at, at + 10))

    networks = [Projection(), Projection(2, "second")]
    whole, first, second = (Accumulator(networks, EVERY_THIRD) for _ in range(3))
    half(whole, 0)
    half(whole, 30)
    half(first, 0)
    first.save(tmp_path / "state.npz", "key", 3)
    assert second.restore(tmp_path / "state.npz", "other key") == 0
    assert second.restore(tmp_path / "none.npz", "key") == 0
    assert second.restore(tmp_path / "state.npz", "key") == 3
    half(second, 30)
    for name, found in second.result(60).items():
        wanted = whole.result(60)[name]
        assert found.moments.covariance.tobytes() == wanted.moments.covariance.tobytes()
        assert found.kept is not None
        assert wanted.kept is not None
        assert found.kept.tobytes() == wanted.kept.tobytes()


@pytest.mark.parametrize("change", ["torn", "other weights"])
def test_a_state_that_does_not_fit_is_left_alone(change: str, tmp_path: Path) -> None:
    path, seen = tmp_path / "state.npz", Accumulator([Projection()], EVERY_THIRD)
    seen.add(MEDIA, range(60))
    seen.save(path, "key", 1)
    other = Projection()
    if change == "torn":
        path.write_bytes(path.read_bytes()[:-200])
    else:
        other.weights_sha256 = "e" * 64
    fresh = Accumulator([other], EVERY_THIRD)
    assert fresh.restore(path, "key") == 0
    fresh.add(MEDIA, range(60))
    assert fresh.result(60)["projection"].moments.count == 60


def test_statistics_come_back_from_their_file(tmp_path: Path) -> None:
    path, one = tmp_path / "some.npz", FeatureStatistics.of(Projection(), Projection()(MEDIA), EVERY_THIRD)
    one.save(path, {"key": "run"})
    found = load_statistics(path)
    assert (found.network, found.weights_sha256, found.moments.count) == ("projection", "d" * 64, 60)
    assert found.moments.covariance.tobytes() == one.moments.covariance.tobytes()
    assert found.kept is not None
    assert found.kept.shape == (20, 4)
    assert written_for(path, "run")
    assert not written_for(path, "another run")
    assert not written_for(tmp_path / "none.npz", "run")


def test_published_statistics_are_found_by_their_hash_and_checked(tmp_path: Path) -> None:
    network, mean = Projection(), np.zeros(4)
    given_by_others = tmp_path / "VIRTUAL.npz"
    np.savez(given_by_others, mu=mean, sigma=np.eye(4))
    sha256 = hashlib.sha256(given_by_others.read_bytes()).hexdigest()
    path = published_path(tmp_path, sha256)
    with pytest.raises(FieldError, match=rf"reference_statistics\.projection = '{sha256}'.*Put it at .*{sha256}\.npz"):
        load_published(tmp_path, sha256, network, "protocol some@1")
    path.parent.mkdir()
    path.write_bytes(given_by_others.read_bytes())
    assert load_published(tmp_path, sha256, network, "protocol some@1").moments.covariance.trace() == 4
    with pytest.raises(FieldError, match=r"statistics of a network of 4 features\. Name wide's"):
        load_published(tmp_path, sha256, Projection(6, "wide"), "protocol some@1")
    path.write_bytes(path.read_bytes() + b"?")
    with pytest.raises(DamagedFileError, match="not its name's"):
        load_published(tmp_path, sha256, network, "protocol some@1")


@pytest.mark.parametrize(
    "arrays",
    [{"mu": np.zeros(3)}, {"mu": np.zeros(3), "sigma": np.eye(2)}, {"mu": np.zeros(2), "sigma": np.eye(2) * np.nan}],
)
def test_files_that_hold_no_statistics_are_refused(arrays: dict[str, Any], tmp_path: Path) -> None:
    np.savez(tmp_path / "some.npz", **arrays)
    with pytest.raises(DamagedFileError, match=r"some\.npz"):
        load_statistics(tmp_path / "some.npz")


def test_moments_of_one_are_its_features() -> None:
    one = Moments.of(np.ones((1, 3), np.float32))
    assert (one.count, one.covariance.any()) == (1, False)
