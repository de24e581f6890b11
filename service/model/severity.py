"""Severity: -log10 of the p-value, smooth in the score and continued beyond 1 / (n + 1).

The step that is the p-value says too little of the strangest scores: of n calibration scores the
largest is one draw, P(normal score beyond it) is Beta(1, n), within a factor of 3 of 1 / n in 67 %
of draws; and all that lies above it shares one p-value. So severity has three parts:

- the body, up to the score that about 2 sqrt(n) calibration scores are above: the r-th largest
  score has log10((n + 1) / r), straight lines between;
- the tail from there on, a generalised Pareto law of the scores above, by probability-weighted
  moments (Hosking and Wallis, Parameter and Quantile Estimation for the Generalized Pareto
  Distribution, Technometrics 1987). Its shape is at least 0, since a tail that ends would make the
  next score infinitely severe. Its geometric mean with Hill's Pareto (A Simple General Approach to
  Inference about the Tail of a Distribution, Annals of Statistics 1975) was tried: P(normal score
  beyond what it calls 1 / n) is within a factor of 3 of 1 / n less often, in 79 % of draws of seven
  laws at n = 1000 against 90 %, since Hill's has too heavy a tail for exponential scores;
- beyond the CAP, one order over 1 / (n + 1), nothing is known any more: severity then grows by
  GROWTH for each order of magnitude of the score, so that no ranking is lost.

It is written as straight lines over steps, the ends of which are the scores of the table of
p-values and some more, in the tail and beyond it; rounding to float32 never makes a higher score
less severe.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

CAP = 1.0  # orders beyond 1 / (n + 1) that the tail is trusted
GROWTH = 0.1  # of severity by each order of magnitude of the score from there on
FEWEST = 5  # distinct scores that a tail is fitted to
MOST = 511  # scores of the tail: the table holds as many of the largest ones, and one more
MAX_SHAPE = 0.9  # moments of the generalised Pareto exist below 1
CURVE_STEPS = 16  # of the tail, as many to the largest calibration score as from there to the cap
LARGEST = np.finfo(np.float32).max


class Lines(NamedTuple):
    """Severity over steps: for ends[e - 1] < s <= ends[e] it is base + rise (s - start) / width.

    `ends` [T] are those that are not in the table of p-values, the last the largest float32;
    `lines` [E, 4] are of all steps, each with its start, width, base and rise.
    """

    ends: Float32
    lines: Float32


class Tail(NamedTuple):
    """The law of scores above `start`, which is a share 10^-base of all."""

    start: float
    base: float
    shape: float  # of the generalised Pareto
    scale: float

    def severity(self, score: Float64) -> Float64:
        """Of scores from `start` on."""
        excess = (score - self.start) / self.scale
        order = excess if self.shape == 0 else np.log1p(self.shape * excess) / self.shape
        return self.base + order / math.log(10)

    def score(self, severity: float) -> float:
        """The score of this severity, by bisection; at most the largest float32."""
        low, high = self.start, float(LARGEST)
        if self.severity(np.array(high)) <= severity:
            return high
        while high > low * (1 + 1e-9):
            middle = math.sqrt(low) * math.sqrt(high)
            if self.severity(np.array(middle)) < severity:
                low = middle
            else:
                high = middle
        return high


def fit_tail(ascending: Float64) -> Tail | None:
    """The tail of ascending scores above 0; None where too few of them differ."""
    n = len(ascending)
    count = min(max(FEWEST, round(2 * math.sqrt(n))), MOST, n - 1)
    start = float(ascending[n - 1 - count])
    above = ascending[ascending > start]
    if len(np.unique(above)) < FEWEST:
        return None
    shape, scale = fit_excess(above - start)
    return Tail(start, math.log10((n + 1) / (len(above) + 1)), shape, scale)


def fit_excess(ascending: Float64) -> tuple[float, float]:
    """Shape and scale of a generalised Pareto law of ascending excesses; the shape is 0 where they
    do not tell.
    """
    count = len(ascending)
    # a_0 and a_1 of Hosking and Wallis, whose k is minus our shape
    mean = float(ascending.mean())
    weighted = float((ascending * (1 - (np.arange(1, count + 1) - 0.35) / count)).mean())
    told = count >= FEWEST and mean > 2 * weighted
    shape = min(max(2 - mean / (mean - 2 * weighted), 0.0), MAX_SHAPE) if told else 0.0
    # of the clipped shape the scale that keeps the mean
    return shape, mean * (1 - shape)


def fit_lines(ascending: Float32, knots: Float32) -> Lines:
    """Severity over the steps of a table whose scores `knots` are some of these n ascending scores,
    and over others besides, up to the largest float32.
    """
    scores, n = ascending.astype(np.float64), len(ascending)
    largest = float(scores[-1])
    if scores[0] <= 0:
        raise ValueError("severity needs scores above 0")
    tail, limit = fit_tail(scores), math.log10(n + 1) + CAP
    cap = tail.score(limit) if tail else largest
    more = _more_ends(tail.start if tail else largest, largest, cap)
    more = np.setdiff1d(more, knots)
    ends = np.sort(np.concatenate([knots, more]))
    starts = np.concatenate([np.zeros(1, np.float32), ends[:-1]])
    # just above its start, and at its end: they differ where scores are tied
    above = n - np.searchsorted(ascending, starts, side="right")
    at_least = n - np.searchsorted(ascending, ends, side="left")
    before, after = (np.log10((n + 1) / np.maximum(each, 1)) for each in (above + 1, at_least))

    def beyond(score: Float64) -> Float64:
        return GROWTH * np.log10(np.maximum(score / cap, 1))

    if tail is None:
        before = before + beyond(starts.astype(np.float64))
        after = after + beyond(ends.astype(np.float64))
    else:
        for values, score in ((before, starts), (after, ends)):
            is_tail = score > tail.start if values is after else score >= tail.start
            fitted = score[is_tail].astype(np.float64)
            values[is_tail] = np.minimum(tail.severity(fitted), limit) + beyond(fitted)
    return Lines(more, _as_lines(starts, ends, before, after))


def step_lines(p_values: Float32) -> Float32:
    """[E, 4] lines of a table without severity, as format 1.0 has it: -log10 of the p-value."""
    lines = np.zeros((len(p_values), 4), np.float32)
    lines[:, 1], lines[:, 2] = 1, -np.log10(p_values)
    return lines


def _more_ends(start: float, largest: float, cap: float) -> Float32:
    """Close together where severity is the tail's, then by powers of 4."""
    last = max(largest, cap)
    curve = np.concatenate(
        [
            np.geomspace(start, largest, CURVE_STEPS + 1)[1:],
            np.geomspace(largest, last, CURVE_STEPS + 1)[1:],
        ]
    )
    powers = last * 4.0 ** np.arange(1, 300)
    ends = np.concatenate([curve, powers[powers < LARGEST / 2], [LARGEST]])
    return np.unique(ends.astype(np.float32))


def _as_lines(starts: Float32, ends: Float32, before: Float64, after: Float64) -> Float32:
    """Rounded so that no step ends above where the next one begins."""
    base = np.maximum.accumulate(before.astype(np.float32))
    top = np.maximum(np.minimum(after.astype(np.float32), np.append(base[1:], LARGEST)), base)
    rise = np.maximum(top - base, np.float32(0))
    while (over := base + rise > top).any():
        rise[over] = np.nextafter(rise[over], np.float32(0))
    return np.stack([starts, ends - starts, base, rise], axis=1).astype(np.float32)
