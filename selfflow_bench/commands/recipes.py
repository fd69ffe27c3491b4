"""Commands that say what there is: list, show; lock, which holds its digests; pin, which asks the hub for commits."""

from __future__ import annotations

import argparse
import json
from typing import Any

from selfflow_bench.commands.parser import Commands, err, out
from selfflow_bench.errors import EXIT_INFRASTRUCTURE, FieldError
from selfflow_bench.places import Places
from selfflow_bench.recipe import load_protocol, load_recipe, method_labels, method_settings, recipe_names


def add_to(commands: Commands) -> None:
    """Add list, show, lock and pin."""
    commands.add("list", list_recipes, "the recipes, and how to run one")
    commands.add("show", _show, "a recipe and its protocol, resolved").add_argument("recipe")
    lock = commands.add("lock", _lock, "write the digests of recipes, methods and protocols")
    lock.add_argument("--check", action="store_true", help="change nothing; fail where a locked digest has moved")
    pin = commands.add("pin", _pin, "ask the hub for the commits of unpinned weights and data, and write them down")
    pin.add_argument("names", nargs="*", metavar="RECIPE", help="such as sana")
    pin.add_argument("--all", action="store_true", help="all recipes")


def list_recipes(chosen: argparse.Namespace, places: Places) -> int:
    """Print the recipes."""
    rows = []
    for name in recipe_names(places.recipes):
        where, recipe = load_recipe(places.recipes, name)
        _, protocol = load_protocol(places.recipes, next(iter(recipe.tiers.values())).protocol)
        rows.append(
            {
                "recipe": str(where),
                "modality": protocol.modality,
                "tiers": list(recipe.tiers),
                "methods": list(method_labels(recipe)),
                "summary": recipe.summary,
            }
        )
    if getattr(chosen, "json", False):
        print(json.dumps(rows, indent=1))
        return 0
    for row in rows:
        out.print(f"[bold]{row['recipe']}[/]  {row['modality']}: {row['summary']}", highlight=False)
        out.print(f"    tiers {', '.join(row['tiers'])}; methods {', '.join(row['methods'])}", highlight=False)
    out.print("\nRun one:  nox -s bench -- sana     (or: selfflow-bench run sana)", highlight=False)
    out.print("See what it would do:  selfflow-bench plan sana", highlight=False)
    return 0


def _show(chosen: argparse.Namespace, places: Places) -> int:
    base, _, version = chosen.recipe.partition("@")
    where, recipe = load_recipe(places.recipes, base, int(version) if version.isdecimal() else None)
    content: dict[str, Any] = {"recipe": str(where), "family": recipe.family, "summary": recipe.summary, "tiers": {}}
    for tier, body in recipe.tiers.items():
        protocol = load_protocol(places.recipes, body.protocol)[1]
        content["tiers"][tier] = {
            **body.model_dump(mode="json", exclude={"methods"}),
            "methods": {label: method_settings(where.path, recipe, tier, label) for label in method_labels(recipe)},
            "protocol": {"name": body.protocol, **protocol.model_dump(mode="json")},
        }
    if chosen.json:
        print(json.dumps(content, indent=1))
    else:
        out.print_json(data=content)
    return 0


def _pin(chosen: argparse.Namespace, places: Places) -> int:
    # The hub's client before anything that switches it off for this process.
    import huggingface_hub  # noqa: F401

    from selfflow_bench.pinning import pin

    if chosen.all == bool(chosen.names):
        raise FieldError("pin", "recipe", chosen.names, "name recipes, or --all", "For example: pin sana.")
    wanted = recipe_names(places.recipes) if chosen.all else chosen.names
    found = pin(places, wanted, _lock_text)
    rows = [
        {"file": str(one.file), "table": ".".join(one.table), "id": one.id, "revision": found[one]} for one in found
    ]
    if chosen.json:
        print(json.dumps(rows, indent=1))
        return 0
    for row in rows:
        out.print(f"{row['id']}: {row['revision']}, in {row['file']}", highlight=False, soft_wrap=True)
    if not rows:
        out.print("Every commit is pinned already.")
    return 0


def _lock_text(places: Places) -> str:
    from selfflow_bench.plan import lock_entries

    return json.dumps(lock_entries(places), indent=1, sort_keys=True) + "\n"


def _lock(chosen: argparse.Namespace, places: Places) -> int:
    from selfflow_bench.atomic_files import replace_text

    text = _lock_text(places)
    path = places.recipes / "lock.json"
    if not chosen.check:
        replace_text(path, text)
        return 0
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        err.print(
            f"{path}: a locked digest has moved. A change of meaning is a new version file (v2.toml); "
            "only then: selfflow-bench lock",
            soft_wrap=True,
        )
        return EXIT_INFRASTRUCTURE
    return 0
