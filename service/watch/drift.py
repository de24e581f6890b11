"""Drift: looks at live rows beside the event loop, in windows, and says what has moved.

Metrics tells it of runs. On the loop it copies a random share of the rows, all of them where they
are few; a thread of its own turns them into codes of bins and writes those behind, so that several
workers fill one window. A window is complete with as many rows as the settings say, four times as
many where the model's rows depend on each other, and after as many seconds. What two windows
running find is a drift, what the last one found alone a suspicion.

Whatever fails here is a line in the log.
"""

import asyncio
import hashlib
import logging
import math
import random
import sqlite3
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hourglass.service.errors import DriftFailed
from hourglass.service.model.detector import Scores
from hourglass.service.model.served import Served
from hourglass.service.serving.registry import Registry
from hourglass.service.watch.drift_store import DriftStore, Open, Piece
from hourglass.service.watch.drift_window import (
    DriftWindow,
    Finding,
    Sampled,
    What,
    is_exchangeable,
    judge,
)
from hourglass.service.watch.reference import Reference, encode, references_of

Float32 = NDArray[np.float32]
State = Literal["unknown", "stable", "suspected", "drifting"]

WRITE_SECONDS = 1.0, 10.0  # between writings, a hundredth of a window where that is within
DEPENDENT = 4  # times as many rows, where they depend on each other
MOST_TIMES = 4  # as many rows as it needs a window looks at
MOST_CELLS = 2**17  # of a model that are copied between writings
LATER = 8192  # rows, after which it is asked again where no more are wanted
MEMORY = 0.1  # of the pace of rows: what a second weighs
_logger = logging.getLogger(__name__)


class Found(NamedTuple):
    """A finding of the last window, and of how many running up to it."""

    finding: Finding
    since: float  # when the first of them began, in seconds since the epoch
    windows: int

    @property
    def is_drift(self) -> bool:
        """Whether more than one window found it."""
        return self.windows > 1


class Report(NamedTuple):
    """What is known of one version of a model."""

    windows: Sequence[DriftWindow]  # the last ones first
    found: Sequence[Found]
    open: Open | None
    so_far: DriftWindow | None  # the open one, as far as it is

    @property
    def state(self) -> State:
        """In one word."""
        if not self.windows:
            return "unknown"
        if not self.found:
            return "stable"
        return "drifting" if any(each.is_drift for each in self.found) else "suspected"

    def drifting(self, *whats: What) -> list[Found]:
        """The drifts of these kinds."""
        return [each for each in self.found if each.is_drift and each.finding.what in whats]


class Drift:
    """`rows` and `seconds` that a window has at least; `workers` share it."""

    def __init__(
        self,
        models: Registry,
        store: DriftStore,
        *,
        rows: int,
        seconds: float,
        workers: int = 1,
    ) -> None:
        self._models, self._store = models, store
        self.rows, self.seconds, self._workers = rows, seconds, workers
        # set by who tells it of runs: have what was scored told
        self.fetch: Callable[[], None] = lambda: None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="drift")
        self._looked: dict[Served, _Looked] = {}
        self._pace: dict[str, float] = {}  # of each model, rows a second
        self._random, self._draw = random.Random(0), np.random.default_rng(0)  # noqa: S311
        self._write_seconds = min(max(seconds / 100, WRITE_SECONDS[0]), WRITE_SECONDS[1])
        self._taken_at = time.time()
        # of each model with a report the number of its newest window, and the version
        self._newest: dict[str, tuple[int, str]] = {}
        self._references: dict[str, list[Reference]] = {}  # by version
        self._failing = False
        self.reports: dict[str, Report] = {}  # of models with a window, for who scrapes

    def rows_of(self, served: Served) -> int:
        """That a window of this model has at least."""
        return self.rows * (1 if is_exchangeable(served) else DEPENDENT)

    def count(self, served: Served, rows: int) -> None:
        """So many rows were scored."""
        self._looked_of(served).seen += rows

    def until_next(self, served: Served) -> int:
        """How many rows until one is looked at."""
        share = self._share(served)
        if share >= 1:
            return 1
        return 1 + math.floor(math.log(1 - self._random.random()) / math.log1p(-share))

    def sample(self, served: Served, rows_ND: Float32, scores: Scores, first: int) -> int:
        """Look at a run from this row on; how many rows after it until the next one. What is not
        finite is refused, not answered, and does not count. Of a windowed model the first rows are
        those that the first score looks back at.
        """
        looked, count = self._looked_of(served), len(scores.score)
        room, share = looked.room, self._share(served)
        if room <= 0:
            looked.is_full = True
            return LATER
        if count == 1:
            if math.isfinite(scores.score.item()):
                looked.keep(rows_ND[-1:].copy(), scores.p_value, scores.score)
            return self.until_next(served)
        left = count - first
        if left * share > room:
            share = room / left
            looked.share = min(looked.share, share)
        if share >= 1:
            places = np.arange(first, count)
        else:
            steps = self._draw.geometric(share, int(left * share + 6 * math.sqrt(left * share)) + 1)
            steps[0] = 1  # this one is wanted
            places = first + steps.cumsum() - 1
            places = places[places < count]
        places = places[np.isfinite(scores.score[places])]
        back = len(rows_ND) - count
        looked.keep(rows_ND[places + back], scores.p_value[places], scores.score[places])
        return self.until_next(served)

    async def clock(self) -> None:
        """Write behind, until it is cancelled."""
        while True:
            await asyncio.sleep(self._write_seconds)
            taken = self._take()
            await asyncio.get_running_loop().run_in_executor(self._thread, self._work, taken)

    async def report(self, served: Served) -> Report:
        """What is known of a model, the rows included that were just scored; DriftFailed."""
        taken = self._take()

        def work() -> Report:
            self._work(taken)
            try:
                return self._report(served, with_open=True)
            except (sqlite3.Error, OSError) as error:
                raise DriftFailed(f"drift cannot be told: {error}") from error

        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def close(self) -> None:
        """Write what there is, and end."""
        self._thread.submit(self._work, self._take())
        self._thread.submit(self._store.close)
        self._thread.shutdown()

    def _share(self, served: Served) -> float:
        """Of its rows that are looked at: those of a window, at the pace that they come."""
        wanted = self._most(served) / max(self.seconds, WRITE_SECONDS[0]) / self._workers
        return min(1.0, wanted / max(self._pace.get(served.name, 0.0), 1e-9))

    def _most(self, served: Served) -> int:
        needed = self.rows_of(served)
        return max(needed, min(MOST_TIMES * needed, 8 * MOST_CELLS // served.schema.width))

    def _looked_of(self, served: Served) -> "_Looked":
        if (looked := self._looked.get(served)) is None:
            room = max(64, MOST_CELLS // served.schema.width)
            looked = self._looked[served] = _Looked(room, self._share(served))
        return looked

    def _take(self) -> "_Taken":
        self.fetch()
        taken, self._looked = self._looked, {}
        began, self._taken_at = self._taken_at, time.time()
        seconds = max(self._taken_at - began, 1e-3)
        paces = {served.name: looked.seen / seconds for served, looked in taken.items()}
        weight = 1 - math.exp(-MEMORY * seconds)
        for name in self._pace.keys() | paces.keys():
            before, now = self._pace.get(name, 0.0), paces.get(name, 0.0)
            self._pace[name] = before + weight * (now - before)
        self._pace = {name: pace for name, pace in self._pace.items() if pace > 1e-6}
        return _Taken(began, self._taken_at, taken)

    def _work(self, taken: "_Taken") -> None:
        """In the thread: write, and close what is complete; what fails loses this much."""
        try:
            of_name = {served.name: served for served in taken.looked} | dict(self._models.served)
            pieces = [
                piece
                for served, looked in taken.looked.items()
                # answers of a version that was replaced were still under way
                if served.detector.version == of_name[served.name].detector.version
                if (piece := looked.piece(served, self._references_of(served), taken)) is not None
            ]
            if pieces:
                self._store.add(pieces, lambda name: self.rows_of(of_name[name]))
            self._close_complete(taken.ended, of_name)
            self._look_at_newest(of_name)
            if self._failing:
                _logger.warning("drift is watched again")
            self._failing = False
        except (sqlite3.Error, OSError) as error:
            if not self._failing:  # said once, however long it lasts
                _logger.error("drift is not watched: %s", error)
            self._failing = True
            self._store.close()
        except Exception:
            _logger.exception("drift was not watched for %.0f s", taken.ended - taken.began)

    def _close_complete(self, now: float, of_name: dict[str, Served]) -> None:
        for (name, version), each in self._store.open_windows().items():
            served = of_name.get(name)
            if served is None or served.detector.version != version:
                continue
            if each.rows < self.rows_of(served) or now - each.began < self.seconds:
                continue
            with self._store.changing():
                again = self._store.open_windows().get((name, version))
                if again is None or again.began != each.began:  # another worker was faster
                    continue
                sampled = self._sampled(served)
                judged = judge(served, self._references_of(served), sampled)
                self._store.close_window(name, version, judged)

    def _look_at_newest(self, of_name: dict[str, Served]) -> None:
        names = self._models.names
        if gone := self._store.known() - names:
            self._store.forget(gone)
        newest, reports = self._store.newest(), dict(self.reports)
        for name in newest.keys() & of_name.keys():
            key = newest[name], of_name[name].detector.version
            if key != self._newest.get(name):
                reports[name] = self._report(of_name[name], with_open=False)
                self._newest[name] = key
        self.reports = {name: report for name, report in reports.items() if name in newest}
        self._newest = {name: key for name, key in self._newest.items() if name in newest}
        versions = {served.detector.version for served in of_name.values()}
        self._references = {
            version: each for version, each in self._references.items() if version in versions
        }

    def _report(self, served: Served, *, with_open: bool) -> Report:
        version = served.detector.version
        windows = self._store.windows(served.name, version)
        opened = so_far = None
        if with_open:
            opened = self._store.open_windows().get((served.name, version))
        if opened is not None:
            so_far = judge(served, self._references_of(served), self._sampled(served))
        return Report(windows, found_in(windows), opened, so_far)

    def _references_of(self, served: Served) -> list[Reference]:
        version = served.detector.version
        if (found := self._references.get(version)) is None:
            found = self._references[version] = references_of(served.detector.manifest)
        return found

    def _sampled(self, served: Served) -> Sampled:
        """The rows of the open window, each as likely as any other."""
        pieces = self._store.pieces(served.name, served.detector.version)
        least = min(piece.share for piece in pieces)
        draw = np.random.default_rng(len(pieces))
        kept = [
            np.flatnonzero(draw.random(len(piece.codes_ND)) < least / piece.share)
            if piece.share > least
            else np.arange(len(piece.codes_ND))
            for piece in pieces
        ]
        chosen = list(zip(pieces, kept, strict=True))
        one = {piece.threshold for piece in pieces} == {_name_of(served)}
        return Sampled(
            began=min(piece.began for piece in pieces),
            ended=max(piece.ended for piece in pieces),
            seen=round(sum(len(piece.codes_ND) / piece.share for piece in pieces)),
            codes_ND=np.concatenate([piece.codes_ND[rows] for piece, rows in chosen]),
            p_value_N=np.concatenate([piece.p_value_N[rows] for piece, rows in chosen]),
            alarm_N=np.concatenate([piece.alarm_N[rows] for piece, rows in chosen]),
            threshold=served.threshold if one else None,
        )


def found_in(windows: Sequence[DriftWindow]) -> list[Found]:
    """What the last window found, the last ones first, and since when each window found it."""
    if not windows:
        return []
    found = []
    for finding in windows[0].findings:
        running = 0
        for window in windows:
            if not any(
                (each.what, each.feature) == (finding.what, finding.feature)
                for each in window.findings
            ):
                break
            running += 1
        found.append(Found(finding, windows[running - 1].began, running))
    return found


class _Taken(NamedTuple):
    began: float
    ended: float
    looked: "dict[Served, _Looked]"


class _Looked:
    """Rows of one model that were looked at since the last writing."""

    __slots__ = ("_p_values", "_rows", "_scores", "is_full", "room", "seen", "share")

    def __init__(self, room: int, share: float) -> None:
        self.room, self.share, self.seen, self.is_full = room, share, 0, False
        self._rows: list[Float32] = []
        self._p_values: list[Float32] = []
        self._scores: list[Float32] = []

    def keep(self, rows_ND: Float32, p_value_N: Float32, score_N: Float32) -> None:
        self.room -= len(rows_ND)
        self._rows.append(rows_ND)
        self._p_values.append(p_value_N)
        self._scores.append(score_N)

    def piece(
        self, served: Served, references: Sequence[Reference], taken: "_Taken"
    ) -> Piece | None:
        if not any(map(len, self._rows)):
            return None
        rows_ND, score_N = np.concatenate(self._rows), np.concatenate(self._scores)
        share = len(rows_ND) / max(self.seen, len(rows_ND)) if self.is_full else self.share
        return Piece(
            served.name,
            served.detector.version,
            taken.began,
            taken.ended,
            share,
            _name_of(served),
            encode(references, rows_ND),
            np.concatenate(self._p_values),
            served.threshold.is_anomaly(score_N),
        )


def _name_of(served: Served) -> str:
    return hashlib.sha256(str(served.threshold).encode()).hexdigest()[:16]
