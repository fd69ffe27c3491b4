"""The comparison that a run ends with, for a terminal of 80 columns, with or without colours. JSON: `as_dict`.

Knows nothing of how records are read or compared.
"""

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from selfflow_bench.results.comparison import Arm, Comparison, Difference, Score
from selfflow_bench.results.record import VALIDATION_LOSS
from selfflow_bench.results.statistics import BETTER, EQUIVALENT, NOT_MEASURED, ONE_SEED, WORSE, MeanDifference
from selfflow_bench.results.wording import (
    detectable,
    metric_label,
    metric_title,
    number,
    percent,
    seconds,
    share,
    signed,
    spent,
    spread,
    times,
)

_STYLES = {BETTER: "bold green", WORSE: "bold red", EQUIVALENT: "green", ONE_SEED: "yellow"}
_ASCII = str.maketrans({"±": "+-", "–": "-", "×": "x", "é": "e"})


def print_summary(comparison: Comparison, console: Console) -> None:
    """Print one table per method, or vanilla's alone, with what is needed to read it below."""
    console.print(_summary(comparison, ascii_only=console.options.ascii_only), soft_wrap=False)


def _summary(comparison: Comparison, *, ascii_only: bool) -> RenderableType:
    base = next((arm for arm in comparison.arms if arm.label == comparison.baseline), None)
    others = [arm for arm in comparison.arms if arm is not base]
    parts: list[RenderableType] = [Text(f"{comparison.recipe}, {comparison.tier}", style="bold")]
    for arm in others or ([base] if base else []):
        differences = {d.metric: d for d in comparison.differences if d.label == arm.label}
        parts.append(_table(comparison, base if others else None, arm, differences, ascii_only=ascii_only))
    parts += [Text(_plain(line, ascii_only)) for line in _notes(comparison, base, others)]
    return Group(*parts)


def _table(
    comparison: Comparison, base: Arm | None, arm: Arm, differences: dict[str, Difference], *, ascii_only: bool
) -> Table:
    table = Table(box=box.ASCII2 if ascii_only else box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    heads = ["", *([base.label] if base else []), arm.label, *(["difference"] if base else []), "floor"]
    for index, head in enumerate(heads):
        table.add_column(
            head.replace(".", "\n.").replace(":", ":\n"),
            justify="left" if index == 0 else "right",
            no_wrap=head == "difference",
            overflow="fold",
        )
    if base:
        table.add_column("verdict", min_width=12)
    for name in comparison.metrics:
        score, difference = arm.scores.get(name), differences.get(name)
        cells = [
            metric_label(name, comparison.metrics),
            *([_score(base.scores.get(name))] if base else []),
            _score(score),
        ]
        cells += [_difference(difference.paired if difference else None)] if base else []
        cells.append(number(score.floor, 2) if score else "–")
        row = [Text(_plain(cell, ascii_only)) for cell in cells]
        if base:
            row.append(_verdict(difference.paired if difference else None, ascii_only))
        table.add_row(*row)
        if base and name == VALIDATION_LOSS:
            for cells, paired in _equal_rows(comparison, arm):
                table.add_row(*(Text(_plain(cell, ascii_only)) for cell in cells), _verdict(paired, ascii_only))
    last = [
        ("training time", seconds(base.train_s) if base else "", seconds(arm.train_s), times(arm.time_over_baseline)),
        ("step FLOPs", times(1.0), times(arm.flops_over_baseline), ""),
    ]
    for title, first, second, third in last:
        cells = [title, *([first] if base else []), second, *([third] if base else []), ""]
        if second != "–":
            table.add_row(*(Text(_plain(cell, ascii_only)) for cell in cells))
    return table


def _equal_rows(comparison: Comparison, arm: Arm) -> list[tuple[list[str], MeanDifference]]:
    """Validation loss at equal FLOPs and time; at equal samples it is the row above."""
    rows = []
    for one in comparison.equal:
        if one.label == arm.label and one.axis != "samples" and one.budget is not None:
            title = f" at equal\n {'time' if one.axis == 'seconds' else one.axis}:\n {spent(one.axis, one.budget)}"
            means = [number(one.paired.baseline_mean), number(one.paired.candidate_mean)]
            rows.append(([title, *means, _difference(one.paired), ""], one.paired))
    return rows


def _notes(comparison: Comparison, base: Arm | None, others: list[Arm]) -> list[str]:
    arms = [arm for arm in (base, *others) if arm]
    lines = []
    for name in comparison.metrics:
        score = next(arm.scores[name] for arm in arms if name in arm.scores)
        if score.network or score.untrained is not None:
            line = metric_title(name) + (f", n = {score.media}" if score.network else "")
            line += f"; untrained {number(score.untrained)}" if score.untrained is not None else ""
            line += "; n below its dimension, biased upwards" if score.rank_deficient else ""
            lines.append(line)
    pairs = max((difference.paired.n for difference in comparison.differences), default=0)
    if pairs:
        by_seed = all(difference.paired.by_seed for difference in comparison.differences)
        kind = "same seed" if by_seed else "of means: no seeds are shared"
        count = f"{pairs} seeds, 95 % interval below it" if pairs > 1 else ONE_SEED
        lines.append(f"difference: minus {comparison.baseline}, {kind}; {count}.")
    if pairs > 1:
        lines.append("Verdicts: p adjusted (Holm) over the table, at 5 %; one of the detectable size")
        lines.append("would have been shown 4 times in 5. Inconclusive: no difference shown.")
    limits = {d.metric: d.paired.margin_percent for d in comparison.differences if d.paired.margin_percent is not None}
    if limits:
        shares = ", ".join(f"{metric_label(name, limits)} {share(limit)}" for name, limit in limits.items())
        lines.append(f"Margins: {shares}; equivalent: shown to differ by less.")
    lines.append("Lower is better; floor: real media against real media.")
    failed = [run for arm in arms for run in arm.failed]
    if failed:
        lines.append(f"Failed runs: {', '.join(failed)}")
    for arm in arms:
        if arm.beyond:
            seeds = [", ".join(map(str, some)) for some in (arm.missing, arm.beyond)]
            lines.append(f"{arm.label} has no run of seed {seeds[0]}, so that seed {seeds[1]} does not count.")
    if comparison.overrides:
        lines.append("Made with overrides, or of unpinned parts: recorded as open, never ranked.")
    return lines


def _score(score: Score | None) -> str:
    if score is None or score.mean is None:
        return score.reason or "–" if score else "–"
    return number(score.mean) + (f"\n± {spread(score.sd)}" if score.sd is not None else "")


def _difference(paired: MeanDifference | None) -> str:
    if paired is None or paired.mean is None:
        return "–"
    text = (
        f"{signed(paired.mean)} ({percent(paired.mean_percent)})"
        if paired.mean_percent is not None
        else signed(paired.mean)
    )
    return text if paired.low is None else f"{text}\n{signed(paired.low)} to {signed(paired.high)}"


def _verdict(paired: MeanDifference | None, ascii_only: bool) -> Text:
    if paired is None or paired.verdict == ONE_SEED:
        return Text("")  # said once, below the table
    text = paired.verdict
    if paired.within_margin and text in (BETTER, WORSE):
        text += ", within the margin"
    if text != NOT_MEASURED:
        text += f" (detectable: {detectable(paired)})"
    return Text(_plain(text, ascii_only), style=_STYLES.get(paired.verdict, ""))


def _plain(text: str, ascii_only: bool) -> str:
    return text.translate(_ASCII) if ascii_only else text
