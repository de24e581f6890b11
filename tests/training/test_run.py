import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest
import torch

from hourglass.service.model import artifact
from hourglass.service.model.artifact import MODEL_FILE, POINTER
from hourglass.service.model.calibration import certified_rank
from hourglass.service.model.detector import Detector
from hourglass.service.rows.tables import encode_table
from hourglass.training.config import RunConfig, load_config
from hourglass.training.errors import RunError
from hourglass.training.evaluate import evaluate
from hourglass.training.presets import PRESETS
from hourglass.training.progress import Progress
from hourglass.training.publish import publish
from hourglass.training.report import Report
from hourglass.training.run import run
from hourglass.training.split import admissible_rows, split_rows
from hourglass.training.trial import device_of, fit_trial
from tests.artifacts import make_artifact
from tests.training import tables
from tests.training.conftest import DEVICES, EPOCHS, Outcome, Published
from tests.training.stages import finish, prepare_rows

Command = Callable[..., Outcome]

ROWS = (
    205,
    36,
    59,
    # of the 300 normal rows of the published run: 12 % are held out, and 59 calibrate, being more
    # than 10 %
)


def quick(data: Path, models: Path, **flags: Any) -> Report:
    """The cheapest run there is."""
    values = {
        "data": str(data),
        "name": "pump",
        "models": str(models),
        "variant": "linear",
        "epochs": 1,
        **flags,
    }
    return run(load_config(None, values))


def load(report: Report) -> Detector:
    return Detector.from_bytes(Path(report.path).read_bytes())


def split_of(published: Published) -> Any:
    """The three row sets of the published run, made again from its seed."""
    manifest = published.detector.manifest
    normal_ND = encode_table(published.table.filter(pl.col("fault") == 0), manifest.features)
    return split_rows(admissible_rows(normal_ND)[0], published.config.split, published.config.seed)


def test_what_is_published_lies_where_the_pointer_says(published: Published) -> None:
    root = published.folder.parent
    assert (root / POINTER).read_text() == f"{published.report.version}\n"
    assert sorted(path.name for path in published.folder.iterdir()) == [
        MODEL_FILE,
        "report.json",
        "run.toml",
    ]
    assert artifact.version_of(published.data) == published.report.version == published.folder.name


def test_the_manifest_says_what_was_fitted(published: Published) -> None:
    manifest = published.detector.manifest
    assert manifest.model.variant == "denoising"
    assert manifest.model.seed == 0
    assert manifest.model.hyper_parameters["fit"]["epochs"] == EPOCHS  # type: ignore[index]
    assert (manifest.rows.fit, manifest.rows.validation, manifest.rows.calibration) == ROWS
    assert [(feature.name, feature.kind) for feature in manifest.features] == [
        ("load", "numeric"),
        ("flow", "numeric"),
        ("heat", "numeric"),
        ("open", "boolean"),
        ("site", "categorical"),
        ("fixed", "numeric"),
        ("broken", "numeric"),
    ]
    assert manifest.features[4].categories == ("north", "south", "west")
    assert (manifest.calibration.n, manifest.calibration.alpha, manifest.calibration.guarantee) == (
        59,
        0.05,
        "certified",
    )
    assert manifest.requires == ()


def test_ranges_and_drift_reference_are_those_of_the_fit_rows(published: Published) -> None:
    fit_ND = split_of(published).fit_ND
    for feature, reference, column in zip(
        published.detector.manifest.features,
        published.detector.manifest.drift,
        fit_ND.T,
        strict=True,
    ):
        seen = column[~np.isnan(column)]
        assert feature.missing_rate == pytest.approx(np.isnan(column).mean())
        assert (feature.minimum, feature.maximum) == (
            (seen.min(), seen.max()) if len(seen) else (None, None)
        )
        assert reference.missing == np.isnan(column).sum()
        assert sum(reference.counts) == len(seen)
        if feature.kind == "numeric" and len(seen):
            bins = np.histogram(seen, [-np.inf, *reference.edges, np.inf])[0]
            assert reference.counts == tuple(bins.tolist())
        elif feature.kind == "categorical":
            assert reference.counts == tuple(
                np.bincount(seen.astype(int), minlength=len(feature.categories)).tolist()
            )


def test_calibration_rows_are_scored_by_the_graph_and_nothing_else_sets_the_threshold(
    published: Published,
) -> None:
    score_N = published.detector.score(split_of(published).calibration_ND).score
    assert published.detector.table.scores.tolist() == sorted(set(score_N.tolist()))
    rank = certified_rank(59, 0.05, 0.05)
    assert (
        published.report.threshold == published.detector.threshold.score == np.sort(score_N)[-rank]
    )
    assert published.report.expected_false_alarm_rate == rank / 60


def test_a_residual_variance_is_the_mean_held_out_error_of_its_feature(
    published: Published,
) -> None:
    rows_ND = split_of(published).validation_ND
    explanation = published.detector.explain(rows_ND)
    observed_ND = ~np.isnan(rows_ND)
    observed_ND[:, 6] = False  # always missing
    # contribution = error / residual / observed cells: the mean over a feature's observed cells is
    # one
    ratios_ND = explanation.contributions * observed_ND.sum(axis=1, keepdims=True)
    for index, feature in enumerate(published.detector.manifest.features[:5]):
        assert feature.residual_variance > 0
        assert ratios_ND[observed_ND[:, index], index].mean() == pytest.approx(1.0, rel=1e-3)


@torch.no_grad()
def test_that_of_a_member_with_a_score_of_its_own_is_the_error_of_what_it_expected(
    tmp_path: Path,
) -> None:
    data = tables.write(tables.correlated(300), tmp_path / "table.parquet")
    config = load_config(None, {"data": str(data), "name": "pump", "preset": "fast"})
    prepared = prepare_rows(config)
    trial = fit_trial(prepared, config, PRESETS["fast"])
    rows_ND = prepared.split.validation_ND
    expected_ND = trial.core(torch.from_numpy(rows_ND)).reconstruction_ND.numpy()
    errors_D = (((rows_ND - expected_ND) / prepared.split.fit_ND.std(axis=0)) ** 2).mean(axis=0)
    features = Detector.from_bytes(finish(prepared, trial, config)).manifest.features
    assert [feature.residual_variance for feature in features] == pytest.approx(
        errors_D.tolist(), rel=1e-3
    )


def test_the_report_beside_the_model_holds_the_figures(published: Published) -> None:
    written = msgspec.json.decode((published.folder / "report.json").read_bytes(), type=Report)
    assert written == published.report
    assert (written.fit_rows, written.validation_rows, written.calibration_rows) == ROWS
    assert (written.dropped_rows, written.anomalous_rows, written.features) == (0, 20, 7)
    assert (written.alpha, written.alpha_chosen, written.delta, written.certified) == (
        0.05,
        True,
        0.05,
        True,
    )
    assert written.epochs <= EPOCHS
    assert written.best_epoch <= written.epochs
    assert written.size_bytes == len(published.data)
    assert Path(written.path) == published.folder / MODEL_FILE
    anomalies_AD = encode_table(
        published.table.filter(pl.col("fault") == 1), published.detector.manifest.features
    )
    assert written.quality == evaluate(
        published.detector, split_of(published).calibration_ND, anomalies_AD
    )
    assert written.quality
    assert written.quality.auroc > 0.9


def test_the_run_beside_the_model_has_every_choice_filled_in(published: Published) -> None:
    text = (published.folder / "run.toml").read_text()
    values = tomllib.loads(text)
    assert (values["alpha"], values["uncertified"], values["label"]) == (0.05, False, "fault")
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
        },
    )
    stages: list[str] = []
    epochs: list[tuple[int, int]] = []
    run(config, Progress(stages.append, lambda epoch: epochs.append((epoch.number, epoch.of))))
    assert stages == [
        "loading",
        "looking at the data",
        "splitting",
        "fitting",
        "absorbing held-out rows",
        "exporting",
        "calibrating",
        "describing",
        "evaluating",
        "verifying",
        "publishing",
    ]
    assert epochs == [(1, 2), (2, 2)]


@pytest.fixture
def served(tmp_path: Path) -> Path:
    """A models folder where a model of x0 to x3 is in service."""
    features = tuple(
        artifact.Feature(name=f"x{i}", kind="numeric", minimum=-3.0, maximum=3.0) for i in range(4)
    )
    publish(tmp_path / "models", "pump", make_artifact(features), {})
    return tmp_path / "models"


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
        "--quiet",
    )
    outcome = command(*arguments)
    assert outcome.code == 2
    assert "serves a model with other features (differing: x4)" in outcome.err
    assert "--force publishes all the same" in outcome.err
    assert (served / "pump" / POINTER).read_text() == before
    assert command(*arguments, "--force") == (0, "", "")
    detector = Detector.from_bytes(artifact.locate(served / "pump").read_bytes())
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
        ' = 0.2\n[model]\nvariant = "linear"\n[model.fit]\nepochs = 1\n'
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
    detector = Detector.from_bytes(artifact.locate(tmp_path / "models" / "fan").read_bytes())
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
    )
    outcome = command("fit", data, *flags)
    assert outcome.code == 0
    assert "Alpha is 20%: 5 calibration rows certify none of 1, 2, 5, 10 and 20 %." in outcome.out
    assert "Warning: uncertified." in outcome.out
    detector = Detector.from_bytes(artifact.locate(tmp_path / "models" / "pump").read_bytes())
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


class TestDevice:
    """Where the loop runs."""

    def config(self, device: str) -> RunConfig:
        return msgspec.structs.replace(
            load_config(None, {"data": "unread", "name": "pump"}), device=device
        )

    @pytest.fixture
    def without_gpu(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    @pytest.mark.usefixtures("without_gpu")
    def test_left_open_it_is_the_processor_where_there_is_no_gpu(self) -> None:
        assert self.config("auto") == load_config(None, {"data": "unread", "name": "pump"})
        assert device_of(self.config("auto")) == device_of(self.config("cpu")) == "cpu"

    def test_left_open_it_is_the_gpu_where_there_is_one(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        assert device_of(self.config("auto")) == device_of(self.config("cuda")) == "cuda"
        assert device_of(self.config("cpu")) == "cpu"

    def test_the_one_that_was_used_stands_in_the_run_beside_the_model(self, tmp_path: Path) -> None:
        data = tables.write(tables.correlated(80), tmp_path / "table.csv")
        report = quick(data, tmp_path / "models")
        assert (
            tomllib.loads(Path(report.path).with_name("run.toml").read_text())["device"]
            == DEVICES[-1]
        )

    @pytest.mark.usefixtures("without_gpu")
    def test_a_gpu_that_is_asked_for_and_not_there_is_said_in_one_sentence(
        self, tmp_path: Path, command: Command
    ) -> None:
        data, models = (
            tables.write(tables.correlated(80), tmp_path / "table.csv"),
            tmp_path / "models",
        )
        (tmp_path / "run.toml").write_text('device = "cpu"\n')
        flags = "--config", tmp_path / "run.toml", "--device", "cuda"
        outcome = command("fit", data, "--name", "pump", "--models", models, *flags)
        sentence = (
            "hourglass-train: device is cuda, and torch sees no GPU; leave it at auto, or take"
            " cpu\n"
        )
        assert outcome == (2, "", sentence)
        assert not models.exists()

    def test_any_other_device_is_refused(self, tmp_path: Path, command: Command) -> None:
        (tmp_path / "run.toml").write_text('device = "tpu"\n')
        outcome = command("fit", "unread.csv", "--name", "pump", "--config", tmp_path / "run.toml")
        assert outcome.code == 2
        assert outcome.err.endswith("run.toml: Invalid enum value 'tpu' - at 'device'\n")
