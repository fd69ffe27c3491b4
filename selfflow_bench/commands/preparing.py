"""The command that makes a reference run's data ready: prepare."""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfflow_bench.commands.parser import Commands, out
from selfflow_bench.errors import FieldError, InterruptedRunError, SuiteError
from selfflow_bench.places import Places

if TYPE_CHECKING:
    from selfflow_bench.data.items import Items, SplitName
    from selfflow_bench.data.prepare_published import Wanted
    from selfflow_bench.data.published_features import FeatureShards
    from selfflow_bench.data.published_shards import LatentShards
    from selfflow_bench.data.shard_making import Done, ShardMaker
    from selfflow_bench.evaluation.features.base import FeatureNetwork
    from selfflow_bench.pipelines.fetching import Fetch
    from selfflow_bench.plan import RunSpec


def add_to(commands: Commands) -> None:
    """Add prepare."""
    made = commands.add(
        "prepare", _prepare, "encode a reference recipe's data by its own autoencoder and text encoders"
    )
    made.add_argument("recipe", help="such as sana")
    made.add_argument("--data", type=Path, help="your own: a folder of media with captions, or a .parquet file")
    made.add_argument("--media", type=Path, help="the unpacked files of a data set that keeps them in archives")
    made.add_argument("--processes", type=int, default=1, help="how many encode at once (one per GPU)")
    made.add_argument(
        "--encoder", help="also the features of an encoder that methods such as repa align to, such as dinov2-vitb14"
    )
    made.add_argument("--limit", type=int, help="only the first so many of each split")


def _prepare(chosen: argparse.Namespace, places: Places) -> int:
    # Read when the hub's library is loaded; everything else of the suite is offline.
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        os.environ.setdefault(name, "0")
    from selfflow_bench.data.published_features import FeatureShards
    from selfflow_bench.data.published_shards import LatentShards
    from selfflow_bench.pipelines import pipeline_class
    from selfflow_bench.pipelines.fetching import snapshot_or_fetched
    from selfflow_bench.plan import make_plan
    from selfflow_bench.stages.data import published_data, source_name
    from selfflow_bench.stages.real_media import looking

    _check_encoder(chosen.encoder)
    for option, value in (("--processes", chosen.processes), ("--limit", chosen.limit)):
        if value is not None and value < 1:
            raise FieldError("command line", option, value, "not a positive number", "Give 1 or more.")
    spec = make_plan(places, chosen.recipe, tier="reference", labels=[]).runs[0]
    protocol_source = spec.conditions.data.source
    # The protocol's own first: what cannot be prepared at all is said before anything is read.
    items = _items(chosen, spec, published_data(spec, protocol_source))
    source = source_name(protocol_source, items.identity, chosen.limit)
    wanted = published_data(spec, source)
    latents, tell = LatentShards(wanted, places.cache), _Teller(as_json=chosen.json)
    features = None if chosen.encoder is None else FeatureShards(wanted, chosen.encoder, places.cache)
    _say_what_it_takes(_space(places, spec, items.counts, latents, features), latents.folder)
    networks = looking(spec, places.cache)  # refused before anything is fetched and encoded
    if features is not None and not features.is_made:
        features.check()
    if not latents.is_made:
        for checkpoint in (wanted.checkpoint, *pipeline_class(wanted.family).beside):
            snapshot_or_fetched(checkpoint, tell.fetch)
    _make(latents, items, chosen, tell.done, tell)
    _look_at_validation(wanted, items, networks, latents.folder, tell)
    if features is not None:
        _make(features, items, chosen, partial(tell.encoded, features.encoder), tell)
    _say_what_came_out(chosen, spec, source, latents.folder, features)
    return 0


def _check_encoder(name: str | None) -> None:
    from selfflow_bench import encoders

    if name is not None and name not in encoders.names():
        remedy = f"There are: {', '.join(encoders.names())}."
        raise FieldError("command line", "--encoder", name, "no such encoder", remedy)


def _make(
    maker: ShardMaker, items: Items, chosen: argparse.Namespace, progress: Callable[[Done], None], tell: _Teller
) -> None:
    from selfflow_bench.data.shard_making import make_shards

    if maker.is_made:
        return
    try:
        make_shards(maker, items, processes=chosen.processes, progress=progress, say=tell.text)
    except KeyboardInterrupt:
        raise InterruptedRunError(
            f"stopped; whole shards are kept in {maker.folder}. The same command goes on from there"
        ) from None


def _look_at_validation(
    wanted: Wanted, items: Items, networks: Sequence[FeatureNetwork], folder: Path, tell: _Teller
) -> None:
    """What evaluation compares samples with, as far as it is missing."""
    from selfflow_bench.data.prepare_published import pipeline_of
    from selfflow_bench.data.published_shards import usable_media
    from selfflow_bench.stages.real_media import look_at_validation, not_looked_at

    missing = not_looked_at(networks, folder)
    if not missing:
        return
    rate = pipeline_of(wanted, encodes_text=False).sound_rate
    try:
        look_at_validation(
            missing, folder, lambda count: usable_media(wanted, items, "validation", count), rate, tell.seen
        )
    except KeyboardInterrupt:
        raise InterruptedRunError(
            f"stopped; the shards in {folder} are whole. The same command looks at the validation media again"
        ) from None


def _items(chosen: argparse.Namespace, spec: RunSpec, wanted: Wanted) -> Items:
    from selfflow_bench.data.hub_items import hub_items
    from selfflow_bench.data.own_items import own_items

    if chosen.media is not None and (chosen.data is not None or not chosen.media.is_dir()):
        problem = "is no folder" if chosen.data is None else "is for the protocol's data, and --data names others"
        raise FieldError("command line", "--media", str(chosen.media), problem, "Give the unpacked files' folder.")
    if chosen.data is not None:
        return own_items(chosen.data, wanted.kind)
    hub = spec.conditions.data.hub
    assert hub is not None
    return hub_items(f"protocol {spec.protocol}", hub, chosen.media)


@dataclass(frozen=True)
class _Need:
    """What one kind of shards takes: how many items there are to do, if that is known, and the bytes of one."""

    what: str
    items: int | None
    item_bytes: int

    @property
    def size(self) -> int:
        """Bytes of all that is known."""
        return (self.items or 0) * self.item_bytes

    def __str__(self) -> str:
        each = f"items of about {self.item_bytes / 1e6:.2g} MB"
        known = f"{self.items:,} more {each}: {self.size / 1e9:.3g} GB" if self.items is not None else None
        return f"{self.what}: {known or f'an unknown number of {each}'}"


def _space(
    places: Places,
    spec: RunSpec,
    counts: Mapping[SplitName, int | None],
    latents: LatentShards,
    features: FeatureShards | None,
) -> list[_Need]:
    """What is still to be made takes."""
    from selfflow_bench.data.content_folder import MANIFEST
    from selfflow_bench.recipe import load_recipe

    found = []
    if not latents.is_made:
        published = load_recipe(places.recipes, spec.recipe.name, spec.recipe.version)[1].published
        hub = spec.conditions.data.hub
        shape = published.latent_shape
        if hub is not None:
            shape = list(published.compression.latent_shape(published.media_of(hub), hub.fps or published.fps))
        # Embeddings are kept as encoders give them: two bytes a number on a GPU, four elsewhere. The larger is assumed.
        size = 4 * math.prod(shape) + sum(4 * math.prod(one) for one in published.conditions.values())
        found.append(_Need("latents and conditions", _to_make(latents, counts), size))
    if features is not None and not features.is_made:
        known = json.loads((latents.folder / MANIFEST).read_text("utf-8"))["items"] if latents.is_made else counts
        found.append(_Need(f"features of {features.encoder}", _to_make(features, known), features.item_bytes))
    return found


def _to_make(maker: ShardMaker, counts: Mapping[SplitName, int | None]) -> int | None:
    """How many items, if that is known."""
    bounded = [min(filter(None, (counts[split], maker.limit)), default=None) for split in maker.splits]
    known = [count for count in bounded if count is not None]
    return None if len(known) < len(bounded) else max(0, sum(known) - sum(maker.items_made().values()))


def _say_what_it_takes(needs: Sequence[_Need], folder: Path) -> None:
    """Print what a preparation needs. Raises SuiteError where the disk has not that much."""
    if not needs:
        return
    there = next(place for place in folder.parents if place.exists())
    free, size = shutil.disk_usage(there).free, sum(need.size for need in needs)
    print(f"To prepare: {'; '.join(map(str, needs))}; {free / 1e9:.3g} GB are free", file=sys.stderr)
    if size > free:
        raise SuiteError(
            f"{there}: has {free / 1e9:.3g} GB free, and {size / 1e9:.3g} GB are needed. Make room, "
            "give another place with --work, or take fewer items with --limit."
        )


def _say_what_came_out(
    chosen: argparse.Namespace, spec: RunSpec, source: str, folder: Path, features: FeatureShards | None
) -> None:
    """Print what was prepared, what was left out, and how to run it.

    Raises FieldError where the protocol says what its data are, and these are not.
    """
    from selfflow_bench.data.content_folder import MANIFEST
    from selfflow_bench.strict_model import UNPINNED

    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    data, is_protocols = spec.conditions.data, source == spec.conditions.data.source
    if is_protocols:
        for split, wanted in (("train", data.train_sha256), ("validation", data.validation_sha256)):
            found = manifest["sha256"][split]
            if wanted not in (UNPINNED, found):
                problem = f"what was prepared has {found}"
                remedy = f"Look at what was left out ({manifest['left_out'][split]}), and delete {folder}."
                raise FieldError(f"protocol {spec.protocol}", f"data.{split}_sha256", wanted, problem, remedy)
    if chosen.json:
        kept = {name: manifest[name] for name in ("items", "left_out", "sha256")}
        encoded = {} if features is None else {"features": {features.encoder: str(features.folder)}}
        print(json.dumps({"folder": str(folder), "source": source, **kept, **encoded}))
        return
    lines = [f"Prepared: {folder}"]
    for split in ("train", "validation"):
        lines.append(f"{split}: {_counted(manifest['items'][split], manifest['left_out'][split])}")
        if is_protocols and getattr(data, f"{split}_sha256") == UNPINNED:
            lines.append(f"  {split}_sha256 = {manifest['sha256'][split]} (not pinned in protocol {spec.protocol})")
    if features is not None:
        lines.append(f"train, seen by {features.encoder}: {features.folder}")
    run_line = f"Run it: selfflow-bench run {chosen.recipe} --tier reference"
    lines.append(run_line if is_protocols else f"{run_line} --set data.source={source}")
    out.print("\n".join(lines), highlight=False, soft_wrap=True)


def _counted(items: int, left_out: Mapping[str, int]) -> str:
    out_of = ", ".join(f"{count:,} {reason}" for reason, count in left_out.items())
    return f"{items:,} items" + (f"; left out: {out_of}" if out_of else "")


class _Teller:
    """Says how a preparation goes: lines for people, JSON for machines."""

    def __init__(self, *, as_json: bool) -> None:
        self._say: Callable[[str, Mapping[str, Any]], None] = self._as_json if as_json else self._as_text

    def fetch(self, fetch: Fetch) -> None:
        self._say(
            f"To fetch: {fetch.files} files of the published weights, {fetch.size / 1e9:.3g} GB",
            {"event": "fetching", "files": fetch.files, "bytes": fetch.size},
        )

    def done(self, done: Done) -> None:
        event = {"event": "prepared", "split": done.split, "items": done.items, "left_out": dict(done.left_out)}
        self._say(f"{done.split}: {_counted(done.items, done.left_out)}", event)

    def encoded(self, encoder: str, done: Done) -> None:
        event = {"event": "encoded", "encoder": encoder, "split": done.split, "items": done.items}
        self._say(f"{done.split}: {done.items:,} items seen by {encoder}", event)

    def seen(self, done: int, of: int) -> None:
        self._say(f"validation media seen by networks: {done:,} of {of:,}", {"event": "seen", "items": done, "of": of})

    def text(self, text: str) -> None:
        self._say(text, {"event": "note", "text": text})

    def _as_text(self, text: str, event: Mapping[str, Any]) -> None:
        print(text, file=sys.stderr, flush=True)

    def _as_json(self, text: str, event: Mapping[str, Any]) -> None:
        print(json.dumps(event), flush=True)
