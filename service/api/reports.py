"""The report that training wrote beside a model: as the page, or as the facts that it is made of.

A page is a file of the models' folder, not ours, and a model may come from elsewhere. So it has an
origin of its own (sandbox), from which nothing of this service can be asked, and loads nothing. Of
its inline script and style it says itself, by their hashes, that there are no others.
"""

import asyncio
from typing import Annotated, Any, Literal

from litestar import Request, Response, Router, get
from litestar.di import NamedDependency
from litestar.openapi import ResponseSpec
from litestar.params import FromPath, QueryParameter

from hourglass.service.api.body import wanted_report
from hourglass.service.api.entrance import NEEDS_READ
from hourglass.service.api.parts import Parts
from hourglass.service.api.problems import problems
from hourglass.service.errors import InvalidArtifact, NoReport
from hourglass.service.serving.store import REPORT_FILE, REPORT_PAGE

FILES = {"html": REPORT_PAGE, "json": REPORT_FILE}
MEDIA_TYPES = {"html": "text/html", "json": "application/json"}
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:;"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'self'; sandbox allow-scripts"
    ),
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",  # it may be made anew
    "Vary": "Accept",
}


@get(
    "/{name:str}/report",
    summary="Read the report of a fit",
    responses={
        200: ResponseSpec(
            str,
            description="The page; as application/json, for who prefers that, its facts.",
            media_type="text/html",
            generate_examples=False,
        ),
        **problems(404, 406, 409),
    },
)
async def show_report(
    request: Request[Any, Any, Any],
    parts: NamedDependency[Parts],
    name: FromPath[str],
    format: Annotated[  # noqa: A002  as it is called in the query
        Literal["html", "json"] | None,
        QueryParameter(description="The form; without it the Accept header decides."),
    ] = None,
    version: Annotated[
        str | None,
        QueryParameter(
            description="A version on disk, or its unambiguous beginning; without it the one in"
            " service.",
            pattern="^[0-9a-f]{1,64}$",
        ),
    ] = None,
) -> Response[bytes]:
    form = format or wanted_report(request.scope["headers"], request.scope["path"])
    served = await parts.registry.get(name)
    folder = parts.registry.store.model(name)

    def read() -> bytes:
        meant = served.detector.version if version is None else folder.version_meant(version)
        try:
            return folder.read_beside(meant, FILES[form])
        except FileNotFoundError as error:
            raise NoReport(
                f"version {meant[:12]} of {name!r} has no {FILES[form]} beside it; hourglass-train"
                " report makes one"
            ) from error
        except OSError as error:
            raise InvalidArtifact(f"{FILES[form]} cannot be read: {error.strerror}") from error

    return Response(await asyncio.to_thread(read), media_type=MEDIA_TYPES[form], headers=HEADERS)


router = Router("/v1/models", route_handlers=[show_report], opt=NEEDS_READ, tags=["models"])
