"""What a model says of new rows of many entities, asked once for all of them: a run of a network
takes as long for one row as for dozens.

Shapes: D features, R rows of all entities with those before them, N new rows of one.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from hourglass.service.model.detector import Scores
from hourglass.service.model.served import Served
from hourglass.service.rows.decoding import Float32
from hourglass.service.rows.ordered import Stretch, in_places, score_stretches
from hourglass.service.streams.state import Float64, Looked, State, stretches_after


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
    detector, window = served.detector, served.detector.window
    found = [stretches_after(each.state, served, each.rows_ND, each.time_N, gap) for each in asked]
    series = [part for each in found for _, _, part in each.parts]
    ends = np.cumsum([0, *map(len, series)]).tolist()
    rows_RD = np.concatenate(series)
    if window > 1:
        names = [new.entity for new, each in zip(asked, found, strict=True) for _ in each.parts]
        stretches = [
            Stretch(name, np.arange(first, stop))
            for name, first, stop in zip(names, ends, ends[1:], strict=False)
        ]
        scores, warming_R = in_places(len(rows_RD), score_stretches(served, rows_RD, stretches))
        wrong_R = np.isinf(scores.score)
    else:
        scores, warming_R = detector.score(rows_RD), np.zeros(len(rows_RD), np.bool_)
        few_R = ~served.schema.has_enough(rows_RD)
        wrong_R = ~np.isfinite(scores.score) & ~few_R
        scores = Scores(*(np.where(few_R, np.float32(np.nan), each) for each in scores))
    looked: list[Looked | None] = []
    place = 0
    for each in found:
        rows = np.concatenate(
            [
                np.arange(ends[place + k + 1] - (stop - start), ends[place + k + 1])
                for k, (start, stop, _) in enumerate(each.parts)
            ]
        )
        place += len(each.parts)
        if wrong_R[rows].any():
            looked.append(None)
            continue
        looked.append(
            Looked(
                each.features,
                each.before,
                scores.score[rows],
                scores.p_value[rows],
                scores.severity[rows],
                np.empty((0, rows_RD.shape[1]), np.float32),
                warming_R[rows],
                each.warm_ups,
                [(start, part) for start, _, part in each.parts],
                [],
            )
        )
    return looked
