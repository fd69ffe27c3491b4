"""The command that hands out trained weights: export-weights."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from selfflow_bench.commands.parser import Commands, out
from selfflow_bench.places import Places


def add_to(commands: Commands) -> None:
    """Add export-weights."""
    made = commands.add(
        "export-weights", _export_weights, "a run's averaged weights, for diffusers' ordinary classes and pipelines"
    )
    made.add_argument("run", help="a run of this machine, as status names it")
    made.add_argument("folder", type=Path, help="where to; must not exist yet")


def _export_weights(chosen: argparse.Namespace, places: Places) -> int:
    from selfflow_bench.run import named_run
    from selfflow_bench.stages.training import export_weights

    run = named_run(chosen.run, places)
    samples = export_weights(run.spec, run.folder, chosen.folder)
    if chosen.json:
        print(json.dumps({"folder": str(chosen.folder), "samples": samples}))
        return 0
    unfinished = "" if samples >= run.spec.conditions.training.samples else ", unfinished"
    out.print(f"{chosen.folder}: the average after {samples:,} samples{unfinished}", highlight=False, soft_wrap=True)
    return 0
