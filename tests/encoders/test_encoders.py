"""Real encoders on real pictures: shapes, the network's own maps, what is kept and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from selfflow_bench import encoders
from selfflow_bench.cost import encoder_flops
from selfflow_bench.data import sources
from selfflow_bench.data.encoded import encoded_features
from selfflow_bench.encoders.dinov2 import DinoV2
from selfflow_bench.encoders.efficientnet_lite0 import NAME, EfficientNetLite0Maps
from selfflow_bench.errors import DamagedFileError, FieldError
from selfflow_bench.networks.dinov2 import BASE
from selfflow_bench.networks.efficientnet_lite0 import Blocks, checked_weights, network_input
from tests.data import small_source


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    return sources.media(sources.load("pictures", "validation").select(range(3)))


@pytest.fixture
def small(tmp_path: Path) -> str:
    small_source.write(tmp_path / "small")
    small_source.register(tmp_path / "small")
    return "small"


def test_maps_are_the_networks_own_and_depend_on_the_place(pictures: np.ndarray, tmp_path: Path) -> None:
    made = EfficientNetLite0Maps(tmp_path).encode(pictures)
    assert made.shape == (3, *EfficientNetLite0Maps.grid, EfficientNetLite0Maps.channels)
    with torch.no_grad():
        eager = Blocks(15, checked_weights())(network_input(pictures)).permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(made, eager, rtol=1e-3, atol=1e-3)
    assert np.ptp(made, axis=(1, 2)).max() > 0.1


def test_dinov2_is_read_from_its_own_format(pictures: np.ndarray, tmp_path: Path) -> None:
    """A small one, saved by transformers itself; its patch tokens, in rows, without the class token."""
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    config = Dinov2Config(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48, image_size=224, patch_size=14
    )
    model = Dinov2Model(config).eval()
    model.save_pretrained(tmp_path / "dino")
    made = DinoV2(tmp_path, tmp_path / "dino").encode(pictures)
    assert made.shape == (3, 16, 16, 24)
    from selfflow_bench.networks.dinov2 import network_input as dino_input

    with torch.no_grad():
        states = model(dino_input(pictures)).last_hidden_state
    np.testing.assert_allclose(made[1, 2, 5], states[1, 1 + 2 * 16 + 5].numpy(), atol=1e-5)


def test_a_missing_dinov2_says_which_revision_to_fetch(tmp_path: Path) -> None:
    with pytest.raises(DamagedFileError, match=f"hf download {BASE.repository} --revision {BASE.revision}"):
        DinoV2(tmp_path, tmp_path / "nothing")


def test_features_of_a_source_are_made_once_in_shards(small: str, tmp_path: Path) -> None:
    told: list[str] = []
    made = encoded_features(NAME, small, "train", tmp_path, told.append, shard_items=4)
    assert told == [f"4 of 6 train items encoded by {NAME}", f"6 of 6 train items encoded by {NAME}"]
    assert len(made.rows) == 6
    frames = sources.media_shape(small)[0]
    assert made.pictures_per_item == frames
    assert made.shape == (frames, 4, 4, 320)
    clip = sources.media(sources.load(small, "train").select([5]))[0]
    expected = EfficientNetLite0Maps(tmp_path).encode(clip)
    found = made.of(torch.tensor([5, 0, 5]))
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found[0].numpy(), expected, rtol=2e-3, atol=2e-3)
    assert torch.equal(found[0], found[2])
    told.clear()
    encoded_features(NAME, small, "train", tmp_path, told.append)
    assert told == [], "found again"


def test_damaged_features_are_refused_by_name(small: str, tmp_path: Path) -> None:
    encoded_features(NAME, small, "train", tmp_path)
    (path,) = tmp_path.glob("*/features-00000.safetensors")
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(DamagedFileError, match="Delete that folder"):
        encoded_features(NAME, small, "train", tmp_path)
    assert json.loads((path.parent / "manifest.json").read_text())["files"][path.name]["bytes"] > path.stat().st_size


def test_sounds_have_no_pictures_to_encode(tmp_path: Path) -> None:
    with pytest.raises(FieldError, match="neither pictures nor clips"):
        encoded_features(NAME, "notes", "validation", tmp_path)


@pytest.mark.parametrize(("name", "giga"), [("efficientnet-lite0-block15-320", 0.24), ("dinov2-vitb14", 46.0)])
def test_counted_costs_are_the_published_ones(name: str, giga: float) -> None:
    """EfficientNet-Lite0 has 0.39 G multiply-adds at 224 pixels, so 0.25 GFLOP at 128; ViT-B/14 at 224 about 46."""
    assert encoder_flops(name) / 1e9 == pytest.approx(giga, rel=0.15)
    assert name in encoders.names()
