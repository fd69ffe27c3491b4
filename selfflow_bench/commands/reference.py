"""What `plan` says of the reference tier: a run in full, an estimate of what it takes, and what this machine lacks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from selfflow_bench.budget import GPU, GPU_GB, SHARE_OF_PEAK, Counted, Estimate, estimate
from selfflow_bench.errors import DamagedFileError, FieldError, SuiteError
from selfflow_bench.places import Places
from selfflow_bench.plan import Plan, RunSpec, method_of
from selfflow_bench.recipe import Checkpoint, Published, load_recipe
from selfflow_bench.results import cost_table
from selfflow_bench.strict_model import UNPINNED

if TYPE_CHECKING:  # the engine's SDK is imported once it is asked for
    from selfflow_bench.containers.choice import Wanted


@dataclass(frozen=True)
class Lacking:
    """Something that a run needs and this machine has not, or that keeps its record off the board."""

    what: str
    remedy: str
    prevents: bool
    """Whether nothing can be run without it."""


def facts(plan: Plan, places: Places) -> dict[str, Any]:
    """Everything about a plan's runs that the tier decides."""
    spec = plan.runs[0]
    _, recipe = load_recipe(places.recipes, plan.recipe.name, plan.recipe.version)
    published, training, hub = recipe.published, spec.conditions.training, spec.conditions.data.hub
    shape = _latent_shape(published, spec)
    return {
        "checkpoint": None if spec.checkpoint is None else spec.checkpoint.model_dump(mode="json"),
        "trained": "all weights" if spec.lora is None else f"adapters of rank {spec.lora.rank}",
        "lora": None if spec.lora is None else spec.lora.model_dump(mode="json"),
        "media": list(published.media if hub is None else published.media_of(hub)),
        "latent_shape": list(shape),
        "autoencoder": published.autoencoder,
        "text_encoders": published.text_encoders,
        "data": spec.conditions.data.model_dump(mode="json"),
        "samples": training.samples,
        "batch": training.batch,
        "learning_rate": training.learning_rate,
        "precision": training.precision,
        "gradient_checkpointing": training.gradient_checkpointing,
        "compile": training.compile,
        "ema_decay": training.ema_decay,
        "estimates": {
            label: None if found is None else {**asdict(found), "hours": found.hours}
            for label, found in _estimates(recipe.family, published, spec, places).items()
        },
        "lacking": [asdict(one) for one in lacking(plan.runs, places)],
    }


def lines(found: dict[str, Any]) -> list[tuple[str, str]]:
    """The facts for people: what, and how it is."""
    checkpoint = found["checkpoint"]
    weights = "fresh" if checkpoint is None else f"{checkpoint['id']} at {checkpoint['revision']}"
    text = [
        ("weights", weights),
        ("trained", found["trained"]),
        ("media", "x".join(str(size) for size in found["media"])),
        ("latents", f"{'x'.join(str(size) for size in found['latent_shape'])} ({found['autoencoder']})"),
        ("text encoders", ", ".join(found["text_encoders"]) or "none"),
        (
            "training",
            f"{found['samples']:,} samples in batches of {found['batch']}, learning rate "
            f"{found['learning_rate']:g}, {found['precision']}, EMA {found['ema_decay']:g}"
            f"{', gradient checkpointing' if found['gradient_checkpointing'] else ''}"
            f"{', compiled' if found['compile'] else ''}",
        ),
    ]
    for label, one in found["estimates"].items():
        if one is None:
            text.append(("estimate", f"none: results/cost.md has no line of it (selfflow-bench cost {label})"))
            continue
        memory = f"more than {GPU_GB:g} GB" if one["memory_gb"] is None else f"{one['memory_gb']:.0f} GB"
        said = (
            f"{one['gpus']} {GPU} of {GPU_GB:g} GB ({memory} filled), {one['training_hours']:,.1f} h of training and "
            f"{one['evaluation_hours']:,.1f} h of evaluation (FLOPs of results/cost.md, scaled by tokens, at "
            f"{SHARE_OF_PEAK:.0%} of peak)"
        )
        text.append((f"estimate, {label}", said))
    for one in found["lacking"]:
        text.append(("lacking" if one["prevents"] else "open", f"{one['what']}. {one['remedy']}"))
    return text


def lacking(runs: Sequence[RunSpec], places: Places, executor: Wanted = "auto") -> list[Lacking]:
    """What this machine lacks for a plan's runs, where they were asked to be done, and what nothing pins.

    They differ by method and seed alone.
    """
    from selfflow_bench.containers.choice import machine_facts, missing
    from selfflow_bench.containers.images import pinned, project

    spec = runs[0]
    found = [
        Lacking(what, "See: selfflow-bench doctor --tier reference", True)
        for what in missing(executor, machine_facts())
    ]
    try:
        pinned(project(), places.work, "cuda")
    except SuiteError as error:
        problem, _, remedy = str(error).rpartition(". ")
        found.append(Lacking(problem, remedy, True))
    if spec.checkpoint is not None and not _is_here(spec.checkpoint):
        name, revision = spec.checkpoint.id, spec.checkpoint.revision
        at = f" --revision {revision}" if len(revision) == 40 else ""
        found.append(Lacking(f"the snapshot of {name} in the hub's cache", f"Fetch: hf download {name}{at}", True))
    found += _prepared(spec, places)
    found += _features(runs, places)
    found += _of_evaluation(spec, places)
    for field in spec.unpinned:
        if field.endswith("revision"):
            remedy = f"Pin on a connected machine: selfflow-bench pin {spec.recipe.name}"
        else:
            remedy = "Write it into the protocol, once the file is there."
        found.append(Lacking(f"{field} is unpinned, so that the record is not ranked", remedy, False))
    return found


def refuse_where_lacking(runs: Sequence[RunSpec], places: Places, executor: Wanted) -> None:
    """Raise SuiteError with all that this machine lacks for a plan's runs, and each remedy."""
    missing = [one for one in lacking(runs, places, executor) if one.prevents]
    if missing:
        text = "".join(f"\n- {one.what}. {one.remedy}" for one in missing)
        raise SuiteError(f"{runs[0].name}: this machine lacks:{text}")


def _prepared(spec: RunSpec, places: Places) -> list[Lacking]:
    from selfflow_bench.data.prepare_published import is_prepared
    from selfflow_bench.stages.data import prepare_line, published_data, validation_statistics

    try:
        wanted = published_data(spec, spec.conditions.data.source)
    except FieldError as error:
        return [Lacking("its prepared data", " ".join(error.reason), True)]
    prepare = f"Prepare: {prepare_line(spec)}"
    if not is_prepared(wanted, places.cache):
        return [Lacking("its prepared data", prepare, True)]
    settings, folder = spec.conditions.evaluation, wanted.folder(places.cache)
    unseen = [
        name
        for name in settings.all_networks
        if name not in settings.reference_statistics and not validation_statistics(folder, name).exists()
    ]
    return [Lacking(f"what {name} sees in the validation media", prepare, True) for name in unseen]


def _features(runs: Sequence[RunSpec], places: Places) -> list[Lacking]:
    """Of the encoders that the runs' methods align to, in the training media."""
    from selfflow_bench.registry import family_class
    from selfflow_bench.stages.data import prepare_line, published_features

    found: dict[str, Lacking] = {}
    for spec in runs:
        encoder = method_of(spec, family_class(spec.family)(spec.transformer)).needs.encoder
        if encoder is None or encoder in found:
            continue
        try:
            if published_features(spec, encoder, places.cache).is_made:
                continue
            remedy = f"Prepare: {prepare_line(spec, encoder)}"
        except FieldError as error:
            remedy = " ".join(error.reason)
        found[encoder] = Lacking(f"the features of {encoder} that {spec.label} aligns to", remedy, True)
    return list(found.values())


def _of_evaluation(spec: RunSpec, places: Places) -> list[Lacking]:
    """Weights of feature networks, and statistics that stand for real media."""
    from selfflow_bench.evaluation.features import network
    from selfflow_bench.evaluation.statistics import load_published, published_path

    settings, where, found = spec.conditions.evaluation, f"protocol {spec.protocol}", []
    for name in settings.all_networks:
        sha256, one = settings.reference_statistics.get(name, UNPINNED), None
        try:
            one = network(name, places.cache, where)
        except SuiteError as error:
            found.append(Lacking(f"the weights of {name}", str(error), True))
        try:
            if sha256 != UNPINNED and one is not None:
                load_published(places.cache, sha256, one, where)
            elif sha256 != UNPINNED and not published_path(places.cache, sha256).exists():
                remedy = f"Put the file at {published_path(places.cache, sha256)}."
                found.append(Lacking(f"the published statistics for {name}", remedy, True))
        except SuiteError as error:
            found.append(Lacking(f"the published statistics for {name}", str(error), True))
    return found


def _is_here(checkpoint: Checkpoint) -> bool:
    from huggingface_hub import try_to_load_from_cache

    from selfflow_bench.pipelines.snapshot import INDEX, local_snapshot

    if checkpoint.revision == UNPINNED:
        return isinstance(try_to_load_from_cache(checkpoint.id, INDEX, revision="main"), str)
    try:
        local_snapshot(checkpoint)
    except DamagedFileError:
        return False
    return True


def _latent_shape(published: Published, spec: RunSpec) -> tuple[int, ...]:
    hub = spec.conditions.data.hub
    if hub is None:
        return tuple(published.latent_shape)
    return published.compression.latent_shape(published.media_of(hub), hub.fps or published.fps)


def _estimates(family: str, published: Published, spec: RunSpec, places: Places) -> dict[str, Estimate | None]:
    """Of a vanilla and of a Self-Flow run."""
    row = cost_table.read(places.results).get(family)
    if row is None:
        return {family: None}
    parameters, full, adapters = (float(row[name]) for name in ("parameters", "full_gb", "lora_gb"))
    share = math.prod(_latent_shape(published, spec)[1:]) / math.prod(published.latent_shape[1:])
    return {
        label: estimate(
            Counted(
                forward=float(row["forward_tflop"]),
                step=float(row[column]),
                weights=full - (adapters - 2 * parameters) if spec.lora is None else 2 * parameters,
                sample=max(0.0, adapters - 2 * parameters),
            ).scaled(share),
            spec.conditions,
        )
        for label, column in (("vanilla", "vanilla_tflop"), ("self_flow", "self_flow_tflop"))
    }
