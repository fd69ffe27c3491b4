"""The curves of a recipe's arms as plain data: panels, lines, points. Knows records; nothing of how they are drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from selfflow_bench.canonical import digest
from selfflow_bench.results.comparison import BASELINE
from selfflow_bench.results.curve_points import (
    Points,
    by_sigma,
    column,
    flops_at,
    mean_points,
    over_baseline,
    seconds_at,
    validation_losses,
)
from selfflow_bench.results.record import Record
from selfflow_bench.results.wording import metric_title, number


@dataclass(frozen=True)
class Line:
    """One arm's curve: its place in the page's order of methods, each seed's points if there are several, the mean."""

    style: int
    label: str
    seeds: tuple[tuple[tuple[float, float], ...], ...]
    mean: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Panel:
    """One drawing. `text` says in words what it shows, for who cannot see it."""

    title: str
    horizontal: str
    lines: tuple[Line, ...]
    text: str
    zero: bool = False

    @property
    def digest(self) -> str:
        """Of everything that is drawn."""
        content: dict[str, Any] = asdict(self)
        return digest(content)


@dataclass(frozen=True)
class PanelGroup:
    """Panels that belong together, and what is not in them and why."""

    title: str
    note: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class _Axis:
    """What a curve is drawn against; `at` is null where a record does not know it."""

    title: str
    at: Callable[[Record, float], float | None]


class Curves:
    """All curves of the matched records of one recipe, protocol and tier, arm by arm.

    `arms` are the counted records by label, the baseline's first; `styles` each label's place in the page's order.
    """

    def __init__(self, arms: dict[str, list[Record]], styles: dict[str, int]) -> None:
        self._arms, self._styles = arms, styles
        self._axes = _axes([record for records in arms.values() for record in records])

    def against_effort(self) -> tuple[PanelGroup, ...]:
        """Validation loss, training loss and distances against samples, FLOPs and seconds."""
        relative = self._over_baseline("Validation loss over vanilla’s (%)", _SAMPLES, validation_losses)
        loss = self._three("Validation loss", "Of the EMA weights, on fixed triples.", validation_losses)
        groups = [
            PanelGroup(loss.title, loss.note, _present([*loss.panels, *relative])),
            self._three("Training loss", "Its generative part, a mean over each log interval.", _training_loss),
        ]
        kids = sorted({name for record in self._records() for name in record.metrics if name.startswith("kid/")})
        for name in kids:
            note = f"{metric_title(name)}: measured on the untrained weights and at the end, nothing between."
            groups.append(self._three("KID", note, _ends(name)))
        return tuple(group for group in groups if group.panels)

    def by_noise_level(self) -> PanelGroup:
        """Validation loss by sigma at the end, and over the baseline's."""
        horizontal = "σ (0 = clean, 1 = noise)"
        panels = [
            self._panel("Validation loss by noise level", horizontal, by_sigma),
            *self._over_baseline("By noise level, over vanilla’s (%)", horizontal, by_sigma),
        ]
        return PanelGroup("Noise levels", "At the end of training.", _present(panels))

    def alignment(self) -> PanelGroup:
        """What alignment methods log while they train."""
        panels = [
            self._panel("Alignment score (cosine)", _SAMPLES, lambda r: column(r, "alignment_score")),
            self._panel("Alignment loss", _SAMPLES, lambda r: column(r, "loss_alignment")),
        ]
        return PanelGroup(
            "Alignment", "Of student and teacher; methods without an alignment have none.", _present(panels)
        )

    def health(self) -> PanelGroup:
        """Rank and spread of hidden states: a collapse shows here."""
        panels = [
            self._panel("Effective rank", _SAMPLES, lambda r: _health(r, "effective_rank")),
            self._panel("Standard deviation", _SAMPLES, lambda r: _health(r, "standard_deviation")),
            self._panel("Distance of the EMA weights", _SAMPLES, lambda r: _health(r, "ema_distance")),
            self._panel("Gradient norm", _SAMPLES, lambda r: column(r, "grad_norm")),
        ]
        blocks = sorted({row.health.block for r in self._records() for row in r.validations if row.health})
        where = f"After block {', '.join(map(str, blocks))}. " if blocks else ""
        return PanelGroup(
            "Health", f"{where}Of hidden states; a collapse would show as a fall towards 1 and 0.", _present(panels)
        )

    def _over_baseline(self, title: str, horizontal: str, points: Callable[[Record], Points]) -> list[Panel]:
        base = self._arms.get(BASELINE, [])
        if not base or len(self._arms) < 2:
            return []
        others = {label: records for label, records in self._arms.items() if label != BASELINE}
        relative = Curves(others, self._styles)
        return [relative._panel(title, horizontal, lambda r: over_baseline(r, base, points), zero=True)]

    def _records(self) -> list[Record]:
        return [record for records in self._arms.values() for record in records]

    def _three(self, title: str, note: str, points: Callable[[Record], Points]) -> PanelGroup:
        panels = [self._panel(f"{title} against {name}", axis.title, points, axis) for name, axis in self._axes.items()]
        return PanelGroup(title, note, _present(panels))

    def _panel(
        self,
        title: str,
        horizontal: str,
        points: Callable[[Record], Points],
        axis: _Axis | None = None,
        *,
        zero: bool = False,
    ) -> Panel:
        lines = []
        for label, records in self._arms.items():
            seeds = [(record, points(record)) for record in records]
            line = _line(self._styles[label], label, [(r, found) for r, found in seeds if found], axis)
            if line.mean:
                lines.append(line)
        return Panel(title, horizontal, tuple(lines), _in_words(title, lines), zero=zero)


_SAMPLES = "samples seen (thousand)"


def _axes(records: Sequence[Record]) -> dict[str, _Axis]:
    flops, flops_unit = _unit(
        [flops_at(r, r.samples) for r in records], ((1e15, "PFLOP"), (1e12, "TFLOP"), (1e9, "GFLOP"))
    )
    time, time_unit = _unit(
        [seconds_at(r, r.samples) for r in records], ((3600.0, "hours"), (60.0, "minutes"), (1.0, "seconds"))
    )
    axes = {"samples": _Axis(_SAMPLES, lambda _, samples: samples / 1000)}
    if flops:
        axes["FLOPs"] = _Axis(f"training FLOPs ({flops_unit})", lambda r, samples: _over(flops_at(r, samples), flops))
    if time:
        axes["time"] = _Axis(f"training time ({time_unit})", lambda r, samples: _over(seconds_at(r, samples), time))
    return axes


def _unit(values: Sequence[float | None], units: tuple[tuple[float, str], ...]) -> tuple[float | None, str]:
    """The largest unit of which the greatest value has at least three."""
    greatest = max((value for value in values if value is not None), default=None)
    if greatest is None:
        return None, ""
    return next(((size, name) for size, name in units if greatest >= 3 * size), units[-1])


def _over(value: float | None, unit: float) -> float | None:
    return None if value is None else value / unit


def _line(style: int, label: str, seeds: list[tuple[Record, Points]], axis: _Axis | None) -> Line:
    """Seeds are averaged where they have seen the same samples, and then set on the axis."""
    if not seeds:
        return Line(style, label, (), ())
    mean = mean_points([points for _, points in seeds])
    if axis is None:
        placed = [_scaled(points) for _, points in seeds] if _over_samples(mean) else [points for _, points in seeds]
        middle = _scaled(mean) if _over_samples(mean) else mean
    else:
        placed = [_placed(points, [record], axis) for record, points in seeds]
        middle = _placed(mean, [record for record, _ in seeds], axis)
    several = tuple(tuple(points) for points in placed) if len(placed) > 1 else ()
    return Line(style, label, several, tuple(middle))


def _over_samples(points: Points) -> bool:
    """Whether the points are over samples and not over sigma."""
    return any(x > 1 for x, _ in points)


def _scaled(points: Points) -> Points:
    return [(x / 1000, y) for x, y in points]


def _placed(points: Points, records: Sequence[Record], axis: _Axis) -> Points:
    found = []
    for samples, value in points:
        places = [axis.at(record, samples) for record in records]
        known = [place for place in places if place is not None]
        if len(known) == len(places):
            found.append((fmean(known), value))
    return found


def _present(panels: Sequence[Panel]) -> tuple[Panel, ...]:
    return tuple(panel for panel in panels if panel.lines)


def _training_loss(record: Record) -> Points:
    return column(record, "loss_generative", "loss")


def _ends(name: str) -> Callable[[Record], Points]:
    """A distance where it was measured: on the untrained weights and at the end."""

    def points(record: Record) -> Points:
        measured = ((0.0, record.untrained.get(name)), (float(record.samples), record.metrics.get(name)))
        return [(at, metric.value) for at, metric in measured if metric is not None and metric.value is not None]

    return points


def _health(record: Record, name: str) -> Points:
    found = [(float(row.samples), getattr(row.health, name)) for row in record.validations if row.health]
    return [(samples, value) for samples, value in found if value is not None]


def _in_words(title: str, lines: Sequence[Line]) -> str:
    ends = [f"{line.label} from {number(line.mean[0][1])} to {number(line.mean[-1][1])}" for line in lines]
    return f"{title}: {'; '.join(ends)}." if ends else title
