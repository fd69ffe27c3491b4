"""Turns a recipe into matched runs: one per method and seed, equal in everything else. Pure: no clock, no network.

Seeds are derived from the recipe's digest and an index, never chosen. All methods of an index share the seed, and with
it initial weights, data order, noise, timesteps and condition dropout.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from selfflow_bench.canonical import digest
from selfflow_bench.errors import FieldError
from selfflow_bench.identity import Versioned
from selfflow_bench.places import Places
from selfflow_bench.protocol import Protocol, check_protocol, protocol_digest
from selfflow_bench.recipe import (
    Checkpoint,
    Lora,
    Recipe,
    RecipeTier,
    Tier,
    field_error,
    load_protocol,
    load_recipe,
    method_labels,
    method_settings,
    recipe_digest,
    version_of,
)
from selfflow_bench.registry import family_class, method_class
from selfflow_bench.seeds import derive_seed
from selfflow_bench.strict_model import unpinned_fields

if TYPE_CHECKING:
    from selfflow_bench.families.base import Family
    from selfflow_bench.methods.base import Method


class RunSpec(BaseModel):
    """One run, whole: what a worker needs beside the data, on the host or in a container."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    recipe: Versioned
    protocol: Versioned
    tier: Tier
    family: str
    transformer: dict[str, Any]
    codec: dict[str, str | int | float]
    # Left out of the key where there is none, so that they moved no earlier run's.
    checkpoint: Checkpoint | None = Field(default=None, exclude_if=lambda value: value is None)
    lora: Lora | None = Field(default=None, exclude_if=lambda value: value is None)
    method: str
    label: str
    settings: dict[str, Any]
    settings_digest: str
    seed_index: int
    seed: int
    overrides: dict[str, Any]
    conditions: Protocol

    @property
    def unpinned(self) -> tuple[str, ...]:
        """What the run depends on and nothing pins: dotted names of its fields. A run with any is never ranked."""
        return unpinned_fields(self.model_dump(mode="json", include={"checkpoint", "codec", "conditions"}))

    @property
    def data_digests(self) -> dict[str, str]:
        """The hash of each split, as far as it is known; none where the run has other data than its protocol names."""
        return {} if "data.source" in self.overrides else self.conditions.data.digests()

    @property
    def key(self) -> str:
        """Identifies the run by content, 12 hex digits: equal keys must give equal results."""
        return digest(self.model_dump(mode="json", exclude={"conditions": {"summary", "budget", "margins"}}))[:12]

    @property
    def name(self) -> str:
        """What people call the run: ``sana-micro-self_flow-s0``."""
        return f"{self.recipe.name}-{self.tier}-{self.label}-s{self.seed_index}"

    @property
    def folder_name(self) -> str:
        """The run's folder under the work folder."""
        return f"{self.name}-{self.key}"


class Plan(BaseModel):
    """The matched runs of one invocation, seed by seed, vanilla first."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    recipe: Versioned
    protocol: Versioned
    tier: Tier
    runs: tuple[RunSpec, ...]


def make_plan(
    places: Places,
    name: str,
    *,
    tier: Tier,
    labels: Sequence[str] = ("vanilla", "self_flow"),
    seeds: int = 1,
    overrides: Mapping[str, Any] | None = None,
) -> Plan:
    """Plan the runs of a recipe, all start-up checks made.

    Args:
        places: where recipes are.
        name: ``sana`` or, for an older version, ``sana@1``.
        tier: which size.
        labels: methods and variants. Vanilla is always run: every difference is paired against it.
        seeds: number of seeds, indices 0 to n-1.
        overrides: ``training.samples=...`` and the like, of the protocol; a run with any is never ranked.

    Raises:
        FieldError: anything in recipe, protocol or settings that cannot be honoured.
    """
    base, _, version = name.partition("@")
    if version and not version.isdecimal():
        raise FieldError("command line", "recipe", name, "the version is not a number", "Write it as sana@1.")
    where, recipe = load_recipe(places.recipes, base, int(version) if version else None)
    if tier not in recipe.tiers:
        raise FieldError(where.path, "tiers", tier, "no such tier", f"It has: {', '.join(recipe.tiers)}.")
    if seeds < 1:
        raise FieldError("command line", "--seeds", seeds, "not a positive number", "Give 1 or more.")
    chosen = recipe.tiers[tier]
    protocol_where, protocol = load_protocol(places.recipes, chosen.protocol)
    changed = dict(overrides or {})
    if changed:
        protocol = _overridden(protocol_where.path, protocol, changed)
    facts = _check_transformer(where.path, recipe, chosen, protocol)
    named_recipe = Versioned(name=where.name, version=where.version, digest=recipe_digest(recipe, tier))
    named_protocol = Versioned(
        name=protocol_where.name, version=protocol_where.version, digest=protocol_digest(protocol)
    )
    runs = []
    for index in range(seeds):
        for label in dict.fromkeys(("vanilla", *labels)):
            settings = _checked_settings(where.path, recipe, tier, label, protocol, facts)
            runs.append(
                RunSpec(
                    recipe=named_recipe,
                    protocol=named_protocol,
                    tier=tier,
                    family=recipe.family,
                    transformer=chosen.transformer,
                    codec=chosen.codec,
                    checkpoint=chosen.checkpoint,
                    lora=chosen.lora,
                    method=label.partition(".")[0],
                    label=label,
                    settings=settings,
                    settings_digest=digest(settings),
                    seed_index=index,
                    seed=derive_seed(named_recipe.digest, index),
                    overrides=changed,
                    conditions=protocol,
                )
            )
    return Plan(recipe=named_recipe, protocol=named_protocol, tier=tier, runs=tuple(runs))


def method_of(spec: RunSpec, family: Family) -> Method:
    """A run's method, with its settings."""
    kind = method_class(spec.method)
    return kind(kind.settings_class.model_validate_json(json.dumps(spec.settings)), family, spec.conditions.steps)


def lock_entries(places: Places) -> dict[str, dict[str, Any]]:
    """The digests of every recipe, protocol and method's resolved settings, as `recipes/lock.json` holds them; and the
    protocols' margins, which no digest has.

    A change of a default in the code moves a method's digest as much as a change in a file.
    """
    recipes: dict[str, Any] = {}
    methods: dict[str, Any] = {}
    protocols: dict[str, Any] = {}
    margins: dict[str, Any] = {}
    for path in sorted(places.recipes.glob("*/v*.toml")):
        where, recipe = load_recipe(places.recipes, path.parent.name, version_of(path))
        recipes[str(where)], methods[str(where)] = {}, {}
        for tier in sorted(recipe.tiers):
            plan = make_plan(places, str(where), tier=tier, labels=method_labels(recipe))
            recipes[str(where)][tier] = plan.recipe.digest
            methods[str(where)][tier] = {run.label: run.settings_digest for run in plan.runs}
    for path in sorted(places.recipes.glob("protocols/*/v*.toml")):
        reference = f"{path.parent.name}@{version_of(path)}"
        protocol = load_protocol(places.recipes, reference)[1]
        protocols[reference] = protocol_digest(protocol)
        if protocol.margins is not None:
            margins[reference] = protocol.margins.model_dump(mode="json")
    return {"margins": margins, "methods": methods, "protocols": protocols, "recipes": recipes}


@dataclass(frozen=True)
class _TransformerFacts:
    """Of a transformer built without memory: its number of blocks, and whether its time embedding can be found."""

    depth: int
    time_embedding: bool


def _check_transformer(path: Path, recipe: Recipe, tier: RecipeTier, protocol: Protocol) -> _TransformerFacts:
    """Build the transformer without memory."""
    import torch

    kind = family_class(recipe.family)
    makes = "image" if tier.checkpoint is not None and recipe.published.makes_stills else kind.modality
    if makes != protocol.modality:
        raise FieldError(
            path,
            "protocol",
            tier.protocol,
            f"is a protocol for {protocol.modality}, and {recipe.family} makes {makes}",
            f"Name a protocol for {makes}.",
        )
    family = kind(tier.transformer)
    try:
        with torch.device("meta"):
            transformer = family.build()
    except (TypeError, ValueError) as error:
        raise FieldError(
            path,
            "transformer",
            tier.transformer,
            f"{kind.transformer_class.__name__} refuses it: {error}",
            "Set only arguments that the class has.",
        ) from error
    return _TransformerFacts(len(family.blocks(transformer)), family.time_embedder(transformer) is not None)


def _checked_settings(
    path: Path, recipe: Recipe, tier: Tier, label: str, protocol: Protocol, facts: _TransformerFacts
) -> dict[str, Any]:
    from selfflow_bench.methods.base import Situation

    name = label.partition(".")[0]
    kind = method_class(name)
    refusal = kind.unsupported(family_class(recipe.family))
    if refusal is not None:
        problem, remedy = refusal
        raise FieldError("command line", "--methods", label, f"{name} with {recipe.family}: it {problem}", remedy)
    # What the recipe's tier says for all methods, as far as this one takes it; its own tables come after.
    taken, given = kind.settings_class.model_fields, recipe.tiers[tier].aligned()
    common = {field: value for field, value in given.items() if field in taken}
    written = {**common, **method_settings(path, recipe, tier, label)}
    try:
        settings = kind.settings_class.model_validate(written)
    except ValidationError as error:
        found = field_error(path, kind.settings_class, error)
        raise FieldError(path, f"methods.{label}.{found.field}", found.value, *found.reason) from error
    kind.check(
        settings,
        Situation(
            where=str(path),
            family=recipe.family,
            modality=protocol.modality,
            depth=facts.depth,
            steps=protocol.steps,
            ema=True,
            method=name,
            time_embedding=facts.time_embedding,
            methods=(name,),
        ),
    )
    return settings.model_dump(mode="json")


def _overridden(path: Path, protocol: Protocol, overrides: Mapping[str, Any]) -> Protocol:
    content = protocol.model_dump(mode="json")
    for dotted, value in overrides.items():
        table, _, field = dotted.partition(".")
        if field not in _fields(table):
            known = [f"{key}.{name}" for key in Protocol.model_fields for name in _fields(key)]
            raise FieldError(
                "command line", "--set", dotted, "no such protocol field", f"There are: {', '.join(known)}."
            )
        content[table][field] = value
    try:
        changed = Protocol.model_validate(content)
    except ValidationError as error:
        raise field_error(f"{path} with --set", Protocol, error) from error
    check_protocol(f"{path} with --set", changed)
    return changed


def _fields(table: str) -> tuple[str, ...]:
    """The fields of a protocol's table, those too that are left out where they are as ever."""
    kind = Protocol.model_fields[table].annotation if table in Protocol.model_fields else None
    return tuple(kind.model_fields) if isinstance(kind, type) and issubclass(kind, BaseModel) else ()
