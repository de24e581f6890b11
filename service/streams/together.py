"""What a model says of new rows of many entities, asked once for all of them: a run of a network
takes as long for one row as for dozens.

Shapes: D features, N new rows of all entities, R these with those before them.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hourglass.service.model.detector import Scores
from hourglass.service.model.served import Served
from hourglass.service.rows.decoding import Float32
from hourglass.service.rows.ordered import Stretch, in_places, score_stretches
from hourglass.service.streams.state import (
    Float64,
    Looked,
    State,
    Stretches,
    answers_to,
    features_of,
    stretches_after,
)


class New(NamedTuple):
    """Rows of an entity, each later than those before."""

    state: State
    entity: str
    rows_ND: Float32
    time_N: Float64


def look_together(served: Served, asked: Sequence[New], gap: float | None) -> list[Looked | None]:
    """For each what `advance` takes, without contributions; None where a score is not finite, so
    that each row has to be asked about by itself.
    """
    rows_ND = np.concatenate([each.rows_ND for each in asked])
    if served.detector.window > 1:
        parts, scores, warming_N, wrong_N = _look_at_windows(served, asked, gap)
    else:
        parts, scores, warming_N, wrong_N = _look_at_rows(served, asked, rows_ND)
    answers = answers_to(
        rows_ND, np.concatenate([each.time_N for each in asked]), scores, warming_N
    )
    nothing_ND = np.empty((0, rows_ND.shape[1]), np.float32)
    is_any_wrong = bool(wrong_N.any())
    looked: list[Looked | None] = []
    stop = 0
    for new, part in zip(asked, parts, strict=True):
        first, stop = stop, stop + len(new.time_N)
        if is_any_wrong and wrong_N[first:stop].any():
            looked.append(None)
            continue
        series = [(start, series_TD) for start, _, series_TD in part.parts]
        looked.append(
            Looked(
                part.features,
                part.before,
                answers[first:stop],
                nothing_ND,
                part.warm_ups,
                series,
                [],
            )
        )
    return looked


class Together(NamedTuple):
    """What the model says of the new rows of all entities."""

    parts: list[Stretches]  # of each entity
    scores: Scores
    warming_N: NDArray[np.bool_]
    wrong_N: NDArray[np.bool_]  # whose score is not finite


def _look_at_rows(served: Served, asked: Sequence[New], rows_ND: Float32) -> Together:
    """Nothing before a row matters."""
    scores = served.detector.score(rows_ND)
    few_N = ~served.schema.has_enough(rows_ND)
    wrong_N = ~np.isfinite(scores.score) & ~few_N
    if few_N.any():
        scores = Scores(*(np.where(few_N, np.float32(np.nan), each) for each in scores))
    features, before = features_of(served), np.empty((0, rows_ND.shape[1]), np.float32)
    parts = [
        Stretches(features, before, [(0, len(each.rows_ND), each.rows_ND)], 0) for each in asked
    ]
    return Together(parts, scores, np.zeros(len(rows_ND), np.bool_), wrong_N)


def _look_at_windows(served: Served, asked: Sequence[New], gap: float | None) -> Together:
    features = features_of(served)
    found = [
        stretches_after(each.state, served, each.rows_ND, each.time_N, gap, features)
        for each in asked
    ]
    series = [part for each in found for part in each.parts]
    names = [new.entity for new, each in zip(asked, found, strict=True) for _ in each.parts]
    stretches, new = [], []
    end = 0
    for name, (start, stop, series_TD) in zip(names, series, strict=True):
        first, end = end, end + len(series_TD)
        stretches.append(Stretch(name, np.arange(first, end)))
        new.append(np.arange(end - (stop - start), end))
    rows_RD, new_N = np.concatenate([part for _, _, part in series]), np.concatenate(new)
    scores, warming_R = in_places(len(rows_RD), score_stretches(served, rows_RD, stretches))
    return Together(
        found,
        Scores(*(each[new_N] for each in scores)),
        warming_R[new_N],
        np.isinf(scores.score[new_N]),
    )
