"""A run's parts, all derived from its specification: data, family, method, and the weights it starts from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from selfflow_bench.condition_table import ConditionTable
from selfflow_bench.data.encoded import EncodedFeatures
from selfflow_bench.data.labels import with_labels
from selfflow_bench.data.prepare import Prepared, Split
from selfflow_bench.errors import FieldError
from selfflow_bench.events import EventLog
from selfflow_bench.families.base import LABEL, Family
from selfflow_bench.methods.base import Method
from selfflow_bench.plan import RunSpec, method_of
from selfflow_bench.registry import family_class
from selfflow_bench.stages.data import embedded_data, embedded_features, prepared_data, prepared_features
from selfflow_bench.training.start import starting_transformer


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
            del taken[LABEL]
            return ConditionTable.of_classes(_labels(split), self.family.classes, taken)
        return ConditionTable(split.caption, self.data.text, taken)


def set_up(spec: RunSpec, folder: Path, cache: Path, events: EventLog, stop: Callable[[], bool]) -> Run:
    """Check the data against the protocol, prepare it, and make the family and method."""
    data = spec.conditions.data
    events.write("stage", name="prepare")
    prepared = embedded_data(spec, cache, events) if data.hub is None else prepared_data(spec, cache)
    family = family_class(spec.family)(spec.transformer)
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
    if family.classes is not None and int(_labels(prepared.train).max()) >= family.classes:
        raise FieldError(
            f"recipe {spec.recipe}",
            "transformer",
            spec.transformer,
            f"knows {family.classes} classes, and {data.source} has more",
            "Set the number of classes that the data have.",
        )
    method = method_of(spec, family)
    features = None
    if method.needs.encoder is not None:
        made = embedded_features if data.hub is None else prepared_features
        features = made(spec, method.needs.encoder, cache, events)
    return Run(spec, folder, cache, family, method, prepared, features, events, stop)


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


def _labels(split: Split) -> Tensor:
    """Held in memory, unlike other conditions."""
    found = split.conditions[LABEL]
    assert isinstance(found, Tensor)
    return found


def _taken(family: Family) -> tuple[str, ...]:
    return (*family.needs, *family.accepts)
