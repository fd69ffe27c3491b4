"""The command line: reads arguments, finds the places, calls the command, turns errors into exit codes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.text import Text

from selfflow_bench import __version__
from selfflow_bench.commands import (
    comparing,
    engine,
    gate,
    measurements,
    preparing,
    published,
    recipes,
    records,
    report,
    runs,
    weights,
)
from selfflow_bench.commands.parser import Command, Commands, err
from selfflow_bench.errors import EXIT_USAGE, SuiteError
from selfflow_bench.places import Places, default_places

_GROUPS = (recipes, runs, weights, comparing, records, report, gate, engine, measurements, preparing, published)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; its exit code (0 done, 2 usage, 3 infrastructure, 130 interrupted)."""
    parser = _parser()
    chosen = parser.parse_args(arguments)
    places = _places(chosen)
    if chosen.command is None:
        recipes.list_recipes(chosen, places)
        return EXIT_USAGE
    command: Command = chosen.function
    try:
        return command(chosen, places)
    except SuiteError as error:
        err.print(Text(f"error: {error}", style="red"), soft_wrap=True)
        return error.exit_code
    except KeyboardInterrupt:
        err.print("stopped")
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="selfflow-bench", description="Matched comparison of Self-Flow with plain training, recorded and ranked."
    )
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument("--recipes", type=Path, help="folder of recipes (default: the project's)")
    parser.add_argument("--results", type=Path, help="folder of records and leaderboard (default: the project's)")
    parser.add_argument("--work", type=Path, help="folder of caches and runs (default: .selfflow in the project)")
    commands = Commands(parser)
    for group in _GROUPS:
        group.add_to(commands)
    return parser


def _places(chosen: argparse.Namespace) -> Places:
    usual = default_places()
    return Places(chosen.recipes or usual.recipes, chosen.results or usual.results, chosen.work or usual.work)
