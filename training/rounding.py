"""Rounding: an exported graph in which a row comes out the same wherever it lies in the memory.

onnxruntime's kernels for sums, means and logarithms (and, in float64, for more) take as many
numbers at once as fit a register, and those that are left over one by one, which rounds in another
way. So a row's score would hang on its place among the rows that are scored with it; and since the
threshold is the score of a row, so would whether it is an anomaly. The kernels of products, and all
others that are not named here, round a row alike wherever it is.
"""

import math
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

SUMS = ("ReduceSum", "ReduceMean")
FUNCTIONS = {
    ("Log", TensorProto.FLOAT),
    *((name, TensorProto.DOUBLE) for name in ("Exp", "Log", "Sigmoid", "Tanh")),
}
LINE_BYTES = 64  # no register is wider, and every tensor begins at a multiple of it

Type = onnx.TypeProto.Tensor


def round_alike_everywhere(model: onnx.ModelProto) -> None:
    """Have the graph compute the same, up to rounding, by kernels that do not look at the place."""
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    types = {value.name: value.type.tensor_type for value in inferred.value_info}
    nodes = list(model.graph.node)
    del model.graph.node[:]
    for node in nodes:
        source = types.get(node.input[0], Type())
        if node.op_type in SUMS:
            model.graph.node.extend(_sum(model.graph, node, source))
        elif (node.op_type, source.elem_type) in FUNCTIONS:
            model.graph.node.extend(_function(model.graph, node, source))
        else:
            model.graph.node.append(node)


class _Chain:
    """Nodes in the place of another, each of which reads the one before."""

    def __init__(self, graph: onnx.GraphProto, replaced: NodeProto) -> None:
        self.graph, self.replaced = graph, replaced
        self.nodes: list[NodeProto] = []
        self.names = [replaced.input[0]]  # that the next node reads

    def add(self, operator: str, *constants: NDArray[Any], outputs: int = 1, **given: Any) -> None:
        place = f"{self.replaced.output[0]}.{len(self.nodes)}"
        names = [f"{place}.constant_{i}" for i in range(len(constants))]
        for name, value in zip(names, constants, strict=True):
            self.graph.initializer.append(numpy_helper.from_array(value, name))
        made = [f"{place}.{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(operator, [*self.names, *names], made, **given))
        self.names = made

    def finished(self) -> list[NodeProto]:
        """The last of them makes what the replaced one made."""
        self.nodes[-1].output[0] = self.replaced.output[0]
        return self.nodes


def _sum(graph: onnx.GraphProto, node: NodeProto, source: Type) -> list[NodeProto]:
    """Along the last axis as a product with ones, along another as a sum of slices."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    (axis,) = numpy_helper.to_array(constants[node.input[1]]).tolist()
    sizes, dtype = _sizes(source), helper.tensor_dtype_to_np_dtype(source.elem_type)
    size, rank = sizes[axis], len(sizes)
    chain = _Chain(graph, node)
    if axis in (-1, rank - 1):
        if rank != 2:
            chain.add("Reshape", np.array([-1, size]))
        # not a MatMul, into which onnxruntime draws a constant that is multiplied beside it
        chain.add("Gemm", np.ones((size, 1), dtype))
    else:
        chain.add("Split", outputs=size, axis=axis, num_outputs=size)
        chain.add("Sum")
    if node.op_type == "ReduceMean":
        chain.add("Div", np.array(size, dtype))
    keeps = next((attribute.i for attribute in node.attribute if attribute.name == "keepdims"), 1)
    if rank != 2 or not keeps:
        sizes[axis : axis + 1 or None] = [1] * keeps
        chain.add("Reshape", np.array([size or -1 for size in sizes]))
    return chain.finished()


def _function(graph: onnx.GraphProto, node: NodeProto, source: Type) -> list[NodeProto]:
    """With rows behind the last, so that what is left over is of them; rows of whole lines leave
    nothing over.
    """
    sizes, dtype = _sizes(source), helper.tensor_dtype_to_np_dtype(source.elem_type)
    line, width = LINE_BYTES // dtype.itemsize, math.prod(size or 1 for size in sizes[1:])
    if width % line == 0:
        return [node]
    rows, beside = math.ceil((line - 1) / width), [0] * (len(sizes) - 1)
    chain = _Chain(graph, node)
    chain.add("Pad", np.array([0, *beside, rows, *beside]), np.array(1, dtype))
    chain.add(node.op_type)
    chain.add("Slice", np.array([0]), np.array([-rows]), np.array([0]))
    return chain.finished()


def _sizes(source: Type) -> list[int]:
    """Of each axis; 0 where it is the number of rows."""
    return [dim.dim_value for dim in source.shape.dim]
