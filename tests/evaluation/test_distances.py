"""KID and Frechet distance order real media as a person would, at fixed n, beside their floors."""

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from selfflow_bench.data import sources
from selfflow_bench.data.sources import SplitName
from selfflow_bench.errors import FieldError
from selfflow_bench.evaluation.distances import Distances, cached_features, fixed_choice, measure
from selfflow_bench.evaluation.features import efficientnet_lite0, frame_statistics, network
from selfflow_bench.evaluation.features.base import FeatureNetwork

N = 160
SPLITS: tuple[SplitName, SplitName] = ("validation", "train")


def real(name: str, split: SplitName, count: int) -> NDArray[np.uint8]:
    media = sources.load(name, split)
    return sources.media(media.select(fixed_choice(len(media), count)))


def pictures(split: SplitName, count: int) -> NDArray[np.uint8]:
    return real("pictures", split, count)


def noisy(media: NDArray[np.uint8], deviation: float) -> NDArray[np.uint8]:
    noise = np.random.default_rng(0).normal(0, deviation, media.shape)
    return (media + noise).clip(0, 255).round().astype(np.uint8)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.getbasetemp()
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "feature-cache"


@pytest.fixture(scope="module")
def lite0(cache: Path) -> FeatureNetwork:
    return network(efficientnet_lite0.NAME, cache)


@pytest.fixture(scope="module")
def reference() -> NDArray[np.uint8]:
    return pictures("validation", N)


@pytest.fixture(scope="module")
def training() -> NDArray[np.uint8]:
    return pictures("train", N)


def of(
    built: FeatureNetwork,
    media: NDArray[np.uint8],
    reference: NDArray[np.uint8],
    training: NDArray[np.uint8],
    cache: Path,
) -> Distances:
    return measure(built, media, reference, training, cache=cache, subsets=50, subset_size=len(media) // 2)


def test_noise_raises_both_distances_step_by_step_above_their_floors(
    lite0: FeatureNetwork, reference: NDArray[np.uint8], training: NDArray[np.uint8], cache: Path
) -> None:
    found = [of(lite0, noisy(training, d), reference, training, cache) for d in (0, 2, 5, 20)]
    for distances in ([f.kid for f in found], [f.frechet for f in found]):
        values = [d.value for d in distances]
        assert values == sorted(values)
        assert values[0] == pytest.approx(distances[0].floor, rel=1e-9)
        assert values[2] > 3 * distances[0].floor
    assert abs(found[0].kid.floor) < 0.03
    assert found[0].kid.spread is not None
    assert found[0].frechet.spread is None


def test_collapse_to_a_few_pictures_is_farther_than_real_variety(
    lite0: FeatureNetwork, reference: NDArray[np.uint8], training: NDArray[np.uint8], cache: Path
) -> None:
    few = np.resize(training[::24], training.shape)
    found = of(lite0, few, reference, training, cache)
    assert found.kid.value > found.kid.floor + 0.03
    assert found.frechet.value > 1.5 * found.frechet.floor


def test_wrong_motion_of_right_frames_is_farther_than_real_clips(cache: Path) -> None:
    """Frames alone cannot tell these clips from real ones; the motion statistics must."""
    rng = np.random.default_rng(0)
    reference, training = (real("clips", split, 96)[:, 4:12] for split in SPLITS)
    frozen = training[:, 4:5].repeat(8, axis=1)
    shuffled = np.stack([clip[rng.permutation(8)] for clip in training])
    built = network(frame_statistics.NAME, cache)
    for wrong in (frozen, shuffled):
        found = of(built, wrong, reference, training, cache)
        assert found.kid.value > found.kid.floor + 0.1
        assert found.frechet.value > 1.2 * found.frechet.floor
        assert found.frechet.rank_deficient
        assert not found.kid.rank_deficient


def test_scores_repeat_to_the_bit_with_and_without_the_cache(
    lite0: FeatureNetwork,
    reference: NDArray[np.uint8],
    training: NDArray[np.uint8],
    tmp_path: Path,
) -> None:
    media = noisy(training[::3], 5)
    kept = reference[::3], training[::3]
    first, again, elsewhere = (of(lite0, media, *kept, tmp_path / f) for f in ("a", "a", "b"))
    assert first == again == elsewhere


def test_the_cache_never_answers_for_other_media(
    lite0: FeatureNetwork, reference: NDArray[np.uint8], tmp_path: Path
) -> None:
    cached_features(lite0, reference, tmp_path)
    other = reference.copy()
    other[0, 0, 0, 0] ^= 128
    assert (cached_features(lite0, other, tmp_path)[0] != cached_features(lite0, reference, tmp_path)[0]).any()
    assert len(list(tmp_path.glob("features-*.npz"))) == 2
    reordered = reference[::-1].copy()
    np.testing.assert_allclose(
        cached_features(lite0, reordered, tmp_path)[::-1], cached_features(lite0, reference, tmp_path), atol=1e-5
    )


def test_metrics_are_json_and_every_name_carries_its_network(
    lite0: FeatureNetwork, reference: NDArray[np.uint8], training: NDArray[np.uint8], cache: Path
) -> None:
    metrics = of(lite0, training, reference, training, cache).metrics()
    assert set(metrics) == {"kid/efficientnet-lite0-block10-112", "frechet/efficientnet-lite0-block10-112"}
    again = json.loads(json.dumps(metrics, allow_nan=False))
    assert again == metrics
    for metric in metrics.values():
        assert metric["n"] == N
        assert metric["network"] == efficientnet_lite0.NAME
        assert math.isfinite(metric["floor"])


def test_unequal_counts_and_impossible_subsets_are_refused(
    lite0: FeatureNetwork, reference: NDArray[np.uint8], training: NDArray[np.uint8], cache: Path
) -> None:
    with pytest.raises(FieldError, match="samples of reference = 10"):
        of(lite0, training, reference[:10], training, cache)
    with pytest.raises(FieldError, match="kid_subset_size = 500: must be 2 to n = 160"):
        measure(lite0, training, reference, training, cache=cache, subsets=2, subset_size=500)


def test_the_fixed_choice_spans_the_whole_set_without_repeats() -> None:
    chosen = fixed_choice(5675, 512)
    assert len(set(chosen.tolist())) == 512
    assert chosen[0] == 0
    assert chosen[-1] > 5650
    assert fixed_choice(7, 7).tolist() == list(range(7))
    for n in (0, 8):
        with pytest.raises(FieldError, match="there are 7 media"):
            fixed_choice(7, n)
