"""Commands that run things: plan, run, resume, status, evaluate. torch is imported only to plan or run."""

from __future__ import annotations

import argparse
import json
import tomllib
from collections.abc import Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from selfflow_bench.commands.parser import Commands, err, out
from selfflow_bench.commands.recipes import list_recipes
from selfflow_bench.errors import EXIT_INFRASTRUCTURE, EXIT_USAGE, FieldError
from selfflow_bench.places import Places
from selfflow_bench.recipe import TIERS


def add_to(commands: Commands) -> None:
    """Add plan, run, resume, status and evaluate."""
    for name, function, text in (
        ("plan", _plan, "what a run would do, without doing it"),
        ("run", _run, "train and evaluate matched runs, record them, compare them, update the leaderboard"),
    ):
        made = commands.add(name, function, text)
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
            add_place(made)
    resume = commands.add("resume", _resume, "go on with interrupted runs")
    resume.add_argument("runs", nargs="*", help="default: all of them")
    add_place(resume)
    commands.add("status", _status, "this machine's runs")
    evaluate = commands.add("evaluate", _evaluate, "evaluate a finished run again and compare with what it recorded")
    evaluate.add_argument("run")
    add_place(evaluate)


def add_place(command: argparse.ArgumentParser) -> None:
    """The options that say where a run is made."""
    command.add_argument(
        "--executor",
        choices=("auto", "host", "docker"),
        default="auto",
        help="where it runs: this machine, a container of the pinned image, or what the tier says (default)",
    )
    command.add_argument("--gpu", metavar="UUID", help="the GPU that a container gets (default: the first)")


def _executor(spec: Any, chosen: argparse.Namespace, places: Places) -> Any:
    """Where to run. Without containers in play, nothing of theirs is imported."""
    tier = spec.tier
    if tier != "reference" and chosen.executor != "docker" and chosen.gpu is None:
        return None
    from selfflow_bench.containers.choice import executor_for

    return executor_for(tier, chosen.executor, places.work, chosen.gpu, spec.conditions.budget.gpus)


def _plan(chosen: argparse.Namespace, places: Places) -> int:
    from selfflow_bench.commands import reference
    from selfflow_bench.run import local_run

    if chosen.recipe is None:
        list_recipes(chosen, places)
        return EXIT_USAGE
    plan = _made_plan(chosen, places)
    states = {run.key: local_run(run, places) for run in plan.runs}
    if chosen.json:
        runs = [
            {"name": r.name, "key": r.key, "state": states[r.key].state, **r.model_dump(mode="json")} for r in plan.runs
        ]
        content: dict[str, Any] = {"recipe": str(plan.recipe), "protocol": str(plan.protocol), "runs": runs}
        if plan.tier == "reference":
            content["reference"] = reference.facts(plan, places)
        print(json.dumps(content, indent=1))
        return 0
    training, evaluation = plan.runs[0].conditions.training, plan.runs[0].conditions.evaluation
    out.print(f"[bold]{plan.recipe}[/], {plan.tier}, protocol {plan.protocol}", highlight=False)
    out.print(plan.runs[0].conditions.summary, highlight=False)
    if plan.tier == "reference":
        facts = Table(box=None, pad_edge=False, show_header=False)
        facts.add_column(no_wrap=True)
        facts.add_column(overflow="fold")  # nothing of an address or a path may be left out
        for line in reference.lines(reference.facts(plan, places)):
            facts.add_row(*(Text(part) for part in line))
        out.print(facts)
    else:
        out.print(
            f"Each run: {training.samples:,} samples in batches of {training.batch}, then {evaluation.samples} samples "
            f"of {evaluation.sampler_steps} steps; at most {plan.runs[0].conditions.budget.minutes:g} minutes on "
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
    plan = _made_plan(chosen, places)
    if plan.tier == "reference" and chosen.when != "never":
        from selfflow_bench.commands.reference import refuse_where_lacking

        refuse_where_lacking(plan.runs, places, chosen.executor)
    return do(plan.runs, chosen, places, when=chosen.when)[0]


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
    return do([run.spec for run in runs], chosen, places, when="missing")[0]


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


def _evaluate(chosen: argparse.Namespace, places: Places) -> int:
    from selfflow_bench import progress
    from selfflow_bench.run import evaluate_again, named_run

    run = named_run(chosen.run, places, ["done"])
    with progress.shown(out, progress.style_for(out, as_json=chosen.json), run.spec.name) as watch:
        again, before = evaluate_again(run, places, watch, _executor(run.spec, chosen, places))
    same = {name: again.get(name) == value for name, value in before.items()}
    if chosen.json:
        print(json.dumps({"metrics": again, "recorded": before, "equal": all(same.values())}))
    else:
        for name, value in before.items():
            out.print(
                f"{name}: {again.get(name)} ({'as recorded' if same[name] else f'recorded: {value}'})", highlight=False
            )
    return 0 if all(same.values()) else EXIT_INFRASTRUCTURE


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


def do(specs: Sequence[Any], chosen: argparse.Namespace, places: Places, *, when: str) -> tuple[int, list[Any]]:
    """Run what is to be run, one after the other, then say how the methods compare: the exit code, and the records."""
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
                record = run.execute(spec, places, watch, _executor(spec, chosen, places))
            if record.failure is not None:
                folder = run.local_run(spec, places).folder
                err.print(Text(f"{spec.name} failed: {record.failure.kind}: {record.failure.message}", style="red"))
                err.print(f"The log is {folder / 'log.txt'}. To do it again: selfflow-bench run --when always ...")
        elif record is not None and style != "json":
            out.print(f"{spec.name}: done already (--when always does it again)", highlight=False)
        if record is not None:
            records.append(record)
    return report(specs, records, places, out, as_json=chosen.json), records


def _state_text(run: Any) -> str:
    of = run.spec.conditions.training.samples
    texts = {
        "new": "to do",
        "interrupted": f"interrupted at {run.samples:,} of {of:,} samples",
        "running": f"running, checkpoint at {run.samples:,} of {of:,} samples",
    }
    return texts.get(run.state, str(run.state))
