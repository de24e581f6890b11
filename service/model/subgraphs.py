"""The parts of a checked graph that are run by themselves: onnxruntime computes every node of a
session, whatever is asked for.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import (
    GraphProto,
    ModelProto,
    NodeProto,
    ValueInfoProto,
    load_model_from_string,
    numpy_helper,
)
from onnx.utils import Extractor

from hourglass.service.errors import InvalidArtifact
from hourglass.service.model.artifact import (
    CONTRIBUTIONS,
    DERIVED,
    INPUT,
    LATENT,
    P_VALUE,
    RECONSTRUCTION,
    SCORE,
    SEVERITY,
)
from hourglass.service.model.shapes import Shape, shapes_of

Array = NDArray[Any]
ROWS = 3  # several, to see what is the same for each
LARGEST = 2**20  # numbers of what may be known
ELEMENTWISE = ("Add", "Sub", "Mul", "Div", "Max", "Min", "Where")
PRODUCTS = ("MatMul", "Gemm")


def score_graph(model: ModelProto) -> bytes:
    """features -> score: no contributions, nothing of the decoding to raw units, no table."""
    return _cut(model, [INPUT], [SCORE])


def complete_graph(model: ModelProto) -> bytes | None:
    """features -> score of rows without a gap, for which what is made of the mask is known; None
    where nothing is made of it.

    Every number that is left is computed as before and summed in the same order, but that a zero
    may have another sign: a score that differs in its last bit from that of an equal calibration
    row would be on the wrong side of the threshold. What onnxruntime makes of the shorter graph may
    round in another way all the same, which whoever uses it has to look at.
    """
    part = load_model_from_string(score_graph(model))
    if not any(node.op_type == "IsNaN" and node.input[0] == INPUT for node in part.graph.node):
        return None
    _Complete(part).shorten()
    return _cut(part, [INPUT], [SCORE])


def rows_graph(model: ModelProto) -> ModelProto:
    """Of a windowed model what is said of a window by what is derived of it, as a graph of rows;
    InvalidArtifact where it is said by another way.
    """
    names = [SCORE, CONTRIBUTIONS, LATENT]
    for name in names:
        if _depends(model, name, INPUT, given=DERIVED):
            raise InvalidArtifact(f"the model's {name} does not follow from what is derived")
    derived = next((value for value in model.graph.value_info if value.name == DERIVED), None)
    if derived is None or len(derived.type.tensor_type.shape.dim) != 2:
        raise InvalidArtifact(f"the model file does not say that {DERIVED!r} is of two dimensions")
    part = load_model_from_string(_cut(model, [DERIVED], names))
    for node in part.graph.node:
        node.input[:] = [INPUT if name == DERIVED else name for name in node.input]
    part.graph.input[0].CopyFrom(derived)
    part.graph.input[0].name = INPUT
    return part


def derived_graph(model: ModelProto) -> bytes:
    """features -> derived, of a windowed model; with baselines the entity is an input, too."""
    return _cut(model, [each.name for each in model.graph.input], [DERIVED])


def table_graph(model: ModelProto) -> bytes:
    """score -> p_value, and severity where there is one; InvalidArtifact where one of them depends
    on the row by another way than its score.
    """
    outputs = [output.name for output in model.graph.output if output.name in (P_VALUE, SEVERITY)]
    for name in outputs:
        if _depends(model, name, INPUT, given=SCORE):
            what = name.replace("_", "-")
            raise InvalidArtifact(f"the model's {what} does not follow from its score")
    return _cut(model, [SCORE], outputs)


def decoder_graph(model: ModelProto) -> bytes | None:
    """latent -> reconstruction; None where the reconstruction depends on the row by another way
    than the code.
    """
    if _depends(model, RECONSTRUCTION, INPUT, given=LATENT):
        return None
    return _cut(model, [LATENT], [RECONSTRUCTION])


class _Complete:
    """A scoring graph that is being shortened to what rows without a gap need.

    What nothing reads any more is left for _cut.
    """

    def __init__(self, model: ModelProto) -> None:
        self.graph = model.graph
        self.shapes = shapes_of(model, ROWS)
        one, several = (_beside_cells(model, self.shapes, rows) for rows in (1, ROWS))
        # of what does not depend on the cells: what it is for one row, and so for each
        self.known = {
            name: value for name, value in one.items() if _says_the_same(value, several[name])
        }
        constants = {
            tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer
        }
        self.values = constants | self.known
        self.same: dict[str, str] = {}  # as another tensor
        self.added: dict[str, str] = {}  # names of new constants, by what they are

    def shorten(self) -> None:
        """Until nothing that is known is computed."""
        for node in self.graph.node:
            node.input[:] = [self.same.get(name, name) for name in node.input]
            if node.output[0] in self.known:
                continue
            if (source := self._passed_on(node)) is not None:
                self.same[node.output[0]] = source
            elif node.op_type in ELEMENTWISE:
                self._read_what_is_known(node)
            elif node.op_type == "Concat":
                self._read_no_zeros(node)
        if (source := self.same.get(SCORE)) is not None:
            self._name_score(source)

    def _passed_on(self, node: NodeProto) -> str | None:
        """The input that comes out as it is, if there is one."""
        first, second = (*node.input, "", "")[:2]
        match node.op_type:
            case "Where" if self._is_all(first, True):
                source = node.input[1]
            case "Where" if self._is_all(first, False):
                source = node.input[2]
            case "Add" | "Sub" if self._is_all(second, 0):
                source = first
            case "Mul" | "Div" | "Pow" if self._is_all(second, 1):
                source = first
            case "Add" if self._is_all(first, 0):
                source = second
            case "Mul" if self._is_all(first, 1):
                source = second
            case _:
                return None
        return source if self._has_all_rows(source, node) else None

    def _has_all_rows(self, name: str, node: NodeProto) -> bool:
        """Whether an input alone gives a node's output the shape that it has."""
        return name in self.shapes and self.shapes[name] == self.shapes.get(node.output[0])

    def _is_all(self, name: str, value: float) -> bool:
        return name in self.values and bool((self.values[name] == value).all())

    def _read_what_is_known(self, node: NodeProto) -> None:
        """Have a node read constants of one row, where another of its inputs says how many rows
        there are.
        """
        unknown = [name for name in node.input if name not in self.known]
        if any(self._has_all_rows(name, node) for name in unknown):
            node.input[:] = [
                self._constant(f"{name} of one row", self.known[name])
                if name in self.known
                else name
                for name in node.input
            ]

    def _read_no_zeros(self, concat: NodeProto) -> None:
        """Have products with rows behind which there are only zeros read the rows alone."""
        (rows, *others), output = concat.input, concat.output[0]
        readers = [node for node in self.graph.node if output in node.input]
        beside = output in self.shapes and concat.attribute[0].i in (
            -1,
            len(self.shapes[output]) - 1,
        )
        zeros = not self._is_all(rows, 0) and all(self._is_all(name, 0) for name in others)
        if not beside or not zeros or rows not in self.shapes:
            return
        if not all(
            node.op_type in PRODUCTS and list(node.input).index(output) == 0 for node in readers
        ):
            return
        if not all(
            node.input[1] in self.values and not _attribute(node, "transA") for node in readers
        ):
            return
        width = self.shapes[rows][-1]
        for node in readers:
            weights = self.values[node.input[1]]
            weights = (
                weights[..., :width] if _attribute(node, "transB") else weights[..., :width, :]
            )
            node.input[0], node.input[1] = (
                rows,
                self._constant(f"{width} rows of {node.input[1]}", weights),
            )

    def _name_score(self, source: str) -> None:
        """Have what is as the score be the score."""
        if not any(source in node.output for node in self.graph.node):
            return  # the input, or a constant
        self.graph.node.remove(next(node for node in self.graph.node if SCORE in node.output))
        for node in self.graph.node:
            node.input[:] = [SCORE if name == source else name for name in node.input]
            node.output[:] = [SCORE if name == source else name for name in node.output]

    def _constant(self, what: str, value: Array) -> str:
        if what not in self.added:
            name = what
            while name in self.shapes:
                name += "'"
            self.shapes[name] = value.shape
            self.added[what] = name
            self.graph.initializer.append(
                numpy_helper.from_array(np.ascontiguousarray(value), name)
            )
        return self.added[what]


def _beside_cells(model: ModelProto, shapes: Mapping[str, Shape], rows: int) -> dict[str, Array]:
    """What is made of the mask, of the number of rows and of constants alone, as it is of so many
    rows without a gap.

    Only what is read together with what is made of the cells, and is no larger than it should be.
    """
    independent = {tensor.name for tensor in model.graph.initializer} | {""}
    nodes, read = [], set()
    for node in model.graph.node:
        of_cells = node.op_type in ("IsNaN", "Shape") and node.input[0] == INPUT
        if of_cells or independent.issuperset(node.input):
            independent.update(node.output)
            nodes.append(node)
        else:
            read.update(node.input)
    asked = [name for node in nodes for name in node.output if name in read and name in shapes]
    asked = [name for name in asked if math.prod(shapes[name]) <= LARGEST]
    if not asked:
        return {}
    wanted = {name for node in nodes for name in node.input}
    part = GraphProto(name=model.graph.name, node=nodes, input=model.graph.input)
    part.initializer.extend(tensor for tensor in model.graph.initializer if tensor.name in wanted)
    part.output.extend(ValueInfoProto(name=name) for name in asked)
    data = ModelProto(
        ir_version=model.ir_version, opset_import=model.opset_import, graph=part
    ).SerializeToString()
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    cells_ND = np.zeros((rows, shapes[INPUT][1]), np.float32)
    return dict(zip(asked, session.run(asked, {INPUT: cells_ND}), strict=True))


def _says_the_same(one: Array, several: Array) -> bool:
    if one.ndim != several.ndim:
        return False
    try:
        return np.array_equal(np.broadcast_to(one, several.shape), several)
    except ValueError:
        return False


def _attribute(node: NodeProto, name: str) -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == name), 0)


def _cut(model: ModelProto, inputs: Sequence[str], outputs: Sequence[str]) -> bytes:
    part: ModelProto = Extractor(model).extract_model(list(inputs), list(outputs))
    data: bytes = part.SerializeToString()
    return data


def _depends(model: ModelProto, output: str, source: str, *, given: str) -> bool:
    """Whether `source` can be reached from `output` against the arrows, but not through `given`."""
    producers = {name: node for node in model.graph.node for name in node.output}
    needed, seen = [output], {given}
    while needed:
        name = needed.pop()
        if name == source:
            return True
        if name not in seen and name in producers:
            needed.extend(producers[name].input)
        seen.add(name)
    return False
