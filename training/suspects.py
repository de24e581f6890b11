"""Rows of the training data that may be anomalies: how far each lies from its nearest neighbours.

A model that learns anomalies along with the rest finds them normal. So each row is scored by the
others alone: by its mean distance to the nearest of them (Ramaswamy, Rastogi and Shim, SIGMOD 2000;
the mean of several as in Angiulli and Pizzuti, PKDD 2002). Anomalies that are alike hide one
another, so that the strangest of a first round are nobody's neighbours in the second, and rows that
are nearly identical never are. Columns are half whitened: features that move together do not count
twice.

Shapes: N rows, R reference rows, M suspects, D features, E encoded columns, K neighbours.
"""

import csv
import io
import math
from typing import NamedTuple

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import poisson

from hourglass.training.config import RunConfig
from hourglass.training.data import Data
from hourglass.training.errors import RunError
from hourglass.training.features import Encoding
from hourglass.training.models.associative.whitening import Whitening

SUSPECTS = "suspects.csv"  # beside the model
FEWEST_ROWS = 60  # of fewer none is called strange
REFERENCE = 5000  # rows that can be neighbours, at most
NEIGHBOURS = 5
LEFT_OUT = 0.05  # of the rows, by the first round, are no neighbours in the second
SHRINKAGE = 0.05  # of the correlation that columns are whitened by
HALF = 0.5
LIMIT = 15.0  # standard deviations
MOST = 0.05  # of the rows are listed, at most
REPORTED = 100  # of them in report.json, at most
NEARLY_IDENTICAL = 0.05  # of the usual distance: such rows are one, and no neighbours
ALIKE = 0.1  # standard deviations by which no column of two rows differs
BLAMED = 3  # features a row, at most
BODY, SHOULDER = 0.6, 0.9  # quantiles of the scores between which the tail is read
HEAVIER = 1.5  # times as heavy as it begins may a tail go on: the tails of real normal rows do
EXPECTED = (1.0, 8.0)  # rows beyond the levels that are looked at, if the tail goes on so
FALSE_WARNINGS = 0.02  # of clean data, at most, whose tail goes on so
# of the rows have one value in a column: a rare other value is far from all, and no anomaly for
# that
COMMON = 0.5
CHUNK = 1024

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


class Suspect(msgspec.Struct, frozen=True, kw_only=True):
    """One row that may be an anomaly, and why; never the row itself."""

    row: int  # of the file, from 1 without the header
    score: float  # distance to the nearest rows, of the median row's
    p_value: float  # share of the rows that are at least as far from theirs
    alike: int  # other suspects that are nearly identical
    features: tuple[str, ...]  # that have most to do with the distance


class Columns(NamedTuple):
    """Rows as their distances are taken."""

    encoded_NE: Floats
    seen_NE: NDArray[np.float32]  # 0 where missing
    source_E: NDArray[np.int64]  # the feature of each
    features: int


class Strangeness(NamedTuple):
    """How far each normal row lies from others."""

    score_N: Floats  # over the median row's; -inf where no cell is observed
    tested_N: Floats  # the same over the columns that the test looks at; -inf where there is none
    encoded_NE: Floats  # standardised
    blamed_NB: NDArray[np.int64]  # features, the first with the largest part in it


def look_for_suspects(data: Data, config: RunConfig) -> Strangeness | None:
    """Score the normal rows, each by the others; None when they are too few to tell."""
    observed = np.asarray(~np.isnan(data.normal_ND).all(axis=1))
    if observed.sum() < FEWEST_ROWS:
        return None
    encoding = Encoding(data.features, data.normal_ND, "auto")
    rows = encoding.encode(torch.from_numpy(data.normal_ND))
    encoded_NE = rows.values_NE.double().clamp(-LIMIT, LIMIT).numpy()
    seen_NE = encoding.spread(rows.observed_ND).numpy()
    source_E = encoding.source_E.numpy()
    generator = np.random.default_rng(config.seed)
    reference = np.sort(generator.permutation(np.flatnonzero(observed))[:REFERENCE])
    columns = Columns(encoded_NE, seen_NE, source_E, len(data.features))
    score_N, blamed_NB = _two_rounds(columns, observed, reference)
    varied_E = [_most_common(x_N) <= COMMON for x_N in encoded_NE[observed].T]
    tested_N = score_N
    if not all(varied_E):
        tested_N = np.full(len(score_N), -np.inf)
        if any(varied_E):
            varied = columns._replace(
                encoded_NE=encoded_NE[:, varied_E],
                seen_NE=seen_NE[:, varied_E],
                source_E=source_E[varied_E],
            )
            tested_N, _ = _two_rounds(varied, observed, reference)
    return Strangeness(score_N, tested_N, encoded_NE, blamed_NB)


def list_suspects(data: Data, strange: Strangeness) -> tuple[Suspect, ...]:
    """The strangest rows first, at most a share MOST of all."""
    ascending = np.sort(strange.score_N[np.isfinite(strange.score_N)])
    order_M = np.argsort(-strange.score_N, kind="stable")[: int(MOST * len(ascending))]
    at_least_M = len(ascending) - np.searchsorted(ascending, strange.score_N[order_M])
    alike_M = _alike(strange.encoded_NE[order_M])
    return tuple(
        Suspect(
            row=int(data.number_N[row]),
            score=float(strange.score_N[row]),
            p_value=int(at_least) / len(ascending),
            alike=int(alike),
            features=tuple(data.features[column].name for column in strange.blamed_NB[row]),
        )
        for row, at_least, alike in zip(order_M, at_least_M, alike_M, strict=True)
    )


def warn(strange: Strangeness) -> str | None:
    """A sentence where more rows lie far out than a tail that goes on half as heavy again as it
    begins would have.

    Between BODY and SHOULDER the logarithm of the score is taken to fall off exponentially (Hill,
    Annals of Statistics 3, 1975, censored at SHOULDER). Beyond the levels where EXPECTED rows are
    due, were the tail HEAVIER, their numbers are Poisson. Columns of which more than COMMON rows
    have one value have no part in it. Anomalies that are no farther out than the rarest normal rows
    are nobody's to see: silence says little.
    """
    score_N = strange.tested_N[np.isfinite(strange.tested_N)]
    if not len(score_N):
        return None
    body, shoulder = np.quantile(score_N, (BODY, SHOULDER))
    if not 0 < body < shoulder:
        return None
    excess = np.log(np.minimum(score_N[score_N > body], shoulder) / body)
    uncensored = (score_N > body) & (score_N < shoulder)
    scale = HEAVIER * float(excess.sum()) / max(1, int(uncensored.sum()))
    order_N = np.log(score_N[score_N > 0] / body)
    for expected in EXPECTED:
        # of scores in few steps the level may be beyond every number, and its logarithm is not
        beyond = int((order_N > scale * math.log(len(excess) / expected)).sum())
        if poisson.sf(beyond - 1, expected) <= FALSE_WARNINGS / len(EXPECTED):
            return (
                f"{beyond} of {len(score_N)} rows lie farther from all others than {expected:g} of"
                f" them would if the scores fell off {HEAVIER:g} times as slowly as they begin to"
                " between the 60 % and 90 % quantiles; the test warns of at most"
                f" {FALSE_WARNINGS:.0%} of clean tables of that kind: look at {SUSPECTS}"
            )
    return None


def strangest(data: Data, strange: Strangeness | None, share: float) -> Bools:
    """[N] true for that share of the normal rows, rounded; RunError when they are too few to tell
    which.
    """
    if strange is None:
        raise RunError(
            f"contamination needs at least {FEWEST_ROWS} normal rows to tell which are strange, got"
            f" {len(data.normal_ND)}"
        )
    left_out_N = np.zeros(len(strange.score_N), dtype=bool)
    count = round(share * np.isfinite(strange.score_N).sum())
    left_out_N[np.argsort(-strange.score_N, kind="stable")[:count]] = True
    return left_out_N


def write_suspects(suspects: tuple[Suspect, ...]) -> str:
    """CSV text: what --exclude reads once the lines of rows that are in order are deleted."""
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(("row", "score", "p_value", "alike", "features"))
    for it in suspects:
        features = " ".join(it.features)
        lines.writerow((it.row, f"{it.score:.6g}", f"{it.p_value:.4g}", it.alike, features))
    return text.getvalue()


def _two_rounds(
    columns: Columns, observed: Bools, reference: NDArray[np.intp]
) -> tuple[Floats, NDArray[np.int64]]:
    """[N] distances over the median row's, and the features to blame; the strangest of the first
    round are nobody's neighbours in the second.
    """
    plain_N, _ = _distances(columns, reference, 0.0)
    closest = NEARLY_IDENTICAL * float(np.median(plain_N[observed]))
    first_N, _ = _distances(columns, reference, closest)
    usual = first_N <= np.quantile(first_N[observed], 1 - LEFT_OUT)
    second_N, blamed_NB = _distances(columns, reference[usual[reference]], closest)
    unit = float(np.median(second_N[observed])) or 1.0
    return np.where(observed, second_N / unit, -np.inf), blamed_NB


def _most_common(x_N: Floats) -> float:
    """Share of the rows that have the most common value."""
    return float(np.unique(x_N, return_counts=True)[1].max() / len(x_N))


def _distances(
    columns: Columns, reference: NDArray[np.intp], closest: float
) -> tuple[Floats, NDArray[np.int64]]:
    """[N] mean distance to the nearest reference rows, neither itself nor nearer than `closest`,
    and the features to blame.
    """
    encoded_NE, seen_NE, source_E, features = columns
    seen = torch.from_numpy(seen_NE[reference]).double()
    values = torch.from_numpy(encoded_NE[reference])
    center_E = ((values * seen).sum(dim=0) / seen.sum(dim=0).clamp_min(1.0)).numpy()
    centred_NE = (encoded_NE - center_E) * seen_NE
    whitening = Whitening(encoded_NE.shape[1]).double()
    whitening.fit(
        torch.from_numpy(centred_NE[reference]), seen, power=HALF, shrinkage=SHRINKAGE, scale=True
    )
    with torch.no_grad():
        white_NE = whitening(torch.from_numpy(centred_NE)).numpy()
    white_RE = white_NE[reference]
    square_R = np.square(white_RE).sum(axis=1)
    place_N = np.full(len(encoded_NE), -1)
    place_N[reference] = np.arange(len(reference))
    nearest = min(NEIGHBOURS, len(reference) - 1)
    distance_N = np.empty(len(encoded_NE))
    blamed_NB = np.empty((len(encoded_NE), min(BLAMED, features)), dtype=np.int64)
    present_P = np.unique(source_E)  # features that have a column
    first_P = np.searchsorted(source_E, present_P)
    for start in range(0, len(encoded_NE), CHUNK):
        part = slice(start, start + CHUNK)
        x_NE, place = white_NE[part], place_N[part]
        squared_NR = np.square(x_NE).sum(axis=1)[:, None] + square_R - 2 * (x_NE @ white_RE.T)
        known = np.flatnonzero(place >= 0)
        squared_NR[known, place[known]] = np.inf
        squared_NR[squared_NR < closest**2] = np.inf
        neighbour_NK = np.argpartition(squared_NR, nearest - 1, axis=1)[:, :nearest]
        squared_NK = np.take_along_axis(squared_NR, neighbour_NK, axis=1)
        found_NK = np.isfinite(squared_NK)
        distance_NK = np.sqrt(np.maximum(np.where(found_NK, squared_NK, 0.0), 0.0))
        distance_N[part] = distance_NK.sum(axis=1) / np.maximum(found_NK.sum(axis=1), 1)
        apart_NE = np.abs(x_NE - white_RE[neighbour_NK].mean(axis=1))
        apart_ND = np.zeros((len(apart_NE), features))
        apart_ND[:, present_P] = np.add.reduceat(apart_NE, first_P, axis=1)
        blamed_NB[part] = np.argsort(-apart_ND, axis=1)[:, : blamed_NB.shape[1]]
    return distance_N, blamed_NB


def _alike(rows_ME: Floats) -> NDArray[np.int64]:
    """[M] how many others of these rows differ from each by less than ALIKE in every column."""
    count_M = np.zeros(len(rows_ME), dtype=np.int64)
    if not len(rows_ME):
        return count_M
    widest = int(np.argmax(rows_ME.std(axis=0)))
    order = np.argsort(rows_ME[:, widest], kind="stable")
    sorted_ME = rows_ME[order]
    # sorted by one column, only neighbours need be compared
    ends = np.searchsorted(sorted_ME[:, widest], sorted_ME[:, widest] + ALIKE, side="right")
    for place, end in enumerate(ends):
        others_ME = sorted_ME[place + 1 : end]
        near = np.abs(others_ME - sorted_ME[place]).max(axis=1, initial=0.0) <= ALIKE
        count_M[order[place]] += near.sum()
        count_M[order[place + 1 : end][near]] += 1
    return count_M
