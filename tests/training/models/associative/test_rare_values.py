"""Rare values against counting them, and what they do to the score of a row that holds one."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from hourglass.service.model.artifact import Feature
from hourglass.training.core import Core
from hourglass.training.features import Encoding
from hourglass.training.fit import fit
from hourglass.training.models.associative import AssociativeConfig
from hourglass.training.models.associative.associative import LOCAL_LOSS, RARE_WEIGHT, Associative
from hourglass.training.models.associative.rare_values import MOST, RareValues

FEATURES = (
    Feature(name="level", kind="numeric"),
    Feature(name="kind", kind="categorical", categories=("a", "b", "c")),
    Feature(name="on", kind="boolean"),
    Feature(name="flow", kind="numeric"),
)


def mixed(count: int, seed: int) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    level = 10.0 * torch.multinomial(torch.tensor([0.5, 0.3, 0.2]), count, True, generator=draw)
    kind = torch.multinomial(torch.tensor([0.6, 0.3, 0.1]), count, True, generator=draw)
    on = (torch.rand(count, generator=draw) < 0.9).float()
    return torch.stack([level, kind, on, torch.randn(count, generator=draw)], dim=1)


ROWS = mixed(400, 0)
ENCODING = Encoding(FEATURES, ROWS.numpy())


def of(rows_ND: torch.Tensor, fitted_on: torch.Tensor = ROWS) -> tuple[torch.Tensor, torch.Tensor]:
    rare_values = RareValues(ENCODING, ENCODING.encode(fitted_on))
    level_N1, parts_NE = rare_values(ENCODING.encode(rows_ND))
    return level_N1.squeeze(1), ENCODING.gather(parts_NE)


def surprise(column: int, value: float, rows: torch.Tensor = ROWS) -> float:
    """By the rule of succession, in numpy."""
    seen = rows[:, column].numpy()
    seen = seen[~np.isnan(seen)]
    return -math.log((np.sum(seen == value) + 1) / (len(seen) + 1))


def test_a_level_is_the_mean_surprise_of_the_columns_with_few_values() -> None:
    level_N, parts_ND = of(ROWS)
    for row, level, parts in zip(ROWS[:20], level_N, parts_ND, strict=False):
        expected = [surprise(column, float(row[column])) for column in range(3)]
        assert parts.tolist() == pytest.approx([*expected, 0.0], rel=1e-5)
        assert float(level) == pytest.approx(sum(expected) / 3, rel=1e-5)


def test_a_value_that_no_row_holds_is_the_rarest_there_is() -> None:
    strange = torch.tensor([[5.0, -1.0, 0.5, 0.0]])  # between the levels, and no known category
    assert of(strange)[1][0].tolist() == pytest.approx([math.log(401)] * 3 + [0.0], rel=1e-5)


def test_a_missing_cell_says_nothing() -> None:
    gap = ROWS[:1].clone()
    gap[0, 1] = math.nan
    level_N, parts_ND = of(gap)
    expected = [surprise(0, float(gap[0, 0])), surprise(2, float(gap[0, 2]))]
    assert parts_ND[0].tolist() == pytest.approx([expected[0], 0.0, expected[1], 0.0], rel=1e-5)
    assert float(level_N) == pytest.approx(sum(expected) / 2, rel=1e-5)


@pytest.mark.parametrize(
    ("values", "is_looked_at"),
    [
        (torch.zeros(100), False),  # constant
        (torch.arange(100) % 2, True),
        (torch.arange(100) % MOST, True),
        (torch.arange(100) % (MOST + 1), False),
        (torch.arange(40) % MOST, False),  # four rows a value
        (torch.arange(100) >= 95, True),
        (torch.arange(100) >= 96, False),  # nearly constant
        (torch.relu(torch.arange(100) - 92), False),  # a number that is mostly 0: no other recurs
        (torch.relu(torch.arange(100) - 91) // 2, True),
    ],
)
def test_columns_of_few_values_count(values: torch.Tensor, *, is_looked_at: bool) -> None:
    rows = values.float().unsqueeze(1)
    encoding = Encoding((Feature(name="x", kind="numeric"),), rows.numpy())
    assert RareValues(encoding, encoding.encode(rows)).share == float(is_looked_at)


def test_more_rows_are_counted_in_the_same_columns() -> None:
    rare_values = RareValues(ENCODING, ENCODING.encode(ROWS))
    more = torch.cat([ROWS, torch.tensor([[70.0, 2.0, 1.0, 0.0]])])
    rare_values.fit(ENCODING.encode(more))
    parts_ND = ENCODING.gather(rare_values(ENCODING.encode(more[-1:]))[1])
    assert float(parts_ND[0, 0]) == pytest.approx(surprise(0, 70.0, more), rel=1e-5)


def fitted(*, rare_values: bool) -> Associative:
    torch.manual_seed(0)
    config = AssociativeConfig(
        levels=(), components=8, joint_components=8, features=16, rare_values=rare_values
    )
    member = config.resolve(ENCODING).build(ENCODING)
    fit(member, ROWS, mixed(200, 1), config.resolve(ENCODING).fit, seed=0)
    return member


def test_groups_weigh_by_the_share_of_such_columns() -> None:
    few = 3 / 4
    local = 1 - LOCAL_LOSS * few
    expected = [1.0, (1 + local) / 2, local, RARE_WEIGHT * few]  # ridge, mixtures, joint, rare
    assert fitted(rare_values=True).fusion.weight_G.tolist() == pytest.approx(expected)
    assert fitted(rare_values=False).fusion.weight_G.tolist() == [1.0, 1.0, 1.0]


def test_rows_without_such_columns_are_scored_as_if_there_were_no_such_evidence() -> None:
    rows = torch.randn(300, 4, generator=torch.Generator().manual_seed(2))
    features = tuple(Feature(name=f"x{d}", kind="numeric") for d in range(4))
    encoding, scores = Encoding(features, rows.numpy()), []
    for rare_values in (True, False):
        torch.manual_seed(0)
        config = AssociativeConfig(levels=(), rare_values=rare_values).resolve(encoding)
        member = config.build(encoding)
        fit(member, rows, rows[:50], config.fit, seed=0)
        with torch.no_grad():
            scores.append(Core(member)(rows).score_N)
    assert torch.equal(*scores)


def test_rows_with_two_rare_values_are_found_sooner() -> None:
    """Independent columns: what is strange is that a row holds two seldom values at once."""
    fresh, draw = mixed(600, 3), np.random.default_rng(0)
    strange = mixed(200, 4)
    strange[:, 1], strange[:, 2] = 2.0, 0.0
    strange = strange[torch.from_numpy(draw.permutation(200))]
    is_strange = [0] * len(fresh) + [1] * len(strange)
    found = []
    for rare_values in (True, False):
        with torch.no_grad():
            score_N = Core(fitted(rare_values=rare_values))(torch.cat([fresh, strange])).score_N
        found.append(roc_auc_score(is_strange, score_N.numpy()))
    assert found[0] > found[1]
    assert found[0] > 0.9
