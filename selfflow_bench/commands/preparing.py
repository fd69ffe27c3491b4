"""The command that makes a reference run's data ready: prepare."""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from selfflow_bench.commands.parser import Commands, out
from selfflow_bench.errors import FieldError, InterruptedRunError, SuiteError
from selfflow_bench.places import Places


def add_to(commands: Commands) -> None:
    """Add prepare."""
    made = commands.add(
        "prepare", _prepare, "encode a reference recipe's data by its own autoencoder and text encoders"
    )
    made.add_argument("recipe", help="such as sana")
    made.add_argument("--data", type=Path, help="a folder of pictures with .txt captions, or a .parquet file of yours")
    made.add_argument("--processes", type=int, default=1, help="how many encode at once (one per GPU)")
    made.add_argument("--limit", type=int, help="only the first so many of each split")


def _prepare(chosen: argparse.Namespace, places: Places) -> int:
    if chosen.data is None:
        # Read when the hub's library is loaded; everything else of the suite is offline.
        os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "0"
    from selfflow_bench.data.items import hub_items, own_items
    from selfflow_bench.data.prepare_published import SHARD, is_prepared, prepare_published
    from selfflow_bench.pipelines.snapshot import local_snapshot
    from selfflow_bench.plan import make_plan
    from selfflow_bench.stages.data import published_data, source_name

    for option, value in (("--processes", chosen.processes), ("--limit", chosen.limit)):
        if value is not None and value < 1:
            raise FieldError("command line", option, value, "not a positive number", "Give 1 or more.")
    spec = make_plan(places, chosen.recipe, tier="reference", labels=[]).runs[0]
    hub = spec.conditions.data.hub
    if chosen.data is not None:
        items = own_items(chosen.data)
    elif hub is not None:
        items = hub_items(f"protocol {spec.protocol}", hub)
    else:
        raise FieldError(f"protocol {spec.protocol}", "data.hub", None, "names no data set", "Give --data.")
    source = source_name(spec.conditions.data.source, items.identity, chosen.limit)
    wanted = published_data(spec, source)
    run_line = f"Run it: selfflow-bench run {chosen.recipe} --tier reference"
    if source != spec.conditions.data.source:
        run_line += f" --set data.source={source}"
    folder = wanted.folder(places.cache)
    if not is_prepared(wanted, places.cache):
        local_snapshot(wanted.checkpoint)  # refused before anything is read
        count, size = _space(places, spec, items.counts, chosen.limit)
        if count is not None:
            count = max(0, count - SHARD * len(list(folder.glob("*-*.safetensors"))))
        _say_what_it_takes(count, size, folder)
        tell = _tell(as_json=chosen.json)
        try:
            prepare_published(wanted, items, places.cache, processes=chosen.processes, progress=tell)
        except KeyboardInterrupt:
            raise InterruptedRunError(
                f"stopped; whole shards are kept in {folder}. The same command goes on from there"
            ) from None
    if chosen.json:
        print(json.dumps({"folder": str(folder), "source": source}))
    else:
        out.print(f"Prepared: {folder}\n{run_line}", highlight=False, soft_wrap=True)
    return 0


def _space(places: Places, spec: Any, counts: Any, limit: int | None) -> tuple[int | None, int]:
    """How many items there are to do, if that is known, and the bytes of one."""
    from selfflow_bench.recipe import load_recipe

    published = load_recipe(places.recipes, spec.recipe.name, spec.recipe.version)[1].published
    hub = spec.conditions.data.hub
    shape = published.latent_shape
    if hub is not None:
        shape = list(published.compression.latent_shape(published.media_of(hub), hub.fps or published.fps))
    # Embeddings are kept as encoders give them: two bytes a number on a GPU, four elsewhere. The larger is assumed.
    size = 4 * math.prod(shape) + sum(4 * math.prod(one) for one in published.conditions.values())
    known = list(counts.values())
    if any(count is None and limit is None for count in known):
        return None, size
    return sum(count if limit is None else min(limit, count or limit) for count in known), size


def _say_what_it_takes(count: int | None, size: int, folder: Path) -> None:
    """Print what a preparation needs. Raises SuiteError where the disk has not that much."""
    there = next(place for place in folder.parents if place.exists())
    free = shutil.disk_usage(there).free
    if count is None:
        said = f"an unknown number of items of about {size / 1e6:.2g} MB"
    else:
        said = f"{count:,} more items of about {size / 1e6:.2g} MB: {count * size / 1e9:.3g} GB"
    print(f"To prepare: {said}; {free / 1e9:.3g} GB are free", file=sys.stderr)
    if count is not None and count * size > free:
        raise SuiteError(
            f"{there}: has {free / 1e9:.3g} GB free, and {count * size / 1e9:.3g} GB are needed. Make room, "
            "give another place with --work, or take fewer items with --limit."
        )


def _tell(*, as_json: bool) -> Any:
    def tell(split: str, done: int) -> None:
        if as_json:
            print(json.dumps({"event": "prepared", "split": split, "items": done}), flush=True)
        else:
            print(f"{split}: {done:,} items", file=sys.stderr, flush=True)

    return tell
