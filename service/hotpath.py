"""The parts of a checked graph that are run by themselves: onnxruntime computes every node of a session, whatever is asked for."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import GraphProto, ModelProto, TensorProto, helper, load_model_from_string, numpy_helper
from onnx.utils import Extractor

from service.artifact import INPUT, LATENT, P_VALUE, RECONSTRUCTION, SCORE
from service.errors import InvalidArtifact


def score_graph(model: ModelProto) -> bytes:
    """features -> score: no contributions, nothing of the decoding to raw units, no table."""
    return _cut(model, [INPUT], [SCORE])


def complete_graph(model: ModelProto) -> bytes | None:
    """features -> score of rows without a gap, for which what is made of the mask is known; None where there is nothing of that kind.

    Every number that is left is computed as before and summed in the same order: a score that differs in its last bit from that of
    an equal calibration row would be on the wrong side of the threshold.
    """
    part = load_model_from_string(score_graph(model))
    if not _replace_mask(part.graph):
        return None
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


def _replace_mask(graph: GraphProto) -> bool:
    """Put what it is for rows without a gap in place of what is made of the mask, where that is easily told; whether it was anywhere.

    What nothing reads any more stays, for _cut to leave out.
    """
    width = graph.input[0].type.tensor_type.shape.dim[1].dim_value
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    filled: dict[str, bool | float] = {}  # tensors [N, D] that hold this value everywhere
    same: dict[str, str] = {}  # as another tensor
    replaced = False

    def constant(name: str, value: Any) -> str:
        graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    for node in graph.node:
        node.input[:] = [same.get(name, name) for name in node.input]
        inputs, output = list(node.input), node.output[0]
        match node.op_type, *map(filled.get, inputs):
            case "IsNaN", _ if inputs[0] == INPUT:
                filled[output] = False
            case "Cast", float() as value if node.attribute[0].i == TensorProto.BOOL:
                filled[output] = bool(value)
            case "Where", bool() as condition, _, _:
                chosen = inputs[1 if condition else 2]
                if chosen not in constants:
                    same[output] = chosen
                elif constants[chosen].size == 1:
                    filled[output] = constants[chosen].item()
            case "Mul", None, float() as value if value == 1 and inputs[0] not in constants:
                same[output] = inputs[0]
            case "ReduceSum", float() as value, None if inputs[1] in constants and constants[inputs[1]].tolist() in (
                [1],
                [-1],
            ):
                same[output] = constant(f"{output}, no gap", np.float32(width * value))
            case "Concat", None, float() as value if node.attribute[0].i == 1:
                pads = constant(f"{output}, pads", [0, 0, 0, width])
                padding = constant(f"{output}, padding", np.float32(value))
                node.CopyFrom(helper.make_node("Pad", [inputs[0], pads, padding], [output]))
                replaced = True
    return replaced or bool(same)


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
