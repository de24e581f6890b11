"""Whether the rows of a run can be exchangeable: what a certificate presupposes, tested before one
is given.

A probe that needs no fit scores rows which it has not seen: the distance to the fifth nearest of at
most 2,000 other rows, encoded and scaled. Were the rows exchangeable, so were these scores, and
every test below would reject with the probability it states (of autocorrelation: about). The tests
share LEVEL by Bonferroni's rule. They look at 10,000 rows at most and take seconds at most.

Shapes: N rows, D features, E encoded columns.
"""

import warnings
from collections.abc import Sequence
from typing import Literal

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import binomtest, ks_2samp, norm, rankdata
from sklearn.neighbors import NearestNeighbors

from hourglass.service.model.artifact import Feature
from hourglass.training.features import INPUT_LIMIT, Encoding

LEVEL = 0.01  # exchangeable rows are called something else in at most one run of a hundred
MOST_ROWS = 10_000  # looked at, in STRETCHES of neighbouring rows where there are more
STRETCHES = 20
REFERENCES = 2000
NEIGHBOURS = 5
FOLDS = 5
LAGS = 10
PERMUTATIONS = 2000
LAST = 5  # one in so many rows is the last part

Float32 = NDArray[np.float32]
Floats = NDArray[np.floating]
Integers = NDArray[np.integer]


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One test, and what it says where it rejects."""

    test: Literal["last fifth", "neighbours", "unseen groups", "groups"]
    p_value: float
    rejected: bool
    text: str


class Exchangeability(msgspec.Struct, frozen=True, kw_only=True):
    """What the tests found."""

    level: float  # of all tests together
    rows: int  # looked at
    effective_rows: int  # as many independent rows would tell as much of the mean score
    order: str | None  # the column that gave the rows their order; None: the file
    findings: tuple[Finding, ...]

    @property
    def passed(self) -> bool:
        """Whether no test rejects."""
        return not any(finding.rejected for finding in self.findings)

    @property
    def text(self) -> str:
        """One sentence."""
        if self.passed:
            return (
                f"{self.rows:,} rows passed the tests of exchangeability at a level of"
                f" {self.level:.0%}"
            )
        found = "; ".join(finding.text for finding in self.findings if finding.rejected)
        return f"not exchangeable: {found}"


def examine(
    rows_ND: Float32,
    features: Sequence[Feature],
    *,
    alpha: float,
    seed: int,
    order: str | None = None,
    group_N: Integers | None = None,
) -> Exchangeability:
    """Test normal rows in their order, and against their groups where they have any.

    The alarm rates it tells are the probe's, at the budget alpha.
    """
    looked_at = _stretches(len(rows_ND))
    rows_ND = rows_ND[looked_at]
    encoding = Encoding(features, rows_ND)
    with torch.no_grad():
        values_NE = encoding.encode(torch.from_numpy(rows_ND)).values_NE.numpy()
    values_NE = values_NE.clip(-INPUT_LIMIT, INPUT_LIMIT)
    random = np.random.default_rng(seed)
    rank_N = _out_of_fold_ranks(values_NE, random)
    by = f" by {order}" if order else ""

    last_N = np.arange(len(rows_ND)) >= len(rows_ND) - len(rows_ND) // LAST
    p_last, rate = _compare(values_NE, last_N, alpha, random)
    p_neighbours = autocorrelation_p_value(rank_N)
    effective = effective_rows(rank_N)
    tested: list[tuple[Literal["last fifth", "neighbours", "unseen groups", "groups"], float, str]]
    tested = [
        ("last fifth", p_last, f"the last fifth of the rows{by} {rate}"),
        (
            "neighbours",
            p_neighbours,
            f"neighbouring rows{by} score alike, so that {len(rows_ND):,} rows tell as much as"
            f" {effective:,}",
        ),
    ]
    if group_N is not None and len(np.unique(group_N[looked_at])) > 1:
        group_N = np.unique(group_N[looked_at], return_inverse=True)[1]
        p_unseen, rate = _compare(values_NE, _some_groups(group_N, random), alpha, random)
        tested += [
            ("unseen groups", p_unseen, f"a fifth of the rows, left out by whole groups, {rate}"),
            ("groups", groups_p_value(rank_N, group_N, random), "scores differ between groups"),
        ]
    return Exchangeability(
        level=LEVEL,
        rows=len(rows_ND),
        effective_rows=effective if p_neighbours <= LEVEL / len(tested) else len(rows_ND),
        order=order,
        findings=tuple(
            Finding(test=test, p_value=p, rejected=p <= LEVEL / len(tested), text=text)
            for test, p, text in tested
        ),
    )


def autocorrelation_p_value(rank_N: Floats) -> float:
    """Of the sum of the rank autocorrelations at the first lags, against none or negative ones: of
    exchangeable rows each is about Normal(-1/N, 1/N), and independent of the others.
    """
    lags = min(LAGS, len(rank_N) // 5)
    total = float(_autocorrelations(rank_N)[1 : lags + 1].sum())
    return float(norm.sf(total * np.sqrt(len(rank_N) / lags)))


def effective_rows(rank_N: Floats) -> int:
    """N over the integrated autocorrelation time, by the initial positive sequence (Geyer,
    Statistical Science 7, 1992): sums of neighbouring lags up to the first that is not positive.
    """
    correlation = _autocorrelations(rank_N)
    pairs = correlation[: len(correlation) // 2 * 2].reshape(-1, 2).sum(axis=1)
    negative = np.flatnonzero(pairs <= 0)
    time = 2 * float(pairs[: negative[0] if len(negative) else len(pairs)].sum()) - 1
    return max(1, min(len(rank_N), round(len(rank_N) / max(time, 1.0))))


def groups_p_value(rank_N: Floats, group_N: Integers, random: np.random.Generator) -> float:
    """Of the variance between groups of the ranks, by permuting them: exact of exchangeable
    rows.
    """
    count_G = np.bincount(group_N)
    centred_N = rank_N - rank_N.mean()

    def between(values_N: Floats) -> float:
        return float((np.bincount(group_N, weights=values_N) ** 2 / count_G).sum())

    found = between(centred_N)
    larger = sum(
        between(random.permutation(centred_N)) >= found * (1 - 1e-9) for _ in range(PERMUTATIONS)
    )
    return (1 + larger) / (PERMUTATIONS + 1)


def _compare(
    values_NE: Float32, apart_N: NDArray[np.bool_], alpha: float, random: np.random.Generator
) -> tuple[float, str]:
    """The p-value of Kolmogorov and Smirnov for rows apart against as many random others, scored
    by what is left; and what is said of the rows apart, with their rate at the others' threshold.
    """
    others = random.permutation(np.flatnonzero(~apart_N))
    held_out = min(int(apart_N.sum()), len(others) // 2)
    reference_NE = values_NE[others[held_out:]]
    here_N = _probe(reference_NE, values_NE[others[:held_out]])
    apart_scores_N = _probe(reference_NE, values_NE[apart_N])
    rank = max(1, int(np.floor(alpha * (held_out + 1))))
    alarms = int((apart_scores_N > np.sort(here_N)[-rank]).sum())
    interval = binomtest(alarms, len(apart_scores_N)).proportion_ci()
    rate = (
        f"alarms at {alarms / len(apart_scores_N):.0%} ({interval.low:.0%} to"
        f" {interval.high:.0%}) where alpha is {alpha:.3g}"
    )
    if interval.low <= alpha:
        rate = f"scores otherwise than the rest, but {rate}"
    with warnings.catch_warnings():
        # where the exact p-value is beyond float64, scipy takes the asymptotic one, and says so
        warnings.filterwarnings("ignore", "ks_2samp: Exact calculation", RuntimeWarning)
        p_value = float(ks_2samp(here_N, apart_scores_N).pvalue)
    return p_value, rate


def _probe(reference_NE: Float32, rows_NE: Float32) -> Floats:
    """[N] distance to the fifth nearest of the first reference rows, which are in random order."""
    reference_NE = reference_NE[:REFERENCES]
    nearest = NearestNeighbors(
        n_neighbors=min(NEIGHBOURS, len(reference_NE)), algorithm="brute"
    ).fit(reference_NE)
    distance_NK = nearest.kneighbors(rows_NE)[0]
    return np.asarray(distance_NK[:, -1], dtype=np.float64)


def _out_of_fold_ranks(values_NE: Float32, random: np.random.Generator) -> Floats:
    """[N] ranks between 0 and 1 of scores by the other folds' rows; folds are random."""
    fold_N = random.permutation(len(values_NE)) % FOLDS
    rank_N = np.empty(len(values_NE))
    for fold in range(FOLDS):
        here_N = fold_N == fold
        score_N = _probe(random.permutation(values_NE[~here_N]), values_NE[here_N])
        rank_N[here_N] = (rankdata(score_N) - 0.5) / len(score_N)
    return rank_N


def _autocorrelations(rank_N: Floats) -> Floats:
    """At lags 0 to N - 1."""
    centred_N = rank_N - rank_N.mean()
    spectrum = np.abs(np.fft.rfft(centred_N, 2 * len(rank_N))) ** 2
    products = np.fft.irfft(spectrum)[: len(rank_N)]
    if products[0] <= 1e-12:  # all scores are one
        return np.asarray(np.eye(1, len(rank_N))[0])
    return np.asarray(products / products[0])


def _some_groups(group_N: Integers, random: np.random.Generator) -> NDArray[np.bool_]:
    """[N] whether a row is of the groups apart: random ones of a fifth of the rows together, or the
    smallest one.
    """
    count_G = np.bincount(group_N)
    apart: list[int] = []
    for group in random.permutation(len(count_G)):
        if count_G[[*apart, group]].sum() <= len(group_N) / LAST:
            apart.append(int(group))
    return np.isin(group_N, apart or [int(count_G.argmin())])


def _stretches(rows: int) -> Integers:
    """Numbers of the rows to look at: all, or stretches of neighbours at equal distances, the first
    and the last rows among them.
    """
    if rows <= MOST_ROWS:
        return np.arange(rows)
    length = MOST_ROWS // STRETCHES
    starts = np.linspace(0, rows - length, STRETCHES).astype(int)
    return np.asarray((starts[:, None] + np.arange(length)).ravel())
