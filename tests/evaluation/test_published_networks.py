"""The large published networks, read as they are published: their classes and files, with small or fresh weights."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import (
    ClapAudioConfig,
    ClapAudioModelWithProjection,
    ClapFeatureExtractor,
    Dinov2Config,
    Dinov2Model,
    VideoMAEConfig,
    VideoMAEForVideoClassification,
)

from selfflow_bench.errors import DamagedFileError, FieldError
from selfflow_bench.evaluation.features import clap, dinov2, hearing, inception_v3, network, videomae
from selfflow_bench.networks.dinov2 import network_input
from selfflow_bench.networks.hub_model import HubModel

RNG = np.random.default_rng(0)
PICTURES = RNG.integers(0, 256, (3, 40, 56, 3), dtype=np.uint8)
CLIPS = RNG.integers(0, 256, (2, 5, 40, 56, 3), dtype=np.uint8)
SOUNDS = RNG.integers(-9000, 9000, (2, 12 * clap.RATE, 2), dtype=np.int16)


def saved_dinov2(folder: Path) -> None:
    Dinov2Model(Dinov2Config(hidden_size=768, num_hidden_layers=1, num_attention_heads=12)).save_pretrained(folder)


def saved_videomae(folder: Path) -> None:
    config = VideoMAEConfig(num_hidden_layers=1, use_mean_pooling=True)
    VideoMAEForVideoClassification(config).save_pretrained(folder)


def saved_clap(folder: Path) -> None:
    config = ClapAudioConfig(
        depths=[1, 1, 1, 1], num_attention_heads=[1, 1, 1, 1], patch_embeds_hidden_size=8, hidden_size=64
    )
    ClapAudioModelWithProjection(config).save_pretrained(folder)
    ClapFeatureExtractor().save_pretrained(folder)


HUB: dict[str, tuple[HubModel, Callable[[Path], None], NDArray[Any]]] = {
    dinov2.DinoV2Base.name: (dinov2.BASE, saved_dinov2, PICTURES),
    videomae.NAME: (videomae.PUBLISHED, saved_videomae, CLIPS),
    clap.NAME: (clap.PUBLISHED, saved_clap, SOUNDS),
}


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The hub's cache with the models above."""
    root = tmp_path_factory.mktemp("hub")
    torch.manual_seed(0)
    for model, save, _ in HUB.values():
        save(root / f"models--{model.repository.replace('/', '--')}" / "snapshots" / model.revision)
    return root


@pytest.fixture
def offline_hub(hub: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(hub))
    return hub


@pytest.mark.parametrize("name", HUB)
def test_features_have_the_declared_shape_and_do_not_depend_on_company(
    name: str, offline_hub: Path, tmp_path: Path
) -> None:
    made, media = network(name, tmp_path), HUB[name][2]
    features = made(media)
    assert made.name == name
    assert len(made.weights_sha256) == 64
    assert (features.shape, features.dtype) == ((len(media), made.dimension), np.float32)
    assert np.isfinite(features).all()
    assert np.ptp(features, axis=0).max() > 1e-6
    np.testing.assert_allclose(made(media[1:]), features[1:], atol=1e-5)


@pytest.mark.parametrize("name", HUB)
def test_other_media_are_refused(name: str, offline_hub: Path, tmp_path: Path) -> None:
    made = network(name, tmp_path)
    for media in (HUB[name][2][:0], HUB[name][2].astype(np.float32), np.zeros((2, 32), np.uint8)):
        with pytest.raises(FieldError, match=rf"{name}: media = '.*Give (uint8|int16)"):
            made(media)


@pytest.mark.parametrize("name", HUB)
def test_what_is_not_on_this_machine_says_how_to_fetch_it(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    model = HUB[name][0]
    with pytest.raises(DamagedFileError, match=f"hf download {model.repository} --revision {model.revision}"):
        network(name, tmp_path)


def test_a_clip_is_what_the_classifier_reads(offline_hub: Path, tmp_path: Path) -> None:
    model = VideoMAEForVideoClassification.from_pretrained(videomae.PUBLISHED.folder()).eval()
    with torch.no_grad():
        logits = model(videomae.network_input(CLIPS)).logits
        found = model.classifier(torch.from_numpy(network(videomae.NAME, tmp_path)(CLIPS)))
    torch.testing.assert_close(found, logits)


def test_a_picture_is_its_class_token(offline_hub: Path, tmp_path: Path) -> None:
    model = Dinov2Model.from_pretrained(dinov2.BASE.folder()).eval()
    with torch.no_grad():
        wanted = model(network_input(PICTURES)).pooler_output
    found = network(dinov2.DinoV2Base.name, tmp_path)(PICTURES)
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_a_long_sound_is_the_mean_of_its_windows(offline_hub: Path, tmp_path: Path) -> None:
    made = network(clap.NAME, tmp_path)
    parts = [made(SOUNDS[:, : clap.WINDOW]), made(SOUNDS[:, clap.WINDOW :])]
    np.testing.assert_allclose(made(SOUNDS), np.mean(parts, axis=0), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(parts[0], axis=1), 1, atol=1e-5)
    mono = np.repeat(SOUNDS[..., :1], 2, axis=2)
    np.testing.assert_allclose(made(mono), made(mono[..., 0]), atol=1e-5)


def test_the_sound_of_a_clip_is_heard_at_its_own_rate(offline_hub: Path, tmp_path: Path) -> None:
    slow = clap.RATE // 2
    seconds = np.arange(2 * slow) / slow
    tones = np.stack([(9000 * np.sin(2 * np.pi * pitch * seconds)).astype(np.int16) for pitch in (220, 440)])
    fast = np.stack([(9000 * np.sin(2 * np.pi * pitch * np.arange(2 * clap.RATE) / clap.RATE)) for pitch in (220, 440)])
    made = network(clap.NAME, tmp_path)
    clips = np.zeros(2, [("frames", np.uint8, (3, 8, 8, 3)), ("audio", np.int16, (2 * slow,))])
    clips["audio"] = tones
    wanted = made(fast.astype(np.int16))
    apart = np.abs(wanted[0] - wanted[1]).max()
    assert np.abs(hearing(made, slow)(clips) - wanted).max() < apart / 5
    assert np.abs(made(clips) - wanted).max() > apart / 5
    video = network(videomae.NAME, tmp_path)
    assert hearing(video, slow) is video


def test_weights_that_are_not_what_the_cache_calls_them_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / f"models--{dinov2.BASE.repository.replace('/', '--')}"
    snapshot = repository / "snapshots" / dinov2.BASE.revision
    saved_dinov2(snapshot)
    weights = snapshot / "model.safetensors"
    (repository / "blobs").mkdir()
    weights.rename(repository / "blobs" / ("0" * 64))
    weights.symlink_to(repository / "blobs" / ("0" * 64))
    with pytest.raises(DamagedFileError, match=r"SHA-256 is .*, stored as 0{64}\. Delete it"):
        network(dinov2.DinoV2Base.name, tmp_path)


@pytest.fixture(scope="module")
def fresh_inception(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, Any]:
    """A file of fresh weights as the published ones are, its hash, and torch-fidelity's own network with them."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    class Fresh(FeatureExtractorInceptionV3):  # type: ignore[misc, unused-ignore]
        def load_state_dict(self, state_dict: Any, **_: Any) -> Any:
            return None

    nothing = io.BytesIO()
    torch.save({}, nothing)
    torch.manual_seed(0)
    made = Fresh("inception-v3-compat", ["2048"], io.BytesIO(nothing.getvalue())).eval()
    path = tmp_path_factory.mktemp("weights") / inception_v3.FILE
    torch.save(made.state_dict(), path)
    return path, hashlib.sha256(path.read_bytes()).hexdigest(), made


def test_inception_is_torch_fidelity_s(fresh_inception: tuple[Path, str, Any], tmp_path: Path) -> None:
    path, sha256, extractor = fresh_inception
    made = inception_v3.InceptionV3(tmp_path, path, sha256)
    with torch.no_grad():
        wanted = extractor(torch.from_numpy(PICTURES.transpose(0, 3, 1, 2).copy()))[0]
    np.testing.assert_allclose(made(PICTURES), wanted, atol=1e-5)
    assert (made.name, made.dimension, made.weights_sha256) == ("inception-v3-2048", 2048, sha256)
    with pytest.raises(FieldError, match="not a batch of pictures"):
        made(CLIPS)


def test_inception_is_never_downloaded_nor_other_weights_unpickled(
    fresh_inception: tuple[Path, str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "weights" / inception_v3.FILE
    with pytest.raises(DamagedFileError, match=rf"{path}: cannot be read .*Fetch https"):
        network(inception_v3.NAME, tmp_path)
    path.parent.mkdir()
    path.write_bytes(fresh_inception[0].read_bytes())
    with pytest.raises(DamagedFileError, match=f"expected {inception_v3.WEIGHTS_SHA256}"):
        network(inception_v3.NAME, tmp_path)
