"""Recipes and protocols: strict TOML, frozen models, digests, and the lock that holds them.

A recipe holds what is particular to a model family; a protocol what must be equal for results to be comparable. A
semantic change of either is a new version file. Knows nothing of torch: settings that only a family or a method can
judge are checked by `selfflow_bench.plan`.
"""

from __future__ import annotations

import json
import math
import re
import tomllib
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from selfflow_bench.by_name import names
from selfflow_bench.canonical import digest
from selfflow_bench.errors import DamagedFileError, FieldError, SuiteError
from selfflow_bench.identity import Sha256

Tier = Literal["smoke", "micro", "reference"]
VALIDATION_TIMESTEPS = 8
"""Equidistant sigmas of the validation loss (as MLPerf's FLUX benchmark has)."""
TIERS: tuple[Tier, ...] = typing.get_args(Tier)
UNPINNED = "unpinned"
"""Stands for a revision or hash that is not known yet: `selfflow-bench pin` fills it in on a connected machine."""
Parallel = Literal["ddp", "fsdp"]
"""How several processes share a training: each has the whole model, or its share of every parameter."""
PositiveInt = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0.0)]
HubId = Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")]
Revision = Annotated[str, Field(pattern=r"^([0-9a-f]{40}|unpinned)$")]
"""A commit, or ``unpinned``."""
ValidationGrid = Literal["midpoints", "eighths"]
Documented = Literal["documented"]
"""Stands for what a family's published pipeline does by default."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Checkpoint(_Strict):
    """Published weights: a hub repository in diffusers' folder format, and the commit of it, or ``unpinned``."""

    id: HubId
    revision: Revision


class Lora(_Strict):
    """Low-rank adapters (arXiv 2106.09685): ``targets`` are the ends of the names of the layers that get one."""

    rank: PositiveInt
    alpha: PositiveFloat
    targets: Annotated[list[str], Field(min_length=1)]


class RecipeTier(_Strict):
    """One size of a recipe: its protocol, how media become latents, the transformer, and what methods align.

    Blocks count from 1. They and the encoder hold for every method that takes such a setting, unless the method's own
    table says otherwise. ``checkpoint`` are the weights that training starts from, fresh ones if there is none;
    ``lora`` says that adapters are trained and not the weights themselves. The codec ``autoencoder`` is the
    checkpoint's own.
    """

    protocol: Annotated[str, Field(pattern=r"^[a-z0-9-]+@[1-9][0-9]*$")]
    student_block: PositiveInt
    teacher_block: PositiveInt
    encoder: str | None = None
    codec: dict[str, str | int | float]
    transformer: dict[str, Any]
    checkpoint: Checkpoint | None = None
    lora: Lora | None = None
    methods: dict[str, dict[str, Any]] = {}

    def aligned(self) -> dict[str, Any]:
        """The settings that the tier gives to all methods."""
        given = {"student_block": self.student_block, "teacher_block": self.teacher_block, "encoder": self.encoder}
        return {field: value for field, value in given.items() if value is not None}


class Compression(_Strict):
    """What the published autoencoder makes of media.

    Args:
        factors: media cells per latent cell along each axis: frames, height, width; height, width; or samples of sound.
            The first frame of a clip becomes a latent frame of its own.
        channels: of the autoencoder's latents.
        packed: cells along height and width that become channels of one, behind the autoencoder.
        sound_rate: tokens per second of sound that stand behind a clip's own, in a family that makes both.
    """

    factors: Annotated[list[PositiveInt], Field(min_length=1)]
    channels: PositiveInt
    packed: PositiveInt = 1
    sound_rate: PositiveInt | None = None

    def latent_shape(self, media: typing.Sequence[int], fps: float | None = None) -> tuple[int, ...]:
        """Shape of the latents of one medium, channels first; a clip with sound is one sequence of tokens.

        Raises ValueError where the axes are not as many as the factors, or a size is no whole number of latent cells.
        """
        if len(media) != len(self.factors):
            raise ValueError(f"media {tuple(media)} have not the axes of the factors {tuple(self.factors)}")
        frames = media[: len(media) // 3]  # only a clip has three axes, and time is the first
        sides = [size * self.packed for size in self.factors[len(frames) :]]
        if any(size % side for size, side in zip(media[len(frames) :], sides, strict=True)):
            raise ValueError(f"media {tuple(media)} are no whole number of cells of {tuple(sides)}")
        cells = [1 + (count - 1) // factor for count, factor in zip(frames, self.factors, strict=False)]
        cells += [size // side for size, side in zip(media[len(frames) :], sides, strict=True)]
        if self.sound_rate is None:
            return (self.channels * self.packed**2, *cells)
        if fps is None:
            raise ValueError("the length of a clip's sound needs its fps")
        return self.channels, math.prod(cells) + round(media[0] / fps * self.sound_rate)


class Published(_Strict):
    """The published checkpoint and what it is used with: what the cost table counts and the reference tier trains.

    ``media`` (frames, height, width; height, width; or samples of sound at ``rate`` Hz), ``latent_shape`` and
    ``conditions`` are of one sample, without the batch; blocks count from 1.
    """

    checkpoint: str
    confidence: str
    parameters: PositiveInt
    size: str
    media: Annotated[list[PositiveInt], Field(min_length=1)]
    fps: PositiveFloat | None = None
    rate: PositiveInt | None = None
    latent_shape: list[PositiveInt]
    autoencoder: str
    compression: Compression
    text_encoders: list[str]
    student_block: PositiveInt
    teacher_block: PositiveInt
    conditions: dict[str, list[PositiveInt]]
    transformer: dict[str, Any]

    @property
    def makes_stills(self) -> bool:
        """Whether a checkpoint of a video family makes pictures: clips of one frame."""
        return len(self.media) == 3 and self.media[0] == 1

    def media_of(self, hub: HubData) -> tuple[int, ...]:
        """The shape of one medium of a data set, as ``media`` has it."""
        if hub.seconds is not None:
            return (round(hub.seconds * (self.rate or 0)),)
        frames = [hub.frames or 1] if len(self.media) == 3 else []
        return (*frames, *(hub.resolution or ()))


class Recipe(_Strict):
    """What is particular to one model family."""

    family: str
    summary: str
    methods: dict[str, dict[str, Any]]
    tiers: dict[Tier, RecipeTier]
    published: Published

    @model_validator(mode="before")
    @classmethod
    def _published_size(cls, content: Any) -> Any:
        """The reference tier's transformer is the published one; its own table is what differs."""
        match content:
            case {"tiers": {"reference": dict(tier)}, "published": {"transformer": dict(transformer)}}:
                whole = {**tier, "transformer": {**transformer, **tier.get("transformer", {})}}
                return {**content, "tiers": {**content["tiers"], "reference": whole}}
        return content


class HubSet(_Strict):
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


class DataSettings(_Strict):
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


class TimestepSettings(_Strict):
    """p(sigma), before the shift uniform or the sigmoid of a normal."""

    kind: Literal["logit_normal", "uniform"]
    mean: float = 0.0
    std: PositiveFloat = 1.0
    shift: PositiveFloat = 1.0


class TrainingSettings(_Strict):
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


class EvaluationSettings(_Strict):
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


class BudgetSettings(_Strict):
    """What one run may take; not part of the digest. ``gpus`` is also the number of processes that share it."""

    minutes: PositiveFloat
    memory_mb: PositiveInt
    gpus: PositiveInt = 1


class MarginSettings(_Strict):
    """How large a difference counts as none, as shares of the baseline's mean, and since when that is so.

    How results are read, not what is run: no part of the digest, and locked apart from it. By kind of metric.
    """

    since: Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\d$")]
    validation_loss: PositiveFloat
    kid: PositiveFloat
    frechet: PositiveFloat
    fid: PositiveFloat | None = Field(default=None, exclude_if=lambda value: value is None)


class Protocol(_Strict):
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


class VersionFile(_Strict):
    """Where one version of a recipe or protocol lies."""

    name: str
    version: int
    path: Path

    def __str__(self) -> str:
        return f"{self.name}@{self.version}"


Model = TypeVar("Model", Recipe, Protocol)


def load_recipe(root: Path, name: str, version: int | None = None) -> tuple[VersionFile, Recipe]:
    """A recipe by name, its newest version unless one is given. Raises FieldError and DamagedFileError."""
    where = _find(root, "recipe", name, version, list(recipe_names(root)))
    recipe = _parse(where.path, Recipe)
    if recipe.family not in names("families"):
        raise FieldError(
            where.path, "family", recipe.family, "unknown family", f"Known: {', '.join(names('families'))}."
        )
    bases = {label.partition(".")[0] for table in _method_tables(recipe) for label in table}
    for unknown in sorted(bases - set(names("methods"))):
        raise FieldError(where.path, "methods", unknown, "unknown method", f"Known: {', '.join(names('methods'))}.")
    return where, recipe


def load_protocol(root: Path, reference: str) -> tuple[VersionFile, Protocol]:
    """A protocol by ``name@version``."""
    name, _, version = reference.partition("@")
    where = _find(root / "protocols", "protocol", name, int(version), protocol_names(root))
    protocol = _parse(where.path, Protocol)
    check_protocol(where.path, protocol)
    return where, protocol


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


def recipe_names(root: Path) -> tuple[str, ...]:
    """All recipes in a folder."""
    return tuple(sorted({path.parent.name for path in root.glob("*/v*.toml")} - {"protocols"}))


def protocol_names(root: Path) -> tuple[str, ...]:
    """All protocols in a folder."""
    return tuple(sorted({path.parent.name for path in root.glob("protocols/*/v*.toml")}))


def method_labels(recipe: Recipe) -> tuple[str, ...]:
    """Methods and variants that a recipe has, as ``--methods`` takes them; vanilla first."""
    labels = set(recipe.methods) | {"vanilla"}
    return tuple(sorted(labels, key=lambda label: (label != "vanilla", label)))


def method_settings(where: Path, recipe: Recipe, tier: Tier, label: str) -> dict[str, Any]:
    """A method's settings as written: the recipe's, then the variant's, then the tier's for each."""
    if label not in method_labels(recipe):
        raise FieldError(
            where, "methods", label, "no such method in this recipe", f"It has: {', '.join(method_labels(recipe))}."
        )
    base = label.partition(".")[0]
    merged: dict[str, Any] = {}
    for table in (recipe.methods, recipe.tiers[tier].methods):
        for name in dict.fromkeys((base, label)):
            merged.update(table.get(name, {}))
    return merged


def recipe_digest(recipe: Recipe, tier: Tier) -> str:
    """What identifies a recipe's tier; methods are identified apart, so that adding one moves no seed."""
    chosen = recipe.tiers[tier]
    weights = {"checkpoint": chosen.checkpoint, "lora": chosen.lora}
    return digest(
        {
            "family": recipe.family,
            "tier": tier,
            "protocol": chosen.protocol,
            "codec": chosen.codec,
            "transformer": chosen.transformer,
            # Left out where there are none, so that they moved no earlier digest.
            **{name: value.model_dump(mode="json") for name, value in weights.items() if value is not None},
        }
    )


def protocol_digest(protocol: Protocol) -> str:
    """What identifies a protocol: everything but its prose, its budget and how its results are read."""
    return digest(protocol.model_dump(mode="json", exclude={"summary", "budget", "margins"}))


def unpinned_fields(content: Any, where: str = "") -> tuple[str, ...]:
    """The places in plain data (see `BaseModel.model_dump`) that say ``unpinned``, as dotted names."""
    if content == UNPINNED:
        return (where,)
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    return tuple(found for key, item in items for found in unpinned_fields(item, f"{where}.{key}".lstrip(".")))


def read_lock(root: Path) -> dict[str, dict[str, Any]]:
    """`recipes/lock.json`. Raises DamagedFileError where it is missing or no JSON object."""
    path = root / "lock.json"
    try:
        lock = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DamagedFileError(f"{path}: cannot be read as the recipes' lock ({error}). Restore it.") from error
    if not isinstance(lock, dict):
        raise DamagedFileError(f"{path}: must hold a JSON object. Restore it.")
    return lock


def version_of(path: Path) -> int:
    """The version a file name says. Raises SuiteError where it says none."""
    matched = re.fullmatch(r"v([1-9][0-9]*)\.toml", path.name)
    if not matched:
        raise SuiteError(f"{path}: a version file is called v1.toml, v2.toml and so on. Rename it.")
    return int(matched.group(1))


def _method_tables(recipe: Recipe) -> list[dict[str, dict[str, Any]]]:
    return [recipe.methods, *(tier.methods for tier in recipe.tiers.values())]


def _find(folder: Path, kind: str, name: str, version: int | None, known: typing.Sequence[str]) -> VersionFile:
    paths = sorted((folder / name).glob("v*.toml"), key=version_of)
    if name not in known or not paths:
        raise FieldError(folder, kind, name, f"no such {kind}", f"There are: {', '.join(known) or 'none'}.")
    if version is None:
        return VersionFile(name=name, version=version_of(paths[-1]), path=paths[-1])
    for path in paths:
        if version_of(path) == version:
            return VersionFile(name=name, version=version, path=path)
    raise FieldError(
        folder / name,
        "version",
        version,
        f"no such version of the {kind}",
        f"There are: {', '.join(str(version_of(path)) for path in paths)}.",
    )


def _parse(path: Path, model: type[Model]) -> Model:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DamagedFileError(f"{path}: not TOML: {error}. Mend that line.") from error
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise field_error(path, model, error) from error


def field_error(where: str | Path, model: type[BaseModel], error: ValidationError) -> FieldError:
    """pydantic's most telling finding as an error that names file, field, value and what is allowed."""
    findings = error.errors()
    # A misspelt key is both unknown and missing; the unknown one is what the user wrote.
    finding = next((one for one in findings if one["type"] == "extra_forbidden"), findings[0])
    location = _place(finding)
    field = ".".join(location)
    if finding["type"] == "extra_forbidden":
        allowed = _fields_at(model, location[:-1])
        return FieldError(where, field, finding["input"], "unknown key", f"Allowed: {', '.join(allowed)}.")
    if finding["type"] == "missing":
        allowed = _fields_at(model, location[:-1])
        return FieldError(where, field, None, "missing", f"Set it; this table has: {', '.join(allowed)}.")
    # Of a value that may be one of several kinds there is a finding for each.
    messages = [one["msg"] for one in findings if _place(one) == location]
    problem = ", or ".join(message[0].lower() + message[1:] for message in messages)
    return FieldError(where, field, finding["input"], problem, "Set a value that fits.")


def _place(finding: Mapping[str, Any]) -> list[str]:
    """Where pydantic found it, without its own marks of keys and of the kinds of a union."""
    parts = map(str, finding["loc"])
    return [part for part in parts if part != "[key]" and not part.startswith(("constrained-", "literal["))]


def _fields_at(model: type[BaseModel], location: list[str]) -> list[str]:
    """The keys that the table at ``location`` may have."""
    current: Any = model
    for part in location:
        if isinstance(current, type) and issubclass(current, BaseModel):
            current = current.model_fields[part].annotation
        else:
            current = typing.get_args(current)[1]
        if typing.get_origin(current) in (types.UnionType, typing.Union):
            current = next(item for item in typing.get_args(current) if item is not type(None))
    return sorted(current.model_fields) if isinstance(current, type) and issubclass(current, BaseModel) else []
