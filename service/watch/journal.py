"""Journal: keeps alarms, with why they were raised, beside the event loop.

Metrics tells it of runs with alarms. On the loop it counts, and copies some rows; a thread of its
own finds the reasons and writes behind, once a second. Of a storm all alarms are counted;
MOST_ALARMS of each model in a second, a fair sample and the worst, are kept; and as many of them
are explained as SHARE of a processor has time for. What was not explained belongs to the group of
that explained one whose contributions are most alike, and what was not kept is shared out as the
sample was.

Rows' values are kept in a file alone. Whatever fails here is a metric and a line in the log; what a
full disk refuses waits in memory, MOST_WAITING alarms of it, until there is room again.
"""

import asyncio
import logging
import math
import random
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import NamedTuple, TypeVar

import numpy as np
import orjson
from numpy.typing import NDArray

from hourglass.service.errors import JournalFailed
from hourglass.service.model.detector import Detector, Explanation, Scores
from hourglass.service.model.reasons import Reasons, reasons_of, reasons_of_windows
from hourglass.service.model.served import Served
from hourglass.service.rows import encoding
from hourglass.service.rows.sentences import say_why, say_why_without_values
from hourglass.service.watch.alarms import (
    ORDINARY_ROWS,
    Alarm,
    Alarms,
    Entry,
    OrdinaryRow,
    Signature,
)

T = TypeVar("T")
Float32 = NDArray[np.float32]

WRITE_SECONDS = 1.0
MOST_ALARMS, MOST_CELLS = 256, 2**16  # of one model that are kept in a second
MOST_ORDINARY = 2  # rows that do not alarm, the same
SHARE, MOST_SECONDS = 0.05, 0.05  # of a processor for reasons; saved up at most so much
MOST_WAIT = 60.0  # seconds more between writings, where reasons took longer than they may
MOST_WAITING = 10_000  # kept alarms, of about a kilobyte, that wait for a file to be written again
TOGETHER = 4  # rows that are explained at a time
TOP = 5  # features that are told of an alarm, and those to blame besides
_logger = logging.getLogger(__name__)


class Noted(NamedTuple):
    """One row that was scored."""

    time: float
    rows_WD: Float32  # it, and before it those that a windowed model looked back at
    score: float
    p_value: float
    severity: float
    entity: str | None


class Journal:
    """`values`: whether rows are kept."""

    def __init__(self, alarms: Alarms, *, values: bool) -> None:
        self._alarms, self.values = alarms, values
        # set by who tells it of runs: have rows told of that were kept back, and be told how many
        # alarms were kept, how many lost, and how often the file could not be written
        self.fetch: Callable[[], None] = lambda: None
        self.tell: Callable[[int, int, int], None] = lambda _kept, _lost, _failures: None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="journal")
        self._seen: dict[Served, _Seen] = {}
        # which rows are a fair sample
        self._random, self._draw = random.Random(0), np.random.default_rng(0)  # noqa: S311
        self._totals: dict[str, int] = {}  # rows of each model, in all
        self._failing = False
        # what the file could not take: entries with alarms, oldest first, and rows of the others
        self._waiting: list[Entry] = []
        self._quiet: Counter[str] = Counter()
        self._saved, self._saved_at = MOST_SECONDS, time.monotonic()

    def raised(
        self, served: Served, rows_ND: Float32, scores: Scores, entity: str | None = None
    ) -> None:
        """A run of rows, some of which may alarm; what is not finite is refused, not answered. Of a
        windowed model the first rows are those that the first score looks back at.
        """
        score_N, seen = scores.score, self._seen_of(served)
        if len(score_N) == 1:
            if seen.limit < (score := score_N.item()) < math.inf:
                self._note_one(seen, rows_ND, scores, score, entity)
            return
        places = np.flatnonzero((score_N > seen.limit) & np.isfinite(score_N)).tolist()
        if places:
            self._note(seen, rows_ND, scores, places, entity)

    def count(self, served: Served, rows: int) -> None:
        """So many rows were scored."""
        self._seen_of(served).rows += rows

    def sample(self, served: Served, rows_ND: Float32, scores: Scores, place: int) -> float:
        """Keep a row that does not alarm; how many rows until the next one is wanted."""
        seen = self._seen_of(served)
        if scores.score[place] <= seen.limit:  # which NaN is not
            seen.ordinary.append(_noted(rows_ND, scores, place, None))
        return self.until_next(served)

    def until_next(self, served: Served) -> float:
        """How many rows until one is kept of those that do not alarm, all rows of the model being
        alike.
        """
        seen = self._seen.get(served)
        if not self.values or (seen is not None and len(seen.ordinary) >= MOST_ORDINARY):
            return math.inf
        share = ORDINARY_ROWS / max(self._totals.get(served.name, 0), ORDINARY_ROWS)
        if share >= 1:
            return 1
        return 1 + math.floor(math.log(1 - self._random.random()) / math.log1p(-share))

    async def clock(self) -> None:
        """Write behind, until it is cancelled; more seldom where one row takes long to explain."""
        while True:
            await asyncio.sleep(WRITE_SECONDS + min(max(-self._saved, 0.0) / SHARE, MOST_WAIT))
            try:
                await self.ask(lambda _: None)
            except Exception:  # the clock must go on
                _logger.exception("alarms were not written")

    async def ask(self, question: Callable[[Alarms], T]) -> T:
        """What the alarms say, those included that were just raised."""
        taken = self._take()

        def work() -> T:
            if taken or self._waiting:
                self._write(taken)
            try:
                return question(self._alarms)
            except (sqlite3.Error, OSError) as error:
                raise JournalFailed(f"the journal cannot be read: {error}") from error

        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def close(self) -> None:
        """Write what there is, and end."""
        taken = self._take()
        if taken or self._waiting:
            self._thread.submit(self._write, taken)
        self._thread.submit(lambda: self.tell(0, self._wait(self._waiting, 0), 0))
        self._thread.submit(self._alarms.close)
        self._thread.shutdown()

    def _note(
        self,
        seen: "_Seen",
        rows_ND: Float32,
        scores: Scores,
        places: list[int],
        entity: str | None,
    ) -> None:
        """Count a run's alarms, and keep a fair sample of all since the last writing: the k-th is
        in it with most / k (Vitter's algorithm R).
        """
        before, most = seen.alarms, seen.most
        seen.alarms += len(places)
        for place in places[: max(most - before, 0)]:
            seen.kept.append(_noted(rows_ND, scores, place, entity))
        if seen.alarms > most:
            rest = places[max(most - before, 0) :]
            slots = self._draw.integers(np.arange(seen.alarms - len(rest), seen.alarms) + 1)
            chosen = {
                slot: place for slot, place in zip(slots.tolist(), rest, strict=True) if slot < most
            }
            for slot, place in chosen.items():
                seen.kept[slot] = _noted(rows_ND, scores, place, entity)
        worst = max(places, key=scores.score.__getitem__)
        if seen.worst is None or scores.score[worst] > seen.worst.score:
            seen.worst = _noted(rows_ND, scores, worst, entity)

    def _note_one(
        self, seen: "_Seen", rows_ND: Float32, scores: Scores, score: float, entity: str | None
    ) -> None:
        """The same of a run of one row, a tenth of the price."""
        seen.alarms += 1
        if len(seen.kept) < seen.most:
            seen.kept.append(_noted(rows_ND, scores, 0, entity))
        elif (slot := int(self._random.random() * seen.alarms)) < seen.most:
            seen.kept[slot] = _noted(rows_ND, scores, 0, entity)
        if seen.worst is None or score > seen.worst.score:
            seen.worst = _noted(rows_ND, scores, 0, entity)

    def _seen_of(self, served: Served) -> "_Seen":
        if (seen := self._seen.get(served)) is None:
            seen = self._seen[served] = _Seen(served)
        return seen

    def _take(self) -> "dict[Served, _Seen]":
        self.fetch()
        taken, self._seen = self._seen, {}
        return taken

    def _write(self, taken: "dict[Served, _Seen]") -> None:
        """In the thread: explain, group and write, with what could not be written before."""
        lost = 0
        try:
            entries = [self._entry(served, seen) for served, seen in taken.items()]
        except Exception:
            entries, lost = [], sum(seen.alarms for seen in taken.values())
            _logger.exception("%d alarms are not in the journal", lost)
        waited = [Entry(model, rows, {}, (), ()) for model, rows in self._quiet.items()]
        entries = [*waited, *self._waiting, *entries]
        written: list[Entry] = []
        try:
            lost += self._put(entries, written)
        except (sqlite3.Error, OSError) as error:
            if not self._failing:  # said once, however long it lasts
                _logger.error("the journal cannot be written, and alarms wait: %s", error)
            self._failing = True
            self._alarms.close()
            kept = sum(len(entry.alarms) for entry in written)
            self.tell(kept, lost + self._wait(entries, MOST_WAITING), 1)
            return
        self._waiting, self._quiet = [], Counter()
        if self._failing:
            _logger.warning("the journal can be written again")
        self._failing = False
        self.tell(sum(len(entry.alarms) for entry in written), lost, 0)
        for entry in written:
            with suppress(sqlite3.Error, OSError):
                self._totals[entry.model] = self._alarms.counts(entry.model)[0]

    def _put(self, entries: list[Entry], written: list[Entry]) -> int:
        """Move entries to those that are written, and return how many alarms are lost, of such as
        the file would never take. What may pass is raised, and leaves the rest where it is.
        """
        try:
            self._alarms.write(entries)
        except Exception as error:
            if _may_pass(error):
                raise
            if len(entries) == 1:
                (entry,) = entries
                lost = sum(entry.counts.values())
                _logger.exception("%d alarms of %s are not in the journal", lost, entry.model)
                entries.clear()
                return lost
        else:
            written += entries
            entries.clear()
            return 0
        lost = 0
        while entries:  # each alone: one of them is the cause
            lost += self._put(entries[:1], written)
            del entries[:1]
        return lost

    def _wait(self, entries: Sequence[Entry], most: int) -> int:
        """Keep them until there is room, the newest if they have more alarms than so many; how many
        alarms are lost.
        """
        self._waiting, self._quiet = [], Counter()
        kept, lost = 0, 0
        for entry in reversed(entries):
            kept += len(entry.alarms)
            if not entry.counts or kept > most:
                self._quiet[entry.model] += entry.rows
                lost += sum(entry.counts.values())
            else:
                self._waiting.insert(0, entry)
        return lost

    def _entry(self, served: Served, seen: "_Seen") -> Entry:
        noted = sorted(seen.kept, key=lambda each: each.time)
        if seen.worst is not None and all(each.score < seen.worst.score for each in noted):
            noted = sorted((*noted, seen.worst), key=lambda each: each.time)
        alarms = self._explain(served, noted) if noted else []
        sample = Counter(alarm.signature for alarm in alarms)
        ordinary = [
            OrdinaryRow(
                slot=self._slot(served.name, place),
                time=each.time,
                version=served.detector.version,
                severity=each.severity,
                p_value=each.p_value,
                row=_json(encoding.row_values(served.schema.features, each.rows_WD[-1])),
            )
            for place, each in enumerate(seen.ordinary)
        ]
        return Entry(served.name, seen.rows, _share_out(sample, seen.alarms), alarms, ordinary)

    def _slot(self, name: str, place: int) -> int:
        total = self._totals.get(name, 0) + place
        return total if total < ORDINARY_ROWS else self._random.randrange(ORDINARY_ROWS)

    def _explain(self, served: Served, noted: list[Noted]) -> list[Alarm]:
        try:
            windows_NWD = np.stack([each.rows_WD for each in noted])
            entities = [each.entity for each in noted]
            explanation = _explain_each(served.detector, windows_NWD, entities)
            said = self._find_reasons(served, windows_NWD, entities, explanation)
            alike = _most_alike(explanation.contributions, list(said))
        except Exception:  # they are counted and kept all the same
            _logger.exception("%d alarms of %s are not explained", len(noted), served.name)
            said, alike = {-1: _Said((), None, None)}, [-1] * len(noted)
        alarms = []
        for place, each in enumerate(noted):
            features, reasons, sentence = said[alike[place]]
            own = alike[place] == place
            row = None
            if self.values:
                row = _json(encoding.row_values(served.schema.features, each.rows_WD[-1]))
            alarms.append(
                Alarm(
                    signature=Signature(each.entity, features),
                    time=each.time,
                    version=served.detector.version,
                    score=each.score,
                    severity=each.severity,
                    p_value=each.p_value,
                    row=row,
                    reasons=reasons if own else None,
                    sentence=sentence if own else None,
                )
            )
        return alarms

    def _find_reasons(
        self,
        served: Served,
        windows_NWD: Float32,
        entities: list[str | None],
        explanation: Explanation,
    ) -> "dict[int, _Said]":
        """Of as many rows as there is time for, one at least: first the strangest by each feature
        that contributes most, then the strangest of all.
        """
        lead_N = explanation.contributions.argmax(axis=1)
        by_score = np.argsort(-explanation.score, kind="stable")
        _, firsts = np.unique(lead_N[by_score], return_index=True)
        order = dict.fromkeys([*by_score[np.sort(firsts)].tolist(), *by_score.tolist()])
        now = time.monotonic()
        self._saved = min(self._saved + SHARE * (now - self._saved_at), MOST_SECONDS)
        self._saved_at = now
        said: dict[int, _Said] = {}
        places = list(order)
        while places and (self._saved > 0 or not said):
            began = time.thread_time()
            together = TOGETHER if self._saved > 0 else 1
            chosen, places = places[:together], places[together:]
            for own, part in _by_detector(served.detector, entities, chosen):
                said |= self._say(served, own, windows_NWD, explanation, part)
            self._saved -= time.thread_time() - began
        return said

    def _say(
        self,
        served: Served,
        detector: Detector,
        windows_NWD: Float32,
        explanation: Explanation,
        places: list[int],
    ) -> "dict[int, _Said]":
        limit = served.threshold.score
        features, windows = served.schema.features, windows_NWD[places]
        part_ND, part = windows[:, -1], Explanation(*(each[places] for each in explanation))
        if detector.window > 1:
            reasons: Reasons | None = reasons_of_windows(detector, windows, part, limit)
        else:
            reasons = reasons_of(detector, part_ND, part, limit)
        top = TOP if reasons is None else max(TOP, int(reasons.blamed_N.max()))
        cells = encoding.explain_rows(served, part_ND, part, reasons, {}, top)
        said: dict[int, _Said] = {}
        if reasons is None:
            sentences: list[str | None] = [None] * len(places)
            blamed = [[d] for d in part.contributions.argmax(axis=1).tolist()]
        else:
            sentences = (say_why if self.values else say_why_without_values)(
                features, part_ND, reasons
            )
            blamed = [
                # at least one, where explaining scores a little lower than scoring
                [] if whole else order.tolist()[: max(count, 1)]
                for order, count, whole in zip(
                    reasons.order_ND,
                    reasons.blamed_N.tolist(),
                    reasons.as_a_whole_N.tolist(),
                    strict=True,
                )
            ]
        for place, columns, row, sentence in zip(places, blamed, cells, sentences, strict=True):
            names = tuple(sorted(features[d].name for d in columns))
            told = row if self.values else [{**cell, **_WITHOUT_VALUES} for cell in row]
            said[place] = _Said(names, _json(told), sentence)
        return said


_WITHOUT_VALUES = {"actual": None, "expected": None, "expected_sd": None}


class _Said(NamedTuple):
    features: tuple[str, ...]  # to blame, in the order of their names
    reasons: str | None
    sentence: str | None


class _Seen:
    """What came of one model since the last writing."""

    __slots__ = ("alarms", "kept", "limit", "most", "ordinary", "rows", "worst")

    def __init__(self, served: Served) -> None:
        self.limit = served.threshold.score
        cells = served.schema.width * served.detector.window
        self.most = max(1, min(MOST_ALARMS, MOST_CELLS // cells))
        self.rows = self.alarms = 0
        self.kept: list[Noted] = []
        self.worst: Noted | None = None
        self.ordinary: list[Noted] = []


def _noted(rows_ND: Float32, scores: Scores, place: int, entity: str | None) -> Noted:
    window = len(rows_ND) - len(scores.score) + 1
    rows_WD = rows_ND[place : place + window].copy()  # which holds no request's body
    score, p_value, severity = (float(each[place]) for each in scores)
    return Noted(time.time(), rows_WD, score, p_value, severity, entity)


def _may_pass(error: Exception) -> bool:
    """Whether the disk or the file may be the cause, and not what was to be written."""
    of_data = sqlite3.IntegrityError, sqlite3.DataError, sqlite3.ProgrammingError
    return isinstance(error, sqlite3.Error | OSError) and not isinstance(error, of_data)


def _by_detector(
    detector: Detector, entities: list[str | None], places: list[int]
) -> list[tuple[Detector, list[int]]]:
    """These of all rows by the detector of their entity: one of all where none has a baseline."""
    if detector.manifest.baseline is None:
        return [(detector, places)]
    own: dict[str | None, list[int]] = {}
    for place in places:
        own.setdefault(entities[place], []).append(place)
    return [(detector.of(entity), part) for entity, part in own.items()]


def _explain_each(
    detector: Detector, windows_NWD: Float32, entities: list[str | None]
) -> Explanation:
    if detector.window == 1:
        return detector.explain(windows_NWD[:, 0])
    parts = _by_detector(detector, entities, list(range(len(entities))))
    found = [own.explain_windows(windows_NWD[places]) for own, places in parts]
    order_N = np.argsort(np.concatenate([places for _, places in parts]), kind="stable")
    joined = (np.concatenate(arrays)[order_N] for arrays in zip(*found, strict=True))
    return Explanation(*joined)


def _most_alike(contributions_ND: Float32, said: list[int]) -> list[int]:
    """For each row that one of those that were explained whose contributions point most the same
    way; those themselves.
    """
    wide_ND = np.nan_to_num(contributions_ND.astype(np.float64))
    length_N1 = np.linalg.norm(wide_ND, axis=1, keepdims=True)
    direction_ND = wide_ND / np.maximum(length_N1, 1e-300)
    alike = (direction_ND @ direction_ND[said].T).argmax(axis=1)
    nearest = [said[place] for place in alike.tolist()]
    for place in said:
        nearest[place] = place
    return nearest


def _share_out(sample: Counter[Signature], total: int) -> dict[Signature, int]:
    """So many alarms in the proportions of the sample, by largest remainders."""
    size = sample.total()
    shares = {signature: count * total / size for signature, count in sample.items()}
    counts = {signature: math.floor(share) for signature, share in shares.items()}
    by_rest = sorted(shares, key=lambda signature: counts[signature] - shares[signature])
    for signature in by_rest[: total - sum(counts.values())]:
        counts[signature] += 1
    return counts


def _json(value: object) -> str:
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY).decode()
