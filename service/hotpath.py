"""The parts of a checked graph that are run by themselves: onnxruntime computes every node of a session, whatever is asked for."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, ValueInfoProto, load_model_from_string, numpy_helper
from onnx.utils import Extractor

from service.artifact import INPUT, LATENT, P_VALUE, RECONSTRUCTION, SCORE
from service.errors import InvalidArtifact

Array = NDArray[Any]
ROWS = 3  # several, to see what is the same for each
ELEMENTWISE = ("Add", "Sub", "Mul", "Div", "Max", "Min", "Where")
PRODUCTS = ("MatMul", "Gemm")


def score_graph(model: ModelProto) -> bytes:
    """features -> score: no contributions, nothing of the decoding to raw units, no table."""
    return _cut(model, [INPUT], [SCORE])


def complete_graph(model: ModelProto) -> bytes | None:
    """features -> score of rows without a gap, for which what is made of the mask is known; None where nothing is made of it.

    Every number that is left is computed as before and summed in the same order: a score that differs in its last bit from that of
    an equal calibration row would be on the wrong side of the threshold.
    """
    part = load_model_from_string(score_graph(model))
    if not any(node.op_type == "IsNaN" and node.input[0] == INPUT for node in part.graph.node):
        return None
    _Complete(part).shorten()
    return _cut(part, [INPUT], [SCORE])


def p_value_graph(model: ModelProto) -> bytes:
    """score -> p_value; InvalidArtifact where p_value depends on the row by another way than its score."""
    if _depends(model, P_VALUE, INPUT, given=SCORE):
        raise InvalidArtifact("the model's p-value does not follow from its score")
    return _cut(model, [SCORE], [P_VALUE])


def decoder_graph(model: ModelProto) -> bytes | None:
    """latent -> reconstruction; None where the reconstruction depends on the row by another way than the code."""
    if _depends(model, RECONSTRUCTION, INPUT, given=LATENT):
        return None
    return _cut(model, [LATENT], [RECONSTRUCTION])


class _Complete:
    """A scoring graph that is being shortened to what rows without a gap need. What nothing reads any more is left for _cut."""

    def __init__(self, model: ModelProto) -> None:
        self.graph = model.graph
        self.constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        one, several = (_all_tensors(model, rows) for rows in (1, ROWS))
        self.shapes = {name: array.shape for name, array in {**several, **self.constants}.items()}
        self.known = {  # of what does not depend on the cells: what it is for one row, and so for each
            name: one[name]
            for name in _independent_of_cells(model.graph)
            if one[name].ndim == several[name].ndim and _says_the_same(one[name], several[name])
        }
        self.values = {**self.constants, **self.known}
        self.same: dict[str, str] = {}  # as another tensor

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
                sources = [node.input[1]]
            case "Where" if self._is_all(first, False):
                sources = [node.input[2]]
            case "Add" | "Sub" if self._is_all(second, 0):
                sources = [first]
            case "Mul" | "Div" | "Pow" if self._is_all(second, 1):
                sources = [first]
            case "Add" if self._is_all(first, 0):
                sources = [second]
            case "Mul" if self._is_all(first, 1):
                sources = [second]
            case _:
                sources = []
        return next((source for source in sources if self.shapes[source] == self.shapes[node.output[0]]), None)

    def _is_all(self, name: str, value: float) -> bool:
        return name in self.values and bool((self.values[name] == value).all())

    def _read_what_is_known(self, node: NodeProto) -> None:
        """Have a node read constants of one row, where another of its inputs says how many rows there are."""
        unknown = [name for name in node.input if name not in self.known]
        if any(self.shapes[name] == self.shapes[node.output[0]] for name in unknown):
            node.input[:] = [
                self._constant(f"{name} of one row", self.known[name]) if name in self.known else name
                for name in node.input
            ]

    def _read_no_zeros(self, concat: NodeProto) -> None:
        """Have products with rows beside which there are only zeros read the rows alone."""
        parts, output = list(concat.input), concat.output[0]
        readers = [node for node in self.graph.node if output in node.input]
        filled = [name for name in parts if not self._is_all(name, 0)]
        if len(filled) != 1 or concat.attribute[0].i not in (-1, len(self.shapes[output]) - 1):
            return
        if not all(node.op_type in PRODUCTS and list(node.input).index(output) == 0 for node in readers):
            return
        if not all(node.input[1] in self.values and not _attribute(node, "transA") for node in readers):
            return
        start = sum(self.shapes[name][-1] for name in parts[: parts.index(filled[0])])
        kept = slice(start, start + self.shapes[filled[0]][-1])
        for node in readers:
            weights = self.values[node.input[1]]
            rows = weights[..., kept] if _attribute(node, "transB") else weights[..., kept, :]
            node.input[0], node.input[1] = filled[0], self._constant(f"{node.input[1]} from {start}", rows)

    def _name_score(self, source: str) -> None:
        """Have what is as the score be the score."""
        if not any(source in node.output for node in self.graph.node):
            return  # the input, or a constant
        self.graph.node.remove(next(node for node in self.graph.node if SCORE in node.output))
        for node in self.graph.node:
            node.input[:] = [SCORE if name == source else name for name in node.input]
            node.output[:] = [SCORE if name == source else name for name in node.output]

    def _constant(self, name: str, value: Array) -> str:
        if name not in self.constants:
            self.constants[name] = value
            self.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name


def _independent_of_cells(graph: GraphProto) -> list[str]:
    """What nodes make of the mask, of the number of rows and of constants, and of nothing else."""
    names = {tensor.name for tensor in graph.initializer} | {""}
    made = []
    for node in graph.node:
        of_cells = node.op_type in ("IsNaN", "Shape") and node.input[0] == INPUT
        if of_cells or names.issuperset(node.input):
            names.update(node.output)
            made += node.output
    return made


def _all_tensors(model: ModelProto, rows: int) -> dict[str, Array]:
    """All that the graph computes of so many rows of zeros."""
    whole = ModelProto()
    whole.CopyFrom(model)
    names = [name for node in model.graph.node for name in node.output if name]
    del whole.graph.output[:]
    whole.graph.output.extend(ValueInfoProto(name=name) for name in names)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(whole.SerializeToString(), options, providers=["CPUExecutionProvider"])
    cells_ND = np.zeros((rows, model.graph.input[0].type.tensor_type.shape.dim[1].dim_value), np.float32)
    return {INPUT: cells_ND} | dict(zip(names, session.run(names, {INPUT: cells_ND}), strict=True))


def _says_the_same(one: Array, several: Array) -> bool:
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
