"""The commands that show the results to others: report, export. They need no torch."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from selfflow_bench.commands.parser import Commands, err, out
from selfflow_bench.errors import EXIT_INFRASTRUCTURE, FieldError
from selfflow_bench.places import Places
from selfflow_bench.recipe import load_protocol, load_recipe, read_lock, recipe_names
from selfflow_bench.results.report.overview import RecipeFacts


def add_to(commands: Commands) -> None:
    """Add report and export."""
    report = commands.add("report", _report, "write the report, one page of HTML, from the records")
    report.add_argument("--output", type=Path, metavar="FILE", help="default: results/report.html")
    report.add_argument("--check", action="store_true", help="change nothing; fail where it is not up to date")
    export = commands.add("export", _export, "a record as metadata of the Hugging Face Hub, on standard output")
    export.add_argument("run", help="a run id, the name of its record without .json")
    export.add_argument("--format", choices=("eval-results", "model-index"), default="model-index")
    export.add_argument("--dataset", metavar="OWNER/NAME", help="the benchmark's data set on the Hub")
    export.add_argument("--source-url", metavar="URL", help="where the record can be read")


def _report(chosen: argparse.Namespace, places: Places) -> int:
    from selfflow_bench.results.report import files

    path = chosen.output or places.results / files.FILE
    recipes = files.Recipes(places.recipes, tuple(_facts(places)), read_lock(places.recipes)["margins"])
    if chosen.check:
        drift = files.check(places.results, recipes, path)
        for line in drift:
            print(line)
        if drift:
            err.print("The report is not what its records say. Write it:  selfflow-bench report")
            return EXIT_INFRASTRUCTURE
        out.print("The report is up to date.")
        return 0
    files.write(places.results, recipes, path)
    size = path.stat().st_size
    if chosen.json:
        print(json.dumps({"report": str(path), "bytes": size}))
    else:
        out.print(f"{path}: {size / 1e6:.1f} MB", highlight=False, soft_wrap=True)
    return 0


def _export(chosen: argparse.Namespace, places: Places) -> int:
    from selfflow_bench.results.export import Published, eval_results, model_index
    from selfflow_bench.results.record_files import read_all

    reading = read_all(places.results)
    record = next((one for one in reading.records if one.run_id == chosen.run), None)
    if record is None:
        line = reading.invalidated.get(chosen.run)
        problem = "no such record" if line is None else f"the record is invalidated: {line.reason}"
        raise FieldError(places.results, "run", chosen.run, problem, "Give the run id of a sound record.")
    published = Published(chosen.dataset, chosen.source_url)
    if chosen.format == "eval-results":
        text = eval_results(record, published)
    else:
        _, protocol = load_protocol(places.recipes, f"{record.protocol.name}@{record.protocol.version}")
        text = model_index(record, protocol.modality, published)
    print(json.dumps({"format": chosen.format, "text": text}) if chosen.json else text.rstrip("\n"))
    return 0


def _facts(places: Places) -> list[RecipeFacts]:
    found = []
    for name in recipe_names(places.recipes):
        where, recipe = load_recipe(places.recipes, name)
        _, protocol = load_protocol(places.recipes, next(iter(recipe.tiers.values())).protocol)
        path = where.path.relative_to(places.recipes).as_posix()
        tiers = tuple(recipe.tiers)
        found.append(RecipeFacts(name, str(where), protocol.modality, recipe.summary, path, tiers))
    return found
