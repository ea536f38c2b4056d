"""How fast something grows, and how long what is left lasts at that pace: Theil-Sen slopes on a bounded window.

The slope is the median of those between all pairs of points: a third of them may be anything. Its bounds are the wider
of two. Sen's, by the variance of Kendall's S, widened as Hamed and Rao have it where one point tells much of the next;
they hold for what returns to where it was. And those of the mean step, which hold for what wanders, as memory does: a
random walk seems to grow in every third window by the first, in every thirtieth by the second.

Sources: P. K. Sen, "Estimates of the regression coefficient based on Kendall's tau", JASA 63 (1968); K. H. Hamed, A. R.
Rao, "A modified Mann-Kendall trend test for autocorrelated data", J. Hydrology 204 (1998).
"""

from array import array
from collections.abc import Sequence
from itertools import combinations, pairwise
from math import inf, sqrt
from statistics import median, stdev
from typing import NamedTuple

POINTS = 40  # in a window: 780 pairs, a fifth of a millisecond
LEAST = 6  # of which 15 pairs: with fewer no bounds are known
BLOCK_S = 3.0
REACH = 30  # times as long as was looked at: what lies behind that nobody can tell
_SURE = 1.96  # standard deviations: 95 %


class Trend(NamedTuple):
    """A slope in bytes a minute, and the bounds between which it lies with 95 % confidence; infinite: not known."""

    slope: float
    least: float
    most: float
    seconds: float  # how long was looked at

    @property
    def grows(self) -> bool:
        """Is it sure that it does?"""
        return self.least > 0


class TimeLeft(NamedTuple):
    """How long until nothing is left, if all goes on as it did in the window."""

    # "looking": too short a time was looked at. "steady": it does not grow, or so slowly that the end lies behind
    # `horizon_s`. "unsure": it may end at `least_s`, or never. "growing": it ends between `least_s` and `most_s`.
    verdict: str
    seconds: float | None = None  # at the slope itself
    least_s: float | None = None
    most_s: float | None = None
    horizon_s: float | None = None  # so far can be told


class Window:
    """The least value of each block of time, the newest `POINTS` of them.

    The least: what a garbage collector, or reclaim, leaves is what is held; what lies above it comes and goes.
    """

    __slots__ = ("_begun_s", "_times", "_trend", "_values", "block_s")

    def __init__(self, block_s: float = BLOCK_S) -> None:
        self.block_s = block_s
        self._begun_s = -inf  # of the newest block, which is still open
        self._times = array("d")
        self._values = array("q")
        self._trend: Trend | None = None

    def add(self, at_s: float, value: int) -> None:
        """A value at that time, in seconds since any moment; a time before the newest is passed over."""
        times, values = self._times, self._values
        if times and at_s < times[-1]:
            return
        if at_s - self._begun_s < self.block_s - _JITTER_S:
            if value < values[-1]:
                values[-1], times[-1] = value, at_s
            return
        self._trend = trend(list(zip(times, values, strict=True)))  # all its blocks are closed
        self._begun_s = at_s
        times.append(at_s)
        values.append(value)
        if len(times) > POINTS:
            del times[0], values[0]

    def trend(self) -> Trend | None:
        """Of the blocks that are closed; None: there are too few."""
        return self._trend


_JITTER_S = 0.1  # looks come a little early or late: a block of three takes three


def trend(points: Sequence[tuple[float, int]]) -> Trend | None:
    """The slope through points (seconds, bytes), in the order of time; None: there are too few.

    >>> trend([(second, 1024 * second) for second in range(0, 60, 3)])
    Trend(slope=61440.0, least=61440.0, most=61440.0, seconds=57)
    """
    count = len(points)
    if count < LEAST:
        return None
    seconds = points[-1][0] - points[0][0]
    first = points[0][1]
    if all(value == first for _, value in points):  # most processes do nothing most of the time
        return Trend(0.0, 0.0, 0.0, seconds)
    slopes = sorted((late[1] - early[1]) / (late[0] - early[0]) for early, late in combinations(points, 2))
    slope = median(slopes)
    left_over = [round(value - slope * (at - points[0][0])) for at, value in points]
    variance = count * (count - 1) * (2 * count + 5) / 18 * _widening(left_over)
    low = int((len(slopes) - _SURE * sqrt(variance)) / 2)
    least, most = (-inf, inf) if low < 1 else (slopes[low - 1] * 60, slopes[-low] * 60)
    wandering = _SURE * stdev(late[1] - early[1] for early, late in pairwise(points)) * sqrt(count - 1)
    gone = points[-1][1] - first
    least = min(least, (gone - wandering) / seconds * 60)
    most = max(most, (gone + wandering) / seconds * 60)
    return Trend(slope * 60, least, most, seconds)


def _widening(values: Sequence[int]) -> float:
    """By how much points that resemble their neighbours tell less than as many that do not; at least 1."""
    count = len(values)
    ranks = _ranks(values)
    mean = (count - 1) / 2
    apart = [rank - mean for rank in ranks]
    spread = sum(value * value for value in apart)
    if spread == 0:
        return 1.0
    total = 0.0
    for lag in range(1, count - 2):
        alike = sum(a * b for a, b in zip(apart, apart[lag:], strict=False)) / spread
        if abs(alike) > _SURE / sqrt(count):
            total += (count - lag) * (count - lag - 1) * (count - lag - 2) * alike
    return max(1 + 2 * total / (count * (count - 1) * (count - 2)), 1.0)


def _ranks(values: Sequence[int]) -> list[float]:
    """The place of each value in their order; equals share the mean of their places."""
    places: dict[int, list[int]] = {}
    for place, value in enumerate(sorted(values)):
        places.setdefault(value, []).append(place)
    return [sum(places[value]) / len(places[value]) for value in values]


def time_left(left_bytes: int, growth: Trend | None) -> TimeLeft:
    """How long `left_bytes` last at that growth, and how sure that is.

    >>> time_left(1024, Trend(slope=64, least=32, most=128, seconds=120))
    TimeLeft(verdict='growing', seconds=960.0, least_s=480.0, most_s=1920.0, horizon_s=3600)
    """
    if growth is None:
        return TimeLeft("looking")
    horizon_s = REACH * growth.seconds
    least_s = _lasts(left_bytes, growth.most)
    if least_s is None or least_s > horizon_s:
        return TimeLeft("steady", horizon_s=horizon_s)
    if not growth.grows:
        return TimeLeft("unsure", least_s=least_s, horizon_s=horizon_s)
    seconds, most_s = _lasts(left_bytes, growth.slope), _lasts(left_bytes, growth.least)
    return TimeLeft("growing", seconds=seconds, least_s=least_s, most_s=most_s, horizon_s=horizon_s)


def _lasts(left_bytes: int, slope: float) -> float | None:
    return left_bytes / slope * 60 if slope > 0 else None
