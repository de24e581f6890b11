"""A server that does nothing: it answers every request with the same bytes, as soon as it has come.

What a bystander waits for its answers while others keep the machine busy, the machine makes it wait.
"""

import socket
import subprocess
import sys
from typing import Self

from tests.benchmarks.hard.bystander import Ask
from tests.benchmarks.machine import ROOT

SCORE = 0.5
BODY = b'{"score":[%.1f]}' % SCORE
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Canned:
    """The process, from here; what to ask it."""

    def __enter__(self) -> Self:
        self._popen = subprocess.Popen(
            [sys.executable, "-m", __name__], cwd=ROOT, stdout=subprocess.PIPE
        )
        assert self._popen.stdout is not None
        self.ask = Ask(int(self._popen.stdout.readline()), REQUEST, SCORE)
        return self

    def __exit__(self, *_: object) -> None:
        self._popen.kill()
        self._popen.communicate()


def main() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        print(listening.getsockname()[1], flush=True)
        while True:
            connection, _ = listening.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with connection:
                while connection.recv(2**16):  # a request is far smaller and comes in one piece
                    connection.sendall(ANSWER)


if __name__ == "__main__":
    main()
