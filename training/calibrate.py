"""The calibration table: scores of calibration rows, the threshold they certify, and the lookup of
p-values and severities inside the graph.

ONNX has no binary search that both exporters and runtimes support, so the table is two-level: the
scores lie in about sqrt(Q) blocks of sqrt(Q); the first comparison finds the block, the second the
place in it. The ends that severity adds are few, and compared at once.
"""

import math
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from hourglass.service.model.artifact import (
    P_VALUE,
    SCORE,
    SEVERITY,
    SEVERITY_ENDS,
    SEVERITY_LINES,
    TABLE_P_VALUES,
    TABLE_SCORES,
)
from hourglass.service.model.calibration import (
    Table,
    Threshold,
    build_table,
    certified_rank,
    marginal_rank,
    refusal,
)
from hourglass.service.model.severity import LARGEST
from hourglass.training.errors import RunError
from hourglass.training.export import run_graph, run_windows
from hourglass.training.folds import Folds
from hourglass.training.order import Ordered

DEFAULT_ALPHAS = (0.01, 0.02, 0.05, 0.10, 0.20)
# of a row that is reproduced exactly only rounding is left, and that differs between machines
SCORE_RESOLUTION = 1e-6


def calibrate(
    graph: onnx.ModelProto,
    rows_ND: NDArray[np.float32],
    block_N: NDArray[np.integer] | None = None,
) -> Table:
    """Score calibration rows [N, D] as the service will, by onnxruntime, and count how rare each
    score is among them, or in that block of them in which it is least rare.
    """
    return build_table(calibration_scores(graph, rows_ND), block_N=block_N)


def calibration_scores(graph: onnx.ModelProto, rows_ND: NDArray[np.float32]) -> NDArray[np.float32]:
    """[N] scores of calibration rows, as the table counts them."""
    score_N: NDArray[np.float32] = run_graph(graph, [SCORE], rows_ND)[0]
    return np.maximum(score_N, np.float32(SCORE_RESOLUTION))


def window_scores(graph: onnx.ModelProto, ordered: Ordered) -> NDArray[np.float32]:
    """[M] scores of all windows of a windowed graph, as the table counts them; NaN of those whose
    last row is empty.
    """
    (score_M,), _ = run_windows(
        graph,
        [SCORE],
        ordered.rows_NF,
        ordered.segment_N,
        ordered.rows,
        ordered.code_N if ordered.baselines else None,
    )
    resolved_M: NDArray[np.float32] = np.maximum(score_M, np.float32(SCORE_RESOLUTION))
    return resolved_M


def rank_table(folds: Folds) -> Table:
    """Of models that calibrate on each other's rows the score is the p-value's logarithm, so that
    the table is known.
    """
    return build_table(np.maximum(folds.ranks(), np.float32(SCORE_RESOLUTION)))


def choose_threshold(
    table: Table, alpha: float | None, delta: float, *, uncertified: bool
) -> Threshold:
    """The threshold for the budget asked for, or for the first default one of which the rule leaves
    at least half in use: a threshold of rank 1 or 2 hangs on one row. RunError as `check_alpha`.
    """
    if alpha is not None:
        check_alpha(table.n, alpha, delta, uncertified=uncertified)
        return table.threshold(alpha, delta, certified=not uncertified)
    for candidate in DEFAULT_ALPHAS:
        rank = _rank(table.n, candidate, delta, uncertified=uncertified)
        if rank / (table.n + 1) >= candidate / 2 >= table.smallest_p_value:
            return table.threshold(candidate, delta, certified=not uncertified)
    largest = DEFAULT_ALPHAS[-1]
    certified = not uncertified and certified_rank(table.n, largest, delta) > 0
    return table.threshold(largest, delta, certified=certified)


def check_alpha(n: int, alpha: float, delta: float, *, uncertified: bool) -> None:
    """RunError when n calibration rows cannot give alpha, with the rows it would need and the
    nearest one that works.
    """
    if not _rank(n, alpha, delta, uncertified=uncertified):
        hint = "" if uncertified else "; --uncertified takes the rule without the guarantee"
        raise RunError(refusal(n, alpha, delta, certified=not uncertified) + hint)


def attach_table(model: onnx.ModelProto, table: Table) -> None:
    """Add the outputs p_value and severity to a graph that has the output score; NaN scores keep
    NaN, whatever the table says.

    The step of severity is the step of the p-value and what more ends are below the score.
    """
    size = math.ceil(math.sqrt(len(table.scores)))
    blocks = math.ceil(len(table.scores) / size)
    scores = np.full(blocks * size, np.inf, dtype=np.float32)
    scores[: len(table.scores)] = table.scores
    p_values = np.full(blocks * size + 1, table.p_values[-1], dtype=np.float32)
    p_values[: len(table.p_values)] = table.p_values
    scores_BS = scores.reshape(blocks, size)

    def constant(name: str, value: NDArray[np.generic]) -> str:
        model.graph.initializer.append(numpy_helper.from_array(value, name))
        return name

    def node(operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        model.graph.node.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    block_ends = constant("calibration_block_ends", np.ascontiguousarray(scores_BS[:, -1]))
    last_axis = constant("calibration_axis", np.array([-1], dtype=np.int64))
    score_N1 = node("Unsqueeze", [SCORE, last_axis], "calibration_score")
    # strict Less: with LessOrEqual a padding of +inf would be counted by an infinite score and read
    # past the end
    before = node(
        "Cast",
        [node("Less", [block_ends, score_N1], "calibration_block_less")],
        "calibration_block_float",
        to=onnx.TensorProto.FLOAT,
    )
    count = node("ReduceSum", [before, last_axis], "calibration_block_count", keepdims=0)
    last_block = constant("calibration_last_block", np.array(blocks - 1, dtype=np.float32))
    block = node("Min", [count, last_block], "calibration_block")
    index = node("Cast", [block], "calibration_block_index", to=onnx.TensorProto.INT64)
    row = node(
        "Gather", [constant(TABLE_SCORES, scores_BS), index], "calibration_block_scores", axis=0
    )
    inside = node(
        "Cast",
        [node("Less", [row, score_N1], "calibration_less")],
        "calibration_float",
        to=onnx.TensorProto.FLOAT,
    )
    place = node("ReduceSum", [inside, last_axis], "calibration_place", keepdims=0)
    offset = node(
        "Mul",
        [block, constant("calibration_block_size", np.array(size, dtype=np.float32))],
        "calibration_offset",
    )
    rank = node(
        "Cast",
        [node("Add", [offset, place], "calibration_rank")],
        "calibration_rank_index",
        to=onnx.TensorProto.INT64,
    )
    looked_up = node(
        "Gather", [constant(TABLE_P_VALUES, p_values), rank], "calibration_looked_up", axis=0
    )
    nan = constant("calibration_nan", np.array(np.nan, dtype=np.float32))
    is_nan = node("IsNaN", [SCORE], "calibration_is_nan")
    node("Where", [is_nan, nan, looked_up], P_VALUE)
    batch = model.graph.output[0].type.tensor_type.shape.dim[0].dim_param
    model.graph.output.insert(
        1, helper.make_tensor_value_info(P_VALUE, onnx.TensorProto.FLOAT, [batch])
    )
    if table.severity is None:
        return

    lines_E4 = table.severity.lines
    lowest = constant("severity_lowest", np.array(lines_E4[0, 0], dtype=np.float32))
    highest = constant("severity_highest", np.array(LARGEST, dtype=np.float32))
    clipped_N1 = node("Clip", [score_N1, lowest, highest], "severity_score")
    ends = constant(SEVERITY_ENDS, table.severity.ends)
    more = node(
        "Cast",
        [node("Less", [ends, clipped_N1], "severity_less")],
        "severity_float",
        to=onnx.TensorProto.FLOAT,
    )
    steps_before = node("ReduceSum", [more, last_axis], "severity_place", keepdims=0)
    step = node(
        "Cast",
        [node("Add", ["calibration_rank", steps_before], "severity_step")],
        "severity_step_index",
        to=onnx.TensorProto.INT64,
    )
    line = node("Gather", [constant(SEVERITY_LINES, lines_E4), step], "severity_line", axis=0)
    parts = [f"severity_{part}" for part in ("start", "width", "base", "rise")]
    sizes = constant("severity_line_parts", np.ones(4, dtype=np.int64))
    model.graph.node.append(helper.make_node("Split", [line, sizes], parts, axis=1))
    start, width, base, rise = parts
    within = node("Sub", [clipped_N1, start], "severity_within")
    share = node("Div", [within, width], "severity_share")
    risen = node("Mul", [rise, share], "severity_risen")
    severity_N1 = node("Add", [base, risen], "severity_column")
    severity_N = node("Squeeze", [severity_N1, last_axis], "severity_looked_up")
    node("Where", [is_nan, nan, severity_N], SEVERITY)
    model.graph.output.insert(
        2, helper.make_tensor_value_info(SEVERITY, onnx.TensorProto.FLOAT, [batch])
    )


def _rank(n: int, alpha: float, delta: float, *, uncertified: bool) -> int:
    return marginal_rank(n, alpha) if uncertified else certified_rank(n, alpha, delta)
