"""Graphs whose rows come out the same wherever they lie."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from hourglass.training.rounding import round_alike_everywhere

FLOAT, DOUBLE = TensorProto.FLOAT, TensorProto.DOUBLE
ROWS = 101


def graph_of(
    operator: str, sizes: tuple[int, ...], dtype: int = FLOAT, axis: int | None = None, **given: int
) -> onnx.ModelProto:
    """The operator behind an identity, as the exporter's first nodes stand before it."""
    inputs, constants = ["values"], []
    if axis is not None:
        inputs, constants = ["values", "axes"], [numpy_helper.from_array(np.array([axis]), "axes")]
    rank = len(sizes) + given.get("keepdims", 1)
    nodes = [
        helper.make_node("Abs", ["rows"], ["values"]),
        helper.make_node(operator, inputs, ["answer"], **given),
    ]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("rows", dtype, ["batch", *sizes])],
        [helper.make_tensor_value_info("answer", dtype, [None] * rank)],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def session_of(model: onnx.ModelProto) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def alone_and_together(
    model: onnx.ModelProto, rows: NDArray[np.floating]
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    session = session_of(model)
    alone = [session.run(None, {"rows": rows[i : i + 1].copy()})[0] for i in range(len(rows))]
    return np.concatenate(alone), session.run(None, {"rows": rows})[0]


CASES = [
    *(("ReduceSum", (width,), FLOAT, 1) for width in (1, 2, 5, 30, 32, 301)),
    *(("ReduceMean", (width,), DOUBLE, -1) for width in (5, 30)),
    *(("ReduceSum", (12, 5), FLOAT, axis) for axis in (1, 2, -1)),
    *(("ReduceMean", (2, 30), FLOAT, axis) for axis in (1, 2)),
    *(("Log", sizes, FLOAT, None) for sizes in ((1,), (5,), (30,), (32,), (3, 1))),
    *((name, (5,), DOUBLE, None) for name in ("Exp", "Log", "Sigmoid", "Tanh")),
]


@pytest.mark.parametrize("keeps", [0, 1])
@pytest.mark.parametrize(("operator", "sizes", "dtype", "axis"), CASES)
def test_what_is_computed_stays_and_does_not_hang_on_the_place(
    operator: str, sizes: tuple[int, ...], dtype: int, axis: int | None, keeps: int
) -> None:
    given = {} if axis is None else {"keepdims": keeps}
    model = graph_of(operator, sizes, dtype, axis, **given)
    rows = np.random.default_rng(0).normal(size=(ROWS, *sizes))
    rows = rows.astype(helper.tensor_dtype_to_np_dtype(dtype))
    (before,) = session_of(model).run(None, {"rows": rows})
    round_alike_everywhere(model)
    onnx.checker.check_model(model)
    alone, together = alone_and_together(model, rows)
    assert alone.tobytes() == together.tobytes()
    assert together.shape == before.shape
    np.testing.assert_allclose(together, before, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("operator", "axis"), [("ReduceSum", 1), ("Log", None)])
def test_as_exported_it_does_hang_on_the_place(operator: str, axis: int | None) -> None:
    """Where this fails, onnxruntime has other kernels, and all of this may go."""
    rows = np.random.default_rng(0).normal(size=(ROWS, 5)).astype(np.float32)
    alone, together = alone_and_together(graph_of(operator, (5,), FLOAT, axis), rows)
    assert alone.tobytes() != together.tobytes()


def test_rows_that_fill_lines_go_through_a_function_as_they_are() -> None:
    model = graph_of("Log", (2, 8))
    round_alike_everywhere(model)
    assert [node.op_type for node in model.graph.node] == ["Abs", "Log"]


def test_a_mean_of_ones_is_one_to_the_last_bit() -> None:
    """As the share of observed cells is, of which the score of a row without a gap makes use."""
    model = graph_of("ReduceMean", (30,), FLOAT, 1)
    round_alike_everywhere(model)
    (mean,) = session_of(model).run(None, {"rows": np.ones((7, 30), np.float32)})
    assert (mean == 1).all()
