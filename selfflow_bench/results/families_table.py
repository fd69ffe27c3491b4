"""One line per recipe: what the small tier showed of it, for the project's README. Writes down a `Board`, no files."""

from __future__ import annotations

from selfflow_bench.results.comparison import Arm, Comparison, Difference
from selfflow_bench.results.leaderboard import Board
from selfflow_bench.results.metric_name import MetricName
from selfflow_bench.results.record import VALIDATION_LOSS
from selfflow_bench.results.wording import number, percent, times, verdict

BASELINE, METHOD, TIER = "vanilla", "self_flow", "micro"
_HEAD = (
    "recipe",
    "n",
    "validation loss: untrained, vanilla, Self-Flow",
    "difference",
    "KID: untrained, vanilla, Self-Flow",
    "difference",
    "step FLOPs",
    "learning shown in",
)


def families_table(board: Board) -> str:
    """The table of all recipes that have both methods, in alphabetical order."""
    rows = [row for table in board.tables if table.tier == TIER for row in _row(table)]
    lines = [_HEAD, ["---"] * len(_HEAD), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _row(table: Comparison) -> list[list[str]]:
    arms = {arm.label: arm for arm in table.arms}
    if not {BASELINE, METHOD} <= arms.keys():
        return []
    vanilla, ours = arms[BASELINE], arms[METHOD]
    differences = {one.metric: one for one in table.differences if one.label == METHOD}
    kid = next((name for name in vanilla.scores if _is_kid(name)), None)
    learnt = [
        title
        for name, title in ((VALIDATION_LOSS, "loss"), (kid, "KID"))
        if name is not None and _has_learnt(vanilla, name)
    ]
    return [
        [
            f"`{table.recipe.partition('@')[0]}`",
            str(len(ours.seeds)),
            *_cells(VALIDATION_LOSS, vanilla, ours, differences),
            *_cells(kid, vanilla, ours, differences),
            times(ours.flops_over_baseline),
            " and ".join(learnt) or "neither",
        ]
    ]


def _cells(name: str | None, vanilla: Arm, ours: Arm, differences: dict[str, Difference]) -> list[str]:
    if name is None or name not in ours.scores:
        return ["–", "–"]
    values = [vanilla.scores[name].untrained, vanilla.scores[name].mean, ours.scores[name].mean]
    found = differences.get(name)
    said = "–"
    if found is not None:
        said = percent(found.paired.mean_percent)
        if found.paired.n > 1:
            said += f", {verdict(found.paired).partition(':')[0]}"
    return [", ".join(number(value, 3) for value in values), said]


def _has_learnt(arm: Arm, name: str) -> bool:
    """Whether plain training came to a lower score than the weights it started from."""
    score = arm.scores[name]
    return score.mean is not None and score.untrained is not None and score.mean < score.untrained


def _is_kid(name: str) -> bool:
    parts = MetricName.of(name)
    return parts.kind == "kid" and not parts.sampler
