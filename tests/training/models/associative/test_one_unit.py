"""Columns in one unit: when they count as that, and the distance against numpy's."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from hourglass.service.model.artifact import Feature
from hourglass.training.core import Core
from hourglass.training.features import Encoding
from hourglass.training.fit import fit
from hourglass.training.models.associative import AssociativeConfig, whitening
from hourglass.training.models.associative.associative import UNIT_WEIGHT, Associative
from hourglass.training.models.associative.one_unit import (
    FEWEST,
    SHRINKAGE,
    WIDEST,
    OneUnit,
    share_a_unit,
)
from tests.training import tables

DRAW = np.random.default_rng(0)
MIXING = DRAW.normal(size=(8, 120)) * np.geomspace(1.0, 0.1, 120)


def embedded(count: int, seed: int, noise: float = 0.02) -> np.ndarray:
    """Rows near eight directions of 120 columns, whose spreads differ by ten."""
    draw = np.random.default_rng(seed)
    rows = draw.normal(size=(count, 8)) @ MIXING + noise * draw.normal(size=(count, 120))
    return rows.astype(np.float32)


def encoding_of(rows_ND: np.ndarray) -> Encoding:
    features = tuple(Feature(name=f"x{d}", kind="numeric") for d in range(rows_ND.shape[1]))
    return Encoding(features, rows_ND)


def shared(rows_ND: np.ndarray) -> bool:
    encoding = encoding_of(rows_ND)
    return share_a_unit(encoding, encoding.encode(torch.from_numpy(rows_ND)))


def test_many_columns_whose_spreads_are_alike_share_a_unit() -> None:
    rows = embedded(50, 1)
    assert shared(rows)
    assert not shared(rows[:, : FEWEST - 1])
    constant = rows.copy()
    constant[:, : 121 - FEWEST] = 3.0
    assert not shared(constant)  # FEWEST - 1 of them vary
    far = rows * np.geomspace(1.0, 100 * WIDEST, 120).astype(np.float32)
    assert not shared(far)


def test_a_few_columns_in_other_units_are_not_looked_at() -> None:
    rows = embedded(50, 1)
    rows[:, :5] *= 1e6
    assert shared(rows)


def test_booleans_and_categories_are_no_part_of_it() -> None:
    rows = np.concatenate([embedded(60, 1), np.arange(60)[:, None] % 2], axis=1).astype(np.float32)
    features = (*encoding_of(rows[:, :120]).features, Feature(name="on", kind="boolean"))
    encoding = Encoding(features, rows)
    unit = OneUnit(encoding)
    encoded = encoding.encode(torch.from_numpy(rows))
    unit.fit(encoded.values_NE)
    assert share_a_unit(encoding, encoded)
    assert (unit(encoded.values_NE, encoded)[1][:, 120] == 0).all()


@pytest.mark.parametrize("wide", [False, True])
def test_the_distance_is_mahalanobis_s_with_a_covariance_shrunk_to_a_sphere(
    monkeypatch: pytest.MonkeyPatch, *, wide: bool
) -> None:
    if wide:
        monkeypatch.setattr(whitening, "MAX_COLUMNS", 100)
        monkeypatch.setattr(whitening, "RANK", 40)
    rows, new = embedded(30, 2, noise=0.0), embedded(20, 3)  # fewer rows than columns
    encoding = encoding_of(rows)
    unit = OneUnit(encoding)
    unit.fit(encoding.encode(torch.from_numpy(rows)).values_NE)
    encoded = encoding.encode(torch.from_numpy(new))
    level_N1, parts_NE = unit(encoded.values_NE, encoded)

    typical = np.sqrt(rows.astype(np.float64).var(axis=0).mean())
    centred, off = ((each - rows.mean(axis=0, dtype=np.float64)) / typical for each in (rows, new))
    covariance = centred.T @ centred / len(rows)
    shrunk = (1 - SHRINKAGE) * covariance + SHRINKAGE * np.eye(120)
    expected = ((off @ np.linalg.inv(shrunk)) * off).sum(axis=1) / 120
    np.testing.assert_allclose(level_N1[:, 0].numpy(), expected, rtol=2e-3)
    np.testing.assert_allclose(parts_NE.mean(dim=1).numpy(), expected, rtol=2e-3)


def test_the_unit_itself_makes_no_difference() -> None:
    rows, new, levels = embedded(60, 2), embedded(20, 3), []
    for times in (1.0, 1000.0):
        encoding = encoding_of(rows * np.float32(times))
        unit = OneUnit(encoding)
        unit.fit(encoding.encode(torch.from_numpy(rows) * times).values_NE)
        encoded = encoding.encode(torch.from_numpy(new) * times)
        levels.append(unit(encoded.values_NE, encoded)[0])
    torch.testing.assert_close(*levels, rtol=1e-3, atol=0.0)


def test_a_missing_cell_has_no_part() -> None:
    encoding = encoding_of(embedded(60, 2))
    rows = torch.from_numpy(embedded(60, 2))
    rows[0, 7] = torch.nan
    encoded = encoding.encode(rows)
    unit = OneUnit(encoding)
    unit.fit(encoded.values_NE)
    level_N1, parts_NE = unit(encoded.values_NE, encoded)
    assert float(parts_NE[0, 7]) == 0
    assert float(level_N1[0]) == pytest.approx(float(parts_NE[0].sum() / 120), rel=1e-5)


def fitted(rows_ND: np.ndarray, held_out_ND: np.ndarray, *, on: bool) -> Associative:
    encoding = encoding_of(rows_ND)
    torch.manual_seed(0)
    config = AssociativeConfig(
        levels=(), components=4, joint_components=4, features=16, one_unit=on
    ).resolve(encoding)
    member = config.build(encoding)
    rows, held_out = torch.from_numpy(rows_ND), torch.from_numpy(held_out_ND)
    fit(member, rows, held_out, config.fit, seed=0)
    return member


def test_it_is_one_group_more_where_columns_share_a_unit_and_none_elsewhere() -> None:
    rows = embedded(80, 4), embedded(40, 5)
    assert fitted(*rows, on=True).fusion.weight_G.tolist() == pytest.approx(
        [1.0, 1.0, 1.0, 3 * UNIT_WEIGHT]
    )
    assert fitted(*rows, on=False).fusion.weight_G.tolist() == [1.0, 1.0, 1.0]
    few = tables.correlated(80, width=6, latent=2)
    with torch.no_grad():
        scores = [
            Core(fitted(few, few[:30], on=on))(torch.from_numpy(few)).score_N
            for on in (True, False)
        ]
    assert torch.equal(*scores)


def test_what_leaves_the_wide_directions_is_found_sooner() -> None:
    """A row that is off by as much in each column, which is a little in the wide ones."""
    rows, held_out, fresh, strange = (
        embedded(count, seed, noise=0.1) for seed, count in enumerate((80, 60, 300, 100))
    )
    strange += 0.1 * np.random.default_rng(8).normal(size=strange.shape).astype(np.float32)
    both = torch.from_numpy(np.concatenate([fresh, strange]))
    is_strange, found = [0] * len(fresh) + [1] * len(strange), []
    for on in (True, False):
        with torch.no_grad():
            score_N = Core(fitted(rows, held_out, on=on))(both).score_N
        found.append(roc_auc_score(is_strange, score_N.numpy()))
    assert found[0] > found[1]
    assert found[0] > 0.9
