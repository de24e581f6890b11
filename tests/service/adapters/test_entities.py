"""Rows of many entities that come together are answered as those that come one by one."""

import msgspec
import numpy as np
import pytest

from hourglass.service.adapters.entities import Answer, Entities, Outcome
from hourglass.service.adapters.messages import Rows
from hourglass.service.model.served import Served
from tests.artifacts import NUMERIC, make_served, make_windowed_served, sample_rows

BEGIN, COUNT = 1.77e9, 240


def rows_of_ten() -> Rows:
    """In turn a minute apart, far out now and then; a few values are missing, and some rows are
    late, come again, or are after a gap.
    """
    rows_ND = sample_rows(NUMERIC, COUNT, seed=3).astype(np.float32)
    rows_ND[60:90] += 200
    rows_ND[100:110, 1] = np.nan
    rows_ND[111] = np.nan
    entities = [f"pump-{row % 10}" for row in range(COUNT)]
    time_N = BEGIN + 60.0 * (np.arange(COUNT) // 10)
    time_N[200:] += 3600
    time_N[125] -= 600
    rows_ND[140:145], time_N[140:145] = rows_ND[130:135], time_N[130:135]
    return Rows([*range(COUNT)], entities, time_N, rows_ND)


def taken(served: Served, together: int) -> Outcome:
    entities, rows = Entities(gap=900.0), rows_of_ten()
    found = Outcome([], [], 0, [])
    for start in range(0, COUNT, together):
        part = slice(start, start + together)
        some = Rows(rows.place_N[part], rows.entity_N[part], rows.time_N[part], rows.rows_ND[part])
        outcome = entities.take(served, some)
        found = Outcome(*(a + b for a, b in zip(found, outcome, strict=True)))
    return found


def plain(answer: Answer) -> dict[str, object]:
    """Without what depends on which rows came together."""
    said = msgspec.to_builtins(answer)
    return {name: said[name] for name in said if name not in ("event", "changes")}


@pytest.mark.parametrize("window", [1, 4])
def test_what_is_said_of_a_row_does_not_depend_on_those_that_come_with_it(window: int) -> None:
    served = make_served(NUMERIC) if window == 1 else make_windowed_served(rows=window)
    one_by_one = taken(served, 1)
    assert one_by_one.repeated == 5
    assert [each.place for each in one_by_one.refused] == [125]
    assert any(change.open for change in one_by_one.changes)
    for together in (7, 50, COUNT):
        found = taken(served, together)
        assert found.repeated == 5
        assert found.refused == one_by_one.refused
        assert [each.place for each in found.answered] == [
            each.place for each in one_by_one.answered
        ]
        for answered, wanted in zip(found.answered, one_by_one.answered, strict=True):
            assert plain(answered.answer) == {
                name: pytest.approx(value, rel=1e-5) if isinstance(value, float) else value
                for name, value in plain(wanted.answer).items()
            }
        key = [(each.id, each.open, each.features) for each in one_by_one.changes]
        assert sorted((each.id, each.open, each.features) for each in found.changes) == sorted(key)
