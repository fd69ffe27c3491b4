"""The command that sets records against each other: compare. It needs no torch."""

from __future__ import annotations

import argparse
import json

from selfflow_bench.commands.parser import Commands, out
from selfflow_bench.places import Places


def add_to(commands: Commands) -> None:
    """Add compare."""
    made = commands.add(
        "compare",
        _compare,
        "B against A: run ids or record files, methods (sana:vanilla sana:self_flow), versions (sana@1 sana@2), or two "
        "checkouts",
    )
    made.add_argument("first", metavar="A", help="the baseline")
    made.add_argument("second", metavar="B", help="what is compared with it")
    made.add_argument("--tier", default="micro", help="of methods, versions and checkouts (default micro)")
    made.add_argument("--markdown", action="store_true", help="as Markdown")


def _compare(chosen: argparse.Namespace, places: Places) -> int:
    from selfflow_bench.recipe import read_lock
    from selfflow_bench.results.choosing import matchups
    from selfflow_bench.results.comparison import compare_sides
    from selfflow_bench.results.leaderboard_markdown import comparison_markdown
    from selfflow_bench.results.summary import print_summary

    margins = read_lock(places.recipes)["margins"]
    found = [
        compare_sides(one.first, one.second, may_differ=one.may_differ, margins=margins)
        for one in matchups(chosen.first, chosen.second, places.results, chosen.tier)
    ]
    if chosen.json:
        print(json.dumps({"comparisons": [comparison.as_dict() for comparison in found]}, indent=1))
    elif chosen.markdown:
        print("\n".join(comparison_markdown(comparison) for comparison in found), end="")
    else:
        for comparison in found:
            print_summary(comparison, out)
    return 0
