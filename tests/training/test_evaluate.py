from collections.abc import Callable

import msgspec
import numpy as np
import polars as pl
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from hourglass.service.rows.tables import encode_table
from hourglass.training.evaluate import (
    AlarmRates,
    Evaluation,
    cross_fitted,
    evaluate,
    evaluate_labelled,
)
from tests.training import tables
from tests.training.conftest import Outcome, Published

Command = Callable[..., Outcome]


@pytest.fixture(scope="module")
def rows(published: Published) -> tuple[tables.Float32, tables.Float32]:
    """Fresh normal and anomalous rows."""
    table = tables.mixed(200, anomalies=50, seed=3)
    features = published.detector.manifest.features
    normal_ND, anomalies_AD = (
        encode_table(table.filter(pl.col("fault") == label), features) for label in (0, 1)
    )
    return normal_ND, anomalies_AD


def test_the_figures_are_those_of_the_detector_s_own_scores(
    published: Published, rows: tuple[tables.Float32, tables.Float32]
) -> None:
    normal_ND, anomalies_AD = rows
    evaluation = evaluate(published.detector, normal_ND, anomalies_AD)
    normal_N, anomalies_A = (published.detector.score(each).score for each in rows)
    # the chance that an anomaly scores above a normal row
    wins = (anomalies_A[:, None] > normal_N[None, :]).mean() + 0.5 * (
        anomalies_A[:, None] == normal_N[None, :]
    ).mean()
    assert evaluation.auroc == pytest.approx(wins)
    labels, scores = (
        np.repeat([0, 1], [len(normal_N), len(anomalies_A)]),
        np.concatenate([normal_N, anomalies_A]),
    )
    assert evaluation.auroc == pytest.approx(roc_auc_score(labels, scores))
    assert evaluation.average_precision == pytest.approx(average_precision_score(labels, scores))
    threshold = published.detector.threshold
    assert evaluation.detection_rate == (anomalies_A > threshold.score).mean()
    assert evaluation.false_alarm_rate == (normal_N > threshold.score).mean()
    assert (evaluation.alpha, evaluation.certified) == (threshold.alpha, threshold.certified)
    assert (evaluation.normal_rows, evaluation.anomalous_rows, evaluation.refused_rows) == (
        200,
        50,
        0,
    )


def test_rows_the_service_would_refuse_are_counted_and_not_scored(
    published: Published, rows: tuple[tables.Float32, tables.Float32]
) -> None:
    normal_ND, anomalies_AD = (each.copy() for each in rows)
    normal_ND[:3, :5] = np.nan  # too few observed cells
    anomalies_AD[0] = np.nan
    evaluation = evaluate(published.detector, normal_ND, anomalies_AD)
    assert (evaluation.normal_rows, evaluation.anomalous_rows, evaluation.refused_rows) == (
        197,
        49,
        4,
    )


@pytest.mark.parametrize("empty", [0, 1])
def test_both_kinds_of_rows_are_needed(
    published: Published, rows: tuple[tables.Float32, tables.Float32], empty: int
) -> None:
    given = [each if index != empty else each[:0] for index, each in enumerate(rows)]
    with pytest.raises(ValueError, match="at least one normal and one anomalous row"):
        evaluate(published.detector, *given)


def test_the_command_prints_the_figures_as_json(
    tmp_path, published: Published, command: Command
) -> None:  # type: ignore[no-untyped-def]
    data = tables.write(tables.mixed(200, anomalies=50, seed=3), tmp_path / "fresh.parquet")
    for model in (published.folder.parent, published.folder, published.folder / "model.onnx"):
        outcome = command("evaluate", model, data, "--label", "fault", "--json")
        assert (outcome.code, outcome.err) == (0, "")
        printed = msgspec.json.decode(outcome.out, type=Evaluation)
        features = published.detector.manifest.features
        table = tables.mixed(200, anomalies=50, seed=3)
        normal_ND, anomalies_AD = (
            encode_table(table.filter(pl.col("fault") == label), features) for label in (0, 1)
        )
        assert printed == msgspec.structs.replace(
            evaluate(published.detector, normal_ND, anomalies_AD), seen=0.0
        )


def test_the_command_prints_a_table_for_a_person(published: Published, command: Command) -> None:
    outcome = command("evaluate", published.folder, published.config.data, "--label", "fault")
    assert (outcome.code, outcome.err) == (0, "")
    for words in (
        "AUROC",
        "average precision",
        "detection rate",
        "false-alarm rate",
        "300 normal, 20 anomalous, 0 refused",
    ):
        assert words in outcome.out


@pytest.mark.parametrize("label", [(), ("--label", "fault")])
def test_data_without_anomalies_gives_alarm_rates_by_part_of_the_file(
    tmp_path, published: Published, command: Command, label: tuple[str, ...]
) -> None:  # type: ignore[no-untyped-def]
    table = tables.mixed(45, anomalies=0, seed=3)
    strange = table[:5].with_columns(load=pl.lit(1e6), flow=pl.lit(-1e6))
    data = tables.write(pl.concat([table, strange]), tmp_path / "normal.csv")
    outcome = command("evaluate", published.folder, data, *label, "--json")
    assert (outcome.code, outcome.err) == (0, "")
    rates = msgspec.json.decode(outcome.out, type=AlarmRates)
    assert [(part.first, part.last) for part in rates.parts][:2] == [(1, 5), (6, 10)]
    assert len(rates.parts) == 10
    assert (rates.parts[-1].alarms, rates.parts[-1].alarm_rate) == (5, 1.0)
    assert rates.parts[-1].interval == pytest.approx((0.4782, 1.0), abs=1e-4)  # .025 ** (1 / 5)
    assert rates.alarms == sum(part.alarms for part in rates.parts)
    assert rates.rows == 50
    assert rates.seen == 0
    outcome = command("evaluate", published.folder, data, *label)
    assert "46-50" in outcome.out
    assert "100.00%" in outcome.out


def test_rows_that_the_model_was_made_of_are_said_to_be(
    tmp_path, published: Published, command: Command
) -> None:  # type: ignore[no-untyped-def]
    fresh = tables.mixed(300, anomalies=0, seed=7)
    data = tables.write(
        pl.concat([published.table.filter(pl.col("fault") == 0), fresh]), tmp_path / "half.csv"
    )
    outcome = command("evaluate", published.folder, data)
    assert "50.0% of the rows are rows that the model was fitted or calibrated on" in outcome.out


def test_without_fingerprints_beside_the_model_nothing_is_said(
    tmp_path, published: Published, command: Command
) -> None:  # type: ignore[no-untyped-def]
    model = tmp_path / "model.onnx"
    model.write_bytes(published.data)
    outcome = command("evaluate", model, published.config.data, "--json")
    assert msgspec.json.decode(outcome.out, type=AlarmRates).seen is None
    assert "fitted" not in command("evaluate", model, published.config.data).out


def test_the_false_alarm_rate_is_measured_on_the_half_that_did_not_set_the_threshold(
    published: Published,
) -> None:
    calibration_ND = tables.mixed(2000, anomalies=0, seed=11)
    rows_ND = encode_table(calibration_ND, published.detector.manifest.features)
    rate = cross_fitted(published.detector, rows_ND, 0)
    assert rate.rate is not None
    assert rate.interval is not None
    expected = published.detector.threshold.expected_false_alarm_rate
    assert rate.interval[0] < expected < rate.interval[1]
    score_N = published.detector.score(rows_ND).score
    halves = np.array_split(np.random.default_rng(0).permutation(score_N), 2)
    rank = int(expected * 1001)
    alarms = sum(
        (judged > np.sort(setting)[-rank]).sum() for judged, setting in (halves, halves[::-1])
    )
    assert rate.rate == alarms / 2000
    assert cross_fitted(published.detector, rows_ND[:10], 0) == (None, None)


def test_without_a_row_on_either_side_there_is_no_evaluation(
    published: Published, rows: tuple[tables.Float32, tables.Float32]
) -> None:
    normal_ND, anomalies_AD = rows
    nothing_ND = np.full_like(anomalies_AD, np.nan)
    assert evaluate_labelled(published.detector, normal_ND, anomalies_AD[:0]) is None
    assert evaluate_labelled(published.detector, normal_ND, nothing_ND) is None
    whole = evaluate_labelled(published.detector, normal_ND, anomalies_AD)
    assert whole == evaluate(published.detector, normal_ND, anomalies_AD)
