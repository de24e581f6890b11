"""The Open Inference Protocol v2 over REST, with Triton's binary tensor data extension, for the
clients that speak it.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md
"""

from functools import partial
from time import perf_counter
from typing import Annotated, Any

import msgspec
from litestar import Request, Response, Router, get, post
from litestar.di import NamedDependency
from litestar.openapi import ResponseSpec
from litestar.params import FromPath, HeaderParameter

from hourglass.service import VERSION
from hourglass.service.api.body import BYTES_OF_A_CELL, accepted_encoding, pack, read_packed_body
from hourglass.service.api.entrance import (
    NEEDS_NO_KEY,
    NEEDS_SCORE,
    NEEDS_SCORE_OR_READ,
    OF_NO_MODEL,
)
from hourglass.service.api.parts import Parts
from hourglass.service.api.problems import inference_errors
from hourglass.service.api.scoring import MAX_VALUES, require_small
from hourglass.service.errors import InvalidRow, NotReady, UnknownModel
from hourglass.service.machine import heap
from hourglass.service.model import artifact
from hourglass.service.model.artifact import LATENT, P_VALUE, SCORE, SEVERITY
from hourglass.service.model.detector import Detector, Scores
from hourglass.service.model.served import Served
from hourglass.service.rows import decoding, tensors
from hourglass.service.rows.tensors import Float32

EXTENSIONS = ["binary_tensor_data"]
HEADER_LENGTH = "Inference-Header-Content-Length"


class ServerMetadata(msgspec.Struct, frozen=True):
    """The server, and what it offers beyond the protocol."""

    name: str
    version: str
    extensions: list[str]


class ServerLive(msgspec.Struct, frozen=True):
    """The process answers."""

    live: bool


class ServerReady(msgspec.Struct, frozen=True):
    """At least one model is in service."""

    ready: bool


class ModelReady(msgspec.Struct, frozen=True):
    """The model is in service."""

    name: str
    ready: bool


class TensorMetadata(msgspec.Struct, frozen=True):
    """A tensor; -1 stands for any number of rows."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(msgspec.Struct, frozen=True):
    """What a model takes and gives, and the version of it that is in service, which is the only one
    that can be asked for.
    """

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class OutputTensor(msgspec.Struct, frozen=True, omit_defaults=True):
    """One output: data row after row, or in the parameters the number of its bytes after the
    JSON.
    """

    name: str
    datatype: str
    shape: list[int]
    data: list[float] | msgspec.UnsetType = msgspec.UNSET
    parameters: dict[str, int] | msgspec.UnsetType = msgspec.UNSET


class InferenceAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """The outputs in the order asked for; the parameters are the threshold in force, above which a
    score is an anomaly.
    """

    model_name: str
    model_version: str
    parameters: dict[str, float | bool]
    outputs: list[OutputTensor]
    id: str | msgspec.UnsetType = msgspec.UNSET


@get(
    "/",
    summary="Describe the server",
    responses=inference_errors(),
    opt={OF_NO_MODEL: True},
    sync_to_thread=False,
)
def server_metadata() -> ServerMetadata:
    return ServerMetadata("hourglass", VERSION, EXTENSIONS)


@get(
    "/health/live",
    summary="Is the server alive?",
    responses=inference_errors(),
    opt=NEEDS_NO_KEY,
    sync_to_thread=False,
)
def server_live() -> ServerLive:
    return ServerLive(live=True)


@get(
    "/health/ready",
    summary="Is the server ready?",
    responses=inference_errors(503),
    opt=NEEDS_NO_KEY,
    sync_to_thread=False,
)
def server_ready(parts: NamedDependency[Parts]) -> ServerReady:
    if not parts.registry.served:
        raise NotReady("no model is in service")
    return ServerReady(ready=True)


@get("/ready", summary="Is the model ready?", responses=inference_errors(404))
async def model_ready(
    parts: NamedDependency[Parts], name: FromPath[str], version: FromPath[str | None] = None
) -> ModelReady:
    return ModelReady((await _find(parts, name, version)).name, ready=True)


@get("/", summary="Describe a model", responses=inference_errors(404))
async def model_metadata(
    parts: NamedDependency[Parts], name: FromPath[str], version: FromPath[str | None] = None
) -> ModelMetadata:
    served = await _find(parts, name, version)
    width, latent_width = served.schema.width, served.detector.latent_width
    # of the others one value for each feature
    shapes = {
        SCORE: [-1],
        P_VALUE: [-1],
        SEVERITY: [-1],
        LATENT: [-1, latent_width],
    }
    return ModelMetadata(
        name=served.name,
        versions=[served.detector.version],
        platform="onnx",
        inputs=[TensorMetadata(artifact.INPUT, tensors.DATATYPE, [-1, width])],
        outputs=[
            TensorMetadata(output, tensors.DATATYPE, shapes.get(output, [-1, width]))
            for output in artifact.OUTPUTS
        ],
    )


@post(
    "/infer",
    summary="Score rows, and more",
    opt=NEEDS_SCORE,
    description=(
        "The input is `features`; the outputs are `score` and `p_value` unless others are asked"
        " for. To a model of ordered rows the rows are one entity's, oldest first, and the outputs"
        " are of those that have enough rows before them; a model with baselines judges them by the"
        " fleet's, and says so by the parameter `known_entity`."
    ),
    responses={
        200: ResponseSpec(
            InferenceAnswer, description=InferenceAnswer.__doc__ or "", generate_examples=False
        ),
        **inference_errors(404, 413, 415, 422),
    },
    status_code=200,
)
async def infer(
    request: Request[Any, Any, Any],
    parts: NamedDependency[Parts],
    name: FromPath[str],
    version: FromPath[str | None] = None,
    inference_header_content_length: Annotated[
        int | None,
        HeaderParameter(
            name=HEADER_LENGTH, ge=1, description="Bytes of JSON, where raw tensors follow it."
        ),
    ] = None,
) -> Response[bytes]:
    served = await _find(parts, name, version)
    settings, batcher = parts.settings, parts.batcher
    size, unpacked = await read_packed_body(request, max_bytes=settings.max_body_bytes)

    def read() -> tensors.Inference:
        body, is_json = unpacked(), inference_header_content_length is None
        try:
            return tensors.decode_request(
                body, inference_header_content_length, served.schema, max_rows=settings.max_rows
            )
        finally:
            if is_json and heap.is_large(body):  # else the rows lie in it
                heap.empty(body)

    asked = await batcher.run(size // BYTES_OF_A_CELL, read)
    rows_ND, wanted = asked.rows_ND, {output.name for output in asked.outputs}
    width = sum(_width(served.detector, output) for output in wanted)
    require_small(len(rows_ND), width, MAX_VALUES, "values")
    window = served.detector.window
    if len(rows_ND) < window:
        raise InvalidRow(
            f"expected at least {window} rows, which the model looks at for each answer, got"
            f" {len(rows_ND)}",
            expected=f"at least {window} rows",
            got=str(len(rows_ND)),
        )
    if wanted <= {SCORE, P_VALUE, SEVERITY} and window == 1:
        found = (await batcher.score(served, rows_ND))._asdict()
    else:
        compute = partial(_compute, served.detector, rows_ND, wanted)
        found, seconds = await batcher.run(rows_ND.size, compute)
        if SCORE in found:
            scores = Scores(found[SCORE], found[P_VALUE], found[SEVERITY])
            parts.observers.scored(served, rows_ND, scores, seconds)
    write = partial(tensors.encode_answer, served, asked, found)
    answer, json_length = await batcher.run(len(rows_ND) * width, write)
    batcher.discard(rows_ND)
    headers = {}
    if json_length is not None:
        headers[HEADER_LENGTH] = str(json_length)  # before compression
    if encoding := accepted_encoding(request.headers.get("accept-encoding", "")):
        headers["Content-Encoding"], answer = encoding, await pack(answer, encoding)
    return Response(
        answer, media_type=decoding.JSON if json_length is None else decoding.RAW, headers=headers
    )


async def _find(parts: Parts, name: str, version: str | None) -> Served:
    served = await parts.registry.get(name)
    if version is not None and version != served.detector.version:
        raise UnknownModel(
            f"model {name!r} has no version {version[:80]!r} in service, the one served is"
            f" {served.detector.version}"
        )
    return served


def _width(detector: Detector, output: str) -> int:
    """Values of an output for one row."""
    if output in (SCORE, P_VALUE, SEVERITY):
        return 1
    return detector.latent_width if output == LATENT else detector.width


def _compute(
    detector: Detector, rows_ND: Float32, wanted: set[str]
) -> tuple[dict[str, Float32], float]:
    """Outputs, with the scores of the same run, and its seconds."""
    found: dict[str, Float32] = {}
    started = perf_counter()
    if wanted <= {SCORE, P_VALUE, SEVERITY}:  # of a windowed model
        found |= detector.score(rows_ND)._asdict()
    elif wanted != {LATENT}:
        found |= detector.explain(rows_ND)._asdict()
    if LATENT in wanted:
        found[LATENT] = detector.encode(rows_ND)
    return found, perf_counter() - started


_model = [model_ready, model_metadata, infer]
router = Router(
    "/v2",
    route_handlers=[
        server_metadata,
        server_live,
        server_ready,
        Router("/models/{name:str}", route_handlers=_model),
        Router("/models/{name:str}/versions/{version:str}", route_handlers=_model),
    ],
    opt=NEEDS_SCORE_OR_READ,
    tags=["open inference protocol"],
)
