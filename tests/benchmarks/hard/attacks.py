"""What a client does that wants to use a server up: each attack says what it was answered."""

import gzip
import json
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from time import monotonic, sleep
from typing import NamedTuple

from tests.benchmarks.hard.answers import NoAnswer, take_answer
from tests.benchmarks.hard.good import MODEL
from tests.benchmarks.hard.protocol import Options

MIB = 2**20
BODY_BYTES = 32 * MIB
WIDE, WIDTH = "wide", 256  # a model of which 65,536 rows are such a body
TIMEOUT_SECONDS = 60
JSON, OCTETS = "application/json", "application/octet-stream"
HEAD = f"POST /v1/models/{MODEL}/score HTTP/1.1\r\nHost: localhost\r\n".encode()

Said = Counter[str]  # statuses, and what came instead of one


class Attack(NamedTuple):
    what: str
    run: Callable[[int, Options], Said]
    bytes_: float | None = None  # of one body, of which its memory is a multiple
    closes: bool = False  # all its connections are to be closed or answered meanwhile


def burn(port: int, options: Options) -> Said:
    """Nothing is sent: what it is worth that two other processes keep two cores busy."""
    loop = f"from time import *\nend = time() + {options.hold_seconds / 3}\nwhile time() < end: 1"
    burning = [subprocess.Popen([sys.executable, "-c", loop]) for _ in range(2)]
    for each in burning:
        each.wait()
    return Counter(["nothing was sent"])


def head_of_lines(port: int, options: Options) -> Said:
    lines = b"a:b\r\n" * int(40 * MIB * options.scale / 5)
    return Counter([ask(port, HEAD, lines, b"\r\n")])


def request_line(port: int, options: Options) -> Said:
    path = b"a" * int(100 * MIB * options.scale)
    return Counter([ask(port, b"GET /", path, b" HTTP/1.1\r\nHost: localhost\r\n\r\n")])


def half_heads(port: int, options: Options) -> Said:
    return hold(port, HEAD + b"Content-Type: applic", int(2000 * options.scale), options)


def half_bodies(port: int, options: Options) -> Said:
    begin = HEAD + b'Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"rows":[['
    return hold(port, begin, int(2000 * options.scale), options)


def nothing(port: int, options: Options) -> Said:
    return hold(port, b"", int(2000 * options.scale), options)


def bodies_less_a_byte(port: int, options: Options) -> Said:
    size = int(BODY_BYTES * options.scale)
    body = memoryview(b'{"rows":[[' + b"1," * (size // 2))[: size - 1]
    said: Said = Counter()
    end = monotonic() + options.hold_seconds

    def send() -> None:
        begin = HEAD + b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % size
        said[ask(port, begin, body, until=end)] += 1

    together([send] * 40)
    return said


def pipelines_unread(port: int, options: Options) -> Said:
    """Ten clients that ask as fast as they are let, and read nothing."""
    requests = b"GET /v1/models/%b HTTP/1.1\r\nHost: localhost\r\n\r\n" % MODEL.encode() * 200
    end = monotonic() + options.hold_seconds
    said: Said = Counter()
    with ExitStack() as stack:
        left = {stack.enter_context(connect(port)) for _ in range(10)}
        for each in left:
            each.setblocking(False)
        while left and monotonic() < end:
            for each in list(left):
                try:
                    each.send(requests)
                except BlockingIOError:
                    pass
                except OSError:
                    said["closed"] += 1
                    left.remove(each)
            sleep(0.002)
        said["open at the end"] += len(left)
    return said


def slow_clients(port: int, options: Options) -> Said:
    """A byte of a request every half second."""
    request = HEAD + b"Content-Type: application/json\r\nContent-Length: 20\r\n\r\n"
    end = monotonic() + options.hold_seconds
    said: Said = Counter()
    with ExitStack() as stack:
        left = [stack.enter_context(connect(port)) for _ in range(int(500 * options.scale))]
        for byte in request:
            if monotonic() > end:
                break
            left = [each for each in left if is_taken(each, bytes([byte]), said)]
            sleep(0.5)
        said["open at the end"] += len(left)
    return said


def is_taken(connection: socket.socket, byte: bytes, said: Said) -> bool:
    """Whether the byte could be sent, and nothing was said yet."""
    with suppress(OSError):
        connection.send(byte)
        connection.setblocking(False)
        try:
            answer = connection.recv(100)
        except BlockingIOError:
            return True
        said[answer[9:12].decode() or "closed"] += 1
        return False
    said["closed"] += 1
    return False


def posts(
    path: str, content_type: str, make: Callable[[int], bytes], encoding: str = ""
) -> Callable[[int, Options], Said]:
    """The same body, one after the other: three times, and on for a third of the seconds that a
    slow client stays, so that a p99 is one of some hundred requests.
    """

    def run(port: int, options: Options) -> Said:
        body = make(int(BODY_BYTES * options.scale))
        lines = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Type: {content_type}"]
        lines += [f"Content-Encoding: {encoding}"] if encoding else []
        head = "\r\n".join((*lines, f"Content-Length: {len(body)}", "", "")).encode()
        said, end = Counter([ask(port, head, body) for _ in range(3)]), monotonic()
        end += options.hold_seconds / 3
        while monotonic() < end:
            said[ask(port, head, body)] += 1
        return said

    return run


def keys(size: int) -> bytes:
    """An object of as many keys as go in: 2.6 million."""
    count = size // 13 + 1
    names = (b'"%x":1' % number for number in range(count))
    body = b'{"rows":[{' + b",".join(names)
    return body[: body.rindex(b",", 0, size - 3)] + b"}]}"


def numbers(name: str) -> Callable[[int], bytes]:
    """Numbers, and one that is none."""
    begin = b'{"%b":[[' % name.encode()
    return lambda size: begin + b"1," * ((size - len(begin) - 6) // 2) + b"NaN]]}"


def rows(size: int) -> bytes:
    """Of the wide model, and right."""
    row = b"[" + b"1," * (WIDTH - 1) + b"1]"
    return b'{"rows":[' + b",".join([row] * ((size - 20) // (len(row) + 1))) + b"]}"


def tensor(size: int) -> bytes:
    count = (size - 200) // 2 // WIDTH
    head = {"name": "features", "shape": [count, WIDTH], "datatype": "FP32", "data": []}
    begin = json.dumps({"inputs": [head]}).encode().removesuffix(b"]}]}")
    return begin + b"1," * (count * WIDTH - 1) + b"1]}]}"


def floats(size: int) -> bytes:
    return b"\x00\x00\x80\x3f" * (size // 4 // WIDTH * WIDTH)


def bomb(size: int) -> bytes:
    """A gzip of 1,000 times its size."""
    return gzip.compress(bytes(size * 4), 6)


def hold(port: int, begin: bytes, count: int, options: Options) -> Said:
    """So many connections that say this and then nothing: what they are told meanwhile."""
    said: Said = Counter()
    with ExitStack() as stack:
        connections = []
        for _ in range(count):
            try:
                connection = stack.enter_context(connect(port))
                connection.sendall(begin)
                connections.append(connection)
            except OSError:
                said["not accepted"] += 1
        sleep(options.hold_seconds)
        for connection in connections:
            connection.setblocking(False)
            said[what_is_said(connection)] += 1
    return said


def what_is_said(connection: socket.socket) -> str:
    try:
        return connection.recv(1000)[9:12].decode() or "closed"
    except BlockingIOError:
        return "open at the end"
    except OSError:
        return "closed"


def ask(port: int, *parts: bytes | memoryview, until: float | None = None) -> str:
    """Send what can be sent; the status of the answer, or what came in its place. Until then at the
    latest, if a moment is given.
    """
    with connect(port) as connection:
        if until is not None:
            connection.settimeout(max(0.1, until - monotonic()))
        with suppress(OSError):
            for part in parts:
                connection.sendall(part)
        received = bytearray()
        try:
            while (answer := take_answer(received, "POST")) is None:
                if not (data := connection.recv(2**18)):
                    return "closed"
                received += data
        except TimeoutError:
            return "open at the end"
        except (OSError, NoAnswer):
            return "closed"
        return str(answer.status)


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_SECONDS)


def together(calls: list[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=call) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _bodies() -> Iterator[tuple[str, Attack]]:
    score = f"/v1/models/{MODEL}/score"
    yield "keys", Attack("2.6 million keys to /score", posts(score, JSON, keys), BODY_BYTES)
    for route, name in (
        ("explain", "rows"), ("reconstruct", "rows"), ("encode", "rows"), ("decode", "codes"),
        ("score", "rows"),
    ):  # fmt: skip
        what, path = f"16 million numbers and a NaN to /{route}", f"/v1/models/{MODEL}/{route}"
        yield f"nan-{route}", Attack(what, posts(path, JSON, numbers(name)), BODY_BYTES)
    for route in ("score", "reconstruct", "encode"):
        what, path = f"16 million numbers to /{route}, and right", f"/v1/models/{WIDE}/{route}"
        yield f"wide-{route}", Attack(what, posts(path, JSON, rows), BODY_BYTES)
    score, infer = f"/v1/models/{WIDE}/score", f"/v2/models/{WIDE}/infer"
    yield "floats", Attack("32 MiB of float32 to /score", posts(score, OCTETS, floats), BODY_BYTES)
    yield (
        "tensor",
        Attack("16 million numbers to /v2 infer", posts(infer, JSON, tensor), BODY_BYTES),
    )
    yield (
        "bomb",
        Attack("a gzip of 128 MiB to /v2 infer", posts(infer, JSON, bomb, "gzip"), BODY_BYTES),
    )


ATTACKS: dict[str, Attack] = {
    "burn": Attack("no attack, but two processes that keep two cores busy", burn),
    "head": Attack("a head of 40 MiB", head_of_lines),
    "line": Attack("a request line of 100 MiB", request_line),
    "silence": Attack("2,000 that say nothing", nothing, closes=True),
    "half-heads": Attack("2,000 half heads, then silence", half_heads, closes=True),
    "half-bodies": Attack("2,000 half bodies, then silence", half_bodies, closes=True),
    "less-a-byte": Attack("40 bodies of 32 MiB less a byte", bodies_less_a_byte, closes=True),
    "unread": Attack("10 pipelines of GETs whose client reads nothing", pipelines_unread),
    "slow": Attack("500 clients of two bytes a second", slow_clients, closes=True),
    **dict(_bodies()),
}
