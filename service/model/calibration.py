"""P-values from held-out normal rows, and the rule that turns a false-alarm budget into a
threshold.

With s_1..s_n the scores of n calibration rows, p(s) = (1 + #{s_j >= s}) / (n + 1) is a valid
p-value for an exchangeable normal row (Vovk, Gammerman and Shafer, Algorithmic Learning in a Random
World, 2005). A rule is a rank m: alarm iff p <= m / (n + 1).

- marginal: m = floor(alpha (n + 1)); the false-alarm rate is at most alpha on average over
  calibration draws;
- certified: m* = max{m : P(Bin(n, alpha) <= m - 1) <= delta}; the rate is at most alpha with
  confidence 1 - delta over the calibration draw, since given that draw it is at most a Beta(m, n +
  1 - m) variable (Vovk, ACML 2012, prop. 2a).
"""

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from hourglass.service.errors import UncertifiableAlpha
from hourglass.service.floats import look_up
from hourglass.service.model.severity import Lines, fit_lines, step_lines

Float32 = NDArray[np.float32]
_LARGEST = float(np.finfo(np.float32).max)
_SMALLEST = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True, slots=True)
class Threshold:
    """A false-alarm budget made concrete for one calibrated model."""

    alpha: float
    delta: float
    # the (alpha, delta) rule; otherwise the marginal rule. guarantee.py says what holds of it
    certified: bool
    rank: int  # m: alarm iff p <= rank / (n + 1)
    score: float  # alarm iff score > this
    expected_false_alarm_rate: float  # rank / (n + 1)

    def is_anomaly(self, score_N: Float32) -> NDArray[np.bool_]:
        """[N] scores -> [N], true above the threshold; floats.write_scores decides alike."""
        return score_N > np.float32(self.score)

    def ratio(self, score_N: Float32) -> Float32:
        """[N] scores -> [N] scores over the threshold, at most the largest float32.

        A threshold of 0 counts as the smallest normal float32. The quotient of two float32 loses
        nothing on the way by float64; floats.write_scores computes it alike.
        """
        ratio_N = score_N / np.float64(max(self.score, _SMALLEST))
        return np.minimum(ratio_N, _LARGEST).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Table:
    """Ascending scores and the p-value of each interval: p_values[i] for scores[i - 1] < s <=
    scores[i]; one more of them.

    Severity is a line over each of these steps and of those beyond; without `severity`, as in files
    of format 1.0, it is -log10 of the p-value.
    """

    n: int  # calibration rows behind the table
    scores: Float32
    p_values: Float32
    severity: Lines | None = None
    _ends: Float32 = field(init=False, repr=False, compare=False)
    _steps: Float32 = field(init=False, repr=False, compare=False)
    _lines: Float32 = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.severity is None:
            more, lines = np.array([np.inf], np.float32), step_lines(self.p_values)
        else:
            more, lines = self.severity.ends, self.severity.lines
        ends = np.sort(np.concatenate([self.scores, more]))
        steps = self.p_values[np.searchsorted(self.scores, ends, side="left")]
        # closed by infinity, so that there is a step for every number, and a last one for NaN
        ends[-1] = np.inf
        last = np.full((1, 4), np.nan, np.float32)
        object.__setattr__(self, "_ends", ends)
        object.__setattr__(self, "_steps", np.append(steps, np.float32(np.nan)))
        object.__setattr__(self, "_lines", np.concatenate([lines, last]).ravel())

    def look_up(self, scores_N: Float32) -> tuple[Float32, Float32]:
        """[N] scores -> [N] p-values and [N] severities; NaN only where the score is NaN."""
        p_N, severity_N = np.empty(len(scores_N), np.float32), np.empty(len(scores_N), np.float32)
        scores_N = np.ascontiguousarray(scores_N)
        look_up(self._ends, self._steps, self._lines, scores_N, p_N, severity_N)
        return p_N, severity_N

    @property
    def smallest_p_value(self) -> float:
        """Of a score above all calibration scores."""
        return float(self.p_values[-1])

    def p_value(self, scores_N: Float32) -> Float32:
        """[N] scores -> [N] p-values."""
        return self.look_up(scores_N)[0]

    def severities(self, scores_N: Float32) -> Float32:
        """[N] scores -> [N] severities."""
        return self.look_up(scores_N)[1]

    @property
    def largest(self) -> float:
        """The largest calibration score: beyond it severity is extrapolated, and no p-value is
        smaller.
        """
        return float(self.scores[-1])

    def is_extrapolated(self, scores_N: Float32) -> NDArray[np.bool_]:
        """[N] scores -> [N]; floats.write_scores decides alike."""
        return scores_N > np.float32(self.largest)

    def threshold(self, alpha: float, delta: float, *, certified: bool = True) -> Threshold:
        """The threshold for (alpha, delta); UncertifiableAlpha when these rows cannot give it."""
        rank = certified_rank(self.n, alpha, delta) if certified else marginal_rank(self.n, alpha)
        if rank == 0:
            raise UncertifiableAlpha(refusal(self.n, alpha, delta, certified=certified))
        limit = rank / (self.n + 1)
        if self.smallest_p_value > limit * (1 + 1e-6):  # a block with fewer rows than all have
            raise UncertifiableAlpha(
                f"alpha = {alpha:g} cannot be reached: the smallest held-out block has"
                f" {round(1 / self.smallest_p_value) - 1} rows, of which no score is rarer than"
                f" {self.smallest_p_value:.4f}"
            )
        # p_values fall, so the alarm begins after the last score whose interval still has p > limit
        first_alarm = int(
            np.searchsorted(-self.p_values, -np.float32(limit * (1 + 1e-6)), side="left")
        )
        return Threshold(alpha, delta, certified, rank, float(self.scores[first_alarm - 1]), limit)


def build_table(
    scores_N: Float32,
    *,
    block_N: NDArray[np.integer] | None = None,
    exact_tail: int = 512,
    body: int = 512,
) -> Table:
    """The table of [N] calibration scores: exact up to exact_tail + body rows, then with the body
    at log-spaced ranks.

    Leaving out scores of the body only ever raises a p-value (at most 1.5 % there), so the
    false-alarm rate stays in bounds. Of scores in blocks a p-value is the largest of the blocks'
    own: the rate of every block looked at is below any threshold's.
    """
    ascending = np.sort(scores_N.astype(np.float32))
    n = len(ascending)
    if n == 0 or not np.isfinite(ascending).all():
        raise ValueError("calibration needs at least one row, and finite scores")
    if n > exact_tail + body:
        # from the top, 1-based
        ranks = np.geomspace(exact_tail, n, body + 1)[1:].round().astype(int)
        kept = np.unique(np.concatenate([n - np.arange(1, exact_tail + 1), n - ranks]))
        knots = np.unique(ascending[kept])
    else:
        knots = np.unique(ascending)
    # p in (knots[i-1], knots[i]] is that of a score just above knots[i-1]
    blocks = [ascending]
    if block_N is not None:
        blocks = [np.sort(scores_N[block_N == block]) for block in np.unique(block_N)]
    p_values = np.max([_p_values(block, knots) for block in blocks], axis=0).astype(np.float32)
    falls = np.diff(p_values) < 0  # of blocks not at every score
    knots, p_values = knots[falls], np.append(p_values[:1], p_values[1:][falls])
    if block_N is not None:
        ascending = _envelope(knots, p_values, min(map(len, blocks)))
    return Table(n, knots, p_values, fit_lines(ascending, knots) if ascending[0] > 0 else None)


def _envelope(knots: Float32, p_values: Float32, m: int) -> Float32:
    """As many scores as the smallest block has, of which these would be the p-values: what severity
    is fitted to. The r-th largest is the one above which p is at most r / (m + 1).
    """
    limits = np.arange(m, 0, -1) / (m + 1) * (1 + 1e-6)
    return knots[np.searchsorted(-p_values, -limits, side="left") - 1]


def _p_values(ascending: Float32, knots: Float32) -> NDArray[np.float64]:
    above = len(ascending) - np.searchsorted(ascending, knots, side="right")
    counts = np.concatenate([[len(ascending)], above])
    return np.asarray((1 + counts) / (len(ascending) + 1))


def certified_rank(n: int, alpha: float, delta: float) -> int:
    """m* of the (alpha, delta) rule for n calibration rows; 0 when it does not exist."""
    # below twelve standard deviations under the mean lies less than the smallest delta's millionth
    rank = max(0, math.floor(n * alpha - 12 * math.sqrt(n * alpha) - 12))
    log_term = _log_binomial(n, rank, alpha)
    total = 0.0
    while rank < n:
        total += math.exp(log_term)
        if total > delta:
            break
        rank += 1
        log_term += math.log((n - rank + 1) / rank) + math.log(alpha) - math.log1p(-alpha)
    return rank


def _log_binomial(n: int, k: int, alpha: float) -> float:
    """log P(Bin(n, alpha) = k)."""
    ways = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) if k else 0.0
    return ways + k * math.log(alpha) + (n - k) * math.log1p(-alpha)


def marginal_rank(n: int, alpha: float) -> int:
    """m of the marginal rule for n calibration rows; 0 when no score could ever alarm."""
    return math.floor(alpha * (n + 1) + 1e-9)


def rows_to_certify(alpha: float, delta: float) -> int:
    """The fewest calibration rows that can certify (alpha, delta): (1 - alpha)^n <= delta."""
    return math.ceil(math.log(delta) / math.log1p(-alpha) - 1e-9)


def nearest_alpha(n: int, delta: float) -> float:
    """The smallest alpha that n calibration rows can certify at this delta."""
    return -math.expm1(math.log(delta) / n)


def refusal(n: int, alpha: float, delta: float, *, certified: bool) -> str:
    """Why alpha cannot be had with n calibration rows, what it would take, and what works
    instead.
    """
    if certified:
        nearest = math.ceil(nearest_alpha(n, delta) * 1e4) / 1e4
        return (
            f"alpha = {alpha:g} cannot be certified at delta = {delta:g} with {n} calibration rows:"
            f" it needs at least {rows_to_certify(alpha, delta)}; the nearest alpha that can be"
            f" certified is {nearest:g}"
        )
    return (
        f"alpha = {alpha:g} cannot be reached with {n} calibration rows: without a guarantee it"
        f" needs at least {math.ceil(1 / alpha - 1e-9) - 1}; the smallest alpha that can be reached"
        f" is {math.ceil(1e4 / (n + 1)) / 1e4:g}"
    )
