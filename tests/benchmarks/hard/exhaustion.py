"""Attacks on a fresh server each, while a bystander scores single rows: its p99 against what it was
before, the server's peak memory, and what the attack was answered. Another bystander asks a server
that does nothing: what it waits meanwhile is the machine's doing.
"""

import resource
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import sleep
from typing import NamedTuple

from hourglass.service.model.artifact import Feature
from tests.artifacts import make_artifact, publish
from tests.benchmarks.hard.attacks import ATTACKS, MIB, WIDE, WIDTH, Attack, Said
from tests.benchmarks.hard.bystander import Ask, Bystander, Phases
from tests.benchmarks.hard.canned import Canned
from tests.benchmarks.hard.good import MODEL, make_goods
from tests.benchmarks.hard.protocol import Line, Options
from tests.benchmarks.speed.server import status_bytes
from tests.serving import Process

IDLE_SECONDS = 3.0
SLOWER = 4.0  # p99 under attack, over the idle one
TIMES_THE_BODY = 8.0
DESCRIPTORS = 8192


class Outcome(NamedTuple):
    """Of an attack, in all its rounds."""

    phases: list[Phases]
    canned: list[Phases]  # of the server that does nothing
    said: Said
    grown_bytes: int  # at the peak
    died: bool


def measure(options: Options) -> list[Line]:
    found = []
    for name in options.attacks or ATTACKS:
        attack = ATTACKS[name]
        said = lines(attack, outcome_of(name, attack, options), options)
        for line in said:
            print(f"{line.what}: {line.now}", file=sys.stderr, flush=True)
        found += said
    return found


def outcome_of(name: str, attack: Attack, options: Options) -> Outcome:
    artifact = make_artifact()
    good = make_goods(artifact)["json"][0]
    features = [Feature(name=f"x{d}", kind="numeric") for d in range(WIDTH)]
    with TemporaryDirectory() as folder:
        publish(Path(folder), MODEL, artifact)
        publish(Path(folder), WIDE, make_artifact(features))
        with Process(Path(folder)) as server:
            port, pid = int(server.url.rpartition(":")[2]), server.popen.pid
            _allow_descriptors()  # ours: the server has what it was started with
            ask, said = Ask(port, good.data, float(good.score)), Said()
            with Canned() as canned, Bystander(ask) as scoring, Bystander(canned.ask) as idle:
                Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak is now
                before = memory(pid, "VmRSS")
                for _ in range(options.rounds):
                    _begin_phase(scoring, idle)
                    sleep(IDLE_SECONDS)
                    _begin_phase(scoring, idle)
                    said += attack.run(port, options)
                    sleep(1.0)  # so that a phase holds some requests, however short the attack
                peak = memory(pid, "VmHWM")
                phases, of_canned = scoring.end(), idle.end()
            died = server.popen.poll() is not None
        (options.output / f"exhaustion-{name}.log").write_text("".join(server.log[-2000:]))
    return Outcome(phases, of_canned, said, peak - before, died)


def _begin_phase(*bystanders: Bystander) -> None:
    for bystander in bystanders:
        bystander.begin_phase()


def lines(attack: Attack, outcome: Outcome, options: Options) -> list[Line]:
    ratio = _ratio(outcome.phases)
    right = sum(len(each.attacked.seconds) for each in outcome.phases)
    failed = sum(each.attacked.failed for each in outcome.phases)
    slower = (
        f"{_times(outcome.phases)}; right {right:,}, failed {failed};"
        f" a server that does nothing {_times(outcome.canned)}"
    )
    grown = f"{outcome.grown_bytes / MIB:.0f} MiB"
    most = None if attack.bytes_ is None else TIMES_THE_BODY * attack.bytes_ * options.scale
    answered = ", ".join(f"{what}: {count:,}" for what, count in sorted(outcome.said.items()))
    all_closed = not outcome.said["open at the end"] if attack.closes else None
    return [
        Line(
            f"{attack.what}: p99 of single rows beside it",
            slower,
            f"at most {SLOWER:g} ×, none failed",
            ratio <= SLOWER and not failed,
        ),
        Line(
            "the same: memory at its peak, over that before",
            grown,
            "–" if most is None else f"at most {most / MIB:.0f} MiB",
            None if most is None else outcome.grown_bytes <= most,
        ),
        Line(
            "the same: what it was answered",
            answered + (", the server died" if outcome.died else ""),
            "none is open at the end" if attack.closes else "–",
            False if outcome.died else all_closed,
        ),
    ]


def _ratio(phases: Sequence[Phases]) -> float:
    """The rounds' median of p99 under attack over the idle one."""
    return median(each.attacked.p99_seconds / each.idle.p99_seconds for each in phases)


def _times(phases: Sequence[Phases]) -> str:
    idle, attacked = (
        median(each.p99_seconds for each in those) * 1e3 for those in zip(*phases, strict=True)
    )
    return f"{_ratio(phases):.1f} × (idle {idle:.1f} ms, then {attacked:.1f} ms)"


def memory(pid: int, field: str) -> int:
    try:
        return status_bytes(Path(f"/proc/{pid}/status").read_text(), field)
    except OSError:
        return 0


def _allow_descriptors() -> None:
    """Of this process, which is all the clients."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < DESCRIPTORS:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(DESCRIPTORS, hard), hard))
