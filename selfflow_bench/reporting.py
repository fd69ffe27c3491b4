"""What a user sees and keeps after runs: the comparison, sample sheets, curves, the leaderboard."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from selfflow_bench.errors import EXIT_INFRASTRUCTURE, EXIT_NOTHING_MEASURED
from selfflow_bench.places import Places
from selfflow_bench.plan import RunSpec
from selfflow_bench.recipe import read_lock
from selfflow_bench.results import leaderboard_files, plots
from selfflow_bench.results.comparison import compare
from selfflow_bench.results.media import FIGURES, write_media
from selfflow_bench.results.record import Record
from selfflow_bench.results.record_files import RECORDS, record_path
from selfflow_bench.results.summary import print_summary
from selfflow_bench.run import local_run

SHEET_SAMPLES = 24


def report(
    specs: Sequence[RunSpec], records: Sequence[Record], places: Places, console: Console, *, as_json: bool
) -> int:
    """Print the comparison of these records, draw them, update the leaderboard; the exit code.

    0 where every run has succeeded, 3 where one failed, 5 where there is nothing to compare.
    """
    if not records:
        console.print(f"No records of these runs under {places.results / RECORDS}; --when missing does them.")
        return EXIT_NOTHING_MEASURED
    figures = [path for spec in specs if spec.seed_index == 0 for path in _sheets(spec, places)]
    groups: dict[tuple[str, str, str], list[Record]] = {}
    for record in records:
        groups.setdefault((record.recipe.digest, record.protocol.digest, record.tier), []).append(record)
    margins = read_lock(places.recipes)["margins"]
    comparisons = []
    for group in groups.values():
        curves = places.results / FIGURES / f"{group[0].recipe.name}-{group[0].tier}" / "curves.png"
        plots.curves(group, curves)
        figures.append(curves)
        comparisons.append(compare(group, margins))
    leaderboard_files.update(places.results, margins)
    written = [record_path(record, places.results) for record in records]
    if as_json:
        content = {
            "comparisons": [comparison.as_dict() for comparison in comparisons],
            "records": [str(path) for path in written],
            "figures": [str(path) for path in figures],
        }
        print(json.dumps({"event": "comparison", **content}))
    else:
        for comparison in comparisons:
            print_summary(comparison, console)
        console.print("\nRecords", highlight=False)
        for path in written:
            console.print(f"  {path}", highlight=False, soft_wrap=True)
        console.print("Samples and curves", highlight=False)
        for path in figures:
            console.print(f"  {path}", highlight=False, soft_wrap=True)
        console.print(f"Leaderboard\n  {places.results / 'README.md'}", highlight=False, soft_wrap=True)
    return EXIT_INFRASTRUCTURE if any(record.failure for record in records) else 0


def _sheets(spec: RunSpec, places: Places) -> list[Path]:
    """Sample sheets of one arm, from what its run kept for looking at."""
    kept = local_run(spec, places).samples_file
    if not kept.exists():
        return []
    with np.load(kept) as samples:
        media, captions = samples["media"][:SHEET_SAMPLES], [str(text) for text in samples["captions"][:SHEET_SAMPLES]]
    folder = places.results / FIGURES / f"{spec.recipe.name}-{spec.tier}"
    title = f"{spec.recipe.name} {spec.tier}, {spec.label}, seed {spec.seed_index}"
    return list(write_media(media, captions, folder, spec.label, title))
