"""What must be equal for results to be comparable: data, timesteps, training, evaluation; and a run's budget.

Strict, frozen models, whether their numbers fit each other, and what identifies them. Knows nothing of recipes, of
files, and of torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from selfflow_bench.canonical import digest
from selfflow_bench.errors import FieldError
from selfflow_bench.identity import Sha256
from selfflow_bench.strict_model import UNPINNED, HubId, PositiveFloat, PositiveInt, Revision, StrictModel

VALIDATION_TIMESTEPS = 8
"""Equidistant sigmas of the validation loss (as MLPerf's FLUX benchmark has)."""
Parallel = Literal["ddp", "fsdp"]
"""How several processes share a training: each has the whole model, or its share of every parameter."""
ValidationGrid = Literal["midpoints", "eighths"]
Documented = Literal["documented"]
"""Stands for what a family's published pipeline does by default."""


class HubSet(StrictModel):
    """A data set on the hub, and which of its columns are read.

    ``reference`` is a clean picture that an edit starts from; ``label`` a class, counted from 0, in place of a caption.
    Of a list of captions the first counts.
    """

    id: HubId
    revision: Revision
    config: str | None = None
    medium: str
    caption: str | None = Field(default=None, exclude_if=lambda value: value is None)
    label: str | None = Field(default=None, exclude_if=lambda value: value is None)
    reference: str | None = Field(default=None, exclude_if=lambda value: value is None)


class HubData(HubSet):
    """A data set on the hub, and how each medium of it is brought to size.

    Pictures and frames are scaled to cover ``resolution`` (height, width) and cropped to its middle; of a video the
    first ``frames`` are taken, at ``fps`` a second those shown at each moment; of a sound the first ``seconds``, filled
    up with silence where a hundredth is lacking. Shorter ones, and what cannot be read, are left out and counted.
    ``*_items`` are the first so many of a split that can be used, all of them where not set. Where both splits are one
    of the data set, validation takes its items first, and training begins behind them and behind ``train_skip`` rows.
    ``validation`` is a split of ``validation_from``, where that is another data set.
    """

    train: str
    validation: str
    train_items: PositiveInt | None = None
    validation_items: PositiveInt | None = None
    train_skip: Annotated[int, Field(ge=0)] = Field(default=0, exclude_if=lambda value: value == 0)
    validation_from: HubSet | None = Field(default=None, exclude_if=lambda value: value is None)
    resolution: Annotated[list[PositiveInt], Field(min_length=2, max_length=2)] | None = None
    frames: PositiveInt | None = None
    fps: PositiveFloat | None = None
    seconds: PositiveFloat | None = None


class DataSettings(StrictModel):
    """Which data, by content; with ``hub``, where `prepare` gets it, and hashes may still be ``unpinned``.

    ``text_length`` are tokens of a caption; with ``hub`` at most so many: a text encoder's own limit holds where it is
    lower.
    """

    source: str
    train_sha256: Sha256 | Literal["unpinned"]
    validation_sha256: Sha256 | Literal["unpinned"]
    text_length: PositiveInt
    # Left out of the digest where there is none, so that it moved no earlier protocol's.
    hub: HubData | None = Field(default=None, exclude_if=lambda value: value is None)

    def digests(self) -> dict[str, str]:
        """The hash of each split by its name, as far as it is known: as records hold them."""
        hashes = {"train": self.train_sha256, "validation": self.validation_sha256}
        return {f"{self.source}/{split}": value for split, value in hashes.items() if value != UNPINNED}


class TimestepSettings(StrictModel):
    """p(sigma), before the shift uniform or the sigmoid of a normal."""

    kind: Literal["logit_normal", "uniform"]
    mean: float = 0.0
    std: PositiveFloat = 1.0
    shift: PositiveFloat = 1.0


class TrainingSettings(StrictModel):
    """The optimizer's side of a run, counted in samples."""

    samples: PositiveInt
    batch: PositiveInt
    learning_rate: PositiveFloat
    betas: list[float]
    weight_decay: Annotated[float, Field(ge=0.0)]
    warmup_samples: Annotated[int, Field(ge=0)]
    gradient_clip: PositiveFloat
    condition_dropout: Annotated[float, Field(ge=0.0, lt=1.0)]
    ema_decay: Annotated[float, Field(gt=0.0, lt=1.0)]
    precision: Literal["float32", "bf16"]
    # Left out of the digest where off, so that they moved no earlier protocol's.
    gradient_checkpointing: bool = Field(default=False, exclude_if=lambda value: not value)
    compile: bool = Field(default=False, exclude_if=lambda value: not value)
    parallel: Parallel = Field(default="ddp", exclude_if=lambda value: value == "ddp")
    threads: PositiveInt
    log_every: PositiveInt
    checkpoint_every: PositiveInt


class EvaluationSettings(StrictModel):
    """Validation loss, sampling and distances; all at homogeneous timesteps.

    What only large models need is left out of the digest where it is not used, so that it moved no earlier protocol's.

    Args:
        validation_grid: the 8 sigmas of the validation loss: ``midpoints`` are (j + 1/2) / 8, ``eighths`` are j / 8 for
            j = 0 to 7, as MLPerf Training's FLUX.1 benchmark has them. Losses on different grids are not comparable.
        sampler_steps: a number, or ``documented``: the family's published pipeline's own.
        guidance: scales of classifier-free guidance, all measured; 1 is none. ``documented`` is the pipeline's own.
        sampler: the family's ordinary scheduler, or ``euler_maruyama``: the stochastic sampler of the comparisons on
            ImageNet, which has no guidance.
        labels: of samples of a class: those of validation items, or ``uniform``: drawn, each class alike.
        network: the feature network of the distances; ``networks`` are measured beside it, on the same samples.
        reference_statistics: SHA-256, or ``unpinned``, of the file of real media's statistics by network. Of a network
            without one, they are computed from the validation split.
        kid_samples: how many samples' features are kept for KID, evenly spaced; all of them if not given.
        untrained: whether the weights that training started from are measured too.
    """

    validation_triples: PositiveInt
    validation_every: PositiveInt
    validation_grid: ValidationGrid = Field(default="midpoints", exclude_if=lambda value: value == "midpoints")
    samples: PositiveInt
    batch: PositiveInt
    sampler_steps: PositiveInt | Documented
    sampler: Literal["scheduler", "euler_maruyama"] = Field(
        default="scheduler", exclude_if=lambda value: value == "scheduler"
    )
    labels: Literal["validation", "uniform"] = Field(
        default="validation", exclude_if=lambda value: value == "validation"
    )
    guidance: Annotated[list[Annotated[float, Field(ge=1.0)] | Documented], Field(min_length=1)] = Field(
        default=[1.0], exclude_if=lambda value: value == [1.0]
    )
    network: str
    networks: list[str] = Field(default=[], exclude_if=lambda value: not value)
    reference_statistics: dict[str, Sha256 | Literal["unpinned"]] = Field(
        default={}, exclude_if=lambda value: not value
    )
    kid_subsets: PositiveInt
    kid_subset_size: PositiveInt
    kid_samples: PositiveInt | None = Field(default=None, exclude_if=lambda value: value is None)
    untrained: bool = Field(default=True, exclude_if=lambda value: value)

    @property
    def all_networks(self) -> list[str]:
        """The feature networks measured, the leading one first."""
        return [self.network, *self.networks]


class BudgetSettings(StrictModel):
    """What one run may take; not part of the digest. ``gpus`` is also the number of processes that share it."""

    minutes: PositiveFloat
    memory_mb: PositiveInt
    gpus: PositiveInt = 1


class MarginSettings(StrictModel):
    """How large a difference counts as none, as shares of the baseline's mean, and since when that is so.

    How results are read, not what is run: no part of the digest, and locked apart from it. By kind of metric.
    """

    since: Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\d$")]
    validation_loss: PositiveFloat
    kid: PositiveFloat
    frechet: PositiveFloat
    fid: PositiveFloat | None = Field(default=None, exclude_if=lambda value: value is None)


class Protocol(StrictModel):
    """What must be equal for results to be comparable, and how they are read.

    ``image`` is what the runs' container is built on, by digest; without it they may run anywhere.
    """

    modality: Literal["image", "video", "audio"]
    summary: str
    # Left out of the digest where there is none, so that it moved no earlier protocol's.
    image: Annotated[str, Field(pattern=r"^\S+@sha256:[0-9a-f]{64}$")] | None = Field(
        default=None, exclude_if=lambda value: value is None
    )
    data: DataSettings
    timesteps: TimestepSettings
    training: TrainingSettings
    evaluation: EvaluationSettings
    budget: BudgetSettings
    margins: MarginSettings | None = None

    @property
    def steps(self) -> int:
        """Optimizer steps of a run."""
        return self.training.samples // self.training.batch


def check_protocol(where: str | Path, protocol: Protocol) -> None:
    """Refuse numbers that do not fit each other, with a FieldError."""
    training, evaluation = protocol.training, protocol.evaluation
    multiples = [
        ("training.samples", training.samples, "training.batch", training.batch),
        ("training.log_every", training.log_every, "training.batch", training.batch),
        ("training.warmup_samples", training.warmup_samples, "training.batch", training.batch),
        # The log is read where these happen.
        ("training.samples", training.samples, "training.log_every", training.log_every),
        ("training.checkpoint_every", training.checkpoint_every, "training.log_every", training.log_every),
        ("evaluation.validation_every", evaluation.validation_every, "training.log_every", training.log_every),
        ("evaluation.validation_triples", evaluation.validation_triples, "its timesteps", VALIDATION_TIMESTEPS),
    ]
    for field, value, of, unit in multiples:
        if value % unit:
            raise FieldError(where, field, value, f"not a multiple of {of} = {unit}", f"Set a multiple of {unit}.")
    check_data(where, protocol)
    kept = evaluation.kid_samples or evaluation.samples
    for field, value, of, limit in (
        ("kid_samples", kept, "samples", evaluation.samples),
        ("kid_subset_size", evaluation.kid_subset_size, "kid_samples" if evaluation.kid_samples else "samples", kept),
    ):
        if value > limit:
            raise FieldError(
                where, f"evaluation.{field}", value, f"larger than the {limit} samples", f"Set at most evaluation.{of}."
            )
    for field, values in (("networks", evaluation.all_networks), ("guidance", evaluation.guidance)):
        if len(set(values)) < len(values):
            raise FieldError(where, f"evaluation.{field}", values, "names one twice", "Name each once.")
    for name in sorted(set(evaluation.reference_statistics) - set(evaluation.all_networks)):
        raise FieldError(
            where,
            "evaluation.reference_statistics",
            name,
            "is no network of this protocol",
            f"It measures {', '.join(evaluation.all_networks)}.",
        )


def check_data(where: str | Path, protocol: Protocol) -> None:
    """Refuse data that nothing identifies, and sizes that do not say how large a medium is."""
    data, hub = protocol.data, protocol.data.hub
    if hub is None:
        for field, value in (("train_sha256", data.train_sha256), ("validation_sha256", data.validation_sha256)):
            if value == UNPINNED:
                raise FieldError(
                    where, f"data.{field}", value, "only a data set on the hub may be unpinned", "Set its sha256."
                )
        return
    for field, found in (("hub", hub), ("hub.validation_from", hub.validation_from)):
        if found is not None and (found.caption is None) == (found.label is None):
            problem = "an item has a caption or a label"
            raise FieldError(where, f"data.{field}.caption", found.caption, problem, "Name the column of one of them.")
    wanted = {"image": ("resolution",), "video": ("resolution", "frames"), "audio": ("seconds",)}[protocol.modality]
    for field in ("resolution", "frames", "seconds"):
        value = getattr(hub, field)
        if (value is not None) != (field in wanted):
            problem = f"{protocol.modality} data are brought to size by {' and '.join(wanted)}"
            raise FieldError(where, f"data.hub.{field}", value, problem, "Set these and no others.")
    if hub.validation_from is None and hub.validation == hub.train and hub.validation_items is None:
        problem = "the training split is the same, and nothing would be left to train on"
        raise FieldError(where, "data.hub.validation_items", None, problem, "Set how many items are held out.")
    if hub.fps is not None and hub.frames is None:
        raise FieldError(where, "data.hub.fps", hub.fps, "there are no frames to take at that rate", "Leave it out.")


def protocol_digest(protocol: Protocol) -> str:
    """What identifies a protocol: everything but its prose, its budget and how its results are read."""
    return digest(protocol.model_dump(mode="json", exclude={"summary", "budget", "margins"}))
