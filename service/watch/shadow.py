"""Shadow: scores a challenger beside the version in service, on a share of its rows, and counts
which of the two would alarm. A challenger answers nobody, and nobody waits for it.

Observers tell it of runs. On the loop it copies some rows; a thread of its own looks for
challengers, loads them and scores what was copied, once a second and for SHARE of a processor at
most. What there is no room for meanwhile is dropped, and counted.

Shapes: N rows, W rows that the champion looks at, D features.
"""

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hourglass.service.errors import ShadowFailed
from hourglass.service.model.detector import Explanation, Scores
from hourglass.service.model.served import Served
from hourglass.service.serving.patience import Hanging, PatientThread
from hourglass.service.serving.registry import LOAD_SECONDS, Registry
from hourglass.service.serving.store import Store
from hourglass.service.watch.challenger import Challenger, read_challenger
from hourglass.service.watch.sampler import Places, Sampler
from hourglass.service.watch.shared_counts import SharedCounts

Float32 = NDArray[np.float32]

WORK_SECONDS = 1.0  # between works
SHARE = 0.25  # of a processor
RETRY_SECONDS = 10.0  # until a challenger that cannot be had is tried again
MOST_CELLS = 2**18  # of one model that wait for the next work
CLOSE_SECONDS = 2.0
JUDGED = ("neither", "champion", "challenger", "both")  # who would alarm at a row
# or the challenger cannot judge it, or was not asked
OUTCOMES = (*JUDGED, "unjudged", "dropped")
UNJUDGED, DROPPED = OUTCOMES.index("unjudged"), OUTCOMES.index("dropped")
_logger = logging.getLogger(__name__)


class Compared(NamedTuple):
    """A challenger, and what all workers have counted of it and the version in service."""

    challenger: Challenger
    since: float  # seconds since the epoch
    counts: Mapping[str, int]  # by OUTCOMES
    is_failing: bool  # whether it could not judge the last rows


class Shadow:
    """`share` is how likely a row is to be scored; workers meet in the folder."""

    def __init__(
        self,
        models: Registry,
        store: Store,
        *,
        share: float,
        max_bytes: int,
        folder: Path | None = None,
        pid: int = 0,
        after_load: Callable[[], None] = lambda: None,
    ) -> None:
        self._models, self._store, self.share = models, store, share
        self._max_bytes, self._folder, self._pid = max_bytes, folder, pid
        self._after_load = after_load
        self._thread = PatientThread("shadow")
        self._pairs: dict[str, _Pair] = {}  # of models with a challenger; the thread changes it
        self._waiting: dict[str, _Waiting] = {}  # of those whose challenger can be scored
        self._turns = asyncio.Lock()
        self._rest_seconds = WORK_SECONDS
        self._hanging: Future[Any] | None = None  # a turn that was let go
        self._is_failing = False

    def scored(
        self,
        served: Served,
        rows_ND: Float32,
        scores: Scores,
        _seconds: float,
        entity: str | None = None,
    ) -> None:
        """Copy some rows of a run, where there is a challenger to score them."""
        if (waiting := self._waiting.get(served.name)) is None:
            return
        if len(places := waiting.sampler.places(len(scores.score))):
            waiting.keep(served, rows_ND, scores.score, places, entity)

    def explained(
        self, served: Served, rows_ND: Float32, explanation: Explanation, seconds: float
    ) -> None:
        """Rows that were explained are no new traffic."""

    def compared(self) -> dict[str, Compared]:
        """By model, of those that have a challenger, for who scrapes."""
        return {name: pair.compared() for name, pair in sorted(self._pairs.items())}

    async def report(self, served: Served) -> Compared | None:
        """What is known of a model's challenger, the rows included that were just scored;
        ShadowFailed. None where it has none.
        """
        try:
            await self._turn(served.name)
        except Hanging as error:
            raise ShadowFailed(
                f"the challenger of {served.name} cannot be told of: it takes too long"
            ) from error
        except OSError as error:
            raise ShadowFailed(
                f"the challenger of {served.name} cannot be told of: {error.strerror or error}"
            ) from error
        pair = self._pairs.get(served.name)
        return pair.compared() if pair else None

    async def clock(self) -> None:
        """Look for challengers and score what was copied, until it is cancelled."""
        while self.share:
            await asyncio.sleep(self._rest_seconds)
            try:
                await self._turn()
            except (Hanging, OSError) as error:
                if not self._is_failing:  # said once, however long it lasts
                    hangs = isinstance(error, Hanging)
                    why = "a load or a run takes too long" if hangs else error
                    _logger.error("challengers are not scored: %s", why)
                self._is_failing = True
            except Exception:  # the clock must go on
                _logger.exception("challengers were not scored")

    def close(self) -> None:
        """End; what was copied is not scored any more."""
        self._thread.close(seconds=CLOSE_SECONDS)

    async def _turn(self, only: str | None = None) -> None:
        """Look for challengers, of one model or of all, and have what was copied scored; Hanging or
        OSError, and then what is not scored is dropped.
        """
        async with self._turns:
            taken = {name: each.take() for name, each in list(self._waiting.items())}
            served = dict(self._models.served)

            def work() -> float:
                began = time.thread_time()
                self._look_at(served, only)
                for name in list(taken):
                    waited, pair = taken.pop(name, None), self._pairs.get(name)
                    if waited is not None and pair is not None:
                        pair.score(waited)
                return time.thread_time() - began

            try:
                if self._hanging and not self._hanging.done():
                    raise Hanging(self._hanging)
                seconds = await self._thread.run(work, seconds=LOAD_SECONDS)
            except Exception as error:
                if isinstance(error, Hanging):
                    self._hanging = error.work
                self._drop(taken)
                raise
            self._rest_seconds, self._is_failing = max(WORK_SECONDS, seconds / SHARE), False

    def _drop(self, taken: "dict[str, _Taken]") -> None:
        """Count what was taken, and leave none of it to a thread that goes on after all."""
        for name in list(taken):
            waited, waiting = taken.pop(name, None), self._waiting.get(name)
            if waited is not None and waiting is not None:
                waiting.dropped += waited.rows

    def _look_at(self, served: Mapping[str, Served], only: str | None) -> None:
        names = {only} if only else self._pairs.keys() | self._store.challenged()
        for name in served.keys() & names:
            self._look(name, served[name])
        for name in self._pairs.keys() - served.keys():
            self._forget(name)

    def _look(self, name: str, champion: Served) -> None:
        """Take up another challenger, budget or champion."""
        folder, pair = self._store.model(name), self._pairs.get(name)
        state = folder.look_at_challenger()
        if state is None and pair is None:
            return
        if (
            pair
            and (pair.champion is champion and pair.state == state)
            and (pair.challenger.served or time.monotonic() < pair.retry_at)
        ):
            return
        before = pair.challenger if pair else None
        found = read_challenger(folder, champion, before, max_bytes=self._max_bytes)
        if found is None:
            self._forget(name)
            return
        key = _key(champion, found)
        counts = pair.counts if pair and pair.counts.key == key else self._counts(name, key)
        self._pairs[name] = _Pair(champion, found, state, counts)
        if found.served is None or not self.share:
            self._waiting.pop(name, None)
        elif name not in self._waiting:
            cells = champion.schema.width * champion.detector.window
            self._waiting[name] = _Waiting(max(1, MOST_CELLS // cells), Sampler(self.share))
        if found.served and (before is None or before.served is not found.served):
            self._after_load()
        if before is None or before.version != found.version:
            _logger.info("model %s: version %s is its challenger", name, found.version[:12])
        if found.problem and (before is None or before.problem != found.problem):
            _logger.error("model %s: its challenger: %s", name, found.problem.sentence)

    def _counts(self, name: str, key: str) -> SharedCounts:
        return SharedCounts(
            len(OUTCOMES), self._folder, kind="shadow", model=name, key=key, pid=self._pid
        )

    def _forget(self, name: str) -> None:
        self._waiting.pop(name, None)
        if (pair := self._pairs.pop(name, None)) is not None:
            pair.counts.drop()
            _logger.info("model %s: it has no challenger any more", name)


class _Pair:
    """The version in service and its challenger."""

    __slots__ = ("challenger", "champion", "counts", "is_failing", "retry_at", "state")

    def __init__(
        self, champion: Served, challenger: Challenger, state: object, counts: SharedCounts
    ) -> None:
        self.champion, self.challenger, self.state = champion, challenger, state
        self.counts, self.is_failing = counts, False  # the last time that it was asked
        self.retry_at = time.monotonic() + RETRY_SECONDS

    def compared(self) -> Compared:
        since, counts = self.counts.total()
        outcomes = dict(zip(OUTCOMES, counts.tolist(), strict=True))
        return Compared(self.challenger, since, outcomes, self.is_failing)

    def score(self, waited: "_Taken") -> None:
        """Count what both say of rows that the version in service has answered."""
        pieces = [each for each in waited.pieces if each.served is self.champion]
        if self.challenger.served is None or not (pieces or waited.dropped):
            return
        self.counts.share()
        self.counts.counts[DROPPED] += waited.dropped
        if not pieces:
            return
        score_N = np.concatenate([each.score_N for each in pieces])
        answered = np.flatnonzero(np.isfinite(score_N))  # others were refused
        champion_N = self.champion.threshold.is_anomaly(score_N[answered])
        shape = -1, self.champion.detector.window, self.champion.schema.width
        windows_NWD = np.concatenate([each.rows for each in pieces]).reshape(shape)[answered]
        entity_N = [each.entity for each in pieces for _ in each.score_N]
        entities = [entity_N[place] for place in answered.tolist()]
        try:
            challenger_N, judged_N = self.challenger.alarms(self.champion, windows_NWD, entities)
        except Exception:  # a model from elsewhere may fail at what its self-test has not seen
            self.counts.counts[UNJUDGED] += len(windows_NWD)
            if not self.is_failing:
                name, version = self.champion.name, self.challenger.version
                _logger.exception("model %s: its challenger %s cannot judge", name, version[:12])
            self.is_failing = True
            return
        self.is_failing = False
        outcome_N = np.where(judged_N, champion_N + 2 * challenger_N, UNJUDGED)
        self.counts.counts[:] += np.bincount(outcome_N, minlength=len(OUTCOMES))


class _Piece(NamedTuple):
    served: Served
    rows: Float32  # [N, D], of windows [N, W, D]
    score_N: Float32
    entity: str | None


class _Taken(NamedTuple):
    pieces: list[_Piece]
    dropped: int

    @property
    def rows(self) -> int:
        return self.dropped + sum(len(each.score_N) for each in self.pieces)


class _Waiting:
    """Rows of one model that wait to be scored, so many at most."""

    __slots__ = ("_most", "_pieces", "_room", "dropped", "sampler")

    def __init__(self, most: int, sampler: Sampler) -> None:
        self._most = self._room = most
        self._pieces: list[_Piece] = []
        self.dropped, self.sampler = 0, sampler

    def keep(
        self,
        served: Served,
        rows_ND: Float32,
        score_N: Float32,
        places: Places,
        entity: str | None,
    ) -> None:
        """Copy the rows at these places, as far as there is room."""
        if len(places) > self._room:
            self.dropped += len(places) - self._room
            places = places[: self._room]
            if not self._room:
                return
        self._room -= len(places)
        score_P = score_N[places]
        if back := len(rows_ND) - len(score_N):
            rows = rows_ND[np.asarray(places)[:, np.newaxis] + np.arange(back + 1)]
        else:
            rows = rows_ND[places]
        self._pieces.append(_Piece(served, rows, score_P, entity))

    def take(self) -> _Taken:
        taken = _Taken(self._pieces, self.dropped)
        self._pieces, self.dropped, self._room = [], 0, self._most
        return taken


def _key(champion: Served, challenger: Challenger) -> str:
    """Of two versions and their thresholds."""
    own = challenger.served and challenger.served.threshold
    said = f"{champion.detector.version} {champion.threshold} {challenger.version} {own}"
    return hashlib.sha256(said.encode()).hexdigest()[:16]
