"""Detectors of windowed models: a series in, an answer for each row that has W - 1 before it."""

from concurrent.futures import ThreadPoolExecutor

import msgspec
import numpy as np
import onnx
import onnxruntime
import pytest

from hourglass.service.errors import InvalidArtifact
from hourglass.service.model import artifact, detector
from hourglass.service.model.detector import Detector
from tests.artifacts import (
    NUMERIC,
    make_artifact,
    make_windowed_artifact,
    sample_rows,
    with_manifest,
)

WINDOW = 4


@pytest.fixture(scope="module")
def windowed() -> Detector:
    return Detector.from_bytes(make_windowed_artifact(rows=WINDOW))


def windows_of(rows_TD: np.ndarray) -> np.ndarray:
    return np.stack([rows_TD[i : i + WINDOW] for i in range(len(rows_TD) - WINDOW + 1)])


def test_a_row_is_scored_against_the_mean_of_those_before_it(windowed: Detector) -> None:
    rows_TD = sample_rows(NUMERIC, 20)
    before_ND = windows_of(rows_TD)[:, :-1].mean(axis=1)
    scores, of_rows = windowed.score(rows_TD), Detector.from_bytes(make_artifact())
    expected_N = of_rows.score(rows_TD[WINDOW - 1 :] - before_ND).score
    assert windowed.window == WINDOW
    np.testing.assert_allclose(scores.score, expected_N, rtol=1e-5)
    explanation = windowed.explain(rows_TD)
    np.testing.assert_allclose(explanation.contributions.sum(axis=1), expected_N, rtol=1e-5)
    np.testing.assert_allclose(explanation.reconstruction, before_ND, rtol=1e-5, atol=1e-6)
    assert windowed.encode(rows_TD).shape == (17, 2)


@pytest.mark.parametrize("gap", [False, True])
def test_a_series_in_parts_its_windows_and_the_series_give_the_same_bits(
    windowed: Detector, gap: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows_TD = sample_rows(NUMERIC, 200)
    if gap:
        rows_TD[50, 1] = rows_TD[120] = np.nan
    whole = windowed.score(rows_TD)
    assert np.isnan(whole.score).sum() == gap  # of the row without a cell
    one_by_one = [windowed.score(window) for window in windows_of(rows_TD)]
    together = windowed.score_windows(windows_of(rows_TD))
    codes = windowed.encode(rows_TD)
    np.testing.assert_array_equal(windowed.encode_windows(windows_of(rows_TD)), codes)
    monkeypatch.setattr(detector, "RUN_CELLS", 64)
    in_parts, explained = windowed.score(rows_TD), windowed.explain(rows_TD)
    with ThreadPoolExecutor(2) as pool:
        beside = Detector.from_bytes(make_windowed_artifact(rows=WINDOW), pool=pool)
        of_threads = beside.score(rows_TD)
    for i, values_N in enumerate(whole):
        np.testing.assert_array_equal(np.concatenate([each[i] for each in one_by_one]), values_N)
        for other in (together, in_parts, of_threads, explained):
            np.testing.assert_array_equal(other[i], values_N)


def test_fewer_rows_than_a_window_are_no_series(windowed: Detector) -> None:
    for ask in (windowed.score, windowed.explain, windowed.encode, windowed.reconstruct):
        with pytest.raises(ValueError, match="a window has 4 rows, and there are 3"):
            ask(sample_rows(NUMERIC, 3))


def test_a_windowed_model_neither_decodes_nor_makes_up_rows(windowed: Detector) -> None:
    assert not windowed.can_decode
    with pytest.raises(ValueError, match="holes"):
        windowed.sample(1, 0)


def test_a_model_of_single_rows_has_a_window_of_one() -> None:
    single = Detector.from_bytes(make_artifact())
    assert single.window == 1
    with pytest.raises(ValueError, match="single rows"):
        single.score_windows(sample_rows(NUMERIC, 4)[None])
    with pytest.raises(ValueError, match="single rows"):
        single.encode_windows(sample_rows(NUMERIC, 4)[None])


def known(**changes: object) -> artifact.Window:
    window = artifact.Window(rows=4, representation="residual", expected_sd=(1.0,) * 4)
    return msgspec.structs.replace(window, **changes)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"window": None}, "takes series, and the manifest does not require 'window'"),
        ({"requires": ()}, "takes series, and the manifest does not require 'window'"),
        ({"window": known(rows=5)}, "gives windows of 5 rows, of which the graph does not"),
        ({"window": known(rows=3)}, "gives windows of 3 rows, of which the graph does not"),
        ({"window": known(expected_sd=(1.0,))}, "gives 1 deviations .* names 4 features"),
        ({"window": known(rows=1)}, "manifest cannot be read: .*>= 2"),
        ({"window": known(rows=10**6)}, "manifest cannot be read: .*<= 10000"),
        ({"window": known(gap=0.0)}, "manifest cannot be read: .*> 0"),
    ],
)
def test_a_window_that_does_not_fit_the_graph_is_refused(
    changes: dict[str, object], problem: str
) -> None:
    with pytest.raises(InvalidArtifact, match=problem):
        Detector.from_bytes(make_windowed_artifact(**changes))


def test_a_window_of_a_graph_of_single_rows_is_refused() -> None:
    with pytest.raises(InvalidArtifact, match="and the graph takes single ones"):
        Detector.from_bytes(make_artifact(window=known()))


def test_what_does_not_follow_from_what_is_derived_is_refused() -> None:
    data = make_windowed_artifact()
    model = onnx.load_model_from_string(data)
    text = model.metadata_props[0].value
    node = next(node for node in model.graph.node if artifact.SCORE in node.output)
    node.output[0] = "score_of_derived"
    model.graph.node.insert(
        list(model.graph.node).index(node) + 1,
        onnx.helper.make_node("Add", ["score_of_derived", "of_the_row"], [artifact.SCORE]),
    )
    model.graph.node.insert(
        0, onnx.helper.make_node("ReduceSum", ["mean_flat", "axis"], ["of_the_row"], keepdims=0)
    )
    flat = next(node for node in model.graph.node if artifact.RECONSTRUCTION in node.output)
    model.graph.node.remove(flat)
    place = [node.output[0] for node in model.graph.node].index("mean_before") + 1
    model.graph.node.insert(place, onnx.helper.make_node("Identity", ["mean_flat"], ["again"]))
    model.graph.node.insert(place, onnx.helper.make_node("Reshape", flat.input, ["mean_flat"]))
    model.graph.node.append(
        onnx.helper.make_node("Identity", ["mean_flat"], [artifact.RECONSTRUCTION])
    )
    moved = model.graph.node[0]
    model.graph.node.remove(moved)
    model.graph.node.insert(place + 2, moved)
    with pytest.raises(InvalidArtifact, match="score does not follow from what is derived"):
        Detector.from_bytes(with_manifest(model, text))


def test_a_graph_that_does_not_say_the_shape_of_what_is_derived_is_refused() -> None:
    model = onnx.load_model_from_string(make_windowed_artifact())
    text = model.metadata_props[0].value
    del model.graph.value_info[:]
    with pytest.raises(InvalidArtifact, match="does not say that 'derived' is of two dimensions"):
        Detector.from_bytes(with_manifest(model, text))


def test_a_graph_that_looks_further_back_than_a_window_is_refused() -> None:
    """Its first row weighs in on every answer, which the self-test of a series does not show."""
    model = onnx.load_model_from_string(make_windowed_artifact())
    text = model.metadata_props[0].value
    place = [node.output[0] for node in model.graph.node].index("mean_before")
    add, mean = onnx.helper.make_node, "mean_of_window"
    model.graph.node[place].output[0] = mean
    model.graph.node.insert(place + 1, add("Add", [mean, "all"], ["mean_before"]))
    model.graph.node.insert(place, add("ReduceMean", ["series", "time_axis"], ["all"], keepdims=1))
    session = onnxruntime.InferenceSession(model.SerializeToString())
    manifest = artifact.decode_manifest(text)
    rows_TD = np.array(manifest.self_test.inputs, np.float32)
    outputs = session.run(artifact.OUTPUTS, {artifact.INPUT: rows_TD[None]})
    answers = {
        name: [None if np.isnan(value).any() else value for value in array.tolist()]
        for name, array in zip(artifact.OUTPUTS, outputs, strict=True)
    }
    test = msgspec.convert(
        {**msgspec.to_builtins(manifest.self_test), **answers}, artifact.SelfTest
    )
    changed = msgspec.structs.replace(manifest, self_test=test)
    with pytest.raises(InvalidArtifact, match="score of each window alone differs"):
        Detector.from_bytes(with_manifest(model, artifact.encode_manifest(changed)))
