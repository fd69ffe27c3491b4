"""How numbers and metrics are written for people, the same on the board and in the terminal. Knows no layout."""

from selfflow_bench.results.statistics import PairedDifference

_KINDS = {"validation_loss": "validation loss", "kid": "KID", "frechet": "Fréchet distance"}


def metric_title(name: str) -> str:
    """ "kid/net" to "KID (net)": a distance is never named without its network."""
    kind, _, network = name.partition("/")
    title = _KINDS.get(kind, kind.replace("_", " "))
    return f"{title} ({network})" if network else title


def metric_kind(name: str) -> str:
    """ "kid/net" to "KID", for places where the network stands beside it."""
    kind = name.partition("/")[0]
    return _KINDS.get(kind, kind.replace("_", " "))


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


def verdict(paired: PairedDifference) -> str:
    """The verdict, and with "no difference shown" what could have been shown."""
    if paired.verdict == "no difference shown" and paired.detectable is not None:
        relative = paired.detectable_percent
        size = percent(relative).lstrip("+") if relative is not None else number(paired.detectable)
        return f"{paired.verdict} (detectable: {size})"
    return paired.verdict


def _exponent(value: float, digits: int) -> int:
    """Of ten, after rounding to the digits: 0.99996 to four is 1.000."""
    return int(f"{abs(value):.{digits - 1}e}".partition("e")[2])
