"""What every group of commands shares: the terminal, and how a command is added. Knows no command."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from rich.console import Console

from selfflow_bench.places import Places

Command = Callable[[argparse.Namespace, Places], int]
"""Does a command; its exit code."""

out = Console()
err = Console(stderr=True)


class Commands:
    """The commands of a parser, each with ``--json``."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self._subparsers: Any = parser.add_subparsers(dest="command", metavar="COMMAND")

    def add(self, name: str, function: Command, text: str) -> argparse.ArgumentParser:
        """A command, to which the caller adds its arguments. ``text`` is its help."""
        made: argparse.ArgumentParser = self._subparsers.add_parser(name, help=text, description=text)
        made.set_defaults(function=function)
        made.add_argument("--json", action="store_true", help="machine-readable output")
        return made
