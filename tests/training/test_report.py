"""What a run tells a person at its end."""

import io

import msgspec
import numpy as np
import pytest
from rich.console import Console

from hourglass.training.evaluate import Evaluation
from hourglass.training.exchangeability import Exchangeability
from hourglass.training.report import Report, print_report, time_axis, write_report

QUALITY = Evaluation(
    auroc=0.9876,
    average_precision=0.8765,
    detection_rate=0.75,
    false_alarm_rate=0.0125,
    false_alarm_interval=(0.0, 0.05),
    alpha=0.1,
    certified=True,
    threshold=3.5,
    normal_rows=40,
    anomalous_rows=8,
    refused_rows=0,
)
PASSED = Exchangeability(level=0.01, rows=120, effective_rows=120, order=None, findings=())
DRIFTED = "not exchangeable: the last fifth of the rows alarms at 21% (15% to 28%)"
REPORT = Report(
    name="pump",
    version="0123456789abcdef" * 4,
    path="models/pump/0123/model.onnx",
    variant="denoising",
    parameter_count=1234,
    features=7,
    fit_rows=96,
    validation_rows=24,
    calibration_rows=40,
    dropped_rows=3,
    anomalous_rows=8,
    epochs=50,
    best_epoch=37,
    held_out_loss=0.123456,
    alpha=0.1,
    alpha_chosen=True,
    delta=0.05,
    certified=True,
    guarantee="certified",
    guarantee_reason=PASSED.text,
    exchangeability=PASSED,
    threshold=3.5,
    expected_false_alarm_rate=3 / 41,
    quality=QUALITY,
    size_bytes=20_480,
    seconds=12.3,
)


def printed(**changes: object) -> str:
    text = io.StringIO()
    print_report(msgspec.structs.replace(REPORT, **changes), Console(file=text, width=120))
    return text.getvalue()


def test_rows_without_a_full_window_are_told_of() -> None:
    assert "3 with too few values or without 29 normal rows before them" in printed(window=30)
    assert "normal rows before" not in printed()


@pytest.mark.parametrize(
    "words",
    [
        "pump 0123456789ab",
        "denoising, 1,234 parameters, 7 features",
        "96 fit, 24 held out, 40 calibration",
        "8 anomalous, 3 with too few values",
        "50, the best was 37",
        "0.12346",
        "7.32%",
        "0.9876",
        "0.8765",
        "75.00% of the anomalies at alpha = 0.1, certified",
        "1.25% of the normal rows",
        "20 KiB, 12.3 s",
        "Published models/pump/0123/model.onnx",
    ],
)
def test_every_figure_is_in_the_table(words: str) -> None:
    assert words in printed()


def test_an_alpha_that_was_chosen_is_said_in_one_plain_line() -> None:
    line = (
        "Alpha is 10%: the smallest of 1, 2, 5, 10 and 20 % of which 40 calibration rows leave at"
        " least half in use."
    )
    assert line in printed().splitlines()
    assert "Alpha is" not in printed(alpha_chosen=False)


def test_what_is_not_certified_is_warned_of() -> None:
    assert "Warning: uncertified. The false-alarm rate is 7.32% on average" in printed(
        certified=False, guarantee="marginal"
    )
    assert "40 calibration rows are too few to have half of any budget in use." in printed(
        expected_false_alarm_rate=2 / 41
    )
    assert "Warning" not in printed()


def test_of_rows_that_are_not_exchangeable_nothing_is_called_certified() -> None:
    text = printed(certified=False, guarantee="none", guarantee_reason=DRIFTED)
    assert f"Warning: {DRIFTED}. Nothing is guaranteed" in text
    assert "--time COLUMN or --group COLUMN" in text
    assert "alpha = 0.1, certified" not in printed(
        certified=False, guarantee="none", guarantee_reason=DRIFTED, quality=None
    )
    blocks = printed(certified=False, guarantee="blocks", guarantee_reason="held in 5 blocks")
    assert "Warning: uncertified, by blocks. held in 5 blocks" in blocks


def test_gaps_and_repeated_times_are_counted_and_said() -> None:
    axis = time_axis("at", np.array([0.0, 1, 2, 2, 3, 10, 11]))
    assert axis is not None
    assert (axis.step, axis.gaps, axis.longest_gap, axis.repeated) == (1.0, 1, 7.0, 1)
    assert "at: 1 gaps, the longest 7 where a step is 1; 1 rows of the same time" in printed(
        time=axis
    )
    assert time_axis(None, None) is None


def test_gaps_are_those_within_each_entity() -> None:
    # two entities a minute apart, mixed in time, of which the second has a gap and a repeated time
    time_N = np.array([0.0, 30, 60, 90, 120, 120, 600, 600])
    entity_N = np.array([0, 1, 0, 1, 0, 1, 1, 1])
    axis = time_axis("at", time_N, entity_N)
    assert axis is not None
    assert (axis.step, axis.gaps, axis.longest_gap) == (60.0, 1, 480.0)
    assert (axis.repeated, axis.entities) == (1, 2)
    assert "at, within each of 2 entities: 1 gaps, the longest 480" in printed(time=axis)
    together = time_axis("at", time_N)
    assert together is not None
    assert (together.step, together.repeated) == (30.0, 2)


def test_the_preset_is_named_where_the_model_is_that_of_one() -> None:
    assert "preset" not in printed()
    assert "balanced" in printed(preset="balanced")


def test_what_of_the_training_rows_the_file_contains_is_said_plainly() -> None:
    assert "contains" not in printed()
    line = (
        "The model file contains {}, and whoever has it can read them. --memory 0 fits a model that"
        " contains none."
    )
    assert line.format("averages of training rows") in printed(stores_rows="averages").splitlines()
    assert line.format("training rows as they are") in printed(stores_rows="rows").splitlines()


def test_without_labels_there_are_no_figures_of_quality() -> None:
    assert "AUROC" not in printed(quality=None)


def test_the_report_reads_back_as_it_was_written() -> None:
    assert msgspec.json.decode(write_report(REPORT), type=Report) == REPORT


def test_the_last_lines_are_the_verdict_and_where_the_report_lies() -> None:
    lines = printed(summary="In order: [all of it].").splitlines()
    assert lines[-2:] == ["In order: [all of it].", "Report models/pump/0123/report.html"]
    assert printed().splitlines()[-1] == "Published models/pump/0123/model.onnx"
