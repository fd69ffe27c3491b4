"""A run of the reference tier from its data to its record, on the CPU: everything real, and tiny."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from selfflow_bench.errors import InterruptedRunError
from selfflow_bench.evaluation.statistics import load_statistics
from selfflow_bench.places import Places
from selfflow_bench.plan import RunSpec, make_plan
from selfflow_bench.results.record import Record
from selfflow_bench.run import execute, local_run
from tests.data.reference_recipes import NETWORKS, command, environment, small_recipes

NETWORK = NETWORKS["image"]
OVERRIDES = {
    "training.samples": 16,
    "training.batch": 4,
    "training.warmup_samples": 4,
    "training.log_every": 4,
    "training.checkpoint_every": 8,
    "training.compile": False,
    "training.threads": 1,
    "evaluation.validation_triples": 8,
    "evaluation.validation_every": 16,
    "evaluation.samples": 5,
    "evaluation.batch": 2,
    "evaluation.sampler_steps": 2,
    "evaluation.kid_subsets": 2,
    "evaluation.kid_subset_size": 4,
}


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hub")


@pytest.fixture(scope="module")
def site(hub: Path, project: Places, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Places]:
    """Places by name, of one cache that holds a recipe's prepared data."""
    root = tmp_path_factory.mktemp("site")
    recipes = small_recipes(project, root / "recipes", hub, "sana", {"resolution": [64, 64]})
    source, media = np.random.default_rng(0), root / "media"
    for split, count in (("train", 9), ("validation", 8)):
        (media / split).mkdir(parents=True)
        for number in range(count):
            pixels = source.integers(0, 256, (9, 12, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(media / split / f"{number}.png")
            (media / split / f"{number}.txt").write_text(f"picture {number}")
    line = command(recipes, root / "made", "sana", "--data", str(media))
    done = subprocess.run(line, env=environment(hub), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    (root / "source").write_text(done.stdout.rpartition("data.source=")[2].strip())

    def make(name: str) -> Places:
        (root / name).mkdir()
        (root / name / "cache").symlink_to(root / "made" / "cache")
        return Places(recipes, root / name / "results", root / name)

    return make


@pytest.fixture
def places(site: Callable[[str], Places], hub: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Places]:
    monkeypatch.setenv("HF_HUB_CACHE", str(hub))
    return site


def spec_of(places: Places, overrides: Mapping[str, Any]) -> RunSpec:
    changed = {**OVERRIDES, "data.source": (places.work.parent / "source").read_text(), **overrides}
    return make_plan(places, "sana", tier="reference", labels=["self_flow"], overrides=changed).runs[1]


def worker_of(folder: Path) -> int:
    """The id of the process that does a folder's run."""
    for place in Path("/proc").glob("[0-9]*"):
        try:
            line = (place / "cmdline").read_bytes()
        except OSError:
            continue
        if b"selfflow_bench.worker" in line and str(folder).encode() in line:
            return int(place.name)
    raise AssertionError("no such process")


def measured(record: Record) -> dict[str, Any]:
    assert record.status == "success", record.failure
    return {name: record.model_dump(mode="json")[name] for name in ("metrics", "validations")}


@pytest.mark.once
def test_it_is_measured_with_and_without_guidance_and_stopped_while_it_samples_goes_on(
    places: Callable[[str], Places],
) -> None:
    whole = places("whole")
    spec = spec_of(whole, {"evaluation.sampler_steps": 100})
    record = execute(spec, whole, lambda event: None)
    expected = measured(record)
    guided = "/guidance-4.5"  # what sana's authors document
    assert set(record.metrics) == {f"{kind}/{NETWORK}{end}" for kind in ("kid", "frechet") for end in ("", guided)}
    assert all(metric.n == 5 and metric.floor is not None for metric in record.metrics.values())
    assert record.metrics[f"frechet/{NETWORK}"].value != record.metrics[f"frechet/{NETWORK}{guided}"].value
    assert not record.untrained
    folder = local_run(spec, whole).folder
    kept = load_statistics(folder / f"statistics-{NETWORK}@guidance-4.5.npz")
    assert (kept.moments.count, kept.network) == (5, NETWORK)
    with np.load(folder / "samples.npz") as shown:
        assert shown["media"].shape == (2, 64, 64, 3)

    stopped, events = places("stopped"), []

    def stop_once(event: dict[str, Any]) -> None:
        events.append(event["event"])
        if event["event"] == "sampling" and events.count("sampling") == 4:  # the first of three batches with guidance
            os.kill(worker_of(local_run(spec, stopped).folder), signal.SIGTERM)

    with pytest.raises(InterruptedRunError, match="its checkpoint is kept"):
        execute(spec, stopped, stop_once)
    assert measured(execute(spec, stopped, stop_once)) == expected
    # Neither the samples without guidance nor the first batch with it were made again.
    assert events.count("sampling") == 6


@pytest.mark.once
def test_two_processes_measure_what_one_does(places: Callable[[str], Places]) -> None:
    alone, together = places("alone"), places("together")
    one = measured(execute(spec_of(alone, {}), alone, lambda event: None))
    two = measured(execute(spec_of(together, {"budget.gpus": 2}), together, lambda event: None))
    for name, metric in one["metrics"].items():
        assert two["metrics"][name]["value"] == pytest.approx(metric["value"], rel=1e-3)
        assert two["metrics"][name]["floor"] == pytest.approx(metric["floor"], rel=1e-6)
