"""Recorder: keeps a share of scored rows, and what was answered, for a retraining.

Observers tell it of runs of single rows, and the route of streams of rows in order. On the loop it
copies; a thread of its own writes a file when it has rows enough or is old enough. What is not
written yet is in memory, bounded, and is lost with a process that is killed; where it cannot be
written it is lost, too, counted and said, and scores go on.

Single rows are chosen each for itself. Of streams whole entities are, by their names, since a
window needs every row; requests to windowed models by the route of scores, which send their history
anew each time, are not recorded.

Shapes: N rows, D features.
"""

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hourglass.service.model.detector import Explanation, Scores
from hourglass.service.model.served import Served
from hourglass.service.serving.patience import Hanging, PatientThread
from hourglass.service.watch.recording import Recorded, Recording
from hourglass.service.watch.sampler import Sampler

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

LOOK_SECONDS = 0.5
ANSWER_CELLS = 8  # of a row beside its features: so much room its answers take
MOST_CELLS = 2**22  # of one file
MOST_HELD = 4 * MOST_CELLS  # of all that are not written yet
WRITE_SECONDS = 30.0  # for one file
CLOSE_SECONDS = 3.0
_logger = logging.getLogger(__name__)


class Recorder:
    """`share` is how likely a row, or an entity, is to be recorded; a file is written at `rows` or
    after `seconds`. `tell` hears how many rows were written, and lost, and how many files went.
    """

    def __init__(
        self,
        recording: Recording,
        *,
        share: float,
        rows: int,
        seconds: float,
        tell: Callable[[int, int, int], None] = lambda _kept, _lost, _gone: None,
    ) -> None:
        self._recording, self._share = recording, share
        self._rows, self._seconds, self.tell = rows, seconds, tell
        self._thread = PatientThread("record")
        self._samplers: dict[str, Sampler] = {}
        self._open: dict[tuple[str, str], _File] = {}  # by model and version
        self._held = 0  # cells of all that are open or being written
        self._lost = 0  # rows, since it was told
        self._is_failing = False
        self._hanging: Future[Any] | None = None  # a write that was let go

    def scored(
        self,
        served: Served,
        rows_ND: Float32,
        scores: Scores,
        _seconds: float,
        entity: str | None = None,
    ) -> None:
        """Copy some rows of a run; of streams `streamed` is told, with their times."""
        if entity is not None or served.detector.window > 1:
            return
        if (sampler := self._samplers.get(served.name)) is None:
            sampler = self._samplers[served.name] = Sampler(self._share)
        if len(places := sampler.places(len(scores.score))):
            piece = rows_ND[places], time.time(), scores.score[places], scores.p_value[places], None
            self._keep(served, _Piece(*piece))

    def explained(
        self, served: Served, rows_ND: Float32, explanation: Explanation, seconds: float
    ) -> None:
        """Rows that were explained are no new traffic."""

    def streamed(
        self,
        served: Served,
        entity: str,
        rows_ND: Float32,
        time_N: Float64,
        score_N: Float32,
        p_value_N: Float32,
    ) -> None:
        """The next rows of an entity, with their times; NaN where a row is not judged."""
        name = f"{served.name} {entity}".encode()
        place = int.from_bytes(hashlib.blake2b(name, digest_size=8).digest()) / 2**64
        if place < self._share and len(rows_ND):
            self._keep(served, _Piece(rows_ND.copy(), time_N, score_N, p_value_N, entity))

    async def clock(self) -> None:
        """Write what is due, until it is cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self._write_due()
            except Exception:  # the clock must go on
                _logger.exception("rows were not recorded")

    async def close(self) -> None:
        """Write what there is, and end."""
        with suppress(Exception):  # which was said
            await self._write(list(self._open), CLOSE_SECONDS)
        self._thread.close(seconds=CLOSE_SECONDS)

    def _keep(self, served: Served, piece: "_Piece") -> None:
        rows, width = piece.rows_ND.shape
        size = rows * (width + ANSWER_CELLS)
        if self._held + size > MOST_HELD:
            self._lost += rows
            return
        key = served.name, served.detector.version
        if (file := self._open.get(key)) is None:
            file = self._open[key] = _File(served)
        elif file.served is not served:  # another budget
            file.join()
            file.served = served
        file.pieces.append(piece)
        file.rows += rows
        file.size += size
        self._held += size

    def _is_due(self, file: "_File", now: float) -> bool:
        return (
            file.rows >= self._rows or file.size >= MOST_CELLS or now - file.began >= self._seconds
        )

    async def _write_due(self) -> None:
        now = time.monotonic()
        for file in self._open.values():
            file.join()
        due = [key for key, file in self._open.items() if self._is_due(file, now)]
        if 2 * self._held > MOST_HELD and self._open and not due:  # many models, none has much
            due = [max(self._open, key=lambda key: self._open[key].size)]
        if due or self._lost:
            await self._write(due, WRITE_SECONDS)

    async def _write(self, due: "Sequence[tuple[str, str]]", seconds: float) -> None:
        """Write files, and tell what came of it; what fails loses this much, and no more."""
        kept, gone, problem = 0, 0, None
        for key in due:
            if self._hangs():
                break
            file = self._open.pop(key)
            file.join()
            try:
                features = file.served.schema.features
                work = partial(self._recording.write, *key, features, file.parts)
                await self._thread.run(work, seconds=seconds)
                kept += file.rows
            except Exception as error:  # of the disk, or polars' own
                problem = error
                self._lost += file.rows
                if isinstance(error, Hanging):
                    self._hanging = error.work
            finally:
                self._held -= file.size
        if kept and not self._hangs():
            try:
                gone = await self._thread.run(self._recording.bound, seconds=seconds)
            except (OSError, Hanging) as error:
                problem = error
                if isinstance(error, Hanging):
                    self._hanging = error.work
        lost, self._lost = self._lost, 0
        self.tell(kept, lost, gone)
        self._say(problem, kept, lost)

    def _hangs(self) -> bool:
        return self._hanging is not None and not self._hanging.done()

    def _say(self, problem: Exception | None, kept: int, lost: int) -> None:
        """Once, however long it lasts."""
        if problem is not None or lost:
            if not self._is_failing:
                why = problem or "more come than can be written; --record-share takes fewer"
                _logger.error("rows are lost, and not recorded: %s", why)
            self._is_failing = True
        elif kept and self._is_failing:
            self._is_failing = False
            _logger.warning("rows are recorded again")


class _Piece(NamedTuple):
    """Rows of one run, as they were copied."""

    rows_ND: Float32
    time: Float64 | float  # of each, or of all
    score_N: Float32
    p_value_N: Float32
    entity: str | None


class _File:
    """Rows of one version that are not written yet."""

    __slots__ = ("began", "parts", "pieces", "rows", "served", "size")

    def __init__(self, served: Served) -> None:
        self.served, self.began = served, time.monotonic()
        self.pieces: list[_Piece] = []  # all under one budget
        self.parts: list[Recorded] = []
        self.rows = self.size = 0

    def join(self) -> None:
        """Make one part of the pieces: arrays of one row are mostly heads."""
        if not self.pieces:
            return
        pieces, self.pieces = self.pieces, []
        score_N = np.concatenate([each.score_N for each in pieces])
        entities = [each.entity for each in pieces for _ in each.score_N]
        # rows without a score were refused, but for those of streams
        kept = [
            row
            for row, (entity, is_scored) in enumerate(
                zip(entities, np.isfinite(score_N).tolist(), strict=True)
            )
            if is_scored or entity is not None
        ]
        self.rows -= len(entities) - len(kept)
        self.parts.append(
            Recorded(
                np.concatenate([each.rows_ND for each in pieces])[kept],
                np.concatenate([np.broadcast_to(each.time, len(each.score_N)) for each in pieces])[
                    kept
                ],
                score_N[kept],
                np.concatenate([each.p_value_N for each in pieces])[kept],
                self.served.threshold.is_anomaly(score_N[kept]),
                [entities[row] for row in kept],
            )
        )
