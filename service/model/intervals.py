"""Intervals: how well a count of rows tells the rate behind it (Clopper and Pearson, Biometrika 26,
1934), how far two samples may lie apart (Kolmogorov and Smirnov), and the quantiles of tests.
"""

import math

CONFIDENCE = 0.95
_CLOSE = 1e-12
_STEPS = 100_000  # of the fraction: about the square root of the rows
_TINY = 1e-300
_MANY = 1e9  # degrees of freedom, below which F is chi-squared


def interval_of(hits: int, rows: int) -> tuple[float, float]:
    """What the rate may be of which so many rows are hits, with CONFIDENCE; all of 0 to 1 without
    rows.
    """
    outside = (1 - CONFIDENCE) / 2
    low = _beta_quantile(outside, hits, rows - hits + 1) if hits else 0.0
    high = _beta_quantile(1 - outside, hits + 1, rows - hits) if hits < rows else 1.0
    return low, high


def kolmogorov(distance: float, rows: float, *, one_sided: bool = False) -> float:
    """P(the largest difference of two distribution functions is at least this) where they are the
    same; `rows` are those of one sample, of two n m / (n + m). The correction for few rows is
    Stephens's (Journal of the American Statistical Association 69, 1974).
    """
    root = math.sqrt(rows)
    if one_sided:
        return math.exp(-2 * (root * distance) ** 2)
    reach = (root + 0.12 + 0.11 / root) * distance
    if reach < 0.2:  # where the series takes ever more terms, and is 1
        return 1.0
    terms = (math.exp(-2 * (k * reach) ** 2) for k in range(1, 101))
    return min(max(2 * sum(t if k % 2 == 0 else -t for k, t in enumerate(terms)), 0.0), 1.0)


def f_limit(level: float, above: float, below: float) -> float:
    """What a variable of Fisher's F, of so many degrees of freedom above and below, passes with
    this probability.
    """
    rest = _beta_quantile(level, below / 2, above / 2)
    return below * (1 - rest) / (above * rest)


def chi_squared_limit(level: float, freedom: float) -> float:
    """The same of a chi-squared variable."""
    return freedom * f_limit(level, freedom, _MANY)


def _beta_quantile(probability: float, a: float, b: float) -> float:
    """By Newton's steps, or halving where one leads out of what is known."""
    low, high, at = 0.0, 1.0, a / (a + b)
    scale = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    for _ in range(100):
        over = _beta_probability(at, a, b) - probability
        low, high = (low, at) if over > 0 else (at, high)
        log_density = scale + (a - 1) * math.log(at) + (b - 1) * math.log1p(-at)
        after = at - over / math.exp(max(min(log_density, 700.0), -700.0))
        if not low < after < high:
            after = (low + high) / 2
        if abs(after - at) <= _CLOSE * at:
            return after
        at = after
    return at


def _beta_probability(at: float, a: float, b: float) -> float:
    """The regularised incomplete beta function, by the continued fraction of DLMF 8.17.22 (Lentz's
    way).
    """
    scale = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    front = math.exp(scale + a * math.log(at) + b * math.log1p(-at))
    if at > (a + 1) / (a + b + 2):  # on the other side it converges fast
        return 1 - front * _fraction(1 - at, b, a) / b
    return front * _fraction(at, a, b) / a


def _fraction(at: float, a: float, b: float) -> float:
    above, below = 1.0, 1 / _away(1 - (a + b) * at / (a + 1))
    value = below
    for m in range(1, _STEPS):
        even = m * (b - m) * at / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * at / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            below, above = 1 / _away(1 + term * below), _away(1 + term / above)
            value *= below * above
        if abs(below * above - 1) < _CLOSE:
            break
    return value


def _away(value: float) -> float:
    return value if abs(value) > _TINY else _TINY
