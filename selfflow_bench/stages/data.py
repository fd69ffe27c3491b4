"""The data of a run: embedded ones, made where the cache lacks them, or the shards that `prepare` has made.

Knows nothing of families' models and of training.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from selfflow_bench.data import sources
from selfflow_bench.data.encoded import EncodedFeatures, encoded_features
from selfflow_bench.data.items import Kind
from selfflow_bench.data.media import MediaSize
from selfflow_bench.data.prepare import Prepared, prepare
from selfflow_bench.data.prepare_published import Wanted, load_published
from selfflow_bench.data.published_features import FeatureShards, load_features
from selfflow_bench.data.views import SplitName
from selfflow_bench.errors import FieldError
from selfflow_bench.events import EventLog
from selfflow_bench.plan import RunSpec
from selfflow_bench.recipe import Checkpoint
from selfflow_bench.registry import family_class

_OWN, _FIRST = "own:", "/first-"


def embedded_data(spec: RunSpec, cache: Path, events: EventLog) -> Prepared:
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


def prepared_data(spec: RunSpec, cache: Path) -> Prepared:
    """The shards that `prepare` has made for a run."""
    return load_published(published_data(spec, spec.conditions.data.source), cache, f"Make them: {prepare_line(spec)}")


def embedded_features(spec: RunSpec, encoder: str, cache: Path, events: EventLog) -> EncodedFeatures:
    """An encoder's features of a run's embedded training media, made where the cache lacks them."""
    return encoded_features(
        encoder,
        spec.conditions.data.source,
        "train",
        cache,
        progress=lambda text: events.write("preparing", text=text),
    )


def prepared_features(spec: RunSpec, encoder: str, cache: Path, events: EventLog) -> EncodedFeatures:
    """An encoder's features of a run's training media, as `prepare` has made them. Raises DamagedFileError."""
    return load_features(published_features(spec, encoder, cache), f"Make them: {prepare_line(spec, encoder)}")


def published_features(spec: RunSpec, encoder: str, cache: Path) -> FeatureShards:
    """An encoder's features that a run needs. Raises FieldError as `published_data` does."""
    return FeatureShards(published_data(spec, spec.conditions.data.source), encoder, cache)


def prepare_line(spec: RunSpec, encoder: str | None = None) -> str:
    """The command that makes a run's data ready, with an encoder's features of them."""
    name, _, limit = spec.conditions.data.source.partition(_FIRST)
    line = f"selfflow-bench prepare {spec.recipe.name}"
    if name.startswith(_OWN):
        line += " --data FOLDER"
    if limit:
        line += f" --limit {limit}"
    return line if encoder is None else f"{line} --encoder {encoder}"


def published_data(spec: RunSpec, source: str) -> Wanted:
    """What is prepared for a run from a source, as `source_name` calls it.

    Raises FieldError for what cannot be prepared.
    """
    hub, modality = spec.conditions.data.hub, spec.conditions.modality
    checkpoint = spec.checkpoint or _autoencoder(spec)
    if checkpoint is None or hub is None:
        raise FieldError(
            f"recipe {spec.recipe}",
            "codec",
            dict(spec.codec),
            "data are prepared with published weights only, and from a protocol's sizes",
            "Use the reference tier.",
        )
    family = family_class(spec.family)
    name, _, limit = source.partition(_FIRST)
    own = name.removeprefix(_OWN) if name.startswith(_OWN) else None
    return Wanted(
        spec.family,
        checkpoint,
        Kind(modality, hub.label is not None, hub.reference is not None),
        MediaSize(
            None if hub.resolution is None else (hub.resolution[0], hub.resolution[1]),
            hub.frames,
            hub.fps,
            hub.seconds,
        ),
        spec.conditions.data.text_length,
        hub.model_dump(mode="json") if own is None else {"own": own},
        int(limit) if limit else None,
        family.needs,
        family.modality == "video",
    )


def validation_statistics(prepared: Path, network: str) -> Path:
    """Where a folder of prepared data keeps what a feature network sees in its validation media."""
    return prepared / f"validation-{network}.npz"


def _autoencoder(spec: RunSpec) -> Checkpoint | None:
    """The codec's own published weights, where a recipe trains afresh in the latents of some."""
    if "id" not in spec.codec:
        return None
    return Checkpoint.model_validate({name: value for name, value in spec.codec.items() if name != "name"})


def source_name(protocol: str, identity: Mapping[str, Any], limit: int | None) -> str:
    """How a run calls its data: as the protocol does, or another name where they are others, or fewer."""
    name = f"{_OWN}{identity['own']}" if "own" in identity else protocol
    return name if limit is None else f"{name}{_FIRST}{limit}"
