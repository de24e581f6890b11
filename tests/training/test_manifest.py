import os
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from hourglass.service.model.artifact import LAST_SECOND
from hourglass.service.model.detector import Detector
from hourglass.training.config import load_config
from hourglass.training.features import Encoding
from hourglass.training.manifest import fitted_at
from hourglass.training.presets import PRESETS
from hourglass.training.trial import fit_trial
from tests.training import tables
from tests.training.conftest import EPOCHS, ROWS, Published
from tests.training.stages import finish, prepare_rows


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
        0.2,
        "certified",
    )
    assert manifest.requires == ()


def test_ranges_and_drift_reference_are_those_of_the_fit_rows(published: Published) -> None:
    fit_ND = prepare_rows(published.config).split.fit_ND
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


def test_a_residual_variance_is_the_mean_held_out_error_of_its_feature(
    published: Published,
) -> None:
    prepared = prepare_rows(published.config)
    rows_ND = prepared.split.validation_ND
    encoding = Encoding(prepared.features, prepared.split.fit_ND, published.config.loss)
    expected_ND = published.detector.explain(rows_ND).reconstruction
    seen, expected = (encoding.encode(torch.from_numpy(each)) for each in (rows_ND, expected_ND))
    errors_NE = (seen.values_NE - expected.values_NE).square()
    for index, feature in enumerate(published.detector.manifest.features[:5]):
        assert feature.residual_variance > 0
        if feature.kind == "numeric":
            error_N = errors_NE[seen.observed_ND[:, index] > 0, encoding.slices[index]]
            assert feature.residual_variance == pytest.approx(error_N.mean().item(), rel=1e-3)


def test_the_time_it_was_fitted_is_that_of_its_rows_and_not_of_the_run(
    published: Published,
) -> None:
    config = published.config
    assert published.detector.manifest.fitted_at == int(Path(config.data).stat().st_mtime)
    assert load_config(published.folder / "run.toml", {}).fitted_at == int(
        Path(config.data).stat().st_mtime
    )
    newest = np.array([1.6e9, 1.7e9, 1.5e9])
    assert fitted_at(config, newest) == 1.7e9
    numbered = np.arange(100.0)  # in order of time, but no seconds since 1970
    assert fitted_at(config, numbered) == int(Path(config.data).stat().st_mtime)
    given = msgspec.structs.replace(config, fitted_at=1.0)
    assert fitted_at(given, newest) == 1.0
    moved = msgspec.structs.replace(config, data="moved away")
    assert fitted_at(moved, None) is None


def test_a_data_file_of_a_time_that_has_no_name_is_no_error(tmp_path: Path) -> None:
    data = tmp_path / "rows.csv"
    data.write_text("x\n1\n")
    os.utime(data, (1e11, 1e11))
    config = load_config(None, {"data": str(data), "name": "pump"})
    seconds = fitted_at(config, None)
    assert seconds is not None
    assert 1e9 < seconds <= LAST_SECOND  # a file system may keep fewer years


@torch.no_grad()
@pytest.mark.slow
def test_of_a_member_with_its_own_score_it_is_the_mean_error_of_the_expected_values(
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
