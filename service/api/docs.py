"""The OpenAPI document, and a Swagger UI that asks nothing of any other host."""

import gzip
import re
from collections.abc import Mapping, Sequence
from functools import cache
from html import escape
from pathlib import Path
from typing import Any, get_type_hints

import msgspec
import numpy as np
from litestar import Litestar, Request, Response, Router, get
from litestar.di import Provide
from litestar.exceptions import NotFoundException
from litestar.openapi import OpenAPIConfig
from litestar.params import FromPath
from litestar.routes import HTTPRoute
from litestar.types import ControllerRouterHandler

from hourglass.service import VERSION
from hourglass.service.api.entrance import (
    NEEDS_NO_KEY,
    NEEDS_READ,
    OF_NO_MODEL,
    OPENED_BY,
    scopes_of,
)
from hourglass.service.api.feedback import MAX_ENTITY
from hourglass.service.api.problems import BUG, HTTP_KINDS, KINDS, describe
from hourglass.service.api.replay import MAX_ALPHAS, MAX_PER_DAY
from hourglass.service.api.scoring import SampleRequest, ScoreAnswer
from hourglass.service.api.versions import Promotion
from hourglass.service.keys.file import Scope
from hourglass.service.model.artifact import (
    EXHIBIT_PREFIX,
    INPUT,
    MODEL_NAME,
    OUTPUTS,
    P_VALUE,
    SCORE,
    GuaranteeKind,
)
from hourglass.service.rows import decoding, encoding, tensors
from hourglass.service.rows.ordered import LONGEST_ENTITY
from hourglass.service.rows.times import FIRST_SECOND, LATEST
from hourglass.service.serving.store import ThresholdChange
from hourglass.service.settings import Settings
from hourglass.service.watch.feedback import MOST_NOTE

Json = dict[str, Any]

PATH = "/docs"
_FOLDER = Path(__file__).parent / "swagger"
_MEDIA_TYPES = {"swagger-ui.css": "text/css", "swagger-ui-bundle.js": "text/javascript"}
_SMALL_FILES = {
    "icon.svg": (
        "image/svg+xml",
        (
            '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><path fill="#b50" d="M3'
            ' 1h10v2L9 8l4 5v2H3v-2l4-5-4-5z"/></svg>'
        ),
    ),
    "start.js": (
        "text/javascript",
        (
            'SwaggerUIBundle({url: new URL("openapi.json", document.currentScript.src).href,'
            ' dom_id: "#ui", validatorUrl: null});\n'
        ),
    ),
}
_SNIFF = {"X-Content-Type-Options": "nosniff"}
# of every page; Swagger UI styles elements inline
PAGE_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:;"
        " frame-ancestors 'none'"
    ),
    **_SNIFF,
}
_KEEP = {"Cache-Control": "public, max-age=86400", **_SNIFF}


def docs_router(
    routes: Sequence[ControllerRouterHandler],
    dependencies: Mapping[str, Provide],
    settings: Settings,
) -> Router:
    """The routes that document these routes."""

    @cache
    def document() -> bytes:
        return msgspec.json.encode(write_document(routes, dependencies, settings))

    closed = {**NEEDS_READ, OF_NO_MODEL: True, OPENED_BY: "docs"}

    @get("/", opt=closed, sync_to_thread=False)
    def page() -> Response[str]:
        return Response(_page(settings.root_path), media_type="text/html", headers=PAGE_HEADERS)

    @get("/openapi.json", opt=closed, sync_to_thread=False)
    def openapi() -> Response[bytes]:
        return Response(document(), media_type="application/json", headers=_SNIFF)

    @get("/{file:str}", sync_to_thread=False)
    def asset(request: Request[Any, Any, Any], file: FromPath[str]) -> Response[bytes]:
        return _asset(file, request.headers.get("accept-encoding", ""))

    return Router(
        PATH, route_handlers=[page, openapi, asset], opt=NEEDS_NO_KEY, include_in_schema=False
    )


def write_document(
    routes: Sequence[ControllerRouterHandler],
    dependencies: Mapping[str, Provide],
    settings: Settings,
) -> Json:
    """The OpenAPI document: Litestar's, with what it cannot know (bodies read as bytes) and what it
    drops (limits).

    It comes from an app made for this alone, since Litestar's own documentation routes answer 404
    in HTML.
    """
    config = OpenAPIConfig(
        title="Hourglass",
        version=VERSION,
        description=(
            "How surprising is a vector, why, and how sure is that? Answers are learnt from normal"
            " vectors alone."
        ),
    )
    app = Litestar(routes, dependencies=dependencies, openapi_config=config, logging_config=None)
    document: Json = app.openapi_schema.to_schema()
    document["servers"] = [{"url": settings.root_path or "/"}]
    needed = _needed_scopes(app, settings) if settings.keys else {}
    if needed:
        document["components"]["securitySchemes"] = _SECURITY_SCHEMES
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if scopes := needed.get((path, method)):
                operation["security"] = [
                    {scheme: [scope]} for scope in scopes for scheme in _SECURITY_SCHEMES
                ]
                refused = operation["responses"]["405"]  # of the form that this path's errors have
                for status in (401, 403, 429):
                    operation["responses"][str(status)] = {
                        **refused,
                        "description": describe(status),
                    }
            if body := _body(path, method, settings):
                operation["requestBody"] = {"required": True, "content": body}
            if path.endswith(("/infer", "/score", "/decode")):
                operation["responses"]["200"]["content"][decoding.RAW] = {
                    "schema": {"type": "string", "format": "binary"}
                }
            if path.endswith("/report"):
                operation["responses"]["200"]["content"][decoding.JSON] = {
                    "schema": {"type": "object"}
                }
            if path.endswith("/score"):
                operation["responses"]["200"] |= {"description": _SCORES, "headers": _SCORE_HEADERS}
            for parameter in operation.get("parameters", ()):
                if parameter["in"] == "path":
                    parameter["schema"] = {
                        "type": "string",
                        "pattern": _PATTERNS[parameter["name"]],
                    }
                    if parameter["name"] == "entity":
                        parameter["schema"]["maxLength"] = LONGEST_ENTITY
                elif parameter["name"] in _QUERIES:
                    parameter["schema"] = _QUERIES[parameter["name"]]
                elif (
                    parameter["in"] == "header"
                ):  # one that is not sent is None to us, to a client it is no null
                    parameter["schema"] |= parameter["schema"].pop("oneOf")[0]
    _, components = msgspec.json.schema_components(
        [ThresholdChange, SampleRequest, Promotion],
        ref_template="#/components/schemas/{name}",
    )
    document["components"]["schemas"] |= components
    return document


def _needed_scopes(app: Litestar, settings: Settings) -> dict[tuple[str, str], tuple[Scope, ...]]:
    """By path and method as the document has them."""
    return {
        (re.sub(r":\w+}", "}", route.path_format), method.lower()): scopes_of(handler, settings)
        for route in app.routes
        if isinstance(route, HTTPRoute)
        for handler in route.route_handlers
        for method in handler.http_methods
    }


_SECURITY_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
}
_SCORES = (
    f"As {decoding.JSON} one array per quantity; entry i belongs to row i. As {decoding.RAW}, for"
    " who accepts that by name, little-endian float32, for each row its score and its p-value, and"
    " the rest as headers: a row is an anomaly if its score is above the threshold. Both are NaN"
    " of a row that a model of ordered rows cannot judge."
)
_HEADER_TYPES = {str: "string", GuaranteeKind: "string", bool: "boolean", float: "number"}
_SCORE_HEADERS = {
    encoding.raw_header(field): {
        "description": f"Of a raw answer: {field} as in JSON.",
        "schema": {"type": _HEADER_TYPES[hint]},
    }
    for field, hint in get_type_hints(ScoreAnswer).items()
    if hint in _HEADER_TYPES
}
# of what stands in a path
_PATTERNS = {
    "name": f"^({re.escape(EXHIBIT_PREFIX)})?{MODEL_NAME.pattern}$",
    "version": "^[0-9a-f]{64}$",
    "key": "^[0-9a-f]{16}$",
    "entity": "^[^/]+$",
}
_TIME = {"type": "string", "format": "date-time"}
_SECONDS_OR_TIME = {"anyOf": [{"type": "number", "minimum": -LATEST, "maximum": LATEST}, _TIME]}
_RATE = {"type": "number", "minimum": 1e-9, "maximum": 0.5}
# of what stands behind it
_QUERIES: dict[str, Json] = {
    "alpha": {"type": "array", "items": _RATE, "maxItems": MAX_ALPHAS},
    "since": _SECONDS_OR_TIME,
    "until": _SECONDS_OR_TIME,
}


def _body(path: str, method: str, settings: Settings) -> Json | None:
    """The content that a route's body may have; None of a route that takes none."""
    if method == "patch":
        return _small("ThresholdChange", {"alpha": 0.05})
    if method != "post":
        return None
    size = f"At most {settings.max_body_bytes} bytes."
    number = {"type": "number", "minimum": -_LARGEST, "maximum": _LARGEST}
    cell = {"anyOf": [number, {"type": "boolean"}, {"type": "string"}, {"type": "null"}]}
    row = {
        "description": "An array in feature order, or an object by feature name; null is missing.",
        "anyOf": [
            {"type": "array", "items": cell, "minItems": 1},
            {"type": "object", "additionalProperties": cell, "minProperties": 1},
        ],
    }
    match path.rpartition("/")[2]:
        case "score" | "explain" | "reconstruct" | "encode" | "replay" | "{entity}" as what:
            raw = (
                f"Little-endian float32, row after row; NaN is missing, a category its code. {size}"
            )
            schema, example = _object("rows", row, settings.max_rows, size), [[0.5, None, -1.25]]
            schema["properties"] |= _ordered(settings.max_rows)
            if what == "replay":
                schema["properties"] |= _replayed(settings.max_rows)
            if what == "{entity}":
                schema["properties"] |= _timed(settings.max_rows)
            return {
                decoding.JSON: {"schema": schema, "example": {"rows": example}},
                decoding.RAW: {"schema": _octets(raw)},
            }
        case "decode":
            code = {"type": "array", "items": number, "minItems": 1}
            schema = _object("codes", code, settings.max_rows, size)
            raw = f"Little-endian float32, code after code. {size}"
            return {
                decoding.JSON: {"schema": schema, "example": {"codes": [[0.5, -1.25]]}},
                decoding.RAW: {"schema": _octets(raw)},
            }
        case "infer":
            packed = f"gzip or deflate if a Content-Encoding says so. {size}"
            raw = (
                "The JSON, without data but with a binary_data_size, and then the tensor's"
                f" little-endian bytes; {packed}"
            )
            return {
                decoding.JSON: {"schema": _inference(number, packed), "example": _INFERENCE},
                decoding.RAW: {"schema": _octets(raw)},
            }
        case "sample":
            return _small("SampleRequest", {"count": 2, "seed": 0})
        case "promote":
            return _small("Promotion", {"version": "1fec4a81f648"})
        case "feedback":
            said = {"verdict": "real", "key": "0123456789abcdef"}
            return {decoding.JSON: {"schema": _feedback(row), "example": said}}
        case _:
            return None


def _small(schema: str, example: Json) -> Json:
    return {
        decoding.JSON: {"schema": {"$ref": f"#/components/schemas/{schema}"}, "example": example}
    }


def _feedback(row: Json) -> Json:
    """A verdict on a group or on a row, or until when a group's like is muted."""
    entity, note = ({"type": "string", "maxLength": most} for most in (MAX_ENTITY, MOST_NOTE))
    key = {"type": "string", "pattern": _PATTERNS["key"]}
    said = {"enum": ["real", "expected"]}

    def one(required: list[str], **properties: Json) -> Json:
        return {
            "type": "object",
            "required": required,
            "properties": {**properties, "note": note},
            "additionalProperties": False,
        }

    return {
        "anyOf": [
            one(["verdict", "key"], verdict=said, key=key),
            one(["verdict", "row"], verdict=said, row=row, entity=entity),
            one(["verdict", "key", "until"], verdict={"const": "mute"}, key=key, until=_TIME),
        ]
    }


def _ordered(max_rows: int) -> Json:
    """What is said of the order of rows beside them; only to a model of rows in order."""
    entity = {"type": "string", "minLength": 1, "maxLength": LONGEST_ENTITY}
    time = _SECONDS_OR_TIME
    return {
        "entity": {
            "description": (
                "Of a model of ordered rows: whose the rows are, or each of them; without it they"
                " are one's."
            ),
            "anyOf": [entity, {"type": "array", "items": entity, "maxItems": max_rows}],
        },
        "time": {
            "description": (
                "Of a model of ordered rows: when each was, in seconds, or as ISO 8601 has it; it"
                " never goes back within an entity."
            ),
            "type": "array",
            "items": time,
            "maxItems": max_rows,
        },
    }


def _replayed(max_rows: int) -> Json:
    """What a replay is asked beside its rows."""
    label = {"enum": [0, 1, False, True, None]}
    return {
        "alphas": {"type": "array", "items": _RATE, "minItems": 1, "maxItems": MAX_ALPHAS},
        "labels": {
            "type": "array",
            "items": label,
            "maxItems": max_rows,
            "description": "Of each row: 1 is an anomaly, 0 a normal row, null neither.",
        },
        "rows_per_day": {"type": "number", "exclusiveMinimum": 0, "maximum": MAX_PER_DAY},
    }


def _timed(max_rows: int) -> Json:
    """When the rows of a stream were; without it they come now."""
    seconds = {"type": "number", "minimum": FIRST_SECOND, "maximum": LATEST}
    times = {"type": "array", "items": {"anyOf": [seconds, _TIME]}, "maxItems": max_rows}
    described = "Of each row, in seconds since 1970 or as ISO 8601, each later than the one before."
    return {"time": {"description": described, "anyOf": [seconds, _TIME, times]}}


def _octets(description: str) -> Json:
    return {"type": "string", "format": "binary", "description": description, "minLength": 4}


def _object(field: str, item: Json, max_rows: int, description: str) -> Json:
    rows = {"type": "array", "items": item, "minItems": 1, "maxItems": max_rows}
    return {
        "type": "object",
        "description": description,
        "required": [field],
        "additionalProperties": False,
        "properties": {field: rows},
    }


def _inference(number: Json, description: str) -> Json:
    cell = {"anyOf": [number, {"type": "boolean"}, {"type": "null"}]}
    tensor = {
        "type": "object",
        "required": ["name", "shape", "datatype", "data"],
        "properties": {
            "name": {"const": INPUT},
            "shape": {
                "type": "array",
                "items": {"type": "integer", "minimum": 1},
                "minItems": 2,
                "maxItems": 2,
            },
            "datatype": {"enum": list(tensors.DATATYPES)},
            "data": {
                "description": (
                    "Row after row, flat or an array for each; null is missing, a category its"
                    " code."
                ),
                "anyOf": [
                    {"type": "array", "items": cell, "minItems": 1},
                    {
                        "type": "array",
                        "items": {"type": "array", "items": cell, "minItems": 1},
                        "minItems": 1,
                    },
                ],
            },
        },
    }
    output = {
        "type": "object",
        "required": ["name"],
        "properties": {
            "name": {"enum": list(OUTPUTS)},
            "parameters": {"type": "object", "properties": {"binary_data": {"type": "boolean"}}},
        },
    }
    return {
        "type": "object",
        "description": description,
        "required": ["inputs"],
        "properties": {
            "id": {"type": "string"},
            "inputs": {"type": "array", "items": tensor, "minItems": 1, "maxItems": 1},
            "outputs": {"type": "array", "items": output},
            "parameters": {
                "type": "object",
                "properties": {"binary_data_output": {"type": "boolean"}},
            },
        },
    }


_INFERENCE = {
    "inputs": [
        {"name": INPUT, "shape": [1, 3], "datatype": tensors.DATATYPE, "data": [0.5, None, -1.25]}
    ],
    "outputs": [{"name": SCORE}, {"name": P_VALUE}],
}
_LARGEST = float(np.finfo(np.float32).max)


def _asset(file: str, accept_encoding: str) -> Response[bytes]:
    if file in _SMALL_FILES:
        media_type, text = _SMALL_FILES[file]
        return Response(text.encode(), media_type=media_type, headers=_KEEP)
    if file not in _MEDIA_TYPES:
        raise NotFoundException
    packed, headers = (_FOLDER / f"{file}.gz").read_bytes(), {**_KEEP, "Vary": "Accept-Encoding"}
    if "gzip" in accept_encoding:
        return Response(
            packed, media_type=_MEDIA_TYPES[file], headers={**headers, "Content-Encoding": "gzip"}
        )
    return Response(gzip.decompress(packed), media_type=_MEDIA_TYPES[file], headers=headers)


def _page(root_path: str) -> str:
    """The page; below the routes, what the `type` of each problem points to."""
    path = root_path + PATH
    kinds = dict.fromkeys((*KINDS.values(), *HTTP_KINDS.values(), BUG))
    problems = "\n".join(
        f'<dt id="{kind.slug}">{kind.slug}</dt><dd>{kind.status}: {escape(kind.title)}.</dd>'
        for kind in kinds
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Hourglass</title>
<link rel="icon" href="{path}/icon.svg">
<link rel="stylesheet" href="{path}/swagger-ui.css">
<style>
#problems {{ max-width: 1460px; margin: 0 auto 4rem; padding: 0 20px; font-family: sans-serif }}
</style>
</head>
<body>
<div id="ui"></div>
<section id="problems">
<h2>Problems</h2>
<dl>
{problems}
</dl>
</section>
<script src="{path}/swagger-ui-bundle.js"></script>
<script src="{path}/start.js"></script>
</body>
</html>
"""
