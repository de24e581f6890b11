from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

from hourglass.service.model.detector import Detector
from hourglass.service.serving.store import locate
from hourglass.training.config import load_config
from hourglass.training.report import Report
from hourglass.training.run import run
from hourglass.training.screen import screen
from tests.training import tables
from tests.training.conftest import Outcome


def fit(data: Path, models: Path, **flags: object) -> Report:
    values = {"data": str(data), "name": "pump", "models": str(models), "variant": "linear"}
    return run(load_config(None, {**values, "epochs": 3, **flags}))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model of 1,000 correlated rows in service."""
    folder = tmp_path_factory.mktemp("screen")
    fit(tables.write(tables.correlated(1000), folder / "old.csv"), folder / "models")
    return folder / "models"


def serving(models: Path) -> Detector:
    return Detector.from_bytes(locate(models / "pump").read_bytes())


def with_anomalies(share: float, *, seed: int = 1, rows: int = 1000) -> tables.Float32:
    rows_ND = tables.correlated(rows, seed=seed)
    rows_ND[: round(share * rows), 2] += 15.0
    return rows_ND


def test_clean_rows_are_left_as_they_are(models: Path) -> None:
    detector = serving(models)
    left_out = [screen(detector, with_anomalies(0, seed=seed)).said.left_out for seed in range(40)]
    # one calibration draw for all: a fifth of such models would lose a few rows
    assert sum(count > 0 for count in left_out) <= 8
    said = screen(detector, with_anomalies(0)).said
    # the largest rank that n calibration rows have at 2 %
    n = detector.table.n
    assert said.expected == 1000 * int(0.02 * (n + 1)) / (n + 1)
    assert said.reason == "no more rows are flagged than its own false alarms explain"


def test_what_is_flagged_beyond_its_false_alarms_is_left_out_strangest_first(models: Path) -> None:
    screening = screen(serving(models), with_anomalies(0.1))
    said = screening.said
    assert said.left_out == round(said.flagged - said.expected) == screening.left_out_N.sum()
    assert said.left_out >= 60
    assert screening.left_out_N[100:].sum() <= 5


def test_another_population_is_not_left_out(models: Path) -> None:
    screening = screen(serving(models), with_anomalies(0.6))
    assert screening.said.left_out == screening.left_out_N.sum() == 0
    assert "another population" in screening.said.reason


def test_rows_that_the_service_would_refuse_are_not_asked_about(models: Path) -> None:
    rows_ND = with_anomalies(0)
    rows_ND[:10] = np.nan
    screening = screen(serving(models), rows_ND)
    assert screening.said.rows == 990
    assert not screening.left_out_N[:10].any()


def test_a_run_says_what_the_model_in_service_left_out_and_promises_nothing(
    models: Path, tmp_path: Path, command: Callable[..., Outcome]
) -> None:
    data = tables.write(with_anomalies(0.1), tmp_path / "new.csv")
    as_it_is = fit(data, models, screen=False, force=True)
    assert as_it_is.screened is None
    fit(tables.write(tables.correlated(1000), tmp_path / "old.csv"), tmp_path / "models")
    flags = ("--name", "pump", "--models", tmp_path / "models", "--variant", "linear")
    outcome = command("fit", data, *flags, "--epochs", "3")
    assert (outcome.code, outcome.err) == (0, "")
    assert "The model in service flags" in outcome.out
    assert "--no-screen leaves none out." in outcome.out
    assert "Warning: the" in outcome.out
    file = locate(tmp_path / "models" / "pump")
    report = msgspec.json.decode((file.parent / "report.json").read_bytes(), type=Report)
    assert report.screened
    assert report.left_out
    assert report.left_out.screened == report.screened.left_out >= 60
    used = report.fit_rows + report.validation_rows + report.calibration_rows
    assert used == 1000 - report.screened.left_out
    record = Detector.from_bytes(file.read_bytes()).manifest.calibration
    assert (record.guarantee, record.reason) == ("none", report.guarantee_reason)
    assert "may be up to" in str(record.reason)


def test_the_same_rows_again_lose_none(tmp_path: Path) -> None:
    data = tables.write(tables.correlated(600), tmp_path / "rows.csv")
    first, again = (fit(data, tmp_path / "models") for _ in range(2))
    assert first.screened is None
    assert again.screened
    assert (again.screened.rows, again.screened.left_out) == (0, 0)
    assert again.screened.reason == "no row is new to it"
    assert again.version == first.version


def test_contamination_and_exclusions_reach_the_run_the_report_and_run_toml(
    tmp_path: Path, command: Callable[..., Outcome]
) -> None:
    data = tables.write(with_anomalies(0.05, rows=400), tmp_path / "rows.csv")
    (tmp_path / "bad.txt").write_text("1\n2\n3\n")
    flags = ("--name", "pump", "--models", tmp_path / "models", "--variant", "linear")
    lost = ("--contamination", "0.05", "--exclude", tmp_path / "bad.txt", "--folds", "0")
    outcome = command("fit", data, *flags, "--epochs", "1", *lost)
    assert (outcome.code, outcome.err) == (0, "")
    assert "20 the strangest" in " ".join(outcome.out.replace("│", " ").split())
    assert (
        "19 rows to look at first: suspects.csv beside the model lists the strangest" in outcome.out
    )
    folder = locate(tmp_path / "models" / "pump").parent
    report = msgspec.json.decode((folder / "report.json").read_bytes(), type=Report)
    assert report.left_out
    assert (report.left_out.excluded, report.left_out.contaminated) == (3, 20)
    assert report.fit_rows + report.validation_rows + report.calibration_rows == 377
    assert report.guarantee == "none"
    assert report.guarantee_reason.startswith(
        "the 20 strangest of 397 rows were left out of calibration: if all of them were normal, the"
        " false-alarm rate may be up to 5.0% above alpha"
    )
    again = command("fit", "--config", folder / "run.toml", "--quiet")
    assert again == (0, "", "")
    assert locate(tmp_path / "models" / "pump").parent == folder


@pytest.mark.parametrize("share", ["0.5", "-0.1", "nan"])
def test_a_contamination_that_is_no_share_is_refused(
    tmp_path: Path, command: Callable[..., Outcome], share: str
) -> None:
    data = tables.write(tables.correlated(80), tmp_path / "rows.csv")
    outcome = command("fit", data, "--name", "pump", f"--contamination={share}")
    assert outcome.code == 2
    assert "contamination must be at least 0 and below 0.5" in outcome.err
