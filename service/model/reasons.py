"""Reasons: which values of an alarming row are to blame.

A value is to blame if the row would not be alarming without it: so candidates, which are the values
that contribute most and are furthest from what the others let expect, are masked one by one, and
the one whose masking lowers the score most is blamed, or the first candidate of those that make the
row about as ordinary; again from there, until the row alarms no more, or nothing lowers its score.
Values that are wrong together hide each other, and the first step may be a wrong one: so from the
second on, one of the candidates is as many values as the Gaussian alone would blame. What cannot be
explained by a few values differs as a whole.

More candidates, each feature's usual drop, the residual's tail, its log-density, values set to what
was expected instead of masked, and all of these weighed together name no more changed cells first.

Of a model of rows in order a value is its feature's in the whole window; what is expected is what
the rows before let expect, and the candidates are those that contribute most.

Whoever asks brings the function that scores: the same search serves a file and a network.

Shapes: N rows, D features, K candidates, W rows of a window.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hourglass.service.model.conditional import Conditional, Expectation
from hourglass.service.model.detector import Detector, Explanation

SEARCHED_CELLS = 2**14  # at a time, of the rows before they are masked in many ways
CANDIDATES = 6  # 8 or 16 name no more
ALIKE = 1.05  # times the lowest score is as low
MOST_BLAMED = 5  # that is a few
EXTRA_ROWS = 20  # scored for one row are at most so many and D more, beside the row itself
SHARE_WEIGHT = 1.0  # of contributions against squared standard deviations, for each feature
RELATED = 0.5  # correlation of features that are said to have moved together
LARGEST_GROUP = 8
MOVED = 2.0  # standard deviations off what the rows before let expect
SMALLEST = 1e-30

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Integers = NDArray[np.intp]


class Reasons(NamedTuple):
    """Why rows [N, D] are as strange as they are."""

    order_ND: Integers  # features, the first to blame first
    blamed_N: Integers  # so many of the order are to blame; 0 of a row that does not alarm
    as_a_whole_N: NDArray[np.bool_]  # alarming, and not by a few values
    groups: list[tuple[int, ...]]  # the features that moved together where a row differs as a whole
    # given the values that are not to blame
    expected: Expectation


def reasons_of(
    detector: Detector, rows_ND: Float32, explanation: Explanation, threshold: float
) -> Reasons | None:
    """Why a model explained rows as it did; None where its file does not carry what that takes. Of
    a windowed model the rows are those of its series, of which N are explained.
    """
    if detector.manifest.window is not None:
        windows_NWD = windows_of(rows_ND, detector.window)
        return reasons_of_windows(detector, windows_NWD, explanation, threshold)
    conditional = detector.conditional
    if conditional is None:
        return None
    step = max(1, SEARCHED_CELLS // rows_ND.shape[1])
    parts = [
        find_reasons(
            conditional,
            rows_ND[part],
            explanation.score[part],
            explanation.contributions[part],
            threshold=threshold,
            score=lambda masked_ND: detector.score(masked_ND).score,
        )
        for start in range(0, len(rows_ND), step)
        for part in [slice(start, start + step)]
    ]
    return Reasons(
        np.concatenate([part.order_ND for part in parts]),
        np.concatenate([part.blamed_N for part in parts]),
        np.concatenate([part.as_a_whole_N for part in parts]),
        [group for part in parts for group in part.groups],
        Expectation(*map(np.concatenate, zip(*(part.expected for part in parts), strict=True))),
    )


def reasons_of_windows(
    detector: Detector, windows_NWD: Float32, explanation: Explanation, threshold: float
) -> Reasons:
    """Why a windowed model explained the last rows of windows as it did, all of one entity."""
    rows_ND, features = windows_NWD[:, -1], detector.manifest.features
    order_ND = np.argsort(-explanation.contributions, axis=1, kind="stable")
    blamed_N = np.zeros(len(rows_ND), dtype=np.intp)
    as_a_whole_N = explanation.score > threshold
    for row in np.flatnonzero(as_a_whole_N).tolist():
        ranked = order_ND[row].tolist()
        blamed, as_a_whole_N[row] = _blame_window(
            detector, windows_NWD[row], ranked, float(explanation.score[row]), threshold
        )
        blamed_N[row] = len(blamed)
        order_ND[row] = [*blamed, *(feature for feature in ranked if feature not in blamed)]
    value_ND = explanation.reconstruction.astype(np.float64)
    sd_D = detector.expected_sd
    is_boolean_D = np.array([feature.kind == "boolean" for feature in features])
    away_ND = np.nan_to_num((rows_ND - value_ND) / sd_D)
    expected = Expectation(
        value_ND=value_ND,
        sd_ND=np.broadcast_to(sd_D, value_ND.shape),
        probability_ND=np.where(is_boolean_D, value_ND, np.nan),
        distance_ND=np.square(away_ND),
    )
    groups = [
        _moved(order_D, away_D) if wanted else ()
        for wanted, order_D, away_D in zip(as_a_whole_N, order_ND, np.abs(away_ND), strict=True)
    ]
    return Reasons(order_ND, blamed_N, as_a_whole_N, groups, expected)


def windows_of(rows_TD: Float32, window: int) -> Float32:
    """[T, D] -> [T - W + 1, W, D], a view."""
    return np.lib.stride_tricks.sliding_window_view(rows_TD, window, axis=0).transpose(0, 2, 1)


def _blame_window(
    detector: Detector, window_WD: Float32, ranked: list[int], score: float, threshold: float
) -> tuple[list[int], bool]:
    """The features without which a window's row alarms no more, and whether it still does."""
    blamed: list[int] = []
    for _ in range(MOST_BLAMED):
        tried = [feature for feature in ranked if feature not in blamed][:CANDIDATES]
        if not tried or score <= threshold:
            break
        tried_KWD = np.repeat(window_WD[np.newaxis], len(tried), axis=0)
        tried_KWD[:, :, blamed] = np.nan
        tried_KWD[np.arange(len(tried)), :, tried] = np.nan
        scores_K = detector.score_windows(tried_KWD).score.astype(np.float64)
        # of no value at all there is no score
        scores_K = np.where(np.isnan(scores_K), np.inf, scores_K)
        # of those that make a row ordinary, and about as much so, the first of the candidates
        alike_K = (scores_K <= threshold) & (scores_K <= ALIKE * scores_K.min())
        best = int(alike_K.argmax() if alike_K.any() else scores_K.argmin())
        if not scores_K[best] < score:
            break
        blamed.append(tried[best])
        score = float(scores_K[best])
    return blamed, score > threshold


def _moved(order_D: Integers, away_D: Float64) -> tuple[int, ...]:
    """The number named first, and others that are as far off as few are, likewise."""
    moved = [feature for feature in order_D.tolist() if away_D[feature] >= MOVED]
    return tuple(moved[:LARGEST_GROUP])


def find_reasons(
    conditional: Conditional,
    rows_ND: Float32,
    score_N: Float32,
    contributions_ND: Float32,
    *,
    threshold: float,
    score: Callable[[Float32], Float32],
) -> Reasons:
    """Why these rows have these scores; rows over the threshold are searched, all side by side."""
    masked_ND, left_N = rows_ND.copy(), score_N.astype(np.float64)
    blamed: list[list[int]] = [[] for _ in rows_ND]
    spent, width = 0, rows_ND.shape[1]
    searched = np.flatnonzero(left_N > threshold)
    for _ in range(MOST_BLAMED):
        count = min(CANDIDATES, width, EXTRA_ROWS + width - spent)
        if count < 1 or not len(searched):
            break
        spent += count
        ranked_SD = np.argsort(
            -_blame(conditional, masked_ND[searched], contributions_ND[searched]),
            axis=1,
            kind="stable",
        )
        tried = [
            _candidates(conditional, rows_ND[row], blamed[row], ranked_D.tolist(), count)
            for row, ranked_D in zip(searched.tolist(), ranked_SD, strict=True)
        ]
        tried_SKD = np.repeat(rows_ND[searched, None], count, axis=1)
        np.put_along_axis(tried_SKD, np.array(tried), np.nan, axis=2)
        scores_SK = score(tried_SKD.reshape(-1, width)).reshape(-1, count).astype(np.float64)
        # of no value at all there is no score
        scores_SK = np.where(np.isnan(scores_SK), np.inf, scores_SK)
        # of those that make a row ordinary, and about as much so, the first of the candidates
        alike_SK = (scores_SK <= threshold) & (scores_SK <= ALIKE * scores_SK.min(1, keepdims=True))
        best_S = np.where(alike_SK.any(axis=1), alike_SK.argmax(axis=1), scores_SK.argmin(axis=1))
        lowest_S = np.take_along_axis(scores_SK, best_S[:, None], axis=1)[:, 0]
        lowered_S = lowest_S < left_N[searched]
        for i in np.flatnonzero(lowered_S).tolist():
            row = searched[i]
            blamed[row] = tried[i][best_S[i]]
            masked_ND[row] = tried_SKD[i, best_S[i]]
            left_N[row] = lowest_S[i]
        searched = searched[lowered_S]
        searched = searched[left_N[searched] > threshold]
    as_a_whole_N = left_N > threshold
    expected = conditional.expect(masked_ND)
    rest_ND = _weigh(contributions_ND, expected.distance_ND)
    rest_ND[np.isnan(masked_ND) & ~np.isnan(rows_ND)] = np.inf
    order_ND = np.argsort(-rest_ND, axis=1, kind="stable")
    for row, named in enumerate(blamed):
        order_ND[row, : len(named)] = named
    return Reasons(
        order_ND,
        np.array([len(named) for named in blamed], dtype=np.intp),
        as_a_whole_N,
        _groups(conditional, rows_ND, as_a_whole_N, order_ND[:, 0]),
        expected,
    )


def _candidates(
    conditional: Conditional, row_D: Float32, blamed: list[int], ranked: list[int], count: int
) -> list[list[int]]:
    """So many sets of features, each of one more than are blamed: those and another one, or the
    same number of others.
    """
    sets = [[*blamed, feature] for feature in ranked[:count]]
    if blamed:
        others = conditional.strangest_set(row_D, sets[0])
        if set(others) not in map(set, sets):
            sets[-1] = others
    return sets


def _blame(conditional: Conditional, rows_ND: Float32, contributions_ND: Float32) -> Float64:
    """[N, D] -1 where there is no value to blame."""
    weight_ND = _weigh(contributions_ND, conditional.expect(rows_ND).distance_ND)
    return np.where(np.isnan(rows_ND), -1.0, weight_ND)


def _weigh(contributions_ND: Float32, distance_ND: Float64) -> Float64:
    total_N1 = np.maximum(contributions_ND.sum(axis=1, keepdims=True, dtype=np.float64), SMALLEST)
    weight_ND: Float64 = (
        SHARE_WEIGHT * contributions_ND.shape[1] * contributions_ND / total_N1 + distance_ND
    )
    return weight_ND


def _groups(
    conditional: Conditional,
    rows_ND: Float32,
    wanted_N: NDArray[np.bool_],
    first_N: NDArray[np.intp],
) -> list[tuple[int, ...]]:
    """For each wanted row the feature that is named first, and those that moved with it as their
    correlation has it, the furthest from its mean first.
    """
    groups: list[tuple[int, ...]] = [()] * len(rows_ND)
    if not wanted_N.any():
        return groups
    if conditional.precision.ndim == 1:  # of thousands of columns, that are taken as independent
        return [
            (int(first),) if wanted else () for first, wanted in zip(first_N, wanted_N, strict=True)
        ]
    correlation_DD = conditional.correlation()
    for row in np.flatnonzero(wanted_N).tolist():
        away_D = conditional.deviations(rows_ND[row])
        lead = int(first_N[row])
        with_lead_D = correlation_DD[lead] * np.sign(away_D * away_D[lead])
        moved_D = (with_lead_D >= RELATED) & (np.abs(away_D) >= 1)
        moved_D[lead] = False
        together = np.flatnonzero(moved_D)
        ranked = together[np.argsort(-np.abs(away_D[together]), kind="stable")]
        groups[row] = (lead, *ranked[: LARGEST_GROUP - 1].tolist())
    return groups
