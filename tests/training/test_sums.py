"""Sums over shares and over what memory does not hold are those over the whole."""

from threading import Lock

import numpy as np
import pytest
import torch

from hourglass.service.model.artifact import Feature
from hourglass.training.conditional import fit_conditional
from hourglass.training.data import describe, prepare
from hourglass.training.features import Encoding
from hourglass.training.models.associative.associative import Associative
from hourglass.training.presets import PRESETS
from hourglass.training.ranks import ALONE, Ranks
from hourglass.training.sums import IN_MEMORY, Sums, measure
from tests.training import tables
from tests.training.crew import together

DATA = prepare(tables.mixed(400), label="fault")
ROWS = DATA.normal_ND
GAPLESS = tables.correlated(900)
SEEDING = Lock()
NUMBERS = tuple(Feature(name=f"x{i}", kind="numeric") for i in range(4))


def test_measures_are_those_of_each_column() -> None:
    measures = measure(ROWS)
    for d, column in enumerate(ROWS.T.astype(np.float64)):
        seen = column[~np.isnan(column)]
        assert measures.seen_D[d] == len(seen)
        if len(seen):
            assert measures.mean_D[d] == pytest.approx(seen.mean(), rel=1e-12)
            assert measures.deviation_D[d] == pytest.approx(seen.std(), rel=1e-9, abs=1e-12)
            assert (measures.least_D[d], measures.largest_D[d]) == (seen.min(), seen.max())
        else:
            assert np.isnan(measures.mean_D[d])


def test_far_from_zero_a_deviation_keeps_its_digits() -> None:
    column = (1e6 + np.random.default_rng(0).normal(size=(5000, 1))).astype(np.float32)
    assert measure(column).deviation_D[0] == pytest.approx(column.astype(float).std(), rel=1e-9)


def test_a_constant_keeps_its_unit() -> None:
    assert measure(np.full((50, 1), 0.3, dtype=np.float32)).unit_D[0] == 1.0


def test_shares_and_rows_beyond_memory_measure_as_the_whole() -> None:
    def measure_share(ranks: Ranks) -> list[float]:
        beyond = torch.from_numpy(ROWS[100:])[ranks.rank :: ranks.count]
        sums = Sums(ranks, lambda: iter(torch.split(beyond, 30)))
        found = measure(ROWS[:100], sums)
        return [
            found.rows,
            *found.seen_D,
            *found.mean_D,
            *found.deviation_D,
            *found.ends_2D.ravel(),
        ]

    (whole,) = (measure_share(ALONE),)
    for share in together(3, measure_share):
        np.testing.assert_allclose(share, whole, rtol=1e-12)


def closed_forms(sums: Sums, held: int) -> dict[str, torch.Tensor]:
    """All that has one, of these rows in memory and those that the sums go through beyond."""
    rows = torch.from_numpy(GAPLESS[:held])
    encoding = Encoding(NUMBERS, rows.numpy(), measures=measure(rows.numpy(), sums), sums=sums)
    with SEEDING:  # there is one generator for all threads
        torch.manual_seed(0)
        member = PRESETS["fast"].build(encoding).eval()
    assert isinstance(member, Associative)
    fit_rows = encoding.encode(rows)
    member.begin(fit_rows)
    with torch.no_grad():
        values_NJ, observed_NE = member.views(fit_rows)
        member._fit_regressions(values_NJ.clamp(-10, 10), observed_NE.repeat(1, 2), first=True)
    conditional = fit_conditional(encoding, fit_rows)
    names = ("encoding.", "views.", "half_whiten.", "ridge.answer", "ridge.center")
    found = {name: each for name, each in member.state_dict().items() if name.startswith(names)}
    return {**found, "precision": conditional.precision, "mean": conditional.mean}


@pytest.mark.parametrize("processes", [1, 3])
def test_closed_forms_are_the_same_wherever_the_rows_are(processes: int) -> None:
    whole = closed_forms(IN_MEMORY, len(GAPLESS))

    def fit_share(ranks: Ranks) -> dict[str, torch.Tensor]:
        beyond = torch.from_numpy(GAPLESS[300:])[ranks.rank :: ranks.count]
        return closed_forms(Sums(ranks, lambda: iter(torch.split(beyond, 100))), 300)

    for found in together(processes, fit_share):
        assert found.keys() == whole.keys()
        for name, expected in whole.items():
            torch.testing.assert_close(found[name], expected, rtol=2e-5, atol=2e-6, msg=name)


def test_the_features_are_described_by_all_rows() -> None:
    sums = Sums(beyond=lambda: iter([torch.from_numpy(ROWS[200:])]))
    assert measure(ROWS[:200], sums).rows == len(ROWS)
    assert describe(DATA.features, ROWS)[0].maximum == measure(ROWS[:200], sums).largest_D[0]
