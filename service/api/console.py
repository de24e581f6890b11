"""The console at /: the page and its files, as they lie in service/console/; nothing is built."""

import hashlib
from pathlib import Path, PurePosixPath
from typing import Any

from litestar import Request, Response, Router, get
from litestar.exceptions import NotFoundException
from litestar.params import FromPath
from litestar.response import Redirect

from hourglass.service import VERSION
from hourglass.service.api.entrance import NEEDS_NO_KEY
from hourglass.service.api.reports import HEADERS as REPORT_HEADERS
from hourglass.service.settings import Settings

_FOLDER = Path(__file__).parents[1] / "console"
_PAGE = "index.html"
_REPORT = "report.html"  # shows a page that came with a model, with the rights of that alone
_MEDIA_TYPES = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".json": "application/json",
    ".svg": "image/svg+xml",
}
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';"
        " img-src 'self' data: blob:; frame-src 'self'; base-uri 'none'; form-action 'none';"
        " frame-ancestors 'none'"
    ),
    "Cache-Control": "no-cache",  # asked for each time, and sent where it has changed
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def console_router(settings: Settings) -> Router:
    """The routes of the page and of its files; every address in them is relative, so that they work
    behind any proxy.
    """

    files = frozenset(
        path.relative_to(_FOLDER).as_posix() for path in _FOLDER.rglob("*") if path.is_file()
    )
    page_bytes = _write_page(settings, files)

    def answer(request: Request[Any, Any, Any], file: str) -> Response[bytes]:
        content = page_bytes if file == _PAGE else (_FOLDER / file).read_bytes()
        etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
        headers = {**_HEADERS, **(REPORT_HEADERS if file == _REPORT else {}), "ETag": etag}
        if etag in request.headers.get("if-none-match", ""):
            return Response(b"", status_code=304, headers=headers)
        kind = _MEDIA_TYPES.get(PurePosixPath(file).suffix, "application/octet-stream")
        return Response(content, media_type=kind, headers=headers)

    @get("/", sync_to_thread=False)
    def page(request: Request[Any, Any, Any]) -> Response[Any]:
        asked = request.scope.get("raw_path", b"").decode("latin-1")
        if settings.root_path and asked == settings.root_path:
            return Redirect(f"{settings.root_path}/")  # from where relative addresses lead on
        return answer(request, _PAGE)

    @get("/console/{file:path}", sync_to_thread=False)
    def asset(request: Request[Any, Any, Any], file: FromPath[str]) -> Response[bytes]:
        name = file.lstrip("/")
        if name not in files or name == _PAGE:
            raise NotFoundException
        return answer(request, name)

    return Router("/", route_handlers=[page, asset], opt=NEEDS_NO_KEY, include_in_schema=False)


def _write_page(settings: Settings, files: frozenset[str]) -> bytes:
    """The page, which says what it may offer: which views there are, and whether anything can be
    changed.
    """
    views = sorted(
        PurePosixPath(file).stem
        for file in files
        if file.startswith("views/") and file.endswith(".js") and file.count("/") == 1
        if settings.learn or file != "views/learn.js"
    )
    page = (_FOLDER / _PAGE).read_text()
    for word, value in (
        ("READ_ONLY", str(settings.read_only).lower()),
        ("VIEWS", " ".join(views)),
        ("VERSION", VERSION),
    ):
        page = page.replace(word, value, 1)
    return page.encode()
