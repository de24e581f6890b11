"""A model swapped again and again under load, while others are reloaded and rubbish lies in the
folder: every answer is whole, and of a version that was in service.
"""

import os
import random
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic, sleep

import msgspec
import numpy as np

from hourglass.service.model.detector import Detector
from tests.artifacts import NUMERIC, as_json_rows, make_artifact, point, publish, sample_rows
from tests.benchmarks.hard.good import Float32
from tests.benchmarks.hard.protocol import Line, Options, none_of
from tests.serving import Process

CLIENTS = 4
TIMEOUT_SECONDS = 5.0  # of a request, and of a version until it is in service
PATIENCE = 5  # swaps that did not come, one after the other: then no more are tried
SCORE = "/v1/models/pump/score"
RAW, JSON = "application/octet-stream", "application/json"


class Answers:
    """What clients were answered, from several threads."""

    def __init__(self) -> None:
        self.right = self.foreign = 0
        self.failed: Counter[str] = Counter()
        self.by_version: Counter[str] = Counter()
        self.lock = threading.Lock()


def measure(options: Options) -> list[Line]:
    # each new version differs in every score from the one before it
    artifacts = [make_artifact(seed=1), make_artifact(seed=2, shift=2.0)]
    rows_ND = sample_rows(NUMERIC, 16, seed=3)
    with TemporaryDirectory() as folder:
        models = Path(folder)
        publish(models, "other", make_artifact(seed=4))
        expected = {
            publish(models, "pump", data): Detector.from_bytes(data).score(rows_ND).score
            for data in artifacts
        }
        answers, ended = Answers(), threading.Event()
        with Process(models, HOURGLASS_POLL_SECONDS="0.05") as server:
            port = int(server.url.rpartition(":")[2])
            clients = [
                threading.Thread(target=ask, args=(port, number, rows_ND, expected, answers, ended))
                for number in range(CLIENTS)
            ]
            for client in clients:
                client.start()
            began = monotonic()
            with rubbish(models), reloads(port) as reloaded:
                done, missed, seconds = swap(models, port, list(expected), options.swaps)
            took = monotonic() - began
            ended.set()
            for client in clients:
                client.join()
            died = server.popen.poll() is not None
        (options.output / "swaps.log").write_text("".join(server.log[-10_000:]))
    tracebacks = sum(line.startswith("Traceback") for line in server.log)
    return lines(done, missed, seconds, took, answers, reloaded, died=died, tracebacks=tracebacks)


def lines(
    done: int,
    missed: int,
    seconds: list[float],
    took: float,
    answers: Answers,
    reloaded: Counter[str],
    *,
    died: bool,
    tracebacks: int,
) -> list[Line]:
    failed = ", ".join(f"{what}: {count:,}" for what, count in sorted(answers.failed.items()))
    reloads_said = ", ".join(f"{what}: {count:,}" for what, count in sorted(reloaded.items()))
    median = f"{np.median(seconds):.2f} s, the longest {max(seconds):.2f} s" if seconds else "none"
    versions = " and ".join(f"{count:,}" for count in answers.by_version.values())
    return [
        Line(
            "swaps under load, with a FIFO, a device and garbage beside it; until it is in service",
            f"{done:,} in {took:.0f} s; {median}",
        ),
        none_of(f"swaps that did not come within {TIMEOUT_SECONDS:g} s", missed),
        Line("answers that are right, of either version", f"{answers.right:,}: {versions}"),
        none_of("answers that are of neither version, or mixed", answers.foreign),
        Line(
            "requests that failed",
            failed or "0",
            "0",
            not answers.failed,
        ),
        Line("reloads of the other models meanwhile, by status", reloads_said),
        none_of("deaths of the server while it swapped", died),
        none_of("tracebacks in its log while it swapped", tracebacks),
    ]


def swap(models: Path, port: int, versions: list[str], count: int) -> tuple[int, int, list[float]]:
    """Move the pointer to and fro, and wait until it is followed."""
    done = missed = in_a_row = 0
    seconds = []
    for number in range(count):
        version = versions[number % len(versions)]
        began = monotonic()
        point(models, "pump", version)
        while (late := monotonic() - began) < TIMEOUT_SECONDS:
            if version_of(port) == version:
                break
            sleep(0.01)
        if late < TIMEOUT_SECONDS:
            done, in_a_row = done + 1, 0
            seconds.append(late)
        else:
            missed, in_a_row = missed + 1, in_a_row + 1
            if in_a_row == PATIENCE:
                return done, missed + count - number - 1, seconds
    return done, missed, seconds


def version_of(port: int) -> str | None:
    with suppress(OSError, HTTPException, msgspec.DecodeError):
        _, body = request(connect(port), "GET", "/v1/models/pump")
        found = msgspec.json.decode(body)
        return str(found["version"]) if isinstance(found, dict) and "version" in found else None
    return None


def ask(
    port: int,
    number: int,
    rows_ND: Float32,
    expected: dict[str, Float32],
    answers: Answers,
    ended: threading.Event,
) -> None:
    """Rows, few or all, as JSON or float32, answered as either."""
    draw, connection = random.Random(number), connect(port)
    while not ended.is_set():
        start = draw.randrange(len(rows_ND))
        end = draw.randrange(start, len(rows_ND)) + 1
        sent_ND = rows_ND[start:end]
        body, headers = (
            (sent_ND.astype("<f4").tobytes(), {"Content-Type": RAW})
            if draw.random() < 0.3
            else (msgspec.json.encode({"rows": as_json_rows(NUMERIC, sent_ND)}),
                  {"Content-Type": JSON})
        )  # fmt: skip
        if raw := draw.random() < 0.3:
            headers["Accept"] = RAW
        version, scores = None, None
        try:
            connection.request("POST", SCORE, body, headers)
            response = connection.getresponse()
            said = response.read()
            if response.status != 200:
                failure = str(response.status)
            elif raw:
                failure, version = "", response.headers["hourglass-version"]
                scores = np.frombuffer(said, "<f4")[::2]
            else:
                failure, found = "", msgspec.json.decode(said)
                version, scores = found["version"], np.array(found["score"], np.float32)
        except (OSError, HTTPException) as error:
            failure = type(error).__name__
            connection.close()
            connection = connect(port)
        with answers.lock:
            if failure:
                answers.failed[failure] += 1
            elif version in expected and is_close(scores, expected[version][start:end]):
                answers.right += 1
                answers.by_version[version] += 1
            else:
                answers.foreign += 1
    connection.close()


def is_close(scores: Float32 | None, expected: Float32) -> bool:
    if scores is None or scores.shape != expected.shape:
        return False
    return bool(np.allclose(scores, expected, rtol=1e-5, atol=0))


@contextmanager
def rubbish(models: Path) -> Iterator[None]:
    """What a careless operator leaves beside the models, renewed all the time."""
    ended = threading.Event()

    def litter() -> None:
        draw = random.Random(0)
        for number in range(10**9):
            if ended.wait(0.2):
                return
            name = f"rubbish-{number % 12}"
            folder = models / name / ("a" * 64)
            folder.mkdir(parents=True, exist_ok=True)
            pointer, file = models / name / "current", folder / "model.onnx"
            for path in (pointer, file):
                with suppress(FileNotFoundError):
                    path.unlink()
            match number % 6:
                case 0:
                    os.mkfifo(pointer)
                case 1:
                    pointer.write_text("a" * 64)
                    os.mkfifo(file)
                case 2:
                    pointer.write_text("a" * 64)
                    file.symlink_to("/dev/zero")
                case 3:
                    pointer.symlink_to("/dev/zero")
                case 4:
                    pointer.write_text("a" * 64)
                    file.write_bytes(draw.randbytes(5000))
                case 5:
                    pointer.write_bytes(draw.randbytes(200))

    thread = threading.Thread(target=litter)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextmanager
def reloads(port: int) -> Iterator[Counter[str]]:
    """Other models asked to be reloaded all the time: what that was answered."""
    ended, said = threading.Event(), Counter[str]()

    def reload() -> None:
        for number in range(10**9):
            if ended.wait(0.05):
                return
            name = ("other", "rubbish-0", "rubbish-1", "rubbish-2", "nobody")[number % 5]
            try:
                status, _ = request(connect(port), "POST", f"/v1/models/{name}/reload")
                said[str(status)] += 1
            except (OSError, HTTPException) as error:
                said[type(error).__name__] += 1

    thread = threading.Thread(target=reload)
    thread.start()
    try:
        yield said
    finally:
        ended.set()
        thread.join()


def connect(port: int) -> HTTPConnection:
    return HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_SECONDS)


def request(connection: HTTPConnection, method: str, path: str) -> tuple[int, bytes]:
    """On a connection that is closed then."""
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()
