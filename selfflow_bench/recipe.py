"""Recipes, and the files of recipes and protocols: strict TOML, their versions, and the lock that holds their digests.

A recipe holds what is particular to a model family; `protocol` has what must be equal for results to be comparable. A
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

from pydantic import BaseModel, Field, ValidationError, model_validator

from selfflow_bench.by_name import names
from selfflow_bench.canonical import digest
from selfflow_bench.errors import DamagedFileError, FieldError, SuiteError
from selfflow_bench.protocol import HubData, Protocol, check_protocol
from selfflow_bench.strict_model import HubId, PositiveFloat, PositiveInt, Revision, StrictModel

Tier = Literal["smoke", "micro", "reference"]
TIERS: tuple[Tier, ...] = typing.get_args(Tier)


class Checkpoint(StrictModel):
    """Published weights: a hub repository in diffusers' folder format, and the commit of it, or ``unpinned``."""

    id: HubId
    revision: Revision


class Lora(StrictModel):
    """Low-rank adapters (arXiv 2106.09685): ``targets`` are the ends of the names of the layers that get one."""

    rank: PositiveInt
    alpha: PositiveFloat
    targets: Annotated[list[str], Field(min_length=1)]


class RecipeTier(StrictModel):
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


class Compression(StrictModel):
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


class Published(StrictModel):
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


class Recipe(StrictModel):
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


class VersionFile(StrictModel):
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
