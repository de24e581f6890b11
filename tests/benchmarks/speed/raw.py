"""Bare onnxruntime: a part of the graph in a process of its own, one thread, nothing around it."""

import subprocess
import sys
import time
from pathlib import Path

import msgspec
import onnxruntime as ort

from hourglass.service.model.artifact import INPUT, P_VALUE, SCORE
from tests.benchmarks.machine import ROOT
from tests.benchmarks.speed.leg import Measured
from tests.benchmarks.speed.models import Model, make_rows, part_of_graph
from tests.benchmarks.speed.server import one_thread

OUTPUTS = (SCORE, P_VALUE)  # what a score request is answered with
CELLS = 2**15  # scored between two looks at the clock, about


class Ask(msgspec.Struct):
    rows: int  # of one call
    seconds: float


class Answer(msgspec.Struct):
    rows: int  # of all calls
    cpu_seconds: float
    wall_seconds: float


class Raw:
    """The process; it waits for what it is asked."""

    def __init__(self, model: Model, core: int, folder: Path) -> None:
        self.name, part = (
            f"{' and '.join(OUTPUTS)}, d = {model.width}",
            folder / f"{model.name}.onnx",
        )
        folder.mkdir(parents=True, exist_ok=True)
        part.write_bytes(part_of_graph(model, OUTPUTS))
        worker = [sys.executable, "-m", __name__, str(part), str(model.width)]
        self._popen = subprocess.Popen(
            ["taskset", "--cpu-list", str(core), *worker],
            cwd=ROOT,
            env=one_thread(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def __enter__(self) -> "Raw":
        return self

    def __exit__(self, *_: object) -> None:
        self._popen.communicate()

    def ask(self, rows: int, seconds: float) -> Answer:
        assert self._popen.stdin is not None
        assert self._popen.stdout is not None
        self._popen.stdin.write(msgspec.json.encode(Ask(rows, seconds)) + b"\n")
        self._popen.stdin.flush()
        return msgspec.json.decode(self._popen.stdout.readline(), type=Answer)


class RawLeg:
    """So many rows a call. What is measured is one row."""

    def __init__(self, raw: Raw, rows: int) -> None:
        self.name = f"onnxruntime, {raw.name}, {rows} row{'s' * (rows > 1)} a call"
        self._raw, self._rows = raw, rows

    def measure(self, seconds: int) -> Measured:
        answer = self._raw.ask(self._rows, seconds)
        return Measured(answer.cpu_seconds / answer.rows, answer.rows / answer.wall_seconds)


def main(path: str, width: str) -> None:
    """The worker: an Ask a line on standard input, an Answer a line on standard output."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    for line in sys.stdin.buffer:
        ask = msgspec.json.decode(line, type=Ask)
        fed = {INPUT: make_rows(ask.rows, int(width), seed=1)}
        calls = max(1, CELLS // fed[INPUT].size)
        session.run(None, fed)
        done, started, cpu = 0, time.perf_counter(), time.process_time()
        while time.perf_counter() < started + ask.seconds:
            for _ in range(calls):
                session.run(None, fed)
            done += calls
        answer = Answer(done * ask.rows, time.process_time() - cpu, time.perf_counter() - started)
        sys.stdout.buffer.write(msgspec.json.encode(answer) + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
