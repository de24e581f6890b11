"""Errors -> RFC 9457 problem+json; under /v2, where a protocol says so, {"error": ...}; where the
clients of the retired Azure service ask, {"code": ..., "message": ...}.

One table maps the domain's errors to statuses; no traceback leaves the process.
"""

import logging
import math
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, NamedTuple
from urllib.parse import quote

import msgspec
from litestar import Request, Response
from litestar.exceptions import HTTPException, InternalServerException
from litestar.openapi import ResponseSpec
from litestar.types import ExceptionHandlersMap

from hourglass.service import errors
from hourglass.service.watch.metrics import Metrics, Reason

MEDIA_TYPE = "application/problem+json"
JSON = "application/json"
AZURE = "/anomalydetector/"  # what the paths of the retired Azure service begin with
_HEADERS: Mapping[Reason, Mapping[str, str]] = {
    "overloaded": {"Retry-After": "1"},  # there may be room again
    "key": {"WWW-Authenticate": 'Bearer realm="hourglass"'},
}
_logger = logging.getLogger(__name__)


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is wrong with a request, for a program (type, status, row, feature) and for a person
    (title, detail).
    """

    type: str  # /docs#<kind>, behind the root path
    title: str
    status: int
    detail: str
    instance: str  # the path asked for
    row: int | None = None  # from 0
    feature: str | None = None
    expected: str | None = None
    got: str | None = None


class InferenceError(msgspec.Struct, frozen=True):
    """The same for a client of the Open Inference Protocol."""

    error: str  # one sentence that says what was expected and what came


class AzureError(msgspec.Struct, frozen=True):
    """The same for a client of the retired Azure service."""

    code: str  # the kind, as one word
    message: str


class Kind(NamedTuple):
    """A kind of problem: what its errors have in common."""

    status: int
    slug: str
    title: str
    reason: Reason  # label of hourglass_rejections_total


KINDS: Mapping[type[Exception], Kind] = {
    errors.InvalidRow: Kind(422, "invalid-row", "A row does not fit the model", "value"),
    errors.InvalidNumber: Kind(
        400, "invalid-number", "A row holds what is not a float32 number", "value"
    ),
    errors.InvalidBody: Kind(400, "invalid-body", "The request body cannot be read", "body"),
    errors.InvalidJSON: Kind(
        400, "invalid-json", "The request body is not the JSON expected", "json"
    ),
    errors.UnsupportedMediaType: Kind(
        415, "unsupported-media-type", "The body is of a kind not read here", "content_type"
    ),
    errors.NotAcceptable: Kind(
        406, "not-acceptable", "The answer is not given in the form asked for", "content_type"
    ),
    errors.TooManyRows: Kind(
        413, "too-many-rows", "More rows than one request may hold", "too_many_rows"
    ),
    errors.UnknownModel: Kind(404, "unknown-model", "No such model is served", "model"),
    errors.NoReport: Kind(404, "no-report", "This version has no report", "model"),
    errors.UnknownVersion: Kind(404, "unknown-version", "The model has no such version", "model"),
    errors.UnknownAlarms: Kind(404, "unknown-alarms", "No such alarms are kept", "model"),
    errors.UnknownDetection: Kind(404, "unknown-detection", "No such detection is kept", "model"),
    errors.NotTrained: Kind(400, "model-not-ready", "The model is not trained", "model"),
    errors.JobRefused: Kind(409, "job-refused", "The training is not taken", "model"),
    errors.InvalidTable: Kind(
        400, "invalid-data", "The rows named cannot be read as the model's", "body"
    ),
    errors.FullJournal: Kind(507, "full-journal", "The journal takes no more", "internal"),
    errors.JournalFailed: Kind(503, "journal-failed", "The alarms cannot be read", "internal"),
    errors.ShadowFailed: Kind(503, "shadow-failed", "The challenger cannot be told of", "internal"),
    errors.DriftFailed: Kind(503, "drift-failed", "Drift cannot be told", "internal"),
    errors.NotPromoted: Kind(
        409, "not-promoted", "The version cannot be put into service here", "model"
    ),
    errors.NotDecodable: Kind(409, "not-decodable", "This model cannot decode", "model"),
    errors.NotSampleable: Kind(409, "not-sampleable", "This model cannot make up rows", "model"),
    errors.LateRow: Kind(409, "late-row", "A row of a stream is late", "late"),
    errors.NoStreams: Kind(409, "no-streams", "No streams are kept here", "model"),
    errors.StreamsFailed: Kind(503, "streams-failed", "The streams cannot be read", "internal"),
    errors.UnknownEntity: Kind(404, "unknown-entity", "No such entity is known", "model"),
    errors.NotReady: Kind(503, "not-ready", "No model is in service", "model"),
    errors.UncertifiableAlpha: Kind(
        409, "uncertifiable-alpha", "This false-alarm rate cannot be had", "alpha"
    ),
    errors.ThresholdNotStored: Kind(
        409, "threshold-not-stored", "The threshold cannot be changed here", "alpha"
    ),
    errors.InvalidArtifact: Kind(409, "invalid-artifact", "The model file was refused", "model"),
    errors.MalformedRequest: Kind(
        400, "malformed-request", "The request is not HTTP/1.1", "malformed"
    ),
    errors.RequestLineTooLong: Kind(
        414, "request-line-too-long", "The request's first line is too long", "too_large"
    ),
    errors.HeadTooLarge: Kind(
        431, "head-too-large", "The request has too many fields, or too large ones", "too_large"
    ),
    errors.TooSlow: Kind(408, "too-slow", "The request did not come in time", "slow"),
    errors.Overloaded: Kind(503, "overloaded", "There is no room at the moment", "overloaded"),
    errors.ForeignHost: Kind(421, "foreign-host", "The request is for another host", "host"),
    errors.ReadOnly: Kind(403, "read-only", "Nothing can be changed here", "read_only"),
    errors.Unauthenticated: Kind(401, "unauthenticated", "A key is needed", "key"),
    errors.Forbidden: Kind(403, "forbidden", "The key does not open this", "scope"),
    errors.RateExceeded: Kind(429, "rate-exceeded", "The key was used too often", "rate"),
}
HTTP_KINDS: Mapping[int, Kind] = {
    400: Kind(400, "bad-request", "The request cannot be read", "value"),
    404: Kind(404, "no-such-path", "There is nothing at this path", "route"),
    405: Kind(405, "method-not-allowed", "This path does not take this method", "method"),
    413: Kind(413, "too-large", "The request body is too large", "too_large"),
}
_KSERVE_V1 = re.compile(r"(/v1/models/[^/:]+)(:predict|:explain)")
BUG = Kind(500, "internal-error", "Something went wrong in the service", "internal")


class Refusal(NamedTuple):
    """What an error is answered with."""

    status: int
    body: bytes
    reason: Reason
    media_type: str
    headers: Mapping[str, str]


def refuse(error: Exception, method: str, path: str, root_path: str = "") -> Refusal:
    """The answer to a request that ran into an error of the domain, or into a bug, which is
    logged.

    `root_path` is what a proxy has in front of the path.
    """
    kind = next((KINDS[cls] for cls in type(error).__mro__ if cls in KINDS), None)
    if kind is None:
        _logger.error("%s %s failed", method, path, exc_info=error)
        return _refusal(BUG, "the service's log says what it was", path, root_path)
    if isinstance(error, errors.InvalidRow):
        place = {
            "row": error.row,
            "feature": error.feature,
            "expected": error.expected,
            "got": error.got,
        }
        return _refusal(kind, str(error), path, root_path, **place, reason=error.reason)
    refusal = _refusal(kind, str(error), path, root_path)
    if isinstance(error, errors.JobRefused) and error.job is not None:
        location = f"{root_path}{path.rstrip('/')}/{error.job}"
        return refusal._replace(headers={"Location": location})
    if isinstance(error, errors.RateExceeded):
        return refusal._replace(headers={"Retry-After": str(math.ceil(error.seconds))})
    return refusal


def problem_handlers(
    metrics: Metrics, *, max_body_bytes: int, root_path: str
) -> ExceptionHandlersMap:
    """The app's exception handlers: whatever is raised becomes a problem, and is counted by its
    reason.
    """

    def answer(refusal: Refusal) -> Response[bytes]:
        metrics.observe_rejection(refusal.reason)
        return Response(
            refusal.body,
            status_code=refusal.status,
            media_type=refusal.media_type,
            headers=refusal.headers,
        )

    def of_any(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
        return answer(refuse(error, request.method, request.scope["path"], root_path))

    def of_http(request: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
        path = request.scope["path"]
        if isinstance(
            error, InternalServerException
        ):  # Litestar's word for a client that goes while it is sending
            return answer(_refusal(HTTP_KINDS[400], error.detail, path, root_path, reason="body"))
        kind = HTTP_KINDS.get(error.status_code)
        if kind is None:
            return of_any(request, error)
        detail = _detail(request, error, max_body_bytes, root_path)
        response = answer(_refusal(kind, detail, path, root_path))
        response.headers.update(
            {name.title(): value for name, value in (error.headers or {}).items()}
        )
        return response

    return {HTTPException: of_http, Exception: of_any}


def _refusal(kind: Kind, detail: str, path: str, root_path: str, **place: Any) -> Refusal:
    reason: Reason = place.pop("reason", kind.reason)
    headers = _HEADERS.get(kind.reason, {})
    if _is_inference(path):
        text = f"{kind.title.lower()}: {detail}" if kind is BUG else detail
        body = msgspec.json.encode(InferenceError(text))
        return Refusal(kind.status, body, reason, JSON, headers)
    if path.startswith(AZURE):
        code = "".join(word.capitalize() for word in kind.slug.split("-"))
        body = msgspec.json.encode(AzureError(code, detail))
        return Refusal(kind.status, body, reason, JSON, headers)
    problem = Problem(
        type=f"{root_path}/docs#{kind.slug}",
        title=kind.title,
        status=kind.status,
        detail=detail,
        instance=quote(root_path + path),
        **place,
    )
    return Refusal(kind.status, msgspec.json.encode(problem), reason, MEDIA_TYPE, headers)


def problems(*statuses: int) -> dict[int, ResponseSpec]:
    """What a route's OpenAPI entry says of its problems; every route can also answer 400, 405 and
    500.
    """
    return {
        status: ResponseSpec(
            Problem,
            description=describe(status),
            media_type=MEDIA_TYPE,
            generate_examples=False,
        )
        for status in sorted({*statuses, 400, 405, 500})
    }


def inference_errors(*statuses: int) -> dict[int, ResponseSpec]:
    """The same of a route under /v2."""
    return {
        status: ResponseSpec(
            InferenceError, description=spec.description, media_type=JSON, generate_examples=False
        )
        for status, spec in problems(*statuses).items()
    }


def _is_inference(path: str) -> bool:
    return path == "/v2" or path.startswith("/v2/")


def describe(status: int) -> str:
    """What an answer of that status can mean."""
    kinds = [kind for kind in (*KINDS.values(), *HTTP_KINDS.values(), BUG) if kind.status == status]
    return "; ".join(kind.title for kind in kinds) or HTTPStatus(status).description


def _detail(
    request: Request[Any, Any, Any], error: HTTPException, max_body_bytes: int, root_path: str
) -> str:
    path = request.scope["path"]
    if found := _KSERVE_V1.fullmatch(path):
        return (
            f"{found[2]} is of KServe's first protocol, which is not spoken here; rows go to"
            f" {root_path}{found[1]}/score, or in the Open Inference Protocol to"
            f" {root_path}/v2{found[1].removeprefix('/v1')}/infer"
        )
    if error.status_code == 404 and path.startswith(AZURE):
        return (
            f"there is nothing at {path}; of the retired Azure service's API v1.1/multivariate is"
            " spoken here, where --azure is set"
        )
    if error.status_code == 404:
        return f"there is nothing at {path}; {root_path}/docs lists what there is"
    if error.status_code == 405:
        return (
            f"{path} takes {(error.headers or {}).get('allow', 'other methods')}, got"
            f" {request.method}"
        )
    if error.status_code == 413:
        unpacked = " once decompressed" if request.headers.get("content-encoding") else ""
        return f"expected a body of at most {max_body_bytes} bytes{unpacked}, got more"
    if isinstance(error.extra, list):  # Litestar's list of what is wrong with parameters
        return "; ".join(f"{each.get('key')}: {each.get('message')}" for each in error.extra)
    return error.detail
