"""The parts of a graph that are run by themselves: all that an answer needs, and nothing else."""

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from service import artifact, hotpath
from service.detector import Detector
from service.errors import InvalidArtifact
from tests.artifacts import MIXED, make_artifact


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
    graph = onnx.load_model_from_string(hotpath.score_graph(model)).graph
    assert [value.name for value in graph.input] == [artifact.INPUT]
    assert [value.name for value in graph.output] == [artifact.SCORE]
    made = {name for node in graph.node for name in node.output}
    read = {name for node in graph.node for name in node.input} | {artifact.SCORE}
    assert made <= read
    assert {tensor.name for tensor in graph.initializer} <= read
    assert not made & {artifact.P_VALUE, artifact.RECONSTRUCTION, "expected_wide", "below"}
    assert len(graph.node) < len(model.graph.node) - 10


def test_the_parts_carry_no_manifest(model):
    for part in (hotpath.score_graph(model), hotpath.decoder_graph(model), hotpath.p_value_graph(model)):
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
