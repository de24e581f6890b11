"""How many rows a second `hourglass stream --kafka` answers.

    .venv/bin/python -m tests.benchmarks.kafka --rows 200000 --features 32 --entities 100 --window 1

The stream is a process of its own, with one thread that computes; its start is not counted, nor
what the brokers take. The mock cluster of this process keeps only the last 5 MB of a partition, so
rows are written some thousand at a time, while those before are scored.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec

from hourglass.service.model.artifact import Feature
from tests.artifacts import make_artifact, make_windowed_artifact, publish, sample_rows
from tests.kafka import Cluster

CHUNK = 2500  # rows that are written at once, over a megabyte of 32 features


def main() -> None:
    """Print rows per second of the clock and of the processor."""
    options = parser().parse_args()
    features = tuple(
        Feature(name=f"sensor_{d}", kind="numeric", minimum=-3.0, maximum=3.0)
        for d in range(options.features)
    )
    with tempfile.TemporaryDirectory() as folder:
        models = Path(folder) / "models"
        if options.window > 1:
            data = make_windowed_artifact(features, rows=options.window)
        else:
            data = make_artifact(features)
        publish(models, "plant", data)
        cluster = Cluster()
        cluster.make("rows", "scores", "scores-dead-letters")
        parts = [
            chunk(features, part * CHUNK, options.entities) for part in range(options.rows // CHUNK)
        ]
        command = [
            *(sys.executable, "-m", "hourglass.service", "stream", "--kafka", cluster.address),
            *("--input", "rows", "--output", "scores", "--model", "plant"),
            *("--models", str(models)),
        ]
        process = subprocess.Popen(command)
        try:
            cluster.put("rows", parts[0])
            cluster.wait("scores", CHUNK, 60)
            began, used = time.perf_counter(), cpu_seconds(process.pid)
            for done, part in enumerate(parts[1:], 1):
                cluster.put("rows", part)
                cluster.wait("scores", done * CHUNK, 60)
            cluster.wait("scores", len(parts) * CHUNK, 60)
            seconds = time.perf_counter() - began
            used = cpu_seconds(process.pid) - used
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)
    rows = (len(parts) - 1) * CHUNK
    print(
        f"{rows} rows of {options.features} features, {options.entities} entities, window"
        f" {options.window}: {rows / seconds:,.0f} rows/s,"
        f" {rows / used:,.0f} rows per second of processor"
    )


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.kafka")
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--features", type=int, default=32)
    parser.add_argument("--entities", type=int, default=100)
    parser.add_argument("--window", type=int, default=1)
    return parser


def chunk(features: tuple[Feature, ...], first: int, entities: int) -> list[tuple[str, bytes]]:
    """Rows of the entities in turn, a minute apart."""
    names = [feature.name for feature in features]
    found = sample_rows(features, CHUNK, seed=first).round(3).tolist()
    return [
        (
            f"entity-{(first + i) % entities}",
            msgspec.json.encode(
                {
                    "time": 1.7e9 + 60.0 * ((first + i) // entities),
                    **dict(zip(names, row, strict=True)),
                }
            ),
        )
        for i, row in enumerate(found)
    ]


def cpu_seconds(pid: int) -> float:
    """Of all threads of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
