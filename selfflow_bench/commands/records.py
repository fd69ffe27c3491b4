"""Commands over the records: verify, leaderboard, invalidate. They need no torch, but for `verify --deep`."""

from __future__ import annotations

import argparse
import json

from rich.text import Text

from selfflow_bench.commands.parser import Commands, err, out
from selfflow_bench.errors import EXIT_INFRASTRUCTURE
from selfflow_bench.places import Places


def add_to(commands: Commands) -> None:
    """Add verify, leaderboard and invalidate."""
    made = commands.add("verify", _verify, "check every record: form, index, digests, seeds, aggregates")
    made.add_argument(
        "--deep", action="store_true", help="derive digests, seeds and aggregates again from recipe files and curves"
    )
    board = commands.add("leaderboard", _leaderboard, "write the leaderboard from the records")
    board.add_argument("--check", action="store_true", help="change nothing; fail where it is not up to date")
    wrong = commands.add("invalidate", _invalidate, "take a wrong record out of every comparison; it stays where it is")
    wrong.add_argument("run", help="the record's run id")
    wrong.add_argument("--reason", required=True, help="what is wrong with it")
    wrong.add_argument("--evidence", required=True, help="what shows it: a log, a commit, another record")


def _verify(chosen: argparse.Namespace, places: Places) -> int:
    from selfflow_bench.recipe import read_lock
    from selfflow_bench.results.record_files import read_all
    from selfflow_bench.results.verify import verify
    from selfflow_bench.seeds import derive_seed

    findings = verify(places.results, lock=read_lock(places.recipes), derive_seed=derive_seed)
    if chosen.deep:
        from selfflow_bench.results.verify_deep import verify_deep

        findings = sorted((*findings, *verify_deep(places)), key=lambda finding: (finding.severity, finding.path))
    errors = [finding for finding in findings if finding.severity == "error"]
    if chosen.json:
        print(json.dumps([vars(finding) for finding in findings], indent=1))
    else:
        for finding in findings:
            out.print(
                Text(f"{finding.severity}: {finding}", style="red" if finding.severity == "error" else ""),
                soft_wrap=True,
            )
        out.print(f"{len(read_all(places.results).records)} records, {len(errors)} errors", highlight=False)
    return EXIT_INFRASTRUCTURE if errors else 0


def _leaderboard(chosen: argparse.Namespace, places: Places) -> int:
    from selfflow_bench.recipe import read_lock
    from selfflow_bench.results import leaderboard_files

    margins = read_lock(places.recipes)["margins"]
    if chosen.check:
        drift = leaderboard_files.check(places.results, margins)
        for line in drift:
            print(line.rstrip("\n"))
        if drift:
            err.print("The leaderboard is not what its records say. Write it:  selfflow-bench leaderboard")
            return EXIT_INFRASTRUCTURE
        out.print("The leaderboard is up to date.")
        return 0
    board = leaderboard_files.update(places.results, margins)
    if chosen.json:
        print(json.dumps({"tables": [table.as_dict() for table in board.tables]}, indent=1))
    else:
        out.print(f"{places.results / 'README.md'}: {len(board.tables)} tables", highlight=False)
    return 0


def _invalidate(chosen: argparse.Namespace, places: Places) -> int:
    from selfflow_bench.recipe import read_lock
    from selfflow_bench.results import leaderboard_files
    from selfflow_bench.results.record_files import invalidate

    invalidate(chosen.run, chosen.reason, chosen.evidence, places.results)
    leaderboard_files.update(places.results, read_lock(places.recipes)["margins"])
    if chosen.json:
        print(json.dumps({"invalidated": chosen.run, "reason": chosen.reason, "evidence": chosen.evidence}))
    else:
        out.print(f"{chosen.run} no longer counts; the record and the reason stay on the board.", highlight=False)
    return 0
