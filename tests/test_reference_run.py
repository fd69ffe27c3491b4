"""A run of the reference tier from its data to its record, on the CPU: everything real, and tiny."""

from __future__ import annotations

import hashlib
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
from selfflow_bench.evaluation.statistics import load_statistics, published_path
from selfflow_bench.places import Places
from selfflow_bench.plan import RunSpec, make_plan
from selfflow_bench.rescoring import rescore
from selfflow_bench.results.record import Record
from selfflow_bench.run import execute, local_run
from selfflow_bench.sample_export import export_samples
from tests.data.reference_recipes import NETWORKS, command, environment, save_encoder, small_recipes

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


Site = Callable[[str], Places]
"""Places by name, of one cache that holds a recipe's prepared data."""


def prepared(recipe: str, hub: Path, project: Places, root: Path) -> Site:
    """A site of small pictures, with captions or by classes."""
    recipes = small_recipes(project, root / "recipes", hub, recipe, {"resolution": [64, 64]})
    source, media = np.random.default_rng(0), root / "media"
    for split, count in (("train", 9), ("validation", 8)):
        for number in range(count):
            folder = media / split / ("even", "odd")[number % 2] if recipe == "sit" else media / split
            folder.mkdir(parents=True, exist_ok=True)
            pixels = source.integers(0, 256, (9, 12, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.png")
            if recipe != "sit":
                (folder / f"{number}.txt").write_text(f"picture {number}")
    line = command(recipes, root / "made", recipe, "--data", str(media))
    done = subprocess.run(line, env=environment(hub), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    (root / "source").write_text(done.stdout.rpartition("data.source=")[2].strip())

    def make(name: str) -> Places:
        (root / name).mkdir()
        (root / name / "cache").symlink_to(root / "made" / "cache")
        return Places(recipes, root / name / "results", root / name)

    return make


@pytest.fixture(scope="module")
def sana_site(hub: Path, project: Places, tmp_path_factory: pytest.TempPathFactory) -> Site:
    return prepared("sana", hub, project, tmp_path_factory.mktemp("site"))


@pytest.fixture
def places(sana_site: Site, hub: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setenv("HF_HUB_CACHE", str(hub))
    return sana_site


def spec_of(places: Places, overrides: Mapping[str, Any], recipe: str = "sana", label: str = "self_flow") -> RunSpec:
    changed = {**OVERRIDES, "data.source": (places.work.parent / "source").read_text(), **overrides}
    return make_plan(places, recipe, tier="reference", labels=[label], overrides=changed).runs[1]


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
    places: Site,
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
def test_a_method_that_aligns_to_an_encoder_runs_once_its_features_are_prepared(places: Site, hub: Path) -> None:
    before, after = places("without"), places("with")
    spec = spec_of(before, {}, label="repa")
    record = execute(spec, before, lambda event: None)
    assert record.failure is not None
    assert "prepare sana --data FOLDER --encoder dinov2-vitb14" in record.failure.message
    save_encoder(hub)
    root = before.work.parent
    line = command(before.recipes, root / "made", "sana", "--data", str(root / "media"), "--encoder", "dinov2-vitb14")
    done = subprocess.run(line, env=environment(hub), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    record = execute(spec, after, lambda event: None)
    assert set(measured(record)["metrics"]) >= {f"kid/{NETWORK}", f"frechet/{NETWORK}"}
    assert record.cost["encoder_flops_per_sample"] > 0


@pytest.mark.once
def test_two_processes_measure_what_one_does(places: Site) -> None:
    alone, together = places("alone"), places("together")
    one = measured(execute(spec_of(alone, {}), alone, lambda event: None))
    two = measured(execute(spec_of(together, {"budget.gpus": 2}), together, lambda event: None))
    for name, metric in one["metrics"].items():
        assert two["metrics"][name]["value"] == pytest.approx(metric["value"], rel=1e-3)
        assert two["metrics"][name]["floor"] == pytest.approx(metric["floor"], rel=1e-6)


@pytest.mark.once
def test_classes_are_sampled_as_the_comparisons_on_imagenet_are(
    hub: Path, project: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(hub))
    places = prepared("sit", hub, project, tmp_path)("run")
    published = tmp_path / "published.npz"
    np.savez(published, mu=np.zeros(112), sigma=np.eye(112))
    sha256 = hashlib.sha256(published.read_bytes()).hexdigest()
    statistics_path = published_path(places.cache, sha256)
    statistics_path.parent.mkdir()
    published.rename(statistics_path)
    spec = spec_of(places, {"evaluation.reference_statistics": {NETWORK: sha256}}, "sit")
    assert (spec.conditions.evaluation.sampler, spec.conditions.evaluation.labels) == ("euler_maruyama", "uniform")
    record = execute(spec, places, lambda event: None)
    measured(record)
    ((name, metric),) = record.metrics.items()
    # Published statistics have no features for KID.
    assert (name, metric.reference_sha256) == (f"frechet/{NETWORK}", sha256)
    assert metric.value is not None
    assert metric.floor is not None
    scored = rescore(spec, local_run(spec, places).folder, statistics_path)
    assert scored[name]["value"] == pytest.approx(metric.value)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(hub))
    shape = export_samples(spec, local_run(spec, places).folder, places.cache, tmp_path / "samples.npz")
    assert shape == (5, 64, 64, 3)
    with (
        np.load(tmp_path / "samples.npz") as exported,
        np.load(local_run(spec, places).folder / "samples.npz") as shown,
    ):
        np.testing.assert_array_equal(exported["arr_0"][:2], shown["media"])
