"""Commands that measure the suite itself: cost, speed, profile."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from selfflow_bench.commands.parser import Commands, out
from selfflow_bench.errors import FieldError
from selfflow_bench.places import Places
from selfflow_bench.recipe import TIERS, recipe_names


def add_to(commands: Commands) -> None:
    """Add cost, speed and profile."""
    cost = commands.add("cost", _cost, "what a Self-Flow step costs at the published size, counted without running it")
    cost.add_argument("recipe", nargs="?", help="such as sana; or --all")
    cost.add_argument("--all", action="store_true", help="all recipes; writes results/cost.md")
    cost.add_argument("--write", action="store_true", help="put the one recipe's line into results/cost.md")
    speed = commands.add(
        "speed", _speed, "the cost of a Self-Flow step against a vanilla one, in FLOPs, memory and time"
    )
    speed.add_argument("recipe", nargs="?", help="such as sana; default: one of each modulation, into results/speed.md")
    speed.add_argument("--steps", type=int, default=15, help="timed steps of each kind")
    speed.add_argument("--threads", type=int, default=2, help="CPU threads")
    profile = commands.add("profile", _profile, "where a training step's time and memory go, on this machine")
    profile.add_argument("recipe", help="such as sana")
    profile.add_argument("--tier", choices=TIERS, default="micro")
    profile.add_argument("--method", default="self_flow", help="method or variant (default self_flow)")
    profile.add_argument("--steps", type=int, default=10, help="timed steps")
    profile.add_argument("--trace", type=Path, help="write two steps as a trace: open it in ui.perfetto.dev")


def _cost(chosen: argparse.Namespace, places: Places) -> int:
    from selfflow_bench.published import recipe_cost
    from selfflow_bench.results.cost_table import COLUMNS, cells, write, write_one

    if chosen.all == bool(chosen.recipe):
        raise FieldError("cost", "recipe", chosen.recipe, "name one recipe, or --all", "For example: cost sana.")
    wanted = recipe_names(places.recipes) if chosen.all else [chosen.recipe]
    rows = []
    for name in wanted:
        rows.append(recipe_cost(places, name))
        if not chosen.json:
            values = dict(zip((title for _, title in COLUMNS), cells(rows[-1]), strict=True))
            out.print(", ".join(f"{title} {value}" for title, value in values.items()), highlight=False)
    if chosen.json:
        print(json.dumps(rows, indent=1))
    if chosen.all:
        print(f"Written: {write(places.results, rows)}", file=sys.stderr)
    elif chosen.write:
        print(f"Written: {write_one(places.results, rows[0])}", file=sys.stderr)
    return 0


def _speed(chosen: argparse.Namespace, places: Places) -> int:
    from selfflow_bench.middle_size import MIDDLE_SIZES
    from selfflow_bench.results.speed_table import write
    from selfflow_bench.speed import measure_speed, print_speed

    found = []
    for name in [chosen.recipe] if chosen.recipe else MIDDLE_SIZES:
        found.append(measure_speed(places, name, steps=chosen.steps, threads=chosen.threads))
        if not chosen.json:
            print_speed(found[-1], out)
    if chosen.json:
        print(json.dumps(found, indent=1))
    if not chosen.recipe:
        print(f"Written: {write(places.results, found)}", file=sys.stderr)
    return 0


def _profile(chosen: argparse.Namespace, places: Places) -> int:
    from selfflow_bench.step_profile import advice, print_profile, profile_recipe

    if chosen.steps < 1:
        raise FieldError("command line", "--steps", chosen.steps, "not a positive number", "Give 1 or more.")
    spec, found = profile_recipe(
        places, chosen.recipe, chosen.tier, chosen.method, steps=chosen.steps, trace=chosen.trace
    )
    said = advice(found, spec.conditions.training)
    if chosen.json:
        print(json.dumps({"run": spec.name, **asdict(found), "of_peak": found.of_peak, "try": said}, indent=1))
        return 0
    batch = spec.conditions.training.batch
    print_profile(found, f"{spec.name}, batch {batch}: medians of {chosen.steps} steps", said, out)
    if chosen.trace is not None:
        print(f"Written: {chosen.trace}", file=sys.stderr)
    return 0
