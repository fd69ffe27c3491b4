"""KID and Frechet distance order real media as a person would, at fixed n, beside their floors."""

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from selfflow_bench.data import sources
from selfflow_bench.data.sources import SplitName
from selfflow_bench.errors import FieldError
from selfflow_bench.evaluation.distances import cached_features, distances, fixed_choice
from selfflow_bench.evaluation.features import efficientnet_lite0, frame_statistics, inception_v3, network
from selfflow_bench.evaluation.features.base import FeatureNetwork
from selfflow_bench.evaluation.statistics import FeatureStatistics, Moments

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
) -> dict[str, dict[str, Any]]:
    """The distances by their kind."""
    found = FeatureStatistics.of(built, built(media))
    wanted, floor = (FeatureStatistics.of(built, cached_features(built, real, cache)) for real in (reference, training))
    made = distances(found, wanted, floor, subsets=50, subset_size=len(media) // 2)
    assert all(name == f"{name.partition('/')[0]}/{built.name}" for name in made)
    return {name.partition("/")[0]: value for name, value in made.items()}


def test_noise_raises_both_distances_step_by_step_above_their_floors(
    lite0: FeatureNetwork, reference: NDArray[np.uint8], training: NDArray[np.uint8], cache: Path
) -> None:
    found = [of(lite0, noisy(training, d), reference, training, cache) for d in (0, 2, 5, 20)]
    for kind in ("kid", "frechet"):
        values, floor = [one[kind]["value"] for one in found], found[0][kind]["floor"]
        assert values == sorted(values)
        assert values[0] == pytest.approx(floor, rel=1e-9)
        assert values[2] > 3 * floor
    assert abs(found[0]["kid"]["floor"]) < 0.03
    assert found[0]["kid"]["spread"] is not None
    assert found[0]["frechet"]["spread"] is None


def test_collapse_to_a_few_pictures_is_farther_than_real_variety(
    lite0: FeatureNetwork, reference: NDArray[np.uint8], training: NDArray[np.uint8], cache: Path
) -> None:
    few = np.resize(training[::24], training.shape)
    found = of(lite0, few, reference, training, cache)
    assert found["kid"]["value"] > found["kid"]["floor"] + 0.03
    assert found["frechet"]["value"] > 1.5 * found["frechet"]["floor"]


def test_wrong_motion_of_right_frames_is_farther_than_real_clips(cache: Path) -> None:
    """Frames alone cannot tell these clips from real ones; the motion statistics must."""
    rng = np.random.default_rng(0)
    reference, training = (real("clips", split, 96)[:, 4:12] for split in SPLITS)
    frozen = training[:, 4:5].repeat(8, axis=1)
    shuffled = np.stack([clip[rng.permutation(8)] for clip in training])
    built = network(frame_statistics.NAME, cache)
    for wrong in (frozen, shuffled):
        found = of(built, wrong, reference, training, cache)
        assert found["kid"]["value"] > found["kid"]["floor"] + 0.1
        assert found["frechet"]["value"] > 1.2 * found["frechet"]["floor"]
        assert found["frechet"]["rank_deficient"]
        assert not found["kid"]["rank_deficient"]


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


def test_metrics_are_json_and_say_what_they_are_of(
    lite0: FeatureNetwork, reference: NDArray[np.uint8], training: NDArray[np.uint8], cache: Path
) -> None:
    metrics = of(lite0, training, reference, training, cache)
    assert set(metrics) == {"kid", "frechet"}
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics
    for metric in metrics.values():
        assert metric["n"] == N
        assert (metric["network"], metric["weights_sha256"]) == (lite0.name, lite0.weights_sha256)
        assert math.isfinite(metric["floor"])
        assert "reference_sha256" not in metric


def drawn(network: str = "net", weights: str = "a" * 64, dimension: int = 3, *, keep: bool = True) -> FeatureStatistics:
    features = np.random.default_rng(dimension).normal(size=(40, dimension)).astype(np.float32)
    return FeatureStatistics(network, weights, Moments.of(features), features if keep else None)


def test_only_the_published_inception_s_frechet_distance_is_called_fid() -> None:
    names = {}
    for sha in (inception_v3.WEIGHTS_SHA256, "b" * 64):
        one = drawn(inception_v3.NAME, sha)
        names[sha] = set(distances(one, one, None, subsets=2, subset_size=10))
    kid = f"kid/{inception_v3.NAME}"
    assert names[inception_v3.WEIGHTS_SHA256] == {kid, f"fid/{inception_v3.NAME}"}
    assert names["b" * 64] == {kid, f"frechet/{inception_v3.NAME}"}


def test_statistics_without_features_give_no_kid_and_say_where_they_are_from() -> None:
    one = drawn()
    made = distances(one, drawn("", "", keep=False), None, subsets=2, subset_size=10, reference_sha256="c" * 64)
    (metric,) = made.values()
    assert set(made) == {"frechet/net"}
    assert metric["reference_sha256"] == "c" * 64
    assert metric["floor"] is None
    assert metric["value"] == pytest.approx(0, abs=1e-6)


def test_other_networks_and_impossible_subsets_are_refused() -> None:
    one = drawn()
    for other in (drawn("other"), drawn(weights="b" * 64), drawn(dimension=4)):
        with pytest.raises(FieldError, match=r"statistics of reference = .*the samples' are net \(3 numbers"):
            distances(one, other, None, subsets=2, subset_size=10)
        with pytest.raises(FieldError, match="statistics of training"):
            distances(one, one, other, subsets=2, subset_size=10)
    with pytest.raises(FieldError, match="kid_subset_size = 500: must be 2 to n = 40"):
        distances(one, one, None, subsets=2, subset_size=500)


def test_the_fixed_choice_spans_the_whole_set_without_repeats() -> None:
    chosen = fixed_choice(5675, 512)
    assert len(set(chosen.tolist())) == 512
    assert chosen[0] == 0
    assert chosen[-1] > 5650
    assert fixed_choice(7, 7).tolist() == list(range(7))
    for n in (0, 8):
        with pytest.raises(FieldError, match="there are 7 media"):
            fixed_choice(7, n)
