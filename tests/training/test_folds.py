"""Models of folds: what CV+ says of a row, as one number of one graph."""

from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import polars as pl
import pytest
import torch

from hourglass.service.model.artifact import Feature
from hourglass.service.model.calibration import certified_rank
from hourglass.service.model.detector import Detector
from hourglass.service.model.guarantee import guarantee_of
from hourglass.service.rows.tables import encode_table
from hourglass.training.calibrate import choose_threshold, rank_table
from hourglass.training.config import RunConfig, load_config
from hourglass.training.data import prepare
from hourglass.training.errors import RunError
from hourglass.training.features import Encoding
from hourglass.training.folds import Folds, _lines
from hourglass.training.models.associative import AssociativeConfig
from hourglass.training.report import Report
from hourglass.training.run import run
from hourglass.training.split import (
    FEW,
    FOLDS,
    WIDE,
    Prepared,
    folds_of,
    in_folds,
    row_hashes,
    split_data,
)
from hourglass.training.trial import fit_folds
from tests.training import tables
from tests.training.tables import Float32

# closed forms, and few of them
QUICK = AssociativeConfig(views=("range",), levels=(), components=0, joint_components=8, features=0)
CONFIG = RunConfig(data="unread", name="pump", model=QUICK)
ALPHA = 0.05


def fitted(rows_ND: Float32, seed: int = 0) -> tuple[Folds, Prepared]:
    frame = pl.DataFrame(rows_ND, schema=[f"x{i}" for i in range(rows_ND.shape[1])])
    config = msgspec.structs.replace(CONFIG, seed=seed)
    prepared = split_data(prepare(frame), config)
    core = fit_folds(prepared, config, QUICK).core
    assert isinstance(core, Folds)
    return core, prepared


@torch.no_grad()
def scores(core: torch.nn.Module, rows_ND: Float32) -> Float32:
    found: Float32 = core(torch.from_numpy(rows_ND)).score_N.numpy()
    return found


class Few(NamedTuple):
    core: Folds
    prepared: Prepared
    fresh_ND: Float32


@pytest.fixture(scope="module")
def few() -> Few:
    core, prepared = fitted(tables.correlated(100, seed=3))
    return Few(core, prepared, tables.correlated(1000, seed=4))


def test_every_row_calibrates_once_and_fits_all_other_models() -> None:
    hash_N = row_hashes(np.arange(103, dtype=np.float32)[:, None], 1)
    folds = in_folds(hash_N, 5, CONFIG.split)
    assert sorted(np.concatenate([fold.calibration_N for fold in folds])) == list(range(103))
    assert {len(fold.calibration_N) for fold in folds} <= {20, 21}
    for fold in folds:
        assert sorted(np.concatenate(fold[:3])) == list(range(103))
        assert len(fold.validation_N) == round(0.12 * (103 - len(fold.calibration_N)))


def test_copies_of_a_row_are_in_one_fold() -> None:
    rows_ND = np.repeat(np.arange(100, dtype=np.float32), 2)[:, None]
    for fold in in_folds(row_hashes(rows_ND, 0), 5, CONFIG.split):
        fit, held_out, calibration = (set(rows_ND[part].ravel()) for part in fold[:3])
        assert not fit & held_out | fit & calibration | held_out & calibration


def test_few_rows_are_split_into_folds_unless_told_otherwise() -> None:
    def asked(folds: int | None, **fields: str) -> RunConfig:
        split = msgspec.structs.replace(CONFIG.split, folds=folds)
        return msgspec.structs.replace(CONFIG, split=split, **fields)

    assert folds_of(FEW - 1, 4, asked(None)) == folds_of(FEW - 1, WIDE, asked(None)) == FOLDS
    assert folds_of(FEW - 1, WIDE + 1, asked(None)) == 0
    assert folds_of(FEW - 1, WIDE + 1, asked(3)) == 3
    assert [folds_of(rows, 4, asked(None)) for rows in (FEW, 10_000)] == [0, 0]
    named = load_config(None, {"data": "unread", "name": "pump", "variant": "variational"})
    assert folds_of(FEW - 1, 4, named) == 0
    assert [folds_of(rows, 4, asked(0)) for rows in (60, FEW)] == [0, 0]
    assert [folds_of(rows, 4, asked(3)) for rows in (60, FEW)] == [3, 3]
    assert (
        folds_of(60, 4, asked(None, time="at")) == folds_of(60, 4, asked(0, group="machine")) == 0
    )
    with pytest.raises(RunError, match="--time and --group hold out blocks"):
        folds_of(60, 4, asked(5, time="at"))
    with pytest.raises(RunError, match="30 normal rows make 15 folds at most, got 16"):
        folds_of(30, 4, asked(16))


@pytest.mark.parametrize("folds", [1, -1, 21])
def test_a_number_of_folds_that_cannot_be_is_refused(folds: int) -> None:
    with pytest.raises(RunError, match=f"split.folds must be 0, or from 2 to 20, got {folds}"):
        load_config(None, {"data": "rows.csv", "name": "pump", "folds": folds})


def test_the_score_counts_the_rows_that_are_as_strange_by_the_model_that_is_new_to_both(
    few: Few,
) -> None:
    n, count_N = len(few.prepared.rows_ND), np.zeros(len(few.fresh_ND))
    for core, split in zip(few.core.cores, few.prepared.folds, strict=True):
        own_N = scores(core, split.calibration_ND)
        count_N += (own_N >= scores(core, few.fresh_ND)[:, None]).sum(axis=1)
    said_N = n * np.exp(-scores(few.core, few.fresh_ND).astype(np.float64))
    # in each fold the count less a half, or up to a half more on the way to the next; more where
    # scores of normal rows lie too close to be told apart
    upper_N = count_N < n / 4
    assert upper_N.sum() > 100
    assert np.abs(said_N - count_N)[upper_N].max() <= len(few.prepared.folds) / 2 + 1e-3
    assert (said_N - count_N).min() >= -len(few.prepared.folds) / 2 - 1e-3
    table = rank_table(few.core)
    assert table.n == n
    p_N = table.p_value(scores(few.core, few.fresh_ND))
    counted_N = np.floor(said_N + 1e-4)
    np.testing.assert_allclose(p_N[upper_N], (1 + counted_N[upper_N]) / (n + 1), atol=1e-6)


def test_the_higher_all_models_score_the_higher_the_score_and_the_severity(few: Few) -> None:
    levels = torch.from_numpy(np.geomspace(0.5, 1e9, 400).astype(np.float32))
    with torch.no_grad():
        joined_N = few.core._join(levels.unsqueeze(1).expand(-1, FOLDS)).numpy()
    assert np.isfinite(joined_N).all()
    assert (np.diff(joined_N) > 0).all()
    table = rank_table(few.core)
    assert (np.diff(table.severities(joined_N)) > 0).all()
    # most of them are beyond all rows, where there is one p-value for all
    assert (table.p_value(joined_N) == table.smallest_p_value).sum() > 200


def test_scores_that_are_all_alike_call_nothing_strange_that_is_like_them() -> None:
    rows_ND = np.repeat(np.float32([[1, 2, 3], [3, 1, 2]]), 60, axis=0)
    core, _ = fitted(rows_ND)
    threshold = choose_threshold(rank_table(core), ALPHA, 0.05, uncertified=False).score
    assert (scores(core, rows_ND) <= threshold).all()
    assert scores(core, np.float32([[9, 9, 9]]))[0] > threshold


def test_contributions_are_shares_of_the_score(few: Few) -> None:
    rows_ND = few.fresh_ND.copy()
    rows_ND[::3, 1] = np.nan
    rows_ND[::7, :] *= 40
    with torch.no_grad():
        output = few.core(torch.from_numpy(rows_ND))
    contributions_ND = output.contributions_ND.numpy()
    assert (contributions_ND >= 0).all()
    np.testing.assert_allclose(contributions_ND.sum(axis=1), output.score_N.numpy(), rtol=1e-4)
    assert (contributions_ND[::3, 1] == 0).all()


def test_a_table_of_models_that_agree_on_a_category_expects_it() -> None:
    site = Feature(name="site", kind="categorical", categories=("north", "south", "west"))
    core, _ = fitted(tables.correlated(60, width=2))
    rows_ND = np.float32([[0, 1], [1, 2], [2, 3]])
    core.encoding = Encoding([site, Feature(name="load", kind="numeric")], rows_ND)
    expected_FND = torch.tensor([[[0.0, 1.0]], [[2.0, 2.0]], [[2.0, 6.0]]])
    assert core._expected(expected_FND).tolist() == [[2.0, 3.0]]


@pytest.mark.heavy
@pytest.mark.parametrize(("n", "draws"), [(60, 40), (100, 40), (300, 25)])
def test_over_draws_of_few_rows_the_budget_is_kept(n: int, draws: int) -> None:
    fresh_ND = tables.correlated(4000, seed=10**6)
    rates = []
    for draw in range(draws):
        core, _ = fitted(tables.correlated(n, seed=draw))
        threshold = choose_threshold(rank_table(core), ALPHA, 0.05, uncertified=False)
        assert threshold.rank == certified_rank(n, ALPHA, 0.05) > 0
        rates.append(float((scores(core, fresh_ND) > threshold.score).mean()))
    error = (0.05 * 0.95 / draws) ** 0.5
    assert np.mean(np.array(rates) > ALPHA) <= 0.05 + 2 * error
    assert ALPHA / 10 < np.mean(rates) < ALPHA


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunConfig, Report, Detector]:
    """Of every kind of column, with gaps; two folds, since a graph is long in the making."""
    folder = tmp_path_factory.mktemp("folds")
    data = tables.write(tables.mixed(100), folder / "mixed.csv")
    given = {"data": str(data), "name": "mixed", "models": str(folder / "models")}
    config = load_config(None, {**given, "label": "fault", "alpha": ALPHA, "folds": 2})
    config = msgspec.structs.replace(config, model=QUICK)
    report = run(config)
    return config, report, Detector.from_bytes(Path(report.path).read_bytes())


@pytest.mark.slow
def test_the_file_says_what_holds_of_it(
    published: tuple[RunConfig, Report, Detector],
) -> None:
    _, report, detector = published
    record = detector.manifest.calibration
    assert (record.method, record.folds, record.n) == ("cross-conformal", 2, 100)
    assert (record.guarantee, record.rule, record.alpha) == ("marginal", "certified", ALPHA)
    assert record.reason == report.guarantee_reason
    assert report.guarantee_reason.startswith(
        "on average, not certified: 2 models calibrate each other's 100 rows (CV+); by theorem at"
        " most 2 alpha + 5.9% of normal rows alarm on average"
    )
    assert (report.calibration_rows, report.fit_rows, report.folds) == (100, 100, 2)
    assert report.quality is not None
    assert report.quality.auroc > 0.9
    assert report.quality.false_alarm_rate is None
    for alpha in (0.05, 0.2):  # no budget changed while running makes it more
        threshold = detector.table.threshold(alpha, 0.05)
        assert guarantee_of(record, threshold) == ("marginal", record.reason)


@pytest.mark.slow
def test_the_graph_answers_for_rows_with_gaps_as_for_others(
    published: tuple[RunConfig, Report, Detector],
) -> None:
    config, _, detector = published
    frame = tables.mixed(300, seed=1)
    rows_ND = encode_table(frame.drop("fault"), detector.manifest.features)
    explained = detector.explain(rows_ND)
    assert np.isfinite(explained.score).all()
    assert (explained.contributions >= 0).all()
    np.testing.assert_allclose(explained.contributions.sum(axis=1), explained.score, rtol=1e-4)
    # a row comes out the same wherever it is
    one_by_one_N = np.concatenate([detector.score(row_ND[None]).score for row_ND in rows_ND[:40]])
    assert one_by_one_N.tolist() == explained.score[:40].tolist()
    site_N = explained.reconstruction[:, 4]
    assert set(site_N.tolist()) <= {0.0, 1.0, 2.0}
    assert config.split.folds == 2


def test_large_scores_that_lie_as_close_as_they_are_rounded_count_as_one() -> None:
    # a fold of one log-normal column, whose graph and network differed by .05 of the distance
    close_N = np.array([55868.56, 55868.72, 55868.78, 55869.11, 55870.81, 55871.94, 75000.0])
    starts = _lines(close_N, 0.0, 1.0)[:, 0]
    assert starts[:3].tolist() == [0.0, 55871.94, 75000.0]
