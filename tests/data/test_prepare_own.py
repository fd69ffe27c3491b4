"""`prepare --data` as the README says it, for media of each kind: real files, real processes, tiny real weights."""

from __future__ import annotations

import csv
import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from selfflow_bench.data.prepare import Prepared
from selfflow_bench.data.prepare_published import load_published
from selfflow_bench.places import Places
from selfflow_bench.plan import make_plan
from selfflow_bench.stages.data import published_data
from tests.data.made_media import samples, write_clip
from tests.data.reference_recipes import command, environment, small_recipes

TRAINED, HELD_OUT = 3, 1
SIZES = {
    "sit": {"resolution": [64, 64]},
    "flux2": {"resolution": [64, 64]},
    "wan": {"resolution": [64, 64], "frames": 5, "fps": 8.0},
    "ace_step": {"seconds": 0.4},
}


def draw(path: Path, level: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((40, 50, 3), level, dtype=np.uint8)).save(path)


def classes(folder: Path, split: str, number: int) -> None:
    """Pictures in folders named by their class."""
    draw(folder / split / ("owl" if number % 2 else "cat") / f"{number}.png", 50 * number)


def edits(folder: Path, split: str, number: int) -> None:
    """Pictures, what they are edited from, and metadata.jsonl."""
    draw(folder / split / f"{number}.png", 50 * number)
    draw(folder / split / "before" / f"{number}.png", 255 - 50 * number)
    row = {"file_name": f"{number}.png", "text": "darker", "reference_file_name": f"before/{number}.png"}
    with (folder / split / "metadata.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")


def clips(folder: Path, split: str, number: int) -> None:
    """Clips with a text beside each, one of them too short."""
    (folder / split).mkdir(parents=True, exist_ok=True)
    write_clip(folder / split / f"{number}.mkv", frames=4 if number == 2 else 6, fps=8)
    (folder / split / f"{number}.txt").write_text(f"clip {number}")


def sounds(folder: Path, split: str, number: int) -> None:
    """Sounds and metadata.csv."""
    (folder / split).mkdir(parents=True, exist_ok=True)
    soundfile.write(folder / split / f"{number}.wav", samples(0.5, 16000), 16000)
    table = folder / split / "metadata.csv"
    is_new = not table.exists()
    with table.open("a", newline="") as file:
        csv.writer(file).writerows([("file_name", "text")] * is_new + [(f"{number}.wav", f"tone {number}")])


MADE = {"sit": classes, "flux2": edits, "wan": clips, "ace_step": sounds}


@pytest.mark.once
@pytest.mark.parametrize("family", sorted(MADE))
def test_a_folder_of_one_s_own(family: str, project: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub, work = tmp_path / "hub", tmp_path / "work"
    recipes = small_recipes(project, tmp_path / "recipes", hub, family, SIZES[family])
    for split, count in (("train", TRAINED), ("validation", HELD_OUT)):
        for number in range(count):
            MADE[family](tmp_path / "mine", split, number)
    line = command(recipes, work, family, "--data", str(tmp_path / "mine"), "--json")
    done = subprocess.run(line, env=environment(hub), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["source"].startswith("own:")
    assert said["items"] == {"train": TRAINED - (family == "wan"), "validation": HELD_OUT}
    assert said["left_out"]["train"] == ({"too short": 1} if family == "wan" else {})

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(hub))
    places = Places(recipes, tmp_path / "results", work)
    # What the command's last line says is how a run finds it.
    overrides = {"data.source": said["source"]}
    spec = make_plan(places, family, tier="reference", labels=[], overrides=overrides).runs[0]
    data: Prepared = load_published(published_data(spec, said["source"]), places.cache, "make them")
    assert len(data.train.latents) == said["items"]["train"]
    if family == "sit":
        assert not data.text
        assert [int(label) for label in data.train.conditions["label"][torch.arange(3)]] == [0, 0, 1]
    if family == "flux2":
        assert data.train.conditions["reference"].shape == data.train.latents.shape
    captions = 1 + sum(said["items"].values())  # the empty one first
    assert {len(rows) for rows in data.text.values()} == (set() if family == "sit" else {captions})
