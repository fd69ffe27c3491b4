"""Training, validation along the way, and what comes of it: alarms, and weights to take away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from selfflow_bench.cost import head_sizes
from selfflow_bench.errors import SuiteError
from selfflow_bench.evaluation.health import FeatureHealth, feature_health
from selfflow_bench.evaluation.validation import ValidationTriples, validation_loss
from selfflow_bench.flow import TimestepDistribution
from selfflow_bench.plan import RunSpec
from selfflow_bench.randomness import key
from selfflow_bench.registry import family_class
from selfflow_bench.stages.run import Run, initial_transformer
from selfflow_bench.training import checkpoint, export
from selfflow_bench.training.batches import Batches
from selfflow_bench.training.loop import Training


def training_of(run: Run) -> Training:
    """The training of a run, before its first step."""
    spec, settings = run.spec, run.spec.conditions.training
    torch.set_num_threads(settings.threads)
    transformer = initial_transformer(spec, run.family)
    split = run.data.train
    times = spec.conditions.timesteps
    batches = Batches(
        split.latents,
        run.conditions(split),
        run.family.token_grid(run.data.latent_shape),
        TimestepDistribution(times.kind, times.mean, times.std, times.shift),
        settings.condition_dropout,
        spec.seed,
        run.method.needs,
        None if run.features is None else run.features.of,
    )
    sizes = head_sizes(run.family, transformer, run.method, batches.make(range(1)))
    torch.manual_seed(key(spec.seed, "init", "heads"))
    heads = run.method.heads(sizes)
    return Training(transformer, heads, run.method, batches, settings, folder=run.folder, run_key=spec.key)


def train(run: Run) -> Training:
    """Train to the end of the budget, from the folder's checkpoint if there is one."""
    spec, settings = run.spec, run.spec.conditions.training
    training = training_of(run)
    resumed = training.restore()
    run.events.write("stage", name="train", samples=training.progress.samples, of=settings.samples, resumed=resumed)
    depth = len(run.family.blocks(training.trainee.transformer))
    triples = validation_triples(run)

    def validate(model: nn.Module) -> dict[str, Any]:
        loss = validation_loss(run.family, model, triples, training.processes)
        health = feature_health(run.family, model, triples, block=max(1, round(2 * depth / 3)))
        run.events.write("validation", samples=training.progress.samples, loss=loss.whole)
        return {
            "loss": loss.whole,
            "per_timestep": list(loss.per_timestep),
            "health": {**asdict(health), "ema_distance": training.ema.distance()},
        }

    training.run(
        stop=run.stop,
        on_log=lambda row: run.events.write("progress", of=settings.samples, **row),
        on_checkpoint=lambda samples: run.events.write("checkpoint", samples=samples),
        validate=validate,
        validate_every=spec.conditions.evaluation.validation_every,
    )
    return training


def validation_triples(run: Run) -> ValidationTriples:
    """The protocol's fixed triples."""
    settings, split = run.spec.conditions.evaluation, run.data.validation
    return ValidationTriples(
        split.latents,
        run.conditions(split),
        count=settings.validation_triples,
        batch=settings.batch,
        grid=settings.validation_grid,
    )


def alarms(validations: Sequence[Mapping[str, Any]]) -> list[str]:
    """What should worry a reader of a run's validations: features that collapsed."""
    measured = [
        (row["samples"], FeatureHealth(**{name: row["health"][name] for name in FeatureHealth.__dataclass_fields__}))
        for row in validations
    ]
    start = measured[0][1]
    return [
        f"features collapsed: after {samples} samples effective rank {health.effective_rank:.1f} (at the start "
        f"{start.effective_rank:.1f}), standard deviation {health.standard_deviation:.2g} "
        f"({start.standard_deviation:.2g})"
        for samples, health in measured
        if health.collapsed_since(start)
    ][:1]


def export_weights(spec: RunSpec, folder: Path, destination: Path) -> int:
    """Write the averaged weights of a run's checkpoint as diffusers loads them; the samples they have seen.

    Raises SuiteError where the run has no checkpoint yet.
    """
    state = checkpoint.load(folder, spec.key)
    if state is None:
        raise SuiteError(f"{spec.name}: has no checkpoint yet. Run it: selfflow-bench resume {spec.folder_name}")
    samples = int(state["progress"]["samples"])
    provenance = {
        "recipe": str(spec.recipe),
        "protocol": str(spec.protocol),
        "tier": spec.tier,
        "method": spec.label,
        "seed": spec.seed_index,
        "run": spec.key,
        "checkpoint": None if spec.checkpoint is None else spec.checkpoint.model_dump(mode="json"),
        "samples": samples,
    }
    family = family_class(spec.family)(spec.transformer)
    export.export_weights(family, state["ema"], spec.lora, destination, provenance)
    return samples
