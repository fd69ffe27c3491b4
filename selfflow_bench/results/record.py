"""One run's record: everything needed to compare it, nothing that names a machine. Strict, frozen, schema-versioned.

Knows nothing of files (see `record_files`) and of how runs are made.
"""

import math
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from selfflow_bench.identity import Name, Sha256, Versioned
from selfflow_bench.results.privacy import path_in, strings

VALIDATION_LOSS = "validation_loss"
UNDISTURBED = 0.85
"""Share of the processor from which seconds are compared: a quiet machine gives 0.95 and more (seen on two cores)."""
SCHEMA_VERSION = 1

Count = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, populate_by_name=True)


class MethodUsed(_Part):
    """The method and what its settings came to. `label` is what the board shows: "self_flow" or "self_flow.paper"."""

    name: Name
    label: Name
    settings: dict[str, JsonValue]


class Seed(_Part):
    """The run's seed, with the rule it was derived by."""

    index: Count
    value: Count
    derivation: str


class Code(_Part):
    """The commit that ran; `dirty` when the working tree differed from it."""

    commit: Annotated[str, Field(pattern=r"^[0-9a-f]{7,64}$")] | None
    dirty: bool


class Hardware(_Part):
    """The class of the machine, never its name."""

    cpu: str
    cores: Annotated[int, Field(ge=1)]
    threads: Annotated[int, Field(ge=1)]
    accelerator: str | None
    memory_gb: Annotated[float, Field(gt=0)]


class Timing(_Part):
    """Seconds in training steps, seconds in all, and samples per second of training; null where not reached.

    `processor_share` is how much of its threads' time training had of the processor: well below 1, others worked beside
    it and its seconds say nothing of the method. Left out on a GPU, and in records made before it.
    """

    train_s: Seconds | None
    wall_s: Seconds | None
    samples_per_s: Seconds | None
    processor_share: Seconds | None = Field(default=None, exclude_if=lambda value: value is None)

    @property
    def is_disturbed(self) -> bool:
        """Whether others worked on the same processor meanwhile."""
        return self.processor_share is not None and self.processor_share < UNDISTURBED


class Metric(_Part):
    """One score, or null and why.

    `floor` is the score of real media against real media at the same `n`; `spread` the standard deviation over KID's
    subsets, which is no error over seeds. `reference_sha256` is of published statistics that stood for real media.
    """

    value: float | None
    reason: str | None = None
    lower_is_better: bool = True
    floor: float | None = None
    spread: float | None = None
    n: Annotated[int, Field(ge=1)] | None = None
    network: str | None = None
    weights_sha256: Sha256 | None = None
    rank_deficient: bool | None = None
    reference_sha256: Sha256 | None = Field(default=None, exclude_if=lambda value: value is None)

    @model_validator(mode="after")
    def _null_has_a_reason(self) -> Self:
        if (self.value is None) != (self.reason is not None):
            raise ValueError("a metric has either a value or, where it is null, the reason")
        return self


class Health(_Part):
    """Spread and effective rank of the hidden states after a block: a collapse shows here."""

    block: Annotated[int, Field(ge=1)]
    standard_deviation: float
    effective_rank: float
    ema_distance: float | None = Field(default=None, exclude_if=lambda value: value is None)


class Validation(_Part):
    """Validation loss after `samples` training samples: whole, and per timestep from clean to noisy."""

    samples: Count
    loss: float
    per_timestep: Annotated[tuple[float, ...], Field(min_length=1, strict=False)]
    health: Health | None = None


class Failure(_Part):
    """Why a run did not succeed."""

    kind: Annotated[str, Field(alias="class")]
    message: str


class Record(_Part):
    """A run's record. Append-only: a wrong one is invalidated by a line with a reason, never changed.

    `overrides` not empty puts it on the open list, apart from every ranking; so does `unpinned`, the dotted names of
    what the run depended on and nothing pinned: a revision of weights or data, a hash. `untrained` are the same
    metrics of the weights the run started from. `curve` has a row per log interval: "samples" and any numbers.
    `alarms` say what should worry a reader, such as features that collapsed; they and `ema_distance` are left out
    where there is nothing to say, as in records made before them.
    """

    schema_version: Literal[1] = 1
    run_id: Name
    created: Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$")]
    status: Literal["success", "failed", "cancelled", "infrastructure"]
    failure: Failure | None
    recipe: Versioned
    protocol: Versioned
    tier: Literal["smoke", "micro", "reference"]
    method: MethodUsed
    overrides: dict[str, JsonValue]
    seed: Seed
    data: dict[str, Sha256] = {}
    code: Code
    versions: dict[str, str]
    hardware: Hardware
    samples: Count
    timing: Timing
    cost: dict[str, float | int | None]
    metrics: dict[str, Metric]
    untrained: dict[str, Metric] = {}
    validations: Annotated[tuple[Validation, ...], Field(strict=False)] = ()
    curve: Annotated[tuple[dict[str, float | int | None], ...], Field(strict=False)] = ()
    alarms: Annotated[tuple[str, ...], Field(strict=False, exclude_if=lambda value: not value)] = ()
    container: dict[str, JsonValue] | None = None
    unpinned: Annotated[tuple[str, ...], Field(strict=False, exclude_if=lambda value: not value)] = ()

    @model_validator(mode="after")
    def _coherent(self) -> Self:
        if (self.status == "success") != (self.failure is None):
            raise ValueError(f"failure: must be null exactly when status is success (status = {self.status})")
        for name, rows in (("curve", self.curve), ("validations", [v.model_dump() for v in self.validations])):
            counts = [row.get("samples") for row in rows]
            if any(count is None for count in counts) or counts != sorted(set(counts)):  # type: ignore[type-var]
                raise ValueError(f"{name}: samples must be given and rise from row to row")
        for place, text in strings(self.model_dump(mode="json", by_alias=True)):
            found = path_in(text)
            if found:
                raise ValueError(f"{place}: holds the path {found!r}; a record must not name places of a machine")
        for place, number in _numbers(self.model_dump(mode="json", by_alias=True)):
            if not math.isfinite(number):
                raise ValueError(f"{place} = {number}: not finite; write null and a reason")
        return self

    @property
    def departures(self) -> dict[str, JsonValue]:
        """What keeps the record off every ranking, by field: values that were overridden, and what nothing pinned."""
        return {**self.overrides, **dict.fromkeys(self.unpinned, "unpinned")}

    @property
    def scores(self) -> dict[str, Metric]:
        """The metrics and, first, the last validation loss as a metric of its own."""
        if self.status != "success" or not self.validations:
            return dict(self.metrics)
        return {VALIDATION_LOSS: Metric(value=self.validations[-1].loss), **self.metrics}

    @property
    def untrained_scores(self) -> dict[str, Metric]:
        """The same of the weights the run started from, as far as they were measured."""
        if not self.validations or self.validations[0].samples > 0:
            return dict(self.untrained)
        return {VALIDATION_LOSS: Metric(value=self.validations[0].loss), **self.untrained}


def _numbers(value: Any, where: str = "") -> list[tuple[str, float]]:
    if isinstance(value, float):
        return [(where, value)]
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for key, item in items for found in _numbers(item, f"{where}.{key}".lstrip("."))]
