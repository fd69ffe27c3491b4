"""The regression gate's command: check. torch is imported only when it runs."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from selfflow_bench.commands.parser import Commands, out
from selfflow_bench.errors import EXIT_REGRESSION, FieldError
from selfflow_bench.places import Places

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from selfflow_bench.gate.outcome import Outcome, Verdict

FOLDER = "ci"
_STYLES = {"pass": "green", "regression": "bold red"}


def add_to(commands: Commands) -> None:
    """Add check."""
    made = commands.add(
        "check",
        _check,
        "does the code train as it did? 0 pass, 6 regression, 4 inconclusive, 3 infrastructure, 5 nothing measured",
    )
    made.add_argument("wanted", nargs="*", metavar="RECIPE", help="default: those of ci/gate.toml")
    made.add_argument("--bands", action="store_true", help="also whole smoke runs against the reference's spread")
    made.add_argument("--exact", action="store_true", help="golden curves to the bit or not at all")
    made.add_argument("--renew", action="store_true", help="write the golden curves, or with --bands the references")
    made.add_argument("--self-test", action="store_true", help="put known faults in and count what is caught")
    made.add_argument("--groups", type=int, default=4, help="of the self-test: candidates for each band (default 4)")
    made.add_argument("--gate", type=Path, help="folder of gate.toml, golden and reference (default: ci)")


def _check(chosen: argparse.Namespace, places: Places) -> int:
    from selfflow_bench.gate.check import Gate
    from selfflow_bench.gate.outcome import EXIT_CODES, overall
    from selfflow_bench.gate.settings import read_settings

    folder = chosen.gate or places.recipes.parent / FOLDER
    settings = read_settings(folder)
    for recipe in chosen.wanted:
        if recipe not in settings.recipes:
            raise FieldError("check", "RECIPE", recipe, "not in gate.toml", f"It has: {', '.join(settings.recipes)}.")
    recipes = chosen.wanted or settings.recipes
    gate = Gate(places, folder, settings)
    if chosen.self_test:
        return _self_test(gate, recipes, chosen)
    if chosen.renew:
        for path in gate.renew(recipes, bands=chosen.bands):
            out.print(f"written: {path}", highlight=False, soft_wrap=True)
        return 0
    say = (lambda _: None) if chosen.json else _say
    outcomes = gate.run(recipes, bands=chosen.bands, exact=chosen.exact, say=say)
    verdict = overall(outcomes)
    if chosen.json:
        content = [asdict(outcome) for outcome in outcomes]
        print(json.dumps({"verdict": verdict, "exit_code": EXIT_CODES[verdict], "outcomes": content}, indent=1))
    else:
        out.print(Text(f"The gate: {verdict}", style=_STYLES.get(verdict, "yellow")))
    return EXIT_CODES[verdict]


def _say(outcome: Outcome) -> None:
    style = _STYLES.get(outcome.verdict, "yellow")
    out.print(Text.assemble((outcome.verdict, style), f"  {outcome.subject}: {outcome.text}"), soft_wrap=True)


def _self_test(gate: object, recipes: Sequence[str], chosen: argparse.Namespace) -> int:
    from selfflow_bench.gate.check import Gate
    from selfflow_bench.gate.self_test import UNCHANGED, caught, self_test

    assert isinstance(gate, Gate)
    counted = self_test(gate, recipes, chosen.groups)
    good = caught(counted)
    if chosen.json:
        print(json.dumps({"caught": good, "counted": [asdict(one) for one in counted]}, indent=1))
        return 0 if good else EXIT_REGRESSION
    table = Table("put in", "golden, to the bit", "golden, tolerance", "bands", box=None, pad_edge=False)
    for one in counted:
        wanted: Verdict = "pass" if one.name == UNCHANGED else "regression"
        table.add_row(one.name, *(_shares(found, wanted) for found in (one.exact, one.tolerant, one.bands)))
    out.print(table)
    out.print("As it should be." if good else "Golden curves missed a fault, or found one in unchanged code.")
    return 0 if good else EXIT_REGRESSION


def _shares(found: Mapping[Verdict, int], wanted: Verdict) -> str:
    """ "6 of 6 regression", and what else there was."""
    total = sum(found.values())
    if not total:
        return "not run"
    others = [f"{count} {verdict}" for verdict, count in found.items() if verdict != wanted]
    return f"{found.get(wanted, 0)} of {total} {wanted}" + (f" ({', '.join(others)})" if others else "")
