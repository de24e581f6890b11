"""A detector of entities that have baselines: each in its own units, the rest in the fleet's."""

import msgspec
import numpy as np
import onnx
import pytest

from hourglass.service.errors import InvalidArtifact
from hourglass.service.model.artifact import BASELINE_SCALE
from hourglass.service.model.detector import Detector
from hourglass.service.model.reasons import reasons_of
from hourglass.service.rows.sentences import say_why
from tests.artifacts import MIXED, NUMERIC, make_windowed_artifact, sample_rows

ENTITIES = {"north": (100.0, 5.0), "south": (-3.0, 0.125)}
WINDOW = 4


@pytest.fixture(scope="module")
def data() -> bytes:
    return make_windowed_artifact(rows=WINDOW, entities=ENTITIES)


@pytest.fixture(scope="module")
def detector(data: bytes) -> Detector:
    return Detector.from_bytes(data)


def in_units_of(entity: str, rows_ND: np.ndarray) -> np.ndarray:
    center, scale = ENTITIES[entity]
    return (center + scale * rows_ND).astype(np.float32)


@pytest.mark.parametrize("entity", ENTITIES)
def test_rows_in_an_entitys_units_are_judged_as_the_fleets_are(
    detector: Detector, entity: str
) -> None:
    rows_TD, own = sample_rows(NUMERIC, 60), detector.of(entity)
    rows_TD[20, 2], rows_TD[30, 1] = 9.0, np.nan
    own_TD = in_units_of(entity, rows_TD)
    expected, found = detector.explain(rows_TD), own.explain(own_TD)
    np.testing.assert_allclose(found.score, expected.score, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(own.score(own_TD).score, expected.score, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.contributions, expected.contributions, rtol=1e-3, atol=1e-5)
    expected_ND = in_units_of(entity, expected.reconstruction)
    np.testing.assert_allclose(found.reconstruction, expected_ND, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(own.encode(own_TD), detector.encode(rows_TD), rtol=1e-3, atol=1e-4)
    windows_NWD = np.stack([own_TD[n : n + WINDOW] for n in range(60 - WINDOW + 1)])
    np.testing.assert_allclose(own.score_windows(windows_NWD).score, found.score, rtol=1e-5)
    np.testing.assert_allclose(own.explain_windows(windows_NWD).score, found.score, rtol=1e-5)
    alone = np.concatenate([own.score(window_WD).score for window_WD in windows_NWD])
    np.testing.assert_allclose(alone, found.score, rtol=1e-5)


def test_a_detector_is_of_whom_it_was_last_asked_for(detector: Detector) -> None:
    assert detector.of("nobody") is detector.of(None) is detector
    assert detector.of("north").of("nobody").knows("north")
    rows_TD = sample_rows(NUMERIC, 9)
    np.testing.assert_array_equal(
        detector.of("north").of("nobody").score(rows_TD).score, detector.score(rows_TD).score
    )
    assert [detector.knows(each) for each in ("north", "East", None)] == [True, False, False]
    plain = Detector.from_bytes(make_windowed_artifact())
    assert plain.of("north") is plain
    assert plain.knows("north") is None


def test_a_reason_is_in_the_entitys_units(detector: Detector) -> None:
    rows_TD = np.zeros((4, 4), np.float32)
    rows_TD[3, 1] = 9.0
    own, own_TD = detector.of("north"), in_units_of("north", rows_TD)
    reasons = reasons_of(own, own_TD, own.explain(own_TD), own.threshold.score)
    assert reasons is not None
    assert say_why(NUMERIC, own_TD[3:], reasons) == [
        "b is 145 where 100 ± 5 was expected (9 sd too high)"
    ]


def test_what_is_no_number_is_nobodys(detector: Detector) -> None:
    mixed = Detector.from_bytes(make_windowed_artifact(MIXED, entities=ENTITIES))
    np.testing.assert_array_equal(mixed.of("north").expected_sd, [5, np.nan, np.nan, 5])
    np.testing.assert_array_equal(mixed.expected_sd, [1, np.nan, np.nan, 1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"baseline": {"entities": ["a"]}}, r"'baseline.center' of shape \[2, 4\], got \[3, 4\]"),
        ({"baseline": {"entities": ["a", "a"]}}, "the manifest names two entities 'a'"),
        ({"baseline": None}, r"inputs \['features', 'entity'\], expected \['features'\]"),
        ({"requires": ["window"]}, "does not require 'baseline' and 'window'"),
        ({"requires": ["window", "other"]}, "requires other, which this service does not know"),
    ],
)
def test_a_file_whose_manifest_does_not_fit_is_refused(
    data: bytes, changes: dict[str, object], message: str
) -> None:
    model = onnx.load_model_from_string(data)
    (entry,) = model.metadata_props
    entry.value = msgspec.json.encode({**msgspec.json.decode(entry.value), **changes}).decode()
    with pytest.raises(InvalidArtifact, match=message):
        Detector.from_bytes(model.SerializeToString())


@pytest.mark.parametrize("scale", [0.0, -1.0, np.nan, np.inf])
def test_a_file_with_a_spread_that_is_none_is_refused(data: bytes, scale: float) -> None:
    model = onnx.load_model_from_string(data)
    (tensor,) = (each for each in model.graph.initializer if each.name == BASELINE_SCALE)
    scale_EF = onnx.numpy_helper.to_array(tensor).copy()
    scale_EF[1, 2] = scale
    tensor.CopyFrom(onnx.numpy_helper.from_array(scale_EF, BASELINE_SCALE))
    with pytest.raises(
        InvalidArtifact, match=r"'baseline\.scale' is not of float32 numbers above 0"
    ):
        Detector.from_bytes(model.SerializeToString())
