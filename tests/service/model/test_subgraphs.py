"""The parts of a graph that are run by themselves: all that an answer needs, and nothing else."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper, numpy_helper

from hourglass.service.errors import InvalidArtifact
from hourglass.service.model import artifact, subgraphs
from hourglass.service.model.detector import Detector
from tests.artifacts import MIXED, NUMERIC, make_artifact, sample_rows


@pytest.fixture
def model():
    return onnx.load_model_from_string(make_artifact(MIXED))


def replace_p_value(model, *nodes):
    """What made the p-value makes `made` instead, and these nodes go on from there."""
    (maker,) = [node for node in model.graph.node if artifact.P_VALUE in node.output]
    maker.output[:] = ["made"]
    model.graph.node.extend(nodes)
    return model.SerializeToString()


def test_the_hot_path_computes_the_score_and_nothing_that_the_score_does_not_need(model):
    graph = onnx.load_model_from_string(subgraphs.score_graph(model)).graph
    assert [value.name for value in graph.input] == [artifact.INPUT]
    assert [value.name for value in graph.output] == [artifact.SCORE]
    made = {name for node in graph.node for name in node.output}
    read = {name for node in graph.node for name in node.input} | {artifact.SCORE}
    assert made <= read
    assert {tensor.name for tensor in graph.initializer} <= read
    assert not made & {artifact.P_VALUE, artifact.RECONSTRUCTION, "expected_wide", "below"}
    assert len(graph.node) < len(model.graph.node) - 10


@pytest.mark.parametrize("features", [NUMERIC, MIXED], ids=["numeric", "mixed"])
def test_without_the_mask_rows_that_need_none_score_the_same_to_the_last_bit(features):
    model = onnx.load_model_from_string(make_artifact(features))
    rows_ND = sample_rows(features, 300, seed=4)
    plain, complete = (
        score_of(subgraphs.score_graph(model), rows_ND),
        score_of(subgraphs.complete_graph(model), rows_ND),
    )
    np.testing.assert_array_equal(complete, plain)


def test_a_network_that_reads_what_is_missing_reads_nothing_of_it_where_there_is_no_gap():
    """As the denoising member does: values, and what is missing of them, into the first layer; the
    error over what is observed.
    """
    model = masked_model()
    part = onnx.load_model_from_string(subgraphs.complete_graph(model))
    assert [node.op_type for node in part.graph.node] == [
        "MatMul",
        "Sub",
        "Abs",
        "ReduceSum",
        "Div",
    ]
    assert [
        list(tensor.dims)
        for tensor in part.graph.initializer
        if tensor.name == part.graph.node[0].input[1]
    ] == [[5, 5]]
    assert_same_to_the_last_bit(model)


@pytest.mark.parametrize("transposed", [False, True])
def test_a_layer_with_a_bias_loses_the_rows_that_would_read_zeros_only(transposed):
    node, rng = helper.make_node, np.random.default_rng(2)
    weights = rng.normal(size=(3, 10) if transposed else (10, 3)).astype(np.float32)
    nodes = [
        node("IsNaN", [artifact.INPUT], ["missing"]),
        node("Cast", ["missing"], ["gaps"], to=onnx.TensorProto.FLOAT),
        node("Concat", [artifact.INPUT, "gaps"], ["read"], axis=-1),
        node("Gemm", ["read", "weights", "bias"], ["layer"], transB=int(transposed)),
        node("ReduceSum", ["layer", "axis"], [artifact.SCORE], keepdims=0),
    ]
    constants = {
        "weights": weights,
        "bias": rng.normal(size=3).astype(np.float32),
        "axis": np.array([1]),
    }
    model = as_model(nodes, constants, width=5)
    part = onnx.load_model_from_string(subgraphs.complete_graph(model))
    assert [node.op_type for node in part.graph.node] == ["Gemm", "ReduceSum"]
    assert_same_to_the_last_bit(model)


def test_zeros_before_a_row_stay_since_without_them_sums_would_be_in_another_order():
    node = helper.make_node
    nodes = [
        node("IsNaN", [artifact.INPUT], ["missing"]),
        node("Cast", ["missing"], ["gaps"], to=onnx.TensorProto.FLOAT),
        node("Concat", ["gaps", artifact.INPUT], ["read"], axis=1),
        node("MatMul", ["read", "weights"], ["layer"]),
        node("ReduceSum", ["layer", "axis"], [artifact.SCORE], keepdims=0),
    ]
    weights = np.random.default_rng(2).normal(size=(10, 3)).astype(np.float32)
    model = as_model(nodes, {"weights": weights, "axis": np.array([1])}, width=5)
    part = onnx.load_model_from_string(subgraphs.complete_graph(model))
    assert len(part.graph.node) == len(nodes)
    assert_same_to_the_last_bit(model)


def test_to_see_what_is_known_nothing_is_computed_of_the_cells(monkeypatch):
    """Which may be a hundred megabytes of one row."""
    node, depth = helper.make_node, 40
    nodes = [
        node("IsNaN", [artifact.INPUT], ["missing"]),
        node("Where", ["missing", "zero", artifact.INPUT], ["values"]),
        node("Unsqueeze", ["values", "last"], ["cells"]),
        node("Expand", ["cells", "shape"], ["much0"]),  # 8 MB of each cell
        *(node("Add", [f"much{i}", "one"], [f"much{i + 1}"]) for i in range(depth)),
        node("ReduceSum", [f"much{depth}", "axes"], [artifact.SCORE], keepdims=0),
    ]
    numbers = {"zero": np.float32(0), "one": np.float32(1)}
    sizes = {"last": np.array([2]), "shape": np.array([1, 1, 2**21]), "axes": np.array([1, 2])}
    run = []

    class Watched(ort.InferenceSession):
        def __init__(self, data, *arguments, **named):
            run.extend(node.op_type for node in onnx.load_model_from_string(data).graph.node)
            super().__init__(data, *arguments, **named)

    monkeypatch.setattr(ort, "InferenceSession", Watched)
    assert subgraphs.complete_graph(as_model(nodes, {**numbers, **sizes}, width=1)) is not None
    assert run == ["IsNaN", "IsNaN"]  # of one row and of several


def test_what_is_made_of_the_mask_is_read_as_one_row_and_what_changes_nothing_is_left_out():
    node = helper.make_node
    nodes = [
        node("IsNaN", [artifact.INPUT], ["missing"]),
        node("Where", ["missing", "one", "zero"], ["gaps"]),
        node("MatMul", ["gaps", "weights"], ["moved"]),  # 0 without a gap
        node("Add", [artifact.INPUT, "moved"], ["values"]),
        node("ReduceSum", ["gaps", "axis"], ["count"], keepdims=1),
        node("Exp", ["count"], ["stretch"]),  # 1
        node("Mul", ["values", "stretch"], ["stretched"]),
        node("Add", ["stretch", "one"], ["two"]),
        node("Mul", ["two", "shares"], ["weighed"]),  # [N, 5], the same for each row
        node("Div", ["stretched", "weighed"], ["parts"]),
        node("ReduceSum", ["parts", "axis"], ["sum"], keepdims=0),
        node("Squeeze", ["stretch", "axis"], ["unchanged"]),
        node("Pow", ["sum", "unchanged"], [artifact.SCORE]),
    ]
    rng = np.random.default_rng(3)
    weights, shares = (
        rng.normal(size=(5, 5)).astype(np.float32),
        rng.uniform(1, 2, size=5).astype(np.float32),
    )
    constants = {
        "zero": np.float32(0),
        "one": np.float32(1),
        "axis": np.array([1]),
        "weights": weights,
        "shares": shares,
    }
    model = as_model(nodes, constants, width=5)
    part = onnx.load_model_from_string(subgraphs.complete_graph(model))
    assert [node.op_type for node in part.graph.node] == ["Div", "ReduceSum"]
    assert [
        tensor.dims[:]
        for tensor in part.graph.initializer
        if tensor.name in part.graph.node[0].input
    ] == [[1, 5]]
    assert_same_to_the_last_bit(model)


def test_nothing_is_left_out_that_says_how_many_rows_there_are():
    node = helper.make_node
    nodes = [
        node("IsNaN", [artifact.INPUT], ["missing"]),
        node("Where", ["missing", "zero", "one"], ["observed"]),
        node("ReduceMax", [artifact.INPUT, "rows"], ["highest"], keepdims=1),  # [1, 5]
        node("Mul", ["highest", "observed"], ["each"]),  # [N, 5]
        node("ReduceSum", ["each", "axis"], [artifact.SCORE], keepdims=0),
    ]
    constants = {
        "zero": np.float32(0),
        "one": np.float32(1),
        "axis": np.array([1]),
        "rows": np.array([0]),
    }
    assert_same_to_the_last_bit(as_model(nodes, constants, width=5))


def assert_same_to_the_last_bit(model):
    rows_ND = np.random.default_rng(0).normal(size=(200, 5)).astype(np.float32)
    for rows in (rows_ND, rows_ND[:1]):
        score = score_of(subgraphs.complete_graph(model), rows)
        np.testing.assert_array_equal(score, score_of(subgraphs.score_graph(model), rows))


def test_what_a_missing_cell_is_filled_with_is_not_computed_where_none_is():
    node = helper.make_node
    nodes = [
        node("IsNaN", [artifact.INPUT], ["missing"]),
        node("Where", ["missing", "zero", "one"], ["observed"]),
        node("Where", ["missing", "zero", artifact.INPUT], ["values"]),
        node("MatMul", ["values", "weights"], ["expected"]),
        node("Cast", ["observed"], ["is_observed"], to=onnx.TensorProto.BOOL),
        node("Where", ["is_observed", "values", "expected"], ["filled"]),
        node("ReduceSum", ["filled", "axis"], [artifact.SCORE], keepdims=0),
    ]
    weights = np.random.default_rng(1).normal(size=(5, 5)).astype(np.float32)
    constants = {
        "zero": np.float32(0),
        "one": np.float32(1),
        "axis": np.array([1]),
        "weights": weights,
    }
    model = as_model(nodes, constants, width=5)
    part = subgraphs.complete_graph(model)
    assert [node.op_type for node in onnx.load_model_from_string(part).graph.node] == ["ReduceSum"]
    rows_ND = np.random.default_rng(0).normal(size=(20, 5)).astype(np.float32)
    np.testing.assert_array_equal(
        score_of(part, rows_ND), score_of(subgraphs.score_graph(model), rows_ND)
    )


def test_a_graph_without_a_mask_has_no_second_form():
    nodes = [helper.make_node("ReduceMean", [artifact.INPUT, "axis"], [artifact.SCORE], keepdims=0)]
    assert subgraphs.complete_graph(as_model(nodes, {"axis": np.array([1])}, width=5)) is None


def masked_model():
    node, weights = (
        helper.make_node,
        np.random.default_rng(1).normal(size=(10, 5)).astype(np.float32),
    )
    nodes = [
        node("IsNaN", [artifact.INPUT], ["missing"]),
        node("Where", ["missing", "zero", "one"], ["observed"]),
        node("Where", ["missing", "zero", artifact.INPUT], ["values"]),
        node("Sub", ["one", "observed"], ["gaps"]),
        node("Concat", ["values", "gaps"], ["read"], axis=1),
        node("MatMul", ["read", "weights"], ["guess"]),
        node("Sub", ["values", "guess"], ["left"]),
        node("Abs", ["left"], ["errors"]),
        node("Mul", ["errors", "observed"], ["counted"]),
        node("ReduceSum", ["counted", "axis"], ["error"], keepdims=0),
        node("ReduceSum", ["observed", "axis"], ["count"], keepdims=0),
        node("Div", ["error", "count"], [artifact.SCORE]),
    ]
    constants = {
        "zero": np.float32(0),
        "one": np.float32(1),
        "axis": np.array([1]),
        "weights": weights,
    }
    return as_model(nodes, constants, width=5)


def as_model(nodes, constants, *, width):
    floats = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "model",
        [helper.make_tensor_value_info(artifact.INPUT, floats, ["batch", width])],
        [helper.make_tensor_value_info(artifact.SCORE, floats, ["batch"])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)])


def score_of(part, rows_ND):
    session = ort.InferenceSession(part, providers=["CPUExecutionProvider"])
    return session.run([artifact.SCORE], {artifact.INPUT: rows_ND})[0]


def test_the_parts_carry_no_manifest(model):
    for part in (
        subgraphs.score_graph(model),
        subgraphs.complete_graph(model),
        subgraphs.decoder_graph(model),
        subgraphs.table_graph(model),
    ):
        assert not onnx.load_model_from_string(part).metadata_props


def test_a_model_whose_p_values_are_not_those_of_its_table_is_refused(model):
    model.graph.initializer.append(numpy_helper.from_array(np.float32(0.999), "less"))
    data = replace_p_value(model, helper.make_node("Mul", ["made", "less"], [artifact.P_VALUE]))
    with pytest.raises(InvalidArtifact, match="p-values are not those of its calibration table"):
        Detector.from_bytes(data)


def test_a_model_whose_p_value_depends_on_more_than_the_score_is_refused(model):
    data = replace_p_value(
        model,
        helper.make_node("ReduceMin", [artifact.INPUT, "axis"], ["least"], keepdims=0),
        helper.make_node("Min", ["made", "least"], [artifact.P_VALUE]),
    )
    with pytest.raises(InvalidArtifact, match="p-value does not follow from its score"):
        Detector.from_bytes(data)
