"""Published weights fetched by the hub's own client from a real server: what is loaded, once, and gone on with."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from selfflow_bench.pipelines.fetching import needed_files
from selfflow_bench.pipelines.snapshot import local_snapshot
from selfflow_bench.recipe import Checkpoint
from tests.pipelines.hub_server import Repository, serving
from tests.pipelines.tiny_hub import REVISION, tiny_checkpoint

SUPERFLUOUS = (
    "README.md",
    "sana.ckpt",
    "transformer/diffusion_pytorch_model.fp16.safetensors",
    "text_encoder/pytorch_model.bin",
    "text_encoder/model.safetensors.index.fp16.json",
    "safety_checker/model.safetensors",
)
FETCH = """
import sys
from selfflow_bench.errors import SuiteError
from selfflow_bench.pipelines.fetching import snapshot_or_fetched
from selfflow_bench.recipe import Checkpoint
try:
    folder = snapshot_or_fetched(Checkpoint(id=sys.argv[1], revision=sys.argv[2]), print)
    print(folder)
except SuiteError as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository's files, as people publish them: with more than is loaded."""
    folder = tmp_path_factory.mktemp("published")
    tiny_checkpoint("sana", folder)
    files = folder / "models--tiny--sana" / "snapshots" / REVISION
    for name in SUPERFLUOUS:
        (files / name).parent.mkdir(exist_ok=True)
        (files / name).write_bytes(bytes(1000))
    return files


@pytest.fixture
def server(published: Path) -> Iterator[tuple[str, type[Repository]]]:
    with serving("tiny/sana", REVISION, published) as found:
        yield found


def fetch(cache: Path, endpoint: str, model: str = "tiny/sana", offline: str = "0") -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "HF_ENDPOINT": endpoint,
        "HF_HUB_CACHE": str(cache),
        "HF_HUB_OFFLINE": offline,
        "HF_HUB_DISABLE_XET": "1",
        "NO_PROXY": "127.0.0.1",
    }
    line = [sys.executable, "-c", FETCH, model, REVISION]
    return subprocess.run(line, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_what_is_loaded_is_fetched_once_and_its_size_said(
    server: tuple[str, type[Repository]], published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint, repository = server
    done = fetch(tmp_path, endpoint)
    assert done.returncode == 0, done.stderr
    there = {path.relative_to(published).as_posix() for path in published.rglob("*") if path.is_file()}
    assert set(repository.fetched) == there - set(SUPERFLUOUS)
    size = sum((published / name).stat().st_size for name in set(repository.fetched))
    assert f"Fetch(files={len(repository.fetched)}, size={size})" in done.stdout
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    found = local_snapshot(Checkpoint(id="tiny/sana", revision=REVISION))
    assert done.stdout.splitlines()[-1] == str(found)
    assert (found / "vae" / "config.json").read_bytes() == (published / "vae" / "config.json").read_bytes()
    repository.fetched.clear()
    again = fetch(tmp_path, endpoint)
    assert (again.returncode, repository.fetched, again.stdout.strip()) == (0, [], str(found))


@pytest.mark.once
def test_a_fetch_that_breaks_off_is_gone_on_with(server: tuple[str, type[Repository]], tmp_path: Path) -> None:
    endpoint, repository = server
    weights = "transformer/diffusion_pytorch_model.safetensors"
    repository.breaks = weights
    done = fetch(tmp_path, endpoint)
    assert done.returncode == 1
    assert "InfrastructureError: tiny/sana: cannot be fetched" in done.stderr
    assert "The same command goes on" in done.stderr
    whole = set(repository.fetched) - {weights}
    repository.breaks = None
    repository.fetched.clear()
    done = fetch(tmp_path, endpoint)
    assert done.returncode == 0, done.stderr
    assert weights in repository.fetched
    assert len(set(repository.fetched) & whole) < len(whole)


def test_what_cannot_be_had_says_why(server: tuple[str, type[Repository]], tmp_path: Path) -> None:
    endpoint, _ = server
    for done, says in (
        (fetch(tmp_path, endpoint, "tiny/absent"), "FieldError: checkpoint tiny/absent@.*: id = .*is not on the hub"),
        (fetch(tmp_path, endpoint, offline="1"), f"Fetch it .*: hf download tiny/sana --revision {REVISION}"),
    ):
        assert done.returncode == 1
        assert re.search(says, done.stderr), done.stderr


@pytest.mark.once
def test_no_hub_at_all_is_said_after_the_client_has_tried_again(tmp_path: Path) -> None:
    done = fetch(tmp_path, "http://127.0.0.1:9")
    assert done.returncode == 1
    assert "InfrastructureError: tiny/sana: cannot be fetched" in done.stderr


def test_a_folder_whose_weights_did_not_arrive_is_not_taken_for_whole(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    copy = tmp_path / "models--tiny--sana" / "snapshots" / REVISION
    shutil.copytree(published, copy)
    checkpoint = Checkpoint(id="tiny/sana", revision=REVISION)
    assert local_snapshot(checkpoint) == copy
    for file in (copy / "vae").glob("*.safetensors"):
        file.unlink()
    with pytest.raises(Exception, match=r"lacks vae/\*\.safetensors"):
        local_snapshot(checkpoint)


@pytest.mark.parametrize(
    ("files", "parts", "wanted"),
    [
        (["config.json", "diffusion_pytorch_model.bin", "diffusion_pytorch_model.safetensors"], None, [0, 2]),
        (["config.json", "diffusion_pytorch_model.bin"], None, [0, 1]),
        (["vae/config.json", "vae/model.fp16.safetensors", "unet/config.json", "model_index.json"], ["vae"], [0, 1, 3]),
        (
            [
                "t/model-00001-of-00002.safetensors",
                "t/model-00002-of-00002.safetensors",
                "t/model.safetensors.index.json",
                "t/model.bf16-00001-of-00002.safetensors",
                "t/pytorch_model.bin.index.json",
                "t/pytorch_model-00001-of-00002.bin",
                "t/onnx/model.onnx",
                "model_index.json",
            ],
            ["t"],
            [0, 1, 2, 7],
        ),
    ],
)
def test_weights_are_taken_once(files: list[str], parts: list[str] | None, wanted: list[int]) -> None:
    assert needed_files(files, parts) == sorted(files[place] for place in wanted)
