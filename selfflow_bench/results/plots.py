"""Curves of all arms of a comparison as one picture. matplotlib is imported only when it is drawn.

Knows records, nothing of how they came about. Every arm has a colour and a line style of its own (Okabe and Ito's
colours, which colour-blind readers can tell apart, less the ones too pale on white).
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from selfflow_bench.atomic_files import replace_file
from selfflow_bench.results.comparison import BASELINE
from selfflow_bench.results.curve_points import (
    Points,
    by_sigma,
    column,
    mean_points,
    over_baseline,
    validation_losses,
)
from selfflow_bench.results.record import Record

_COLOURS = ("#000000", "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#7A5195")
_LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1)), (0, (1, 1)))


def curves(records: Sequence[Record], path: Path) -> None:
    """Write a PNG of 1350 x 780 pixels: losses and alignment against samples, validation loss over noise levels.

    Thin lines are seeds, thick lines their mean. Records that did not succeed are drawn as far as they came.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    labels = sorted({record.method.label for record in records}, key=lambda label: (label != BASELINE, label))
    arms = {label: [record for record in records if record.method.label == label] for label in labels}
    figure = Figure(figsize=(13.5, 7.8), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 3)
    panels: list[tuple[str, str, Callable[[Record], Points]]] = [
        ("training loss (generative part)", "samples", lambda r: column(r, "loss_generative", "loss")),
        ("validation loss (EMA weights)", "samples", validation_losses),
        ("validation loss by noise level, at the end", "σ (0 = clean, 1 = noise)", by_sigma),
        ("alignment loss", "samples", lambda r: column(r, "loss_alignment")),
        ("alignment score (cosine of student and teacher)", "samples", lambda r: column(r, "alignment_score")),
        (
            "validation loss by noise level, against vanilla (%)",
            "σ (0 = clean, 1 = noise)",
            lambda r: over_baseline(r, arms.get(BASELINE, []), by_sigma),
        ),
    ]
    for axis, (title, horizontal, points) in zip(axes.flat, panels, strict=True):
        _panel(axis, title, horizontal, {label: [points(record) for record in arms[label]] for label in labels}, labels)
    handles, names = axes.flat[0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, names, loc="outside upper center", ncols=len(names), frameon=False, fontsize=12)
    replace_file(path, lambda file: figure.savefig(file, format="png", metadata={"Software": None}))


def _panel(axis: Any, title: str, horizontal: str, arms: dict[str, list[Points]], labels: Sequence[str]) -> None:
    axis.set_title(title, fontsize=11)
    axis.set_xlabel(horizontal)
    axis.grid(color="#DDDDDD", linewidth=0.6)
    axis.spines[["top", "right"]].set_visible(False)
    drawn = False
    for index, label in enumerate(labels):
        # Where the colours begin again, the lines are shifted: 36 arms can be told apart.
        colour, line = _COLOURS[index % len(_COLOURS)], _LINES[(index + index // len(_COLOURS)) % len(_LINES)]
        seeds = [points for points in arms[label] if points]
        for points in seeds if len(seeds) > 1 else []:
            axis.plot(*zip(*points, strict=True), color=colour, linewidth=0.7, alpha=0.45)
        if seeds:
            mean = mean_points(seeds)
            few = {"marker": "o", "markersize": 3.5} if len(mean) <= 12 else {}
            axis.plot(*zip(*mean, strict=True), color=colour, linestyle=line, linewidth=2, label=label, **few)
            drawn = True
    if not drawn:
        axis.set_xticks([])
        axis.set_yticks([])
        axis.text(
            0.5, 0.5, "no method here has it", ha="center", va="center", color="#555555", transform=axis.transAxes
        )
