"""How numbers and metrics are written for people, the same on the board and in the terminal. Knows no layout."""

import math
from collections.abc import Collection

from selfflow_bench.results.metric_name import MetricName
from selfflow_bench.results.statistics import BETTER, EQUIVALENT, INCONCLUSIVE, WORSE, MeanDifference

_KINDS = {"validation_loss": "validation loss", "kid": "KID", "frechet": "Fréchet distance", "fid": "FID"}


def metric_title(name: str) -> str:
    """ "kid/net" to "KID (net)": a distance is never named without its network."""
    network = MetricName.of(name).network
    return f"{metric_kind(name)} ({network})" if network else metric_kind(name)


def metric_kind(name: str) -> str:
    """ "kid/net" to "KID", for places where the network stands beside it; "kid/net/4-step" to "KID, 4-step"."""
    parts = MetricName.of(name)
    title = _KINDS.get(parts.kind, parts.kind.replace("_", " "))
    return f"{title}, {parts.sampler}" if parts.sampler else title


def metric_label(name: str, among: Collection[str]) -> str:
    """The kind, with the network where another metric of the same table is of the same kind."""
    alike = [other for other in among if metric_kind(other) == metric_kind(name)]
    return metric_title(name) if len(alike) > 1 else metric_kind(name)


def number(value: float | None, digits: int = 4) -> str:
    """Significant digits, four by default: as many as differences of 0.1 % need; "–" for none."""
    if value is None:
        return "–"
    if value == 0:
        return "0"
    if abs(value) < 1e-4 or abs(value) >= 1e6:
        return f"{value:.{digits - 1}e}"
    return f"{value:.{max(0, digits - 1 - _exponent(value, digits))}f}"


def spread(value: float | None) -> str:
    """A standard deviation, two significant digits."""
    return number(value, 2)


def signed(value: float | None) -> str:
    """Three significant digits, the sign always."""
    return "–" if value is None else f"{'+' if value > 0 else ''}{number(value, 3)}"


def percent(value: float | None) -> str:
    """Two significant digits with a sign, "+2.2 %"."""
    if not value:
        return "–" if value is None else "0 %"
    return f"{value:+.{0 if abs(value) >= 10 else 1 if abs(value) >= 1 else 2}f} %"


def seconds(value: float | None) -> str:
    """ "95 s", "12.5 min" or "3.2 h"."""
    if value is None:
        return "–"
    if value < 180:
        return f"{value:.0f} s"
    return f"{value / 60:.1f} min" if value < 10_800 else f"{value / 3600:.1f} h"


def times(value: float | None) -> str:
    """ "1.24×"."""
    return "–" if value is None else f"{value:.2f}×"


def flops(value: float | None) -> str:
    """ "5.57 TFLOP", three digits and the prefix that fits."""
    if value is None:
        return "–"
    power = min(max((_exponent(value, 3)) // 3, 3), 7)
    return f"{number(value / 10.0 ** (3 * power), 3)} {'GTPEZ'[power - 3]}FLOP"


def spent(axis: str, value: float | None) -> str:
    """A budget of samples, FLOPs or seconds."""
    if value is None:
        return "–"
    return {"FLOPs": flops, "seconds": seconds}.get(axis, lambda count: f"{count:,.0f}")(value)


def verdict(paired: MeanDifference) -> str:
    """The verdict in words: what it means where it is not plain, and whether a difference matters."""
    if paired.verdict == EQUIVALENT:
        return f"{EQUIVALENT} (margin {share(paired.margin_percent)})"
    if paired.verdict in (BETTER, WORSE) and paired.within_margin:
        return f"{paired.verdict}, but within the margin of {share(paired.margin_percent)}"
    return f"{INCONCLUSIVE}: no difference shown" if paired.verdict == INCONCLUSIVE else paired.verdict


def detectable(paired: MeanDifference) -> str:
    """The smallest difference that would have been shown: as a share of the baseline, or as it is."""
    if paired.detectable_percent is not None:
        return share(paired.detectable_percent)
    return number(paired.detectable, 2)


def share(value: float | None) -> str:
    """ "1 %" or "0.24 %", two significant digits without a sign."""
    if value is None:
        return "–"
    whole = value >= 10 or math.isclose(value, round(value))
    return f"{value:.{0 if whole else 1 if value >= 1 else 2}f} %"


def probability(value: float | None) -> str:
    """Two significant digits; "< 0.0001" below that."""
    if value is None:
        return "–"
    return "< 0.0001" if value < 1e-4 else f"{value:.2g}"


def _exponent(value: float, digits: int) -> int:
    """Of ten, after rounding to the digits: 0.99996 to four is 1.000."""
    return int(f"{abs(value):.{digits - 1}e}".partition("e")[2])
