"""The commands. Reads arguments, calls the modules that do the work, prints; imports torch only to plan or run."""

from __future__ import annotations

import argparse
import json
import sys
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from selfflow_bench import __version__
from selfflow_bench.errors import EXIT_INFRASTRUCTURE, EXIT_USAGE, FieldError, SuiteError
from selfflow_bench.places import Places, default_places
from selfflow_bench.recipe import TIERS, load_protocol, load_recipe, method_labels, method_settings, recipe_names

out = Console()
err = Console(stderr=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; its exit code (0 done, 2 usage, 3 infrastructure, 130 interrupted)."""
    parser = _parser()
    chosen = parser.parse_args(arguments)
    places = _places(chosen)
    if chosen.command is None:
        _list(chosen, places)
        return EXIT_USAGE
    command: Callable[[argparse.Namespace, Places], int] = chosen.function
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
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")

    def add(name: str, function: Callable[..., int], text: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=text)
        made.set_defaults(function=function)
        made.add_argument("--json", action="store_true", help="machine-readable output")
        return made

    add("list", _list, "the recipes, and how to run one")
    add("show", _show, "a recipe and its protocol, resolved").add_argument("recipe")
    for name, function, text in (
        ("plan", _plan, "what a run would do, without doing it"),
        ("run", _run, "train and evaluate matched runs, record them, compare them, update the leaderboard"),
    ):
        made = add(name, function, text)
        made.add_argument("recipe", nargs="?", help="such as sana, or sana@1 for a version")
        made.add_argument("--tier", choices=TIERS, default="micro")
        made.add_argument("--methods", default="vanilla,self_flow", help="separated by commas; vanilla is always run")
        made.add_argument("--seeds", type=int, default=1, metavar="N", help="number of seeds, 0 to N-1 (default 1)")
        made.add_argument(
            "--set", action="append", default=[], metavar="FIELD=VALUE", help="override the protocol; never ranked"
        )
        if name == "run":
            made.add_argument(
                "--when",
                choices=("missing", "always", "never"),
                default="missing",
                help="do runs this machine has not done (default), all of them again, or none",
            )
            made.add_argument("--dry-run", action="store_true", help="the same as plan")
    add("resume", _resume, "go on with interrupted runs").add_argument("runs", nargs="*", help="default: all of them")
    add("status", _status, "this machine's runs")
    add("evaluate", _evaluate, "evaluate a finished run again and compare with what it recorded").add_argument("run")
    add("verify", _verify, "check every record: form, digests, seeds, aggregates")
    board = add("leaderboard", _leaderboard, "write the leaderboard from the records")
    board.add_argument("--check", action="store_true", help="change nothing; fail where it is not up to date")
    lock = add("lock", _lock, "write the digests of recipes, methods and protocols")
    lock.add_argument("--check", action="store_true", help="change nothing; fail where a locked digest has moved")
    cost = add("cost", _cost, "what a Self-Flow step costs at the published size, counted without running it")
    cost.add_argument("recipe", nargs="?", help="such as sana; or --all")
    cost.add_argument("--all", action="store_true", help="all recipes; writes results/cost.md")
    speed = add("speed", _speed, "the cost of a Self-Flow step against a vanilla one, in FLOPs and in time")
    speed.add_argument("recipe", nargs="?", default="sana")
    speed.add_argument("--steps", type=int, default=15, help="timed steps of each kind")
    return parser


def _places(chosen: argparse.Namespace) -> Places:
    usual = default_places()
    return Places(chosen.recipes or usual.recipes, chosen.results or usual.results, chosen.work or usual.work)


def _list(chosen: argparse.Namespace, places: Places) -> int:
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


def _made_plan(chosen: argparse.Namespace, places: Places) -> Any:
    from selfflow_bench.plan import make_plan

    overrides = {}
    for text in chosen.set:
        field, equals, value = text.partition("=")
        if not equals:
            raise FieldError("command line", "--set", text, "has no value", "Write it as training.samples=640.")
        try:
            overrides[field] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            overrides[field] = value
    labels = [label.strip() for label in chosen.methods.split(",") if label.strip()]
    return make_plan(places, chosen.recipe, tier=chosen.tier, labels=labels, seeds=chosen.seeds, overrides=overrides)


def _plan(chosen: argparse.Namespace, places: Places) -> int:
    from selfflow_bench.run import local_run

    if chosen.recipe is None:
        _list(chosen, places)
        return EXIT_USAGE
    plan = _made_plan(chosen, places)
    states = {run.key: local_run(run, places) for run in plan.runs}
    if chosen.json:
        runs = [
            {"name": r.name, "key": r.key, "state": states[r.key].state, **r.model_dump(mode="json")} for r in plan.runs
        ]
        print(json.dumps({"recipe": str(plan.recipe), "protocol": str(plan.protocol), "runs": runs}, indent=1))
        return 0
    training, evaluation = plan.runs[0].conditions.training, plan.runs[0].conditions.evaluation
    out.print(f"[bold]{plan.recipe}[/], {plan.tier}, protocol {plan.protocol}", highlight=False)
    out.print(plan.runs[0].conditions.summary, highlight=False)
    out.print(
        f"Each run: {training.samples:,} samples in batches of {training.batch}, then {evaluation.samples} samples of "
        f"{evaluation.sampler_steps} steps; at most {plan.runs[0].conditions.budget.minutes:g} minutes on "
        f"{training.threads} CPU cores.",
        highlight=False,
    )
    if plan.runs[0].overrides:
        out.print(f"Overrides, so never ranked: {plan.runs[0].overrides}", highlight=False)
    table = Table("run", "seed", "state", box=None, pad_edge=False)
    for run in plan.runs:
        table.add_row(run.name, str(run.seed), _state_text(states[run.key]))
    out.print(table)
    return 0


def _run(chosen: argparse.Namespace, places: Places) -> int:
    if chosen.recipe is None or chosen.dry_run:
        return _plan(chosen, places)
    return _do(_made_plan(chosen, places).runs, chosen, places, when=chosen.when)


def _resume(chosen: argparse.Namespace, places: Places) -> int:
    from selfflow_bench.run import local_runs

    runs = [run for run in local_runs(places) if run.state == "interrupted"]
    if chosen.runs:
        known = {name: run for run in runs for name in (run.folder.name, run.spec.name, run.spec.key)}
        for name in chosen.runs:
            if name not in known:
                text = ", ".join(run.folder.name for run in runs) or "none"
                raise FieldError("command line", "run", name, "no interrupted run of that name", f"There are: {text}.")
        runs = list({known[name].folder.name: known[name] for name in chosen.runs}.values())
    if not runs:
        out.print("Nothing is interrupted.")
        return 0
    return _do([run.spec for run in runs], chosen, places, when="missing")


def _do(specs: Sequence[Any], chosen: argparse.Namespace, places: Places, *, when: str) -> int:
    """Run what is to be run, one after the other, then say how the methods compare."""
    from selfflow_bench import progress, run
    from selfflow_bench.reporting import report

    style = progress.style_for(out, as_json=chosen.json)
    records = []
    for spec in specs:
        record = run.recorded(spec, places) if when != "always" else None
        if record is None and when != "never":
            if when == "always":
                run.forget(spec, places)
            with progress.shown(out, style, spec.name) as watch:
                record = run.execute(spec, places, watch)
            if record.failure is not None:
                folder = run.local_run(spec, places).folder
                err.print(Text(f"{spec.name} failed: {record.failure.kind}: {record.failure.message}", style="red"))
                err.print(f"The log is {folder / 'log.txt'}. To do it again: selfflow-bench run --when always ...")
        elif record is not None and style != "json":
            out.print(f"{spec.name}: done already (--when always does it again)", highlight=False)
        if record is not None:
            records.append(record)
    return report(specs, records, places, out, as_json=chosen.json)


def _status(chosen: argparse.Namespace, places: Places) -> int:
    from selfflow_bench.run import local_runs

    runs = local_runs(places)
    if chosen.json:
        rows = [{"run": r.folder.name, "state": r.state, "samples": r.samples} for r in runs]
        print(json.dumps(rows, indent=1))
        return 0
    if not runs:
        out.print("No runs on this machine yet. Run one:  selfflow-bench run sana")
        return 0
    table = Table("run", "state", box=None, pad_edge=False)
    for run in runs:
        table.add_row(run.folder.name, _state_text(run))
    out.print(table)
    if any(run.state == "interrupted" for run in runs):
        out.print("Go on with what is interrupted:  selfflow-bench resume")
    return 0


def _state_text(run: Any) -> str:
    of = run.spec.conditions.training.samples
    texts = {
        "new": "to do",
        "interrupted": f"interrupted at {run.samples:,} of {of:,} samples",
        "running": f"running, checkpoint at {run.samples:,} of {of:,} samples",
    }
    return texts.get(run.state, str(run.state))


def _evaluate(chosen: argparse.Namespace, places: Places) -> int:
    from selfflow_bench import progress
    from selfflow_bench.run import evaluate_again, local_runs

    known = {name: run for run in local_runs(places) for name in (run.folder.name, run.spec.name, run.spec.key)}
    if chosen.run not in known or known[chosen.run].state != "done":
        names = ", ".join(sorted(run.folder.name for run in known.values() if run.state == "done")) or "none"
        raise FieldError("command line", "run", chosen.run, "no finished run of that name", f"There are: {names}.")
    run = known[chosen.run]
    with progress.shown(out, progress.style_for(out, as_json=chosen.json), run.spec.name) as watch:
        again, before = evaluate_again(run, places, watch)
    same = {name: again.get(name) == value for name, value in before.items()}
    if chosen.json:
        print(json.dumps({"metrics": again, "recorded": before, "equal": all(same.values())}))
    else:
        for name, value in before.items():
            out.print(
                f"{name}: {again.get(name)} ({'as recorded' if same[name] else f'recorded: {value}'})", highlight=False
            )
    return 0 if all(same.values()) else EXIT_INFRASTRUCTURE


def _verify(chosen: argparse.Namespace, places: Places) -> int:
    from selfflow_bench.recipe import read_lock
    from selfflow_bench.results.record_files import read_all
    from selfflow_bench.results.verify import verify
    from selfflow_bench.seeds import derive_seed

    findings = verify(places.results, lock=read_lock(places.recipes), derive_seed=derive_seed)
    errors = [finding for finding in findings if finding.severity == "error"]
    if chosen.json:
        print(json.dumps([vars(finding) for finding in findings], indent=1))
    else:
        for finding in findings:
            out.print(Text(f"{finding.severity}: {finding}", style="red" if finding.severity == "error" else ""))
        out.print(f"{len(read_all(places.results).records)} records, {len(errors)} errors", highlight=False)
    return EXIT_INFRASTRUCTURE if errors else 0


def _leaderboard(chosen: argparse.Namespace, places: Places) -> int:
    from selfflow_bench.results import leaderboard_files

    if chosen.check:
        drift = leaderboard_files.check(places.results)
        for line in drift:
            print(line.rstrip("\n"))
        if drift:
            err.print("The leaderboard is not what its records say. Write it:  selfflow-bench leaderboard")
            return EXIT_INFRASTRUCTURE
        out.print("The leaderboard is up to date.")
        return 0
    board = leaderboard_files.update(places.results)
    if chosen.json:
        print(json.dumps({"tables": [table.as_dict() for table in board.tables]}, indent=1))
    else:
        out.print(f"{places.results / 'README.md'}: {len(board.tables)} tables", highlight=False)
    return 0


def _lock(chosen: argparse.Namespace, places: Places) -> int:
    from selfflow_bench.atomic_files import replace_text
    from selfflow_bench.plan import lock_entries

    text = json.dumps(lock_entries(places), indent=1, sort_keys=True) + "\n"
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


def _cost(chosen: argparse.Namespace, places: Places) -> int:
    from selfflow_bench.published import recipe_cost
    from selfflow_bench.results.cost_table import COLUMNS, cells, write

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
    return 0


def _speed(chosen: argparse.Namespace, places: Places) -> int:
    from selfflow_bench.speed import measure_speed, print_speed

    found = measure_speed(places, chosen.recipe, steps=chosen.steps)
    if chosen.json:
        print(json.dumps(found, indent=1))
    else:
        print_speed(found, out)
    return 0
