"""Artifacts that were published once load for ever, and answer what they answered."""

import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest

from hourglass.service.model.artifact import FORMAT_MAJOR, version_of
from hourglass.service.model.detector import Detector
from tests.contract.make_golden import FOLDER, Golden, write

PATHS = sorted(FOLDER.glob("*.onnx"))


@pytest.fixture(scope="module", params=PATHS, ids=lambda path: path.stem)
def path(request: pytest.FixtureRequest) -> Path:
    return Path(request.param)


@pytest.fixture(scope="module")
def golden(path: Path) -> Golden:
    return msgspec.json.decode(path.with_suffix(".json").read_bytes(), type=Golden)


@pytest.fixture(scope="module")
def detector(path: Path) -> Detector:
    detector = Detector.from_bytes(path.read_bytes())
    return detector.of(detector.manifest.self_test.entity)


def array(values: object) -> np.ndarray:  # type: ignore[type-arg]
    return np.array(values, dtype=np.float32)  # None becomes NaN


def test_there_is_one_of_the_present_major_format() -> None:
    assert any(path.stem.rpartition("-")[2].startswith(f"{FORMAT_MAJOR}.") for path in PATHS)


def test_from_format_1_3_on_one_is_of_rows_in_order() -> None:
    windows = [Detector.from_bytes(path.read_bytes()).window for path in FOLDER.glob("*-1.3.onnx")]
    assert max(windows) > 1


def test_from_format_1_4_on_one_is_of_entities_that_have_baselines() -> None:
    detectors = [Detector.from_bytes(path.read_bytes()) for path in FOLDER.glob("*-1.4.onnx")]
    assert any(detector.knows("second") for detector in detectors)


def test_from_format_1_5_on_one_holds_what_its_rows_were_asked_by() -> None:
    manifests = [
        Detector.from_bytes(path.read_bytes()).manifest for path in FOLDER.glob("*-1.5.onnx")
    ]
    assert manifests
    for manifest in manifests:
        assert manifest.queries is not None
        assert manifest.queries.expressions == tuple(
            f"avg by (plant) ({feature.name})" for feature in manifest.features
        )
        assert (manifest.queries.step_seconds, manifest.queries.late_seconds) == (30, 150)


def test_it_is_the_file_that_was_published(path: Path, golden: Golden, detector: Detector) -> None:
    assert version_of(path.read_bytes()) == golden.version == detector.version
    assert path.stem == f"{golden.variant}-{detector.manifest.format}"


def test_its_features_and_threshold_are_what_they_were(golden: Golden, detector: Detector) -> None:
    assert detector.manifest.features == golden.features
    assert {feature.kind for feature in golden.features} == {"numeric", "boolean", "categorical"}
    assert detector.threshold == golden.threshold
    assert detector.table.n == golden.calibration_rows


def test_it_answers_what_it_answered(golden: Golden, detector: Detector) -> None:
    rows_ND = array(golden.rows)
    explanation = detector.explain(rows_ND)
    np.testing.assert_allclose(explanation.score, array(golden.score), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(
        explanation.contributions, array(golden.contributions), rtol=1e-4, atol=1e-6
    )
    np.testing.assert_allclose(detector.encode(rows_ND), array(golden.latent), rtol=1e-4, atol=1e-5)
    usual_D = np.nanmax(np.abs(array(golden.reconstruction)), axis=0)
    difference_ND = np.abs(explanation.reconstruction - array(golden.reconstruction))
    assert (difference_ND <= 1e-4 * usual_D + 1e-9).all()
    # a score at the edge may fall on its other side
    one_rank = 1.01 / (golden.calibration_rows + 1)
    np.testing.assert_allclose(explanation.p_value, array(golden.p_value), atol=one_rank)
    np.testing.assert_allclose(
        detector.score(rows_ND).score, array(golden.score), rtol=1e-4, atol=1e-6
    )
    deviation_NK = detector.encode_with_deviation(rows_ND).deviation
    assert (deviation_NK is not None) == bool(golden.deviation)
    if deviation_NK is not None:
        np.testing.assert_allclose(deviation_NK, array(golden.deviation), rtol=1e-4, atol=1e-6)
    if golden.severity:
        np.testing.assert_allclose(explanation.severity, array(golden.severity), atol=0.02)


def test_from_format_1_1_on_it_holds_severity(golden: Golden, detector: Detector) -> None:
    assert bool(golden.severity) == (detector.manifest.format != "1.0")


def test_its_rows_try_everything(golden: Golden) -> None:
    assert None in golden.score
    judged = golden.rows[len(golden.rows) - len(golden.score) :]  # of rows in order the last ones
    pairs = zip(judged, golden.score, strict=True)
    far_out = [score for row, score in pairs if any(abs(cell or 0.0) >= 1e6 for cell in row)]
    assert len(far_out) == 2
    assert all(score and score > 100 * golden.threshold.score for score in far_out)
    alarms = [score is not None and score > golden.threshold.score for score in golden.score]
    assert 5 <= sum(alarms) <= 15


def test_it_is_small_enough_to_be_kept(path: Path) -> None:
    # the nodes alone of a graph of all that the presets are made of take 46 kB
    assert path.stat().st_size + path.with_suffix(".json").stat().st_size < 100_000


def test_it_is_never_written_over(golden: Golden, detector: Detector) -> None:
    baseline = detector.manifest.baseline is not None
    with pytest.raises(FileExistsError, match="stays as it is"):
        write(
            golden.variant,
            detector.window,
            baseline=baseline,
            queries=detector.manifest.queries is not None,
        )


def test_neither_torch_nor_training_is_needed_to_load_it(path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from hourglass.service.model.detector import"
        " Detector\nDetector.from_bytes(Path(sys.argv[1]).read_bytes())\nprint([name for name in sys.modules"
        " if name.startswith(('torch', 'hourglass.training', 'polars', 'sklearn'))])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, path], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
