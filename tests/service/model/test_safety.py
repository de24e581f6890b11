"""A model file is a program from elsewhere: what could do harm is refused before onnxruntime sees
it, with the reason.
"""

import random
import time

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from hourglass.service.errors import InvalidArtifact
from hourglass.service.model import artifact, safety
from hourglass.service.model.artifact import CalibrationRecord, RowCounts
from hourglass.service.model.detector import Detector
from tests.artifacts import MIXED, NUMERIC, make_artifact


def node(kind, inputs, outputs, **attributes):
    return helper.make_node(kind, inputs, outputs, **attributes)


def constant(model, name, values):
    model.graph.initializer.append(numpy_helper.from_array(np.array(values), name))


def sub_graph():
    return helper.make_graph(
        [node("Identity", ["zero"], ["inner"])],
        "inner",
        [],
        [helper.make_tensor_value_info("inner", TensorProto.FLOAT, [])],
    )


def a_custom_operator(model):
    model.graph.node.append(node("Shell", ["zero"], ["unused"], domain="com.example"))


def a_custom_domain(model):
    model.opset_import.append(helper.make_opsetid("com.example", 1))


def an_operator_off_the_list(model):
    model.graph.node.append(node("RandomNormal", [], ["unused"], shape=[1]))


def an_if(model):
    constant(model, "true", True)
    model.graph.node.append(
        node("If", ["true"], ["unused"], then_branch=sub_graph(), else_branch=sub_graph())
    )


def a_loop(model):
    model.graph.node.append(node("Loop", ["", ""], ["unused"], body=sub_graph()))


def a_graph_inside_an_allowed_operator(model):
    model.graph.node.append(node("Identity", ["zero"], ["unused"], extra=sub_graph()))


def a_function(model):
    body = [node("Identity", ["x"], ["y"])]
    model.functions.append(
        helper.make_function("", "Twice", ["x"], ["y"], body, [helper.make_opsetid("", 20)])
    )


def a_training_graph(model):
    model.training_info.add()


def a_sparse_tensor(model):
    model.graph.sparse_initializer.add()


def a_tensor_in_another_file(model):
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../../etc/passwd")


def a_constant_in_another_file(model):
    tensor = TensorProto(
        name="secret", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL
    )
    tensor.external_data.add(key="location", value="secret")
    model.graph.node.append(node("Constant", [], ["unused"], value=tensor))


def a_huge_tensor_in_few_bytes(model):
    model.graph.initializer.append(
        TensorProto(name="huge", data_type=TensorProto.FLOAT, dims=[1 << 20, 1 << 20])
    )


def a_bomb_of_a_constant_shape(model):
    constant(model, "size", np.array([1 << 40], np.int64))
    model.graph.node.append(node("ConstantOfShape", ["size"], ["unused"]))


def a_bomb_of_a_computed_shape(model):
    constant(model, "side", np.array([1 << 20], np.int64))
    model.graph.node.append(node("Mul", ["side", "side"], ["size"]))
    model.graph.node.append(node("ConstantOfShape", ["size"], ["unused"]))


def a_bomb_whose_size_is_hidden(model):
    constant(model, "base", np.array([2], np.float32))
    constant(model, "exponent", np.array([40], np.float32))
    model.graph.node.append(node("Pow", ["base", "exponent"], ["power"]))
    model.graph.node.append(node("Cast", ["power"], ["size"], to=TensorProto.INT64))
    model.graph.node.append(node("ConstantOfShape", ["size"], ["unused"]))


def a_bomb_of_two_vectors(model):
    constant(model, "column", np.zeros((10_000, 1), np.float32))
    constant(model, "row", np.zeros((1, 10_000), np.float32))
    model.graph.node.append(node("MatMul", ["column", "row"], ["unused"]))


def a_bomb_of_broadcasting(model):
    constant(model, "column", np.zeros((10_000, 1), np.float32))
    constant(model, "row", np.zeros((1, 10_000), np.float32))
    model.graph.node.append(node("Add", ["column", "row"], ["unused"]))


def forty_bombs_that_are_small_enough_each(model):
    constant(model, "shape", np.array([1 << 26], np.int64))
    constant(model, "nothing", np.zeros(1, np.float32))
    for number in range(40):
        model.graph.node.append(node("Expand", ["nothing", "shape"], [f"unused {number}"]))


def an_old_opset(model):
    model.opset_import[0].version = 9


def another_input(model):
    model.graph.input.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, ["batch", 1]))


def another_width(model):
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 5


def an_open_width(model):
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "width"


def whole_numbers(model):
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.INT64


def a_missing_output(model):
    del model.graph.output[0]


def no_manifest(model):
    del model.metadata_props[:]


def two_manifests(model):
    model.metadata_props.append(model.metadata_props[0])


def an_unreadable_manifest(model):
    model.metadata_props[0].value = model.metadata_props[0].value[:-10]


def no_table(model):
    for tensor in model.graph.initializer:
        if tensor.name == artifact.TABLE_SCORES:
            tensor.name = "other"
    for each in model.graph.node:
        each.input[:] = ["other" if name == artifact.TABLE_SCORES else name for name in each.input]


def a_table_in_disorder(model):
    for tensor in model.graph.initializer:
        if tensor.name == artifact.TABLE_SCORES:
            tensor.CopyFrom(
                numpy_helper.from_array(numpy_helper.to_array(tensor)[::-1].copy(), tensor.name)
            )


def a_p_value_of_minus_infinity(model):
    for tensor in model.graph.initializer:
        if tensor.name == artifact.TABLE_P_VALUES:
            p_values = numpy_helper.to_array(tensor).copy()
            p_values.ravel()[-1] = -np.inf
            tensor.CopyFrom(numpy_helper.from_array(p_values, tensor.name))


def shapes_that_do_not_fit(model):
    constant(model, "three", np.zeros((3, 3), np.float32))
    model.graph.node.append(node("MatMul", [artifact.INPUT, "three"], ["unused"]))


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (a_custom_operator, "the operator com.example.Shell, which is not on the list"),
        (a_custom_domain, "needs operators of the domain 'com.example'"),
        (an_operator_off_the_list, "the operator RandomNormal, which is not on the list"),
        (an_if, "the operator If, which is not on the list"),
        (a_loop, "the operator Loop, which is not on the list"),
        (a_graph_inside_an_allowed_operator, "the operator Identity carries a graph of its own"),
        (a_function, "defines functions of its own"),
        (a_training_graph, "carries training graphs"),
        (a_sparse_tensor, "holds sparse tensors"),
        (a_tensor_in_another_file, "lies outside the model file"),
        (a_constant_in_another_file, "the tensor 'secret' lies outside the model file"),
        (a_huge_tensor_in_few_bytes, "the tensor 'huge' has shape"),
        (a_bomb_of_a_constant_shape, "the operator ConstantOfShape would make a tensor of over"),
        (a_bomb_of_a_computed_shape, "the operator ConstantOfShape would make a tensor of over"),
        (a_bomb_whose_size_is_hidden, "the operator ConstantOfShape makes a tensor whose size cannot be told"),
        (a_bomb_of_two_vectors, "the operator MatMul would make a tensor of over"),
        (a_bomb_of_broadcasting, "the operator Add would make a tensor of over"),
        (forty_bombs_that_are_small_enough_each, "the tensors of the model file have over 134217728 elements"),
        (an_old_opset, "has opset 9, expected 13 to 23"),
        (another_input, r"has inputs \['features', 'more'\], expected \['features'\]"),
        (another_width, "the shapes in the model file do not fit|names 4 features, the graph takes 5"),
        (an_open_width, "the width of 'features' is not fixed"),
        (whole_numbers, "'features' is not a float32 tensor"),
        (a_missing_output, "lacks the output score"),
        (no_manifest, "carries no Hourglass manifest"),
        (two_manifests, "duplicate keys in metadata_props"),
        (an_unreadable_manifest, "the manifest cannot be read"),
        (no_table, "lacks the calibration table"),
        (a_table_in_disorder, "not a table of ascending scores"),
        (a_p_value_of_minus_infinity, "not a table of ascending scores"),
        (shapes_that_do_not_fit, "the shapes in the model file do not fit each other"),
    ],
)  # fmt: skip
def test_a_file_that_could_do_harm_or_is_not_ours_is_refused_with_the_reason(spoil, reason):
    model = onnx.load_model_from_string(make_artifact())
    spoil(model)
    with pytest.raises(InvalidArtifact, match=reason):
        Detector.from_bytes(model.SerializeToString())


NAMED_TWICE = (*NUMERIC[:3], NUMERIC[0])
NAMELESS = (*NUMERIC[:3], msgspec.structs.replace(NUMERIC[3], name=""))
SITE = msgspec.structs.replace(MIXED[2], categories=("north", "south", "north"))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"features": NAMED_TWICE}, "names two features 'a'"),
        ({"features": NAMELESS}, "gives feature 3 no name"),
        ({"features": (SITE, *NUMERIC[1:])}, "names two categories of 'site' 'north'"),
        ({"min_observed_fraction": 1.5}, r"`float` <= 1.0 - at `\$.min_observed_fraction`"),
        ({"min_observed_fraction": -0.5}, r"`float` >= 0.0 - at `\$.min_observed_fraction`"),
        (
            {"features": (msgspec.structs.replace(NUMERIC[0], missing_rate=2.0), *NUMERIC[1:])},
            r"`float` <= 1.0 - at `\$.features\[0\].missing_rate`",
        ),
        (
            {"rows": RowCounts(fit=-1, validation=1, calibration=400)},
            r"`int` >= 0 - at `\$.rows.fit`",
        ),
        ({"fitted_at": 1e12}, r"`float` <= 253402300799.0 - at `\$.fitted_at`"),
    ],
)
def test_a_manifest_whose_names_or_shares_are_none_is_refused(changes, reason):
    with pytest.raises(InvalidArtifact, match=reason):
        Detector.from_bytes(make_artifact(**changes))


@pytest.mark.parametrize(
    ("n", "reason"),
    [
        (401, "gives 401 calibration rows, its smallest p-value 0.00249377 is one of 400"),
        (10**9, "gives 1000000000 calibration rows"),
        (10**12, "`int` <= 1000000000"),
    ],
)
def test_a_manifest_with_more_calibration_rows_than_its_table_is_refused_at_once(n, reason):
    rows = RowCounts(fit=1000, validation=100, calibration=n)
    record = CalibrationRecord(
        method="split-conformal", guarantee="certified", n=n, alpha=0.05, delta=0.05
    )
    data = make_artifact(rows=rows, calibration=record)
    started = time.monotonic()
    with pytest.raises(InvalidArtifact, match=reason):
        Detector.from_bytes(data)
    assert time.monotonic() - started < 1


def test_the_cap_is_on_the_bytes_before_anything_is_parsed():
    with pytest.raises(
        InvalidArtifact, match="the model file has 1000 bytes, at most 999 are loaded"
    ):
        safety.parse_model(bytes(1000), max_bytes=999)


@pytest.mark.parametrize("length", [0, 1, 10, 100, 1000, 5000, -1])
def test_a_file_cut_short_anywhere_is_refused(length):
    with pytest.raises(InvalidArtifact):
        Detector.from_bytes(make_artifact()[:length])


def test_a_damaged_file_is_refused_or_still_passes_its_self_test_but_never_breaks_its_reader():
    draw = random.Random(0)
    artifacts, outcomes = [make_artifact(), make_artifact(MIXED)], set()
    for _ in range(300):
        data = bytearray(draw.choice(artifacts))
        for _ in range(draw.choice([1, 1, 3, 30])):
            data[draw.randrange(len(data))] = draw.randrange(256)
        try:
            Detector.from_bytes(bytes(data))
            outcomes.add("loaded")
        except InvalidArtifact as error:
            outcomes.add("refused")
            assert str(error).strip()  # noqa: PT017
    assert "refused" in outcomes


def test_every_allowed_operator_is_one_of_onnx():
    known = {schema.name for schema in onnx.defs.get_all_schemas() if schema.domain == ""}
    assert known >= safety.OPERATORS
    assert not safety.OPERATORS & {
        "If",
        "Loop",
        "Scan",
        "SequenceMap",
        "RandomNormal",
        "RandomUniform",
        "Bernoulli",
        "Multinomial",
    }


def test_an_output_of_a_later_minor_format_is_no_reason_to_refuse():
    model = onnx.load_model_from_string(make_artifact())
    model.graph.node.append(onnx.helper.make_node("Identity", ["score"], ["later"]))
    later = onnx.helper.make_tensor_value_info("later", onnx.TensorProto.FLOAT, ["batch"])
    model.graph.output.append(later)
    assert Detector.from_bytes(model.SerializeToString()).width == 4
