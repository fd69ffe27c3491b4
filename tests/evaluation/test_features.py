"""The real networks on real small media: shape, determinism, agreement with eager torch, and refusals."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from selfflow_bench.data import sources
from selfflow_bench.errors import DamagedFileError, FieldError
from selfflow_bench.evaluation.distances import fixed_choice
from selfflow_bench.evaluation.features import aisfx_embedding, efficientnet_lite0, frame_statistics, network
from selfflow_bench.evaluation.features.base import FeatureNetwork
from selfflow_bench.networks import efficientnet_lite0 as efficientnet_package
from selfflow_bench.networks.array_cache import cached_array, content_key


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all workers: the second to ask finds the first one's graph."""
    base = tmp_path_factory.getbasetemp()
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "feature-cache"


def embedded(name: str, count: int) -> NDArray[Any]:
    split = sources.load(name, "validation")
    return sources.media(split.select(fixed_choice(len(split), count)))


def pictures(count: int) -> NDArray[Any]:
    return embedded("pictures", count)


def clips(count: int) -> NDArray[Any]:
    return embedded("clips", count)


def notes(count: int) -> NDArray[Any]:
    return embedded("notes", count)


MEDIA = {
    efficientnet_lite0.NAME: pictures,
    frame_statistics.NAME: clips,
    aisfx_embedding.NAME: notes,
}


WEIGHTS = {
    efficientnet_lite0: efficientnet_package.packaged_weights(),
    aisfx_embedding: aisfx_embedding.packaged_weights(),
}


@pytest.mark.parametrize("name", MEDIA)
def test_features_have_the_declared_shape_and_repeat_to_the_bit(name: str, cache: Path) -> None:
    built: FeatureNetwork = network(name, cache)
    media = MEDIA[name](5)
    features = built(media)
    assert built.name == name
    assert features.shape == (5, built.dimension)
    assert features.dtype == np.float32
    assert np.isfinite(features).all()
    assert features.tobytes() == network(name, cache)(media).tobytes()
    assert np.ptp(features, axis=0).max() > 0.1


@pytest.mark.parametrize("name", [efficientnet_lite0.NAME, aisfx_embedding.NAME])
def test_the_graph_equals_eager_torch(name: str, cache: Path) -> None:
    module, load = {
        efficientnet_lite0.NAME: (efficientnet_lite0, efficientnet_lite0.load_tap),
        aisfx_embedding.NAME: (aisfx_embedding, aisfx_embedding.load_embedding),
    }[name]
    media = MEDIA[name]({efficientnet_lite0.NAME: 67, aisfx_embedding.NAME: 3}[name])
    eager = load(WEIGHTS[module].read_bytes())
    with torch.no_grad():
        expected = eager(module.network_input(media)).numpy() / module.SCALE
    np.testing.assert_allclose(network(name, cache)(media), expected, rtol=1e-4, atol=1e-4)


def test_features_do_not_depend_on_the_batch_a_picture_is_in(cache: Path) -> None:
    built = network(efficientnet_lite0.NAME, cache)
    media = pictures(70)
    np.testing.assert_allclose(built(media)[64:], built(media[64:]), atol=1e-5)


def test_enlarging_is_pillows_bicubic_rule() -> None:
    [picture] = pictures(1)
    channels = [
        np.asarray(
            Image.fromarray(picture[..., c].astype(np.float32), mode="F").resize((128, 128), Image.Resampling.BICUBIC)
        )
        for c in range(3)
    ]
    expected = (np.stack(channels).clip(0, 255) - 127) / 128
    np.testing.assert_allclose(efficientnet_lite0.network_input(picture[None])[0], expected, atol=2e-3)


def test_a_note_longer_than_the_block_is_cut_and_silence_is_finite(cache: Path) -> None:
    built = network(aisfx_embedding.NAME, cache)
    assert aisfx_embedding.network_input(np.zeros((1, 30_000), np.int16)).shape == (1, 100, 96)
    assert np.isfinite(built(np.zeros((1, 8192), np.int16))).all()


def test_loudness_does_not_change_a_notes_features(cache: Path) -> None:
    built = network(aisfx_embedding.NAME, cache)
    media = (notes(3) // 8) * 8
    np.testing.assert_allclose(built(media), built(media // 2), atol=1e-3)


def test_mel_filters_have_unit_sum() -> None:
    assert torch.allclose(aisfx_embedding._mel_filters().sum(0), torch.ones(96, dtype=torch.float64))


def test_statistics_of_a_frozen_clip_have_no_motion() -> None:
    features = np.random.default_rng(0).normal(size=(2, 1, 7)).astype(np.float32).repeat(5, axis=1)
    found = frame_statistics.statistics(features)
    np.testing.assert_allclose(found[:, :7], features[:, 0], rtol=1e-6)
    np.testing.assert_allclose(found[:, 7:], 0, atol=1e-6)


def test_an_unknown_name_lists_the_known_ones(cache: Path) -> None:
    with pytest.raises(FieldError, match=r"v1\.toml: network = 'inception'.*Use one of: aisfx-512, clap-htsat-unfused"):
        network("inception", cache, "v1.toml")


@pytest.mark.parametrize("name", MEDIA)
def test_media_of_another_kind_are_refused(name: str, cache: Path) -> None:
    built = network(name, cache)
    for media in (np.zeros((2, 32, 32), np.uint8), np.zeros((0, 32, 32, 3), np.uint8), np.zeros((2, 9000), np.float32)):
        with pytest.raises(FieldError, match=r"media = '.*Give (uint8|int16)"):
            built(media)


@pytest.mark.parametrize("module", [efficientnet_lite0, aisfx_embedding])
def test_tampered_and_missing_weights_are_refused_before_they_are_unpickled(module: object, tmp_path: Path) -> None:
    tampered = tmp_path / "weights.pth"
    content = bytearray(WEIGHTS[module].read_bytes())
    content[len(content) // 2] ^= 1
    tampered.write_bytes(content)
    build = efficientnet_lite0.EfficientNetLite0 if module is efficientnet_lite0 else aisfx_embedding.AisfxEmbedding
    with pytest.raises(DamagedFileError, match=r"weights\.pth: SHA-256 is .* Reinstall"):
        build(tmp_path, tampered)
    with pytest.raises(DamagedFileError, match=r"absent\.pth: cannot be read"):
        build(tmp_path, tmp_path / "absent.pth")
    assert list(tmp_path.glob("*.npz")) == []


def test_a_damaged_cache_entry_is_built_again(tmp_path: Path) -> None:
    array = np.arange(10_000, dtype=np.float32)
    assert cached_array(tmp_path, "key", lambda: array) is array
    [path] = tmp_path.iterdir()
    whole = path.read_bytes()
    for damage in (whole[:1000], b"", whole[:5000] + b"?" + whole[5001:]):
        path.write_bytes(damage)
        assert (cached_array(tmp_path, "key", lambda: array) == array).all()
        assert (cached_array(tmp_path, "key", lambda: pytest.fail("was built again")) == array).all()
    with pytest.raises(ZeroDivisionError):
        cached_array(tmp_path, "other", lambda: np.array(1 / 0))
    assert [p.name for p in tmp_path.iterdir()] == ["key.npz"]


def test_content_keys_tell_shape_type_and_borders_apart() -> None:
    zeros = np.zeros((2, 3), np.uint8)
    keys = [
        content_key("a", "bc"), content_key("ab", "c"), content_key(zeros), content_key(zeros.T),
        content_key(zeros.astype(np.int16)), content_key(zeros, zeros),
    ]  # fmt: skip
    assert len(set(keys)) == len(keys)
    assert content_key(zeros) == content_key(zeros.copy())
