"""When a published number counts as reproduced: a pure function of it, the seeds measured here, and a margin.

"Reproduced" is a claim of equivalence, "not reproduced" one of difference, and neither is "inconclusive": as with every
other verdict of the suite, no difference shown is not the same as none. The published number is one run of a model
whose training varies from seed to seed as ours does (arXiv 2606.20536), so it is compared as a sample of one: the
error of the difference is ``s sqrt(1 + 1/n)``, with ``s`` the standard deviation over our n seeds, and Student's t has
n - 1 degrees of freedom. Knows nothing of records and files.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from scipy import stats

from selfflow_bench.results.claims import Status
from selfflow_bench.results.significance import ALPHA, difference_p, equivalence_p

LEVEL = 0.95


@dataclass(frozen=True)
class Reproduction:
    """A published number against the mean of ``n`` seeds here.

    ``low`` to ``high`` is the 95 % interval of measured minus published, the published run's own spread included; null
    where one seed leaves the spread unknown. ``margin`` is how large a difference counts as none.
    """

    status: Status
    published: float
    mean: float
    n: int
    margin: float
    low: float | None = None
    high: float | None = None

    @property
    def text(self) -> str:
        """One sentence for the ledger."""
        seeds = f"{self.n} seed" + ("s" if self.n > 1 else "")
        measured = f"{self.mean:.3g} measured over {seeds}, {self.published:g} published"
        if self.low is None or self.high is None:
            return f"{measured}; the spread of one seed is not known"
        return f"{measured}: {self.low:+.2f} to {self.high:+.2f} (95 %), margin {self.margin:.2f}"


def judge(published: float, measured: Sequence[float], margin: float) -> Reproduction:
    """Whether seeds measured here reproduce a published number.

    Args:
        published: the number.
        measured: one number for each seed.
        margin: how large a difference counts as none, as a share of the published number.

    Returns:
        ``reproduced`` where two one-sided tests at 5 % show a difference smaller than the margin; ``not reproduced``
        where the two-sided test at 5 % shows one, in either direction, and it is not shown to be within the margin;
        else ``inconclusive``. One seed is always that.

    Raises:
        ValueError: nothing measured, or a number that is not finite.
    """
    if not measured or not all(map(math.isfinite, (published, *measured))):
        raise ValueError(f"needs finite numbers, at least one, not {list(measured)}")
    n, mean, width = len(measured), fmean(measured), margin * abs(published)
    if n == 1:
        return Reproduction("inconclusive", published, mean, n, width)
    difference, error, df = mean - published, stdev(measured) * math.sqrt(1 + 1 / n), n - 1
    reach = float(stats.t.ppf((1 + LEVEL) / 2, df)) * error
    status: Status = "inconclusive"
    if equivalence_p(difference, error, df, width) < ALPHA:
        status = "reproduced"
    elif difference_p(difference, error, df) < ALPHA:
        status = "not reproduced"
    return Reproduction(status, published, mean, n, width, difference - reach, difference + reach)
