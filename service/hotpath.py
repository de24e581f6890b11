"""The parts of a checked graph that are run by themselves: onnxruntime computes every node of a session, whatever is asked for."""

from collections.abc import Sequence

from onnx import ModelProto
from onnx.utils import Extractor

from service.artifact import INPUT, LATENT, P_VALUE, RECONSTRUCTION, SCORE
from service.errors import InvalidArtifact


def score_graph(model: ModelProto) -> bytes:
    """features -> score: no contributions, nothing of the decoding to raw units, no table."""
    return _cut(model, [INPUT], [SCORE])


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
