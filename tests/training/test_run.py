import os
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest

from hourglass.service.model import artifact
from hourglass.service.model.calibration import certified_rank
from hourglass.service.model.detector import Detector
from hourglass.service.rows.tables import encode_table
from hourglass.service.serving.store import MODEL_FILE, POINTER, Store, locate
from hourglass.training.config import load_config
from hourglass.training.errors import RunError
from hourglass.training.evaluate import cross_fitted, evaluate
from hourglass.training.progress import Progress
from hourglass.training.report import Report
from hourglass.training.run import run
from tests.artifacts import make_artifact
from tests.training import tables
from tests.training.conftest import EPOCHS, ROWS, Outcome, Published
from tests.training.stages import prepare_rows

Command = Callable[..., Outcome]


def quick(data: Path, models: Path, **flags: Any) -> Report:
    """The cheapest run there is: of one model."""
    values = {
        "data": str(data),
        "name": "pump",
        "models": str(models),
        "variant": "linear",
        "epochs": 1,
        "folds": 0,
        **flags,
    }
    return run(load_config(None, values))


def load(report: Report) -> Detector:
    return Detector.from_bytes(Path(report.path).read_bytes())


def test_what_is_published_lies_where_the_pointer_says(published: Published) -> None:
    root = published.folder.parent
    assert (root / POINTER).read_text() == f"{published.report.version}\n"
    assert sorted(path.name for path in published.folder.iterdir()) == [
        "card.md",
        "fingerprints.json",
        MODEL_FILE,
        "report.html",
        "report.json",
        "run.toml",
        "suspects.csv",
    ]
    assert artifact.version_of(published.data) == published.report.version == published.folder.name


def test_calibration_rows_are_scored_by_the_graph_and_nothing_else_sets_the_threshold(
    published: Published,
) -> None:
    score_N = published.detector.score(prepare_rows(published.config).split.calibration_ND).score
    assert published.detector.table.scores.tolist() == sorted(set(score_N.tolist()))
    rank = certified_rank(59, 0.2, 0.05)
    assert (
        published.report.threshold == published.detector.threshold.score == np.sort(score_N)[-rank]
    )
    assert published.report.expected_false_alarm_rate == rank / 60


def test_the_report_beside_the_model_holds_the_figures(published: Published) -> None:
    written = msgspec.json.decode((published.folder / "report.json").read_bytes(), type=Report)
    assert written == published.report
    assert (written.fit_rows, written.validation_rows, written.calibration_rows) == ROWS
    assert (written.dropped_rows, written.anomalous_rows, written.features) == (0, 20, 7)
    assert (written.alpha, written.alpha_chosen, written.delta, written.certified) == (
        0.2,
        True,
        0.05,
        True,
    )
    assert (written.guarantee, written.exchangeability.passed) == ("certified", True)
    assert written.guarantee_reason == written.exchangeability.text
    assert written.epochs <= EPOCHS
    assert written.best_epoch <= written.epochs
    assert written.size_bytes == len(published.data)
    assert Path(written.path) == published.folder / MODEL_FILE
    anomalies_AD = encode_table(
        published.table.filter(pl.col("fault") == 1), published.detector.manifest.features
    )
    calibration_ND = prepare_rows(published.config).split.calibration_ND
    # on rows that did not set the threshold
    false_alarms = cross_fitted(published.detector, calibration_ND, published.config.seed)
    assert written.quality == msgspec.structs.replace(
        evaluate(published.detector, calibration_ND, anomalies_AD),
        false_alarm_rate=false_alarms.rate,
        false_alarm_interval=false_alarms.interval,
    )
    assert written.quality.auroc > 0.9


def test_the_run_beside_the_model_has_every_choice_filled_in(published: Published) -> None:
    text = (published.folder / "run.toml").read_text()
    values = tomllib.loads(text)
    assert (values["alpha"], values["uncertified"], values["label"]) == (0.2, False, "fault")
    assert set(values["model"]) >= {"variant", "hidden", "latent", "noise", "mask_rate", "fit"}
    assert values["model"]["fit"]["epochs"] == EPOCHS


def test_what_anomalous_rows_hold_never_reaches_the_artifact(
    published: Published, tmp_path: Path
) -> None:
    faulty = pl.col("fault") == 1
    changed = published.table.with_columns(
        load=pl.when(faulty).then(-1e30).otherwise(pl.col("load")),
        flow=pl.when(faulty).then(None).otherwise(pl.col("flow")),
        open=pl.when(faulty).then(~pl.col("open")).otherwise(pl.col("open")),
        site=pl.when(faulty).then(pl.lit("elsewhere")).otherwise(pl.col("site")),
        broken=pl.when(faulty).then(7.0).otherwise(pl.col("broken")),
        fault=pl.col("fault") * 5,
    )
    data = tables.write(changed, tmp_path / "changed.csv")
    os.utime(data, (published.detector.manifest.fitted_at or 0,) * 2)
    report = run(msgspec.structs.replace(published.config, data=str(data), models=str(tmp_path)))
    assert Path(report.path).read_bytes() == published.data


def test_a_run_that_is_interrupted_or_fails_leaves_no_trace(tmp_path: Path) -> None:
    data = tables.write(tables.correlated(80), tmp_path / "table.csv")
    given = {"data": str(data), "name": "pump", "models": str(tmp_path / "models")}
    config = load_config(None, {**given, "variant": "denoising", "epochs": 2})

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(config, Progress(epoch=interrupt))
    hopeless = msgspec.structs.replace(config.model.fit, learning_rate=1e30)
    with pytest.raises(RunError, match="the loss is no longer a number"):
        run(
            msgspec.structs.replace(
                config, model=msgspec.structs.replace(config.model, fit=hopeless)
            )
        )
    assert not (tmp_path / "models").exists()


def test_a_file_that_the_service_would_not_load_is_refused_with_what_makes_it_smaller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hourglass.service.model.safety.MAX_ELEMENTS", 10)
    data = tables.write(tables.correlated(80), tmp_path / "table.csv")
    sentence = "the service would not load the file .* over 10 elements .* fewer columns make"
    with pytest.raises(RunError, match=sentence):
        quick(data, tmp_path / "models")
    assert not (tmp_path / "models").exists()


def test_progress_tells_the_stages_and_epochs(tmp_path: Path) -> None:
    data = tables.write(tables.correlated(80), tmp_path / "table.csv")
    config = load_config(
        None,
        {
            "data": str(data),
            "name": "pump",
            "models": str(tmp_path / "models"),
            "variant": "linear",
            "epochs": 2,
            "folds": 0,
        },
    )
    stages: list[str] = []
    epochs: list[tuple[int, int]] = []
    run(config, Progress(stages.append, lambda epoch: epochs.append((epoch.number, epoch.of))))
    assert stages == [
        "loading",
        "looking at the data",
        "looking for suspects",
        "splitting",
        "fitting",
        "absorbing held-out rows",
        "exporting",
        "calibrating",
        "testing exchangeability",
        "describing",
        "evaluating",
        "verifying",
        "reporting",
        "publishing",
    ]
    assert epochs == [(1, 2), (2, 2)]


@pytest.fixture
def served(tmp_path: Path) -> Path:
    """A models folder where a model of x0 to x3 is in service."""
    features = tuple(
        artifact.Feature(name=f"x{i}", kind="numeric", minimum=-3.0, maximum=3.0) for i in range(4)
    )
    Store(tmp_path / "models").model("pump").publish(make_artifact(features), {})
    return tmp_path / "models"


@pytest.mark.slow
def test_another_seed_gives_another_version_and_the_old_ones_stay(
    served: Path, tmp_path: Path
) -> None:
    data = tables.write(tables.correlated(80), tmp_path / "table.csv")
    first, second = (quick(data, served, seed=seed) for seed in (0, 1))
    assert first.version != second.version
    assert (served / "pump" / POINTER).read_text() == f"{second.version}\n"
    assert len(list((served / "pump").glob(f"*/{MODEL_FILE}"))) == 3


def test_a_model_with_other_features_is_published_over_the_one_in_service_only_by_force(
    served: Path, tmp_path: Path, command: Command
) -> None:
    data = tables.write(tables.correlated(80, width=5), tmp_path / "table.csv")
    before = (served / "pump" / POINTER).read_text()
    arguments = (
        "fit",
        data,
        "--name",
        "pump",
        "--models",
        served,
        "--variant",
        "linear",
        "--epochs",
        "1",
        "--folds",
        "0",
        "--quiet",
    )
    outcome = command(*arguments)
    assert outcome.code == 2
    assert "serves a model with other features (differing: x4)" in outcome.err
    assert "--force publishes all the same" in outcome.err
    assert (served / "pump" / POINTER).read_text() == before
    assert command(*arguments, "--force") == (0, "", "")
    detector = Detector.from_bytes(locate(served / "pump").read_bytes())
    assert [feature.name for feature in detector.manifest.features] == [
        "x0",
        "x1",
        "x2",
        "x3",
        "x4",
    ]


def test_columns_in_another_order_are_other_features(served: Path, tmp_path: Path) -> None:
    data = tables.write(tables.correlated(80)[:, ::-1], tmp_path / "table.csv")
    table = pl.read_csv(data).select("x3", "x2", "x1", "x0")
    with pytest.raises(RunError, match="differing: their order"):
        quick(tables.write(table, data), served)


def test_flags_override_the_file_and_the_table_at_the_end_says_what_was_chosen(
    tmp_path: Path, command: Command
) -> None:
    tables.write(tables.correlated(160), tmp_path / "table.csv")
    (tmp_path / "run.toml").write_text(
        f'data = "{tmp_path / "table.csv"}"\nname = "pump"\nmodels = "{tmp_path / "models"}"\nalpha'
        ' = 0.2\n[model]\nvariant = "linear"\n[model.fit]\nepochs = 1\n[split]\nfolds = 0\n'
    )
    outcome = command(
        "fit",
        "--config",
        tmp_path / "run.toml",
        "--name",
        "fan",
        "--alpha",
        "0.05",
        "--uncertified",
    )
    assert (outcome.code, outcome.err) == (0, "")
    detector = Detector.from_bytes(locate(tmp_path / "models" / "fan").read_bytes())
    assert (detector.manifest.calibration.alpha, detector.manifest.model.variant) == (
        0.05,
        "linear",
    )
    assert "101 fit, 19 held out, 40 calibration" in outcome.out
    assert "Alpha is" not in outcome.out  # it was asked for
    # what is not guaranteed is marked everywhere: floor(.05 * 41) = 2 of 40 calibration rows
    assert "Warning: uncertified. The false-alarm rate is 4.88%" in outcome.out
    assert detector.manifest.calibration.guarantee == "marginal"
    assert not detector.threshold.certified
    folder = tmp_path / "models" / "fan" / detector.version
    assert tomllib.loads((folder / "run.toml").read_text())["uncertified"] is True
    report = msgspec.json.decode((folder / "report.json").read_bytes(), type=Report)
    assert (report.certified, report.expected_false_alarm_rate) == (False, 2 / 41)
    assert f"Published {tmp_path / 'models' / 'fan' / detector.version / MODEL_FILE}" in outcome.out


def test_with_very_few_rows_the_model_is_published_uncertified_with_a_warning(
    tmp_path: Path, command: Command
) -> None:
    data = tables.write(tables.correlated(20), tmp_path / "table.csv")
    flags = (
        "--name",
        "pump",
        "--models",
        tmp_path / "models",
        "--variant",
        "linear",
        "--epochs",
        "1",
        "--folds",
        "0",
    )
    outcome = command("fit", data, *flags)
    assert outcome.code == 0
    assert "Alpha is 20%: the smallest of 1, 2, 5, 10 and 20 % of which 5" in outcome.out
    assert "Warning: uncertified." in outcome.out
    detector = Detector.from_bytes(locate(tmp_path / "models" / "pump").read_bytes())
    assert detector.manifest.calibration.guarantee == "marginal"
    assert not detector.threshold.certified


def test_wide_data_is_fitted_and_scored(tmp_path: Path) -> None:
    data = tables.write(tables.correlated(150, width=200, latent=3), tmp_path / "wide.parquet")
    detector = load(quick(data, tmp_path / "models", epochs=4))
    assert detector.width == 200
    normal_ND = tables.correlated(50, width=200, latent=3, seed=1)
    strange_ND = normal_ND.copy()
    strange_ND[:, ::10] = tables.correlated(50, width=200, latent=3, seed=2)[:, ::10]
    assert np.median(detector.score(strange_ND).score) > 2 * np.median(
        detector.score(normal_ND).score
    )


def test_every_kind_of_column_end_to_end(published: Published) -> None:
    features = published.detector.manifest.features
    fresh = tables.mixed(400, anomalies=100, seed=9)
    normal_N, anomalous_N = (
        published.detector.score(encode_table(fresh.filter(pl.col("fault") == label), features))
        for label in (0, 1)
    )
    assert np.isfinite(np.concatenate([normal_N.score, anomalous_N.score])).all()
    assert (normal_N.score > published.detector.threshold.score).mean() < 0.1
    assert np.median(anomalous_N.p_value) < 0.05


def test_rows_that_never_vary_are_all_alike_and_any_other_value_stands_out(tmp_path: Path) -> None:
    data = tables.write(np.tile(np.float32([[7.0, -3.0, 0.0]]), (80, 1)), tmp_path / "table.csv")
    detector = load(quick(data, tmp_path / "models", epochs=30))
    scores = detector.score(np.float32([[7, -3, 0], [7, -3, 1], [8, -3, 0]]))
    assert scores.p_value.tolist() == pytest.approx([1.0, 1 / 21, 1 / 21])
    assert (scores.score[1:] > 100).all()


def test_numbers_at_the_end_of_float32_are_fitted_and_scored(tmp_path: Path) -> None:
    rows_ND = tables.correlated(80)
    rows_ND[:, 0] *= 1e37
    rows_ND[:, 1] *= 1e-37
    rows_ND[0, 0], rows_ND[1, 0] = 3.4e38, -3.4e38
    detector = load(
        quick(tables.write(rows_ND, tmp_path / "table.parquet"), tmp_path / "models", epochs=5)
    )
    assert np.isfinite(detector.explain(rows_ND).contributions).all()
    assert np.isfinite(detector.explain(rows_ND).reconstruction).all()


def in_order(rows: int = 600) -> pl.DataFrame:
    """Another state begins with the last fifth; `at` counts on, with a gap and a repeated time."""
    rows_ND = tables.correlated(rows)
    rows_ND[-rows // 5 :, 0] += 4
    at_N = np.arange(rows)
    at_N[200:] += 50
    at_N[301] = at_N[300]
    columns = {f"x{i}": rows_ND[:, i] for i in range(rows_ND.shape[1])}
    return pl.DataFrame({"at": at_N, **columns, "machine": [f"m{i % 12}" for i in range(rows)]})


def test_rows_that_are_not_exchangeable_are_published_without_a_guarantee_and_that_is_said(
    tmp_path: Path, command: Command
) -> None:
    table = in_order().drop("at", "machine")
    data = tables.write(table, tmp_path / "table.csv")
    flags = ("--name", "pump", "--models", tmp_path / "models", "--variant", "linear")
    outcome = command("fit", data, *flags, "--epochs", 1)
    assert "Warning: not exchangeable: the last fifth of the rows alarms at" in outcome.out
    assert "guarantee" in outcome.out
    detector = Detector.from_bytes(locate(tmp_path / "models" / "pump").read_bytes())
    record = detector.manifest.calibration
    assert (record.guarantee, record.rule) == ("none", "certified")
    assert str(record.reason).startswith("not exchangeable: the last fifth of the rows alarms at")
    written = (tmp_path / "models" / "pump" / detector.version / "report.json").read_bytes()
    report = msgspec.json.decode(written, type=Report)
    assert (report.certified, report.guarantee, report.guarantee_reason) == (
        False,
        "none",
        record.reason,
    )
    shuffled = tables.write(table.sample(fraction=1.0, shuffle=True, seed=0), tmp_path / "s.csv")
    command("fit", shuffled, *flags, "--epochs", 1)
    detector = Detector.from_bytes(locate(tmp_path / "models" / "pump").read_bytes())
    record = detector.manifest.calibration
    assert (record.guarantee, record.reason) == (
        "certified",
        "600 rows passed the tests of exchangeability at a level of 1%",
    )


def test_with_a_time_column_blocks_of_it_calibrate_and_it_is_no_feature(tmp_path: Path) -> None:
    table = in_order().drop("machine").sample(fraction=1.0, shuffle=True, seed=0)
    report = quick(
        tables.write(table, tmp_path / "t.csv"), tmp_path / "models", time="at", window=1
    )
    record = load(report).manifest.calibration
    assert (report.features, report.calibration_rows, report.gap_rows) == (4, 90, 14)
    assert (record.guarantee, record.rule, report.certified) == ("blocks", "marginal", False)
    assert "held in each of 5 held-out blocks of at (18 to 18 rows)" in report.guarantee_reason
    assert "one that had no say in the threshold alarmed at up to" in report.guarantee_reason
    assert "not exchangeable: the last fifth of the rows by at alarms at" in report.guarantee_reason
    assert report.time is not None
    assert (report.time.gaps, report.time.longest_gap, report.time.repeated) == (2, 51, 1)
    assert tomllib.loads((Path(report.path).parent / "run.toml").read_text())["time"] == "at"


def test_with_a_group_column_whole_groups_calibrate(tmp_path: Path) -> None:
    data = tables.write(in_order().drop("at"), tmp_path / "t.csv")
    report = quick(data, tmp_path / "models", group="machine")
    assert (report.guarantee, report.features, report.gap_rows) == ("blocks", 4, 0)
    assert "held in each of 4 held-out blocks of groups of machine" in report.guarantee_reason


def test_the_run_beside_a_model_of_blocks_gives_the_same_bytes_again(
    tmp_path: Path, command: Command
) -> None:
    data = tables.write(in_order().drop("machine"), tmp_path / "t.csv")
    report = quick(data, tmp_path / "models", time="at", window=1)
    again = command("fit", "--config", Path(report.path).parent / "run.toml")
    assert (again.code, again.err) == (0, "")
    assert (tmp_path / "models" / "pump" / POINTER).read_text() == f"{report.version}\n"
