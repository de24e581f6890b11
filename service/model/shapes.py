"""The shapes of what a graph computes, as far as they follow from it, without computing
anything.
"""

import math

import onnx
from onnx import ModelProto

MAX_SIZES = 256  # elements of a tensor that is looked into for shapes; no shape has that many

SERIES_RANK = 3  # of an input of series

Shape = tuple[int, ...]


def shapes_of(model: ModelProto, rows: int, window: int = 1) -> dict[str, Shape]:
    """Of the input, of constants and of what nodes make, when so many rows are judged, of which
    each is the last of a window; those that cannot be told are left out.

    onnx.shape_inference.InferenceError where they do not fit each other.
    """
    sized = _without_weights(model)
    sizes = sized.graph.input[0].type.tensor_type.shape.dim
    sizes[0].dim_value = rows
    if len(sizes) == SERIES_RANK:
        sizes[0].dim_value, sizes[1].dim_value = 1, window - 1 + rows
        for beside in sized.graph.input[1:]:  # a number of each series
            beside.type.tensor_type.shape.dim[0].dim_value = 1
    for output in sized.graph.output:
        output.type.tensor_type.ClearField("shape")
    graph = onnx.shape_inference.infer_shapes(sized, strict_mode=True, data_prop=True).graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        tensor = value.type.tensor_type
        if tensor.HasField("shape") and all(dim.HasField("dim_value") for dim in tensor.shape.dim):
            shapes[value.name] = tuple(dim.dim_value for dim in tensor.shape.dim)
    return shapes


def _without_weights(model: ModelProto) -> ModelProto:
    """The graph with the numbers of its small tensors only, which may be sizes: large ones would be
    copied several times over.

    Nor does it have what the file says of its own sizes, which is no evidence.
    """
    graph = onnx.GraphProto(
        name=model.graph.name,
        node=model.graph.node,
        input=model.graph.input,
        output=model.graph.output,
    )
    for tensor in model.graph.initializer:
        if math.prod(tensor.dims) <= MAX_SIZES:
            graph.initializer.append(tensor)
        else:
            graph.initializer.add(name=tensor.name, dims=tensor.dims, data_type=tensor.data_type)
    return ModelProto(ir_version=model.ir_version, opset_import=model.opset_import, graph=graph)
