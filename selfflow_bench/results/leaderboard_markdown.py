"""The board as Markdown. Knows nothing of records and files: it writes down a `Board`."""

from selfflow_bench.results.comparison import Arm, Comparison, Difference, Score
from selfflow_bench.results.equal_axes import AtEqual
from selfflow_bench.results.leaderboard import Board, Listed, leaders
from selfflow_bench.results.statistics import MeanDifference
from selfflow_bench.results.wording import (
    detectable,
    metric_title,
    number,
    percent,
    probability,
    seconds,
    signed,
    spent,
    spread,
    times,
    verdict,
)

LEGEND = """How to read the verdicts. **Better** and **worse**: the difference is there. **Equivalent**: it is shown to
be smaller than the margin written down in the protocol (two one-sided tests). **Inconclusive**: neither, so no
difference is shown; one of the size under "detectable" would have been, 4 times in 5. All use p values adjusted by
Holm's method over every difference in the table: 5 % is the chance of any false "better" or "worse" in it, and 5 % that
of any false "equivalent". The 95 % interval is of each difference by itself. One seed gets no verdict."""


def markdown(board: Board) -> str:
    """The generated part of results/README.md."""
    parts = [LEGEND] if any(table.differences for table in board.tables) else []
    parts += [_board_table(table, board) for table in board.tables] or ["No records yet."]
    parts.append(_apart("Open: overridden or unpinned, never ranked", board.open))
    parts.append(_apart("Superseded: made with an older recipe or protocol", board.superseded))
    parts.append(_not_counted(board))
    return "\n\n".join(part for part in parts if part) + "\n"


def comparison_markdown(table: Comparison) -> str:
    """One comparison by itself."""
    heading = f"### {' and '.join(arm.label for arm in table.arms)}: {table.recipe}, {table.tier}"
    failed = [run for arm in table.arms for run in arm.failed]
    parts = [LEGEND if table.differences else "", _table(table, heading)]
    parts.append(f"Failed: {'; '.join(failed)}" if failed else "")
    return "\n\n".join(part for part in parts if part) + "\n"


def _board_table(table: Comparison, board: Board) -> str:
    runs = {run for arm in table.arms for run in arm.failed}
    failed = "; ".join(f"{f.run_id} ({f.status}: {f.kind})" for f in board.failed if f.run_id in runs)
    text = _table(table, f"### {table.recipe}, {table.tier}")
    return f"{text}\n\nFailed: {failed}" if failed else text


def _table(table: Comparison, heading: str) -> str:
    metrics = table.metrics
    head = ["method", "seeds", *(metric_title(name) for name in metrics)]
    head += ["samples", "training time", "step FLOPs", "step time", "failed"]
    rows = [_arm(table.arms[index], metrics) for index in leaders(table)]
    parts = [
        heading,
        f"Protocol {table.protocol}; digests {table.recipe_digest[:12]} (recipe) and {table.protocol_digest[:12]} "
        "(protocol). Mean ± standard deviation over seeds; lower is better. Floor: real media against real media.",
        _grid(head, rows),
        _notes(table),
    ]
    if table.differences:
        by_seed = all(one.paired.by_seed for one in table.differences)
        kind = "Paired differences to" if by_seed else "Differences of the means (no seeds are shared) to"
        # Said here because a table in order looks like a ranking.
        parts += [
            "The rows are ordered by KID; only the verdicts tell a difference from noise.",
            f"{kind} {table.baseline}{', seed by seed' if by_seed else ''}:",
            _grid(
                ["method", "metric", *_DIFFERENCE_HEAD],
                [[one.label, metric_title(one.metric), *_paired(one.paired, one)] for one in table.differences],
            ),
        ]
    if table.equal:
        parts += [
            f"Validation loss where all runs have spent equally much, interpolated between validations, against "
            f"{table.baseline}; verdicts adjusted over this table:",
            _grid(["method", "at equal", "budget", *_DIFFERENCE_HEAD], [_equal(one) for one in table.equal]),
        ]
    return "\n\n".join(part for part in parts if part)


_DIFFERENCE_HEAD = (
    "difference",
    "95 % interval",
    "relative",
    "verdict",
    "adjusted p",
    "detectable",
    "n",
    "correlation",
)


def _arm(arm: Arm, metrics: tuple[str, ...]) -> list[str]:
    cells = [_score(arm.scores.get(name)) for name in metrics]
    seeds = f"{len(arm.seeds)}" + (f" (+{arm.repeats} repeats, not counted)" if arm.repeats else "")
    if arm.beyond:
        seeds += f" (not counted: {_seeds(arm.beyond)}, because {_seeds(arm.missing)} has no run)"
    samples = "–" if arm.samples is None else f"{arm.samples:,}"
    cost = [times(arm.flops_over_baseline), times(arm.time_over_baseline)]
    return [arm.label, seeds, *cells, samples, seconds(arm.train_s), *cost, str(len(arm.failed))]


def _seeds(seeds: tuple[int, ...]) -> str:
    return f"seed {', '.join(map(str, seeds))}"


def _score(score: Score | None) -> str:
    if score is None or score.mean is None:
        return f"– ({score.reason})" if score is not None and score.reason else "–"
    spread_text = f" ± {spread(score.sd)}" if score.sd is not None else " (n = 1)"
    floor = f", floor {number(score.floor, 2)}" if score.floor is not None else ""
    return number(score.mean) + spread_text + floor


def _notes(table: Comparison) -> str:
    lines = []
    for name in table.metrics:
        scores = [arm.scores[name] for arm in table.arms if name in arm.scores]
        against = scores[0].reference_sha256
        compared = "as many real" if against is None else f"published statistics {against[:12]}"
        facts = [f"{scores[0].media} generated against {compared}"] if scores[0].network else []
        untrained = next((score.untrained for score in scores if score.untrained is not None), None)
        if untrained is not None:
            facts.append(f"untrained weights {number(untrained)}")
        if scores[0].rank_deficient:
            facts.append("fewer media than features, so biased upwards (as its floor shows)")
        if facts:
            lines.append(f"- {metric_title(name)}: {'; '.join(facts)}.")
    return "\n".join(lines)


def _paired(paired: MeanDifference, difference: Difference | None = None) -> list[str]:
    interval = "–" if paired.low is None else f"{signed(paired.low)} to {signed(paired.high)}"
    correlation = "–" if paired.correlation is None else f"{paired.correlation:.2f}"
    words = verdict(paired)
    if difference is not None and difference.lost:
        words += f" (failed in one of the two: seed {', '.join(map(str, difference.lost))})"
    return [
        signed(paired.mean),
        interval,
        percent(paired.mean_percent),
        words,
        probability(paired.p_adjusted),
        detectable(paired),
        str(paired.n),
        correlation,
    ]


def _equal(one: AtEqual) -> list[str]:
    budget = spent(one.axis, one.budget) if one.reason is None else f"– ({one.reason})"
    return [one.label, {"seconds": "time"}.get(one.axis, one.axis), budget, *_paired(one.paired)]


def _apart(title: str, listed: tuple[Listed, ...]) -> str:
    if not listed:
        return ""
    rows = []
    for one in listed:
        changed = ", ".join(f"{key} = {value}" for key, value in sorted(one.overrides.items()))
        scores = ", ".join(f"{metric_title(name)} {number(value)}" for name, value in one.scores.items())
        rows.append([one.run_id, one.recipe, one.tier, one.label, str(one.seed), changed or "–", scores or "–"])
    return f"### {title}\n\n" + _grid(["run", "recipe", "tier", "method", "seed", "overrides", "scores"], rows)


def _not_counted(board: Board) -> str:
    lines = []
    if board.smoke:
        lines.append(f"- Smoke runs, which show that the path works and are never ranked: {board.smoke}.")
    lines += [
        f"- Invalidated on {one.date}: {one.run_id}. Reason: {one.reason}. Evidence: {one.evidence}."
        for one in board.invalidated
    ]
    lines += [f"- Damaged and not counted: {one.path} ({one.problem})" for one in board.damaged]
    return "### Not counted\n\n" + "\n".join(lines) if lines else ""


def _grid(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in line) + " |" for line in lines
    )
