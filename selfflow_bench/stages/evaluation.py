"""What a trained model is measured to be worth: the distances of its samples from real media.

One pass over the samples for all networks, shared by the processes. What was found so far is kept in the run's folder,
so that an interrupted evaluation goes on from there, and what was found in the end, so that it can be scored again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from selfflow_bench.atomic_files import replace_file, replace_text
from selfflow_bench.canonical import digest
from selfflow_bench.data import sources
from selfflow_bench.data.prepare_published import Autoencoder
from selfflow_bench.errors import DamagedFileError, InterruptedRunError
from selfflow_bench.evaluation.distances import cached_features, distances, fixed_choice
from selfflow_bench.evaluation.features import hearing, network
from selfflow_bench.evaluation.features.base import FeatureNetwork
from selfflow_bench.evaluation.shared_work import ALONE, SharedWork
from selfflow_bench.evaluation.statistics import (
    Accumulator,
    FeatureStatistics,
    load_published,
    load_statistics,
    written_for,
)
from selfflow_bench.places import KEPT_STATISTICS
from selfflow_bench.plan import RunSpec
from selfflow_bench.stages.data import validation_statistics
from selfflow_bench.stages.run import Run, initial_transformer
from selfflow_bench.stages.sampling import Samples, Way, parts, ways
from selfflow_bench.training.adapters import as_evaluated

SHOWN_SAMPLES, SHOWN_BYTES = 32, 2**27
"""Generated media kept for looking at: the first of the evaluation's, fewer where they are large."""
SAVE_SECONDS = 600.0
"""How often an evaluation's state is written: what a kill costs at most, with the batch that it falls into."""


def evaluate(run: Run, model: nn.Module, processes: SharedWork = ALONE) -> dict[str, Any]:
    """Distances of the model's samples; the same for the untrained weights, made once per seed and shared.

    Writes the first samples to ``samples.npz`` for looking at, and each network's statistics of them all.
    """
    run.events.write("stage", name="evaluate")
    networks = _networks(run)
    real = _real(run, networks, processes)
    metrics: dict[str, Any] = {}
    for way in ways(run):
        found = _generated(run, model, way, networks, processes)
        metrics |= _distances(run, found, real, way.suffix)
    if not run.spec.conditions.evaluation.untrained:
        return {"metrics": metrics}
    untrained = run.cache / "untrained" / f"{_untrained_key(run.spec)}.json"
    if processes.any(not untrained.exists()):
        run.events.write("stage", name="evaluate untrained weights")
        start = as_evaluated(initial_transformer(run.spec, run.family)).to(next(model.parameters()).device)
        samples = Samples(run, ways(run)[0])
        made = _measured(run, "untrained", samples.parts(), networks, processes, _maker(samples, start))
        if processes.index == 0:
            replace_text(untrained, json.dumps(_distances(run, made, real, "")))
        processes.any(False)  # the others wait until the first has written
    return {"metrics": metrics, "untrained": json.loads(untrained.read_text(encoding="utf-8"))}


def samples_of(run: Run, model: nn.Module) -> tuple[int, Iterator[np.ndarray[Any, Any]]]:
    """How many samples the run is measured on, and these again, part by part: the protocol's first way of sampling."""
    samples = Samples(run, ways(run)[0])
    make = _maker(samples, model)
    return run.spec.conditions.evaluation.samples, (make(part, _stopping(run, ALONE)) for part in samples.parts())


def check(run: Run) -> None:
    """Look at everything that evaluation is going to need, so that nothing is found missing after training.

    Raises what its parts raise: FieldError and DamagedFileError.
    """
    for way in ways(run):
        Samples(run, way)
    if run.spec.conditions.data.hub is not None:
        for one in _networks(run):
            _published_wanted(run, one)


def kept_statistics(folder: Path, networks: Sequence[str]) -> list[tuple[str, FeatureStatistics]]:
    """What a run's folder keeps of its samples: the suffix of the way they were made, and the statistics."""
    return [
        (suffix.replace("@", "/"), load_statistics(path))
        for name in networks
        for path in sorted(folder.glob(f"{KEPT_STATISTICS}{name}*.npz"))
        if not (suffix := path.stem.removeprefix(f"{KEPT_STATISTICS}{name}")) or suffix.startswith("@")
    ]


def _statistics_path(folder: Path, way: Way, network: str) -> Path:
    # No network has this sign in its name, and some have others' names in theirs.
    return folder / f"{KEPT_STATISTICS}{network}{way.suffix.replace('/', '@')}.npz"


_Make = Callable[[range, Callable[[], None]], np.ndarray[Any, Any]]


@dataclass(frozen=True)
class _Real:
    """Of real media by one network: what samples are compared with, and what gives the floor."""

    wanted: FeatureStatistics
    floor: FeatureStatistics
    reference_sha256: str | None


def _networks(run: Run) -> list[FeatureNetwork]:
    where, codec = f"protocol {run.spec.protocol}", run.data.codec
    rate = codec.pipeline.sound_rate if isinstance(codec, Autoencoder) else None
    return [hearing(network(name, run.cache, where), rate) for name in run.spec.conditions.evaluation.all_networks]


def _distances(run: Run, found: dict[str, FeatureStatistics], real: dict[str, _Real], suffix: str) -> dict[str, Any]:
    settings = run.spec.conditions.evaluation
    made: dict[str, Any] = {}
    for name, statistics in found.items():
        one = distances(
            statistics,
            real[name].wanted,
            real[name].floor,
            subsets=settings.kid_subsets,
            subset_size=settings.kid_subset_size,
            reference_sha256=real[name].reference_sha256,
        )
        made |= {f"{metric}{suffix}": value for metric, value in one.items()}
    return made


def _generated(
    run: Run, model: nn.Module, way: Way, networks: Sequence[FeatureNetwork], processes: SharedWork
) -> dict[str, FeatureStatistics]:
    """Statistics of the samples made one way: those in the run's folder, if they are of this run."""
    paths = {one.name: _statistics_path(run.folder, way, one.name) for one in networks}
    key = _key(run, f"samples{way.suffix}")
    if not processes.any(not all(written_for(path, key) for path in paths.values())):
        return {name: load_statistics(path) for name, path in paths.items()}
    samples = Samples(run, way)
    make = _maker(samples, model)
    if way == ways(run)[0] and processes.index == 0:
        make = _shown(run, samples, make)
    found = _measured(run, f"samples{way.suffix}", samples.parts(), networks, processes, make)
    if processes.index == 0:
        for name, path in paths.items():
            found[name].save(path, {"key": key})
    return found


def _maker(samples: Samples, model: nn.Module) -> _Make:
    return lambda part, before_step: samples.media(model, part, before_step)


def _shown(run: Run, samples: Samples, make: _Make) -> _Make:
    """``make`` that keeps its first media for looking at."""

    def made(part: range, before_step: Callable[[], None]) -> np.ndarray[Any, Any]:
        media = make(part, before_step)
        if part.start == 0:
            count = min(SHOWN_SAMPLES, max(1, SHOWN_BYTES // media[0].nbytes), len(media))
            arrays: dict[str, Any] = {"media": media[:count], "captions": np.array(samples.names[:count])}
            replace_file(run.folder / "samples.npz", lambda file: np.savez_compressed(file, **arrays))
        return media

    return made


def _measured(
    run: Run,
    what: str,
    of: Sequence[range],
    networks: Sequence[FeatureNetwork],
    processes: SharedWork,
    make: _Make,
) -> dict[str, FeatureStatistics]:
    """Statistics of media that are made part by part, the parts shared by the processes. All must ask.

    All make equally many parts, and so ask each other equally often whether to stop: where parts run out, the last is
    made again and not counted.
    """
    count = of[-1].stop
    kept = fixed_choice(count, min(count, run.spec.conditions.evaluation.kid_samples or count))
    seen = Accumulator(networks, kept)
    turns = -(-len(of) // processes.count)
    mine = range(processes.index * turns, (processes.index + 1) * turns)
    state = run.folder / f"evaluation-{processes.index}-of-{processes.count}.npz"
    key = _key(run, what)
    done = seen.restore(state, key)
    if processes.any(done != int(processes.gathered(torch.tensor([done]))[0])):
        # Killed while they wrote their states: they would not go on together.
        seen, done = Accumulator(networks, kept), 0
    saved = time.monotonic()
    for turn in range(done, turns):
        place = min(mine[turn], len(of) - 1)
        try:
            media = make(of[place], _stopping(run, processes))
        except InterruptedRunError:
            seen.save(state, key, turn)
            raise
        if mine[turn] < len(of):
            seen.add(media, of[place])
        if processes.any(time.monotonic() - saved > SAVE_SECONDS):
            seen.save(state, key, turn + 1)
            saved = time.monotonic()
    found = seen.result(count, processes)
    state.unlink(missing_ok=True)
    return found


def _stopping(run: Run, processes: SharedWork) -> Callable[[], None]:
    def check_stop() -> None:
        if processes.any(run.stop()):
            raise InterruptedRunError("stopped while sampling; training and the samples measured so far are kept")

    return check_stop


def _real(run: Run, networks: Sequence[FeatureNetwork], processes: SharedWork) -> dict[str, _Real]:
    """The floor is what a perfect model could reach: training media, through the codec as every sample is."""
    if run.spec.conditions.data.hub is None:
        return _embedded_real(run, networks)
    settings, latents = run.spec.conditions.evaluation, run.data.train.latents
    items = torch.from_numpy(fixed_choice(len(latents), min(settings.samples, len(latents))))
    paths = {one.name: run.cache / "floors" / f"{_floor_key(run, one, len(items))}.npz" for one in networks}
    if processes.any(not all(path.exists() for path in paths.values())):
        run.events.write("stage", name="measure real media")

        def make(part: range, before_step: Callable[[], None]) -> np.ndarray[Any, Any]:
            before_step()
            return np.asarray(run.data.codec.decode(latents[items[part.start : part.stop]]))

        of = parts(len(items), settings.batch, published=True)
        for name, statistics in _measured(run, "floor", of, networks, processes, make).items():
            if processes.index == 0:
                statistics.save(paths[name], {"key": paths[name].stem})
        processes.any(False)  # the others wait until the first has written
    real = {}
    for one in networks:
        wanted, sha256 = _published_wanted(run, one)
        real[one.name] = _Real(wanted, load_statistics(paths[one.name]), sha256)
    return real


def _embedded_real(run: Run, networks: Sequence[FeatureNetwork]) -> dict[str, _Real]:
    settings, source, codec = run.spec.conditions.evaluation, run.spec.conditions.data.source, run.data.codec
    media = {}
    for split in ("train", "validation"):
        data = sources.load(source, split)
        media[split] = sources.media(data.select(fixed_choice(len(data), settings.samples)))
    media["train"] = np.asarray(codec.decode(codec.encode(media["train"])))
    kept = fixed_choice(settings.samples, settings.kid_samples or settings.samples)
    real = {}
    for one in networks:
        floor, wanted = (
            FeatureStatistics.of(one, cached_features(one, media[split], run.cache), kept) for split in media
        )
        real[one.name] = _Real(wanted, floor, None)
    return real


def _published_wanted(run: Run, one: FeatureNetwork) -> tuple[FeatureStatistics, str | None]:
    """Published statistics where the protocol names some, else those of the validation split."""
    settings, where = run.spec.conditions.evaluation, f"protocol {run.spec.protocol}"
    sha256 = settings.reference_statistics.get(one.name)
    if sha256 is not None:
        return load_published(run.cache, sha256, one, where), sha256
    path = validation_statistics(run.data.directory, one.name)
    found = load_statistics(path)
    if found.kept is None or (found.network, found.weights_sha256) != (one.name, one.weights_sha256):
        raise DamagedFileError(
            f"{path}: these are no features of {one.name} with weights {one.weights_sha256[:12]}. Delete the file and "
            f"make it again: selfflow-bench prepare {run.spec.recipe.name}"
        )
    chosen = found.kept[fixed_choice(len(found.kept), min(settings.samples, len(found.kept)))]
    kept = fixed_choice(len(chosen), min(settings.kid_samples or len(chosen), len(chosen)))
    return FeatureStatistics.of(one, chosen, kept), None


def _key(run: Run, what: str) -> str:
    return digest({"run": run.spec.key, "what": what, "torch": torch.__version__})


def _floor_key(run: Run, one: FeatureNetwork, count: int) -> str:
    kept = run.spec.conditions.evaluation.kid_samples or count
    return digest(
        {"data": run.data.digest, "network": one.name, "weights": one.weights_sha256, "media": count, "kept": kept}
    )


def _untrained_key(spec: RunSpec) -> str:
    return digest(
        {
            "recipe": spec.recipe.digest,
            "protocol": spec.protocol.digest,
            "seed": spec.seed,
            "torch": torch.__version__,
        }
    )
