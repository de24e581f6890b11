"""A registry of schemas for tests, with what confluent-kafka's client asks of one."""

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit


class SchemaRegistry:
    """Each schema has a number and, in its subject, a version. `auth` is USER:PASSWORD."""

    def __init__(self, auth: str | None = None) -> None:
        self.schemas: list[dict[str, Any]] = []
        self.subjects: dict[str, list[int]] = {}
        self.asked: list[str] = []
        self.auth, self.status = auth, 200  # that everything is answered with, unless it is 200
        self.port, self._server = 0, None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """On the port that it had before."""
        registry = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._answer(None)

            def do_POST(self) -> None:
                self._answer(json.loads(self.rfile.read(int(self.headers["content-length"]))))

            def _answer(self, body: dict[str, Any] | None) -> None:
                registry.asked.append(self.path)
                status, said = registry.answer(self.path, body, self.headers["authorization"])
                sent = json.dumps(said).encode()
                self.send_response(status)
                self.send_header("content-type", "application/vnd.schemaregistry.v1+json")
                self.send_header("content-length", str(len(sent)))
                self.end_headers()
                self.wfile.write(sent)

            def log_message(self, *_: object) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """What it knows stays."""
        assert self._server is not None
        self._server.shutdown()
        self._server.server_close()

    def answer(
        self, path: str, body: dict[str, Any] | None, authorization: str | None
    ) -> tuple[int, dict[str, Any]]:
        """A status, and what is said."""
        if self.status != 200:
            return self.status, {"error_code": self.status, "message": "as the test wants it"}
        if self.auth is not None:
            expected = f"Basic {base64.b64encode(self.auth.encode()).decode()}"
            if authorization != expected:
                return 401, {"error_code": 401, "message": "Unauthorized"}
        match [unquote(each) for each in urlsplit(path).path.split("/")[1:]], body:
            case ["schemas", "ids", number], None if 1 <= int(number) <= len(self.schemas):
                return 200, self.schemas[int(number) - 1]
            case ["subjects", subject, "versions", version], None if subject in self.subjects:
                known = self.subjects[subject]
                place = -1 if version == "latest" else int(version) - 1
                said = {"subject": subject, "version": int(version), "id": known[place]}
                return 200, {**said, **self.schemas[known[place] - 1]}
            case ["subjects", subject, "versions"], dict():
                schema = {name: body[name] for name in body if name != "metadata"}
                if schema not in self.schemas:
                    self.schemas.append(schema)
                number = self.schemas.index(schema) + 1
                versions = self.subjects.setdefault(subject, [])
                if number not in versions:
                    versions.append(number)
                return 200, {"id": number, "version": versions.index(number) + 1, **schema}
        return 404, {"error_code": 40403, "message": "Schema not found"}

    def __enter__(self) -> "SchemaRegistry":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
