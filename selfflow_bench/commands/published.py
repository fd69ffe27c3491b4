"""Commands that set published numbers against ours: reproduce, export-samples, rescore."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from rich.table import Table

from selfflow_bench.commands import runs
from selfflow_bench.commands.parser import Commands, out
from selfflow_bench.errors import EXIT_NOTHING_MEASURED, EXIT_USAGE, FieldError
from selfflow_bench.places import Places

PEAK_TFLOPS, SHARE = 989.0, 0.4
"""Of an H100 SXM in dense bfloat16 (vendor's figure), and how much of it training is taken to reach."""


def add_to(commands: Commands) -> None:
    """Add reproduce, export-samples and rescore."""
    made = commands.add("reproduce", _reproduce, "run a published claim and write what became of it into the ledger")
    made.add_argument("claim", nargs="?", help="its id in results/claims.toml; default: list them")
    made.add_argument("--seeds", type=int, default=3, metavar="N", help="number of seeds (default 3; 1 settles none)")
    made.add_argument("--dry-run", action="store_true", help="say what would be run, and what it costs")
    made.add_argument(
        "--peak", type=float, default=PEAK_TFLOPS, metavar="TFLOPS", help="peak of the device (default: H100 SXM, bf16)"
    )
    made.add_argument("--share", type=float, default=SHARE, help="share of the peak that is reached (default 0.4)")
    made.add_argument("--when", choices=("missing", "always", "never"), default="missing", help="as of run")
    runs.add_place(made)
    export = commands.add(
        "export-samples", _export_samples, "a finished run's samples as one .npz for the ADM evaluator"
    )
    export.add_argument("run", help="a finished run of this machine, as status names it")
    export.add_argument("file", type=Path, help="where to, such as samples.npz")
    rescore = commands.add("rescore", _rescore, "a finished run's distances from other statistics than its record's")
    rescore.add_argument("run", help="a finished run of this machine, as status names it")
    rescore.add_argument(
        "--against", type=Path, required=True, help="an .npz of mu and sigma: published, or kept by another run"
    )


def _reproduce(chosen: argparse.Namespace, places: Places) -> int:
    from selfflow_bench.results.claims import read_claims, settle
    from selfflow_bench.results.record_files import read_all

    known = {record.run_id for record in read_all(places.results).records}
    ledger = read_claims(places.results, known)
    if chosen.claim is None:
        return _list(ledger, as_json=chosen.json)
    if not 0 < chosen.share <= 1 or chosen.peak <= 0:
        raise FieldError("command line", "--share", chosen.share, "not a share of a peak", "Give 0.4 of 989, say.")
    from selfflow_bench.claim_runs import claim_runs, verdict

    claim = ledger.claim(chosen.claim)
    specs = claim_runs(places, claim, chosen.seeds)
    if chosen.dry_run:
        return _say_plan(chosen, places, claim, specs)
    if chosen.when != "never":
        from selfflow_bench.commands.reference import refuse_where_lacking

        refuse_where_lacking(specs, places, chosen.executor)
    code, records = runs.do(specs, chosen, places, when=chosen.when)
    found = verdict(claim, specs[0], records)
    if found is None:
        out.print(f"{claim.id}: no FID was measured, so the ledger stays as it is.", highlight=False)
        return code or EXIT_NOTHING_MEASURED
    measured = [record.run_id for record in records if record.status == "success"]
    path = settle(places.results, claim.id, found.status, found.text, measured)
    if chosen.json:
        print(json.dumps({"event": "claim", "id": claim.id, "status": found.status, "reason": found.text}))
    else:
        out.print(f"\n{claim.id}: {found.status}. {found.text}. Written to {path}", highlight=False, soft_wrap=True)
    return code


def _list(ledger: Any, *, as_json: bool) -> int:
    if as_json:
        print(json.dumps([claim.model_dump(mode="json") for claim in ledger.claims], indent=1))
        return 0
    table = Table("claim", "method", "thousand steps", "FID", "status", box=None, pad_edge=False)
    for claim in ledger.claims:
        status = claim.status if claim.not_plannable is None else f"not plannable: {claim.not_plannable}"
        fid = claim.metrics.get("FID")
        table.add_row(claim.id, claim.method, f"{claim.steps_k:g}", "" if fid is None else f"{fid:g}", status)
    out.print(table)
    out.print("What one would take:  selfflow-bench reproduce ID --dry-run", highlight=False)
    return EXIT_USAGE


def _say_plan(chosen: argparse.Namespace, places: Places, claim: Any, specs: Any) -> int:
    from selfflow_bench.claim_runs import claim_cost

    spec = specs[0]
    cost, training, evaluation = claim_cost(places, spec), spec.conditions.training, spec.conditions.evaluation
    hours = cost.hours(chosen.peak * 1e12, chosen.share)
    facts = {
        "claim": claim.id,
        "published": claim.metrics,
        "recipe": str(spec.recipe),
        "protocol": str(spec.protocol),
        "label": spec.label,
        "runs": [run.name for run in specs],
        "samples": training.samples,
        "batch": training.batch,
        "overrides": spec.overrides,
        "training_flops": cost.training,
        "sampling_flops": cost.sampling,
        "encoder_flops_per_item": cost.encoder_per_item,
        "hours_per_run": hours,
        "hours": hours * len(specs),
        "peak_tflops": chosen.peak,
        "share": chosen.share,
    }
    if chosen.json:
        print(json.dumps(facts, indent=1))
        return 0
    lines = [
        f"[bold]{claim.id}[/]: {claim.method}, {claim.model}, "
        + ", ".join(f"{name} {value:g}" for name, value in claim.metrics.items()),
        f"{spec.recipe}, reference, {spec.label}, protocol {spec.protocol}",
        f"Each run: {training.samples:,} samples in batches of {training.batch} "
        f"({training.samples // training.batch:,} steps), then {evaluation.samples:,} samples of "
        f"{evaluation.sampler_steps} steps.",
        f"Each run: {cost.training:.3g} FLOP to train, {cost.sampling:.3g} to sample: {hours:,.0f} hours of one device "
        f"at {chosen.share:.0%} of {chosen.peak:g} TFLOP/s; {hours * len(specs):,.0f} for {len(specs)} seeds.",
    ]
    if cost.encoder_per_item:
        lines.append(f"Beside it, once for each picture of the data: {cost.encoder_per_item:.3g} FLOP of the encoder.")
    if spec.overrides:
        lines.append(f"Not the protocol's own number of samples, so never ranked: {spec.overrides}")
    for line in lines:
        out.print(line, highlight=False)
    table = Table("run", "seed", box=None, pad_edge=False)
    for run in specs:
        table.add_row(run.name, str(run.seed))
    out.print(table)
    return 0


def _export_samples(chosen: argparse.Namespace, places: Places) -> int:
    from selfflow_bench.run import named_run
    from selfflow_bench.sample_export import export_samples

    run = named_run(chosen.run, places, ["done"])
    shape = export_samples(run.spec, run.folder, places.cache, chosen.file)
    if chosen.json:
        print(json.dumps({"file": str(chosen.file), "shape": shape}))
    else:
        out.print(f"{chosen.file}: {shape[0]:,} pictures of {shape[1]}x{shape[2]}", highlight=False, soft_wrap=True)
    return 0


def _rescore(chosen: argparse.Namespace, places: Places) -> int:
    from selfflow_bench.rescoring import rescore
    from selfflow_bench.results.wording import metric_kind, number
    from selfflow_bench.run import named_run

    run = named_run(chosen.run, places, ["done"])
    found = rescore(run.spec, run.folder, chosen.against)
    if chosen.json:
        print(json.dumps(found, indent=1))
        return 0
    table = Table("distance", "network", "value", "n", box=None, pad_edge=False)
    table.columns[1].overflow = "fold"
    for name, score in found.items():
        table.add_row(metric_kind(name), score["network"], number(score["value"]), f"{score['n']:,}")
    out.print(table)
    if any(score["rank_deficient"] for score in found.values()):
        out.print("The Fréchet distance is biased upwards: n is below its network's dimension.", highlight=False)
    out.print(f"{run.spec.name} against {chosen.against}; its record is as it was.", highlight=False, soft_wrap=True)
    return 0
