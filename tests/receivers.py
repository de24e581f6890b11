"""A real HTTP server that is told of events: it answers as it is told to, and keeps what came."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

HANG, RESET, NONSENSE = 0, -1, -2  # in place of a status


class Received(NamedTuple):
    at: float
    path: str
    headers: dict[str, str]
    body: bytes


class Receiver:
    """Answers with these statuses in turn, then with 200."""

    def __init__(self, port: int, answers: list[int], location: str | None) -> None:
        self.port, self.answers, self.location = port, answers, location
        self.received: list[Received] = []
        self.released = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"


@contextmanager
def receiving(*answers: int, location: str | None = None) -> Iterator[Receiver]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            receiver.received.append(Received(time.monotonic(), self.path, headers, body))
            answer = receiver.answers.pop(0) if receiver.answers else 200
            if answer == HANG:
                receiver.released.wait(20)
                return
            if answer == RESET:
                self.close_connection = True
                return
            if answer == NONSENSE:
                self.wfile.write(b"220 mail.example ESMTP\r\n")
                self.close_connection = True
                return
            with suppress(OSError):
                self.send_response(answer)
                if receiver.location:
                    self.send_header("location", receiver.location)
                self.send_header("content-length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver = Receiver(server.server_address[1], list(answers), location)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield receiver
    finally:
        receiver.released.set()
        server.shutdown()
        thread.join()
        server.server_close()
