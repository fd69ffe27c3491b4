"""The stages of one run: data, training, evaluation. Pure orchestration of the packages below it.

Knows nothing of processes and signals (see `selfflow_bench.worker`), of records or of engines.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from selfflow_bench.atomic_files import replace_text
from selfflow_bench.canonical import digest
from selfflow_bench.condition_table import ConditionTable
from selfflow_bench.cost import encoder_flops, head_sizes, meta_batch, step_cost
from selfflow_bench.data import sources
from selfflow_bench.data.encoded import EncodedFeatures, encoded_features, pictures_per_item
from selfflow_bench.data.labels import with_labels
from selfflow_bench.data.prepare import Prepared, Split, prepare
from selfflow_bench.data.prepare_published import Wanted, load_published
from selfflow_bench.data.views import SplitName
from selfflow_bench.errors import FieldError, InterruptedRunError, SuiteError
from selfflow_bench.evaluation import euler_maruyama
from selfflow_bench.evaluation.distances import fixed_choice, measure
from selfflow_bench.evaluation.features import network
from selfflow_bench.evaluation.health import FeatureHealth, feature_health
from selfflow_bench.evaluation.sampling import sample
from selfflow_bench.evaluation.validation import ValidationTriples, validation_loss
from selfflow_bench.events import EventLog
from selfflow_bench.families.base import LABEL, Family
from selfflow_bench.flow import TimestepDistribution
from selfflow_bench.methods.base import Method
from selfflow_bench.plan import RunSpec
from selfflow_bench.randomness import key, per_sample
from selfflow_bench.registry import family_class, method_class
from selfflow_bench.training import checkpoint, export
from selfflow_bench.training.adapters import as_evaluated
from selfflow_bench.training.batches import Batches
from selfflow_bench.training.loop import Training
from selfflow_bench.training.start import starting_transformer

_OWN, _FIRST = "own:", "/first-"
SHOWN_SAMPLES = 32
"""Generated media kept for looking at: the first of the evaluation's."""


@dataclass(frozen=True)
class Run:
    """One run's parts, all derived from its specification."""

    spec: RunSpec
    folder: Path
    cache: Path
    family: Family
    method: Method
    data: Prepared
    features: EncodedFeatures | None
    events: EventLog
    stop: Callable[[], bool]

    def conditions(self, split: Split) -> ConditionTable:
        """The conditions of a split's items, as far as the family takes them."""
        taken = {name: value for name, value in split.conditions.items() if name in _taken(self.family)}
        if self.family.classes is not None:
            return ConditionTable.of_classes(taken.pop(LABEL), self.family.classes, taken)
        return ConditionTable(split.caption, self.data.text, taken)


def set_up(spec: RunSpec, folder: Path, cache: Path, events: EventLog, stop: Callable[[], bool]) -> Run:
    """Check the data against the protocol, prepare it, and make the family and method."""
    data = spec.conditions.data
    events.write("stage", name="prepare")
    prepared = _embedded_data(spec, cache, events) if data.hub is None else _published_data(spec, cache)
    family = family_class(spec.family)(spec.transformer)
    kind = method_class(spec.method)
    if family.classes is not None and LABEL not in prepared.train.conditions:
        prepared = with_labels(prepared, data.source)
    for name in family.needs:
        if name not in prepared.train.conditions:
            raise FieldError(
                f"protocol {spec.protocol}",
                "data.source",
                data.source,
                f"has no {name}, which the family {spec.family} needs",
                "Name a data set that has it.",
            )
    if family.classes is not None and int(prepared.train.conditions[LABEL].max()) >= family.classes:
        raise FieldError(
            f"recipe {spec.recipe}",
            "transformer",
            spec.transformer,
            f"knows {family.classes} classes, and {data.source} has more",
            "Set the number of classes that the data have.",
        )
    method = kind(kind.settings_class.model_validate_json(json.dumps(spec.settings)), family, spec.conditions.steps)
    features = None
    if method.needs.encoder is not None:
        features = encoded_features(
            method.needs.encoder,
            data.source,
            "train",
            cache,
            progress=lambda text: events.write("preparing", text=text),
        )
    return Run(spec, folder, cache, family, method, prepared, features, events, stop)


def _embedded_data(spec: RunSpec, cache: Path, events: EventLog) -> Prepared:
    """The embedded data of a run, prepared where the cache lacks them, after a look at their hashes."""
    data = spec.conditions.data
    expected: dict[SplitName, str] = {"train": data.train_sha256, "validation": data.validation_sha256}
    for split, wanted in expected.items():
        found = sources.digest(data.source, split)
        if found != wanted:
            raise FieldError(
                f"protocol {spec.protocol}",
                f"data.{split}_sha256",
                wanted,
                f"the {split} split of {data.source} has {found}",
                "Restore the data set, or write a new version of the protocol for the new data.",
            )
    return prepare(
        data.source, spec.codec, data.text_length, cache, progress=lambda text: events.write("preparing", text=text)
    )


def _published_data(spec: RunSpec, cache: Path) -> Prepared:
    """The shards that `prepare` has made for a run."""
    remedy = f"Make them: selfflow-bench prepare {spec.recipe.name}"
    return load_published(published_data(spec, spec.conditions.data.source), cache, remedy)


def published_data(spec: RunSpec, source: str) -> Wanted:
    """What is prepared for a run from a source, as `source_name` calls it.

    Raises FieldError for what cannot be prepared.
    """
    hub = spec.conditions.data.hub
    if spec.checkpoint is None or hub is None or hub.resolution is None or spec.conditions.modality != "image":
        raise FieldError(
            f"recipe {spec.recipe}",
            "tiers.reference",
            spec.conditions.modality,
            "only pictures with captions, of a recipe with published weights, can be prepared yet",
            "Use a recipe that makes pictures from text.",
        )
    name, _, limit = source.partition(_FIRST)
    own = name.removeprefix(_OWN) if name.startswith(_OWN) else None
    height, width = hub.resolution
    return Wanted(
        spec.family,
        spec.checkpoint,
        (height, width),
        spec.conditions.data.text_length,
        hub.model_dump(mode="json") if own is None else {"own": own},
        int(limit) if limit else None,
    )


def source_name(protocol: str, identity: Mapping[str, Any], limit: int | None) -> str:
    """How a run calls its data: as the protocol does, or another name where they are others, or fewer."""
    name = f"{_OWN}{identity['own']}" if "own" in identity else protocol
    return name if limit is None else f"{name}{_FIRST}{limit}"


def initial_transformer(spec: RunSpec, family: Family) -> nn.Module:
    """What all methods of a seed start from: published weights or fresh ones, with adapters or without."""
    snapshot = None
    if spec.checkpoint is not None:
        from selfflow_bench.pipelines.snapshot import (  # type: ignore[import-not-found, unused-ignore]
            local_snapshot,
        )

        snapshot = local_snapshot(spec.checkpoint)
    return starting_transformer(
        family,
        spec.seed,
        where=f"recipe {spec.recipe}",
        snapshot=snapshot,
        lora=spec.lora,
        precision=spec.conditions.training.precision,
    )


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


def evaluate(run: Run, model: nn.Module) -> dict[str, Any]:
    """Distances of the model's samples; the same for the untrained weights, made once per seed and shared.

    Writes the first samples to ``samples.npz`` for looking at.
    """
    run.events.write("stage", name="evaluate")
    media, captions = generate(run, model)
    metrics = distances(run, media)
    for steps in run.method.few_steps:
        few, _ = generate(run, model, steps)
        metrics |= {f"{name}/{steps}-step": value for name, value in distances(run, few).items()}
    shown = min(SHOWN_SAMPLES, len(media))
    np.savez_compressed(run.folder / "samples.npz", media=media[:shown], captions=np.array(captions[:shown]))
    untrained = run.cache / "untrained" / f"{_untrained_key(run.spec)}.json"
    if not untrained.exists():
        run.events.write("stage", name="evaluate untrained weights")
        start = as_evaluated(initial_transformer(run.spec, run.family)).to(next(model.parameters()).device)
        start_media, _ = generate(run, start)
        untrained.parent.mkdir(parents=True, exist_ok=True)
        replace_text(untrained, json.dumps(distances(run, start_media)))
    return {"metrics": metrics, "untrained": json.loads(untrained.read_text(encoding="utf-8"))}


def generate(run: Run, model: nn.Module, steps: int | None = None) -> tuple[np.ndarray[Any, Any], list[str]]:
    """One medium per chosen validation item, from its caption, or per drawn class: uint8 or int16 media, and of what.

    ``steps`` of the sampler; by default the protocol's.
    """
    settings, spec = run.spec.conditions.evaluation, run.spec
    conditions, names = _wanted(run)

    def progress(done: int) -> None:
        if run.stop():
            raise InterruptedRunError("stopped while sampling; training is kept, sampling will start again")
        run.events.write("sampling", done=done, of=settings.samples)

    shape, count = run.data.latent_shape, steps or _sampler_steps(run.spec)
    if settings.sampler == "euler_maruyama":
        parts = []
        for start in range(0, settings.samples, settings.batch):
            rows = range(start, min(start + settings.batch, settings.samples))
            chosen = {name: value[rows.start : rows.stop] for name, value in conditions.items()}
            made = euler_maruyama.sample(
                run.family, model.eval(), chosen, shape, steps=count, samples=rows, seed=spec.seed
            )
            parts.append(made.cpu())
            progress(rows.stop)
        latents = torch.cat(parts)
    else:
        latents = sample(
            run.family,
            model.eval(),
            conditions,
            shape,
            steps=count,
            shift=spec.conditions.timesteps.shift,
            batch=settings.batch,
            seed=spec.seed,
            progress=progress,
        )
    return np.asarray(run.data.codec.decode(latents)), names


def _wanted(run: Run) -> tuple[dict[str, Tensor], list[str]]:
    """The conditions of all samples, and their names."""
    settings, split = run.spec.conditions.evaluation, run.data.validation
    if settings.labels == "validation":
        chosen = torch.from_numpy(fixed_choice(len(split.latents), settings.samples))
        return run.conditions(split).of(chosen), [split.names[int(index)] for index in chosen]
    classes = run.family.classes
    if classes is None:
        field = "evaluation.labels"
        problem = f"{run.spec.family} knows no classes"
        raise FieldError(f"protocol {run.spec.protocol}", field, settings.labels, problem, "Leave it out.")
    drawn = per_sample(
        lambda source: torch.randint(classes, (), generator=source), run.spec.seed, "label", range(settings.samples)
    )
    return {LABEL: drawn}, [f"class {label}" for label in drawn.tolist()]


def distances(run: Run, media: np.ndarray[Any, Any]) -> dict[str, dict[str, Any]]:
    """KID and Frechet distance with the protocol's network, each with its real-vs-real floor."""
    settings, source = run.spec.conditions.evaluation, run.spec.conditions.data.source
    real = {}
    for split in ("train", "validation"):
        data = sources.load(source, split)
        real[split] = sources.media(data.select(fixed_choice(len(data), settings.samples)))
    # The floor is what a perfect model could reach: real media, through the codec as every sample is.
    codec = run.data.codec
    real["train"] = np.asarray(codec.decode(codec.encode(real["train"])))
    found = measure(
        network(settings.network, run.cache, where=f"protocol {run.spec.protocol}"),
        media,
        real["validation"],
        real["train"],
        cache=run.cache,
        subsets=settings.kid_subsets,
        subset_size=settings.kid_subset_size,
    )
    return found.metrics()


def count_cost(run: Run) -> dict[str, float]:
    """FLOPs of a step, counted on the meta device, at the step where the method's weight is in full force.

    An external encoder's, which ran in preparation, are spread over the samples of the run.
    """
    settings = run.spec.conditions.training
    shape = run.data.latent_shape
    conditions = run.conditions(run.data.train).shapes()
    tokens, needs = math.prod(run.family.token_grid(shape)), run.method.needs

    def adapted() -> tuple[nn.Module, nn.Module]:
        transformer = starting_transformer(run.family, 0, where=f"recipe {run.spec.recipe}", lora=run.spec.lora)
        return transformer, as_evaluated(transformer)

    models = None if run.spec.lora is None else adapted
    vanilla_kind = method_class("vanilla")
    vanilla = step_cost(
        run.family,
        vanilla_kind(vanilla_kind.settings_class(), run.family, 1),
        meta_batch(shape, tokens, conditions, settings.batch),
        step=0,
        models=models,
    )
    features = () if run.features is None else run.features.shape
    own = step_cost(
        run.family,
        run.method,
        meta_batch(shape, tokens, conditions, settings.batch, needs, features),
        step=run.spec.conditions.steps // 2,
        models=models,
    )
    encoding = 0.0
    if needs.encoder is not None:
        # Every item is encoded once, whatever the number of times it is seen.
        source, items = run.spec.conditions.data.source, len(run.data.train.latents)
        encoding = encoder_flops(needs.encoder) * pictures_per_item(source) * items / settings.samples
    whole = own.flops_per_sample + encoding
    return {
        "flops_per_sample": whole,
        "encoder_flops_per_sample": encoding,
        "forward_flops_per_sample": own.forward_flops_per_sample,
        "flops_over_vanilla": whole / vanilla.flops_per_sample,
        "parameters": own.parameters,
    }


def _sampler_steps(spec: RunSpec) -> int:
    steps = spec.conditions.evaluation.sampler_steps
    if steps == "documented":
        problem = "only published weights come with a documented number"
        raise FieldError(f"protocol {spec.protocol}", "evaluation.sampler_steps", steps, problem, "Set a number.")
    return steps


def _taken(family: Family) -> tuple[str, ...]:
    return (*family.needs, *family.accepts)


def _untrained_key(spec: RunSpec) -> str:
    return digest(
        {
            "recipe": spec.recipe.digest,
            "protocol": spec.protocol.digest,
            "seed": spec.seed,
            "torch": torch.__version__,
        }
    )
