"""Registry: name -> the model in service. Looks at the models folder and swaps whole models, one
reference at a time.

Readers take one `Served` and answer from it alone; whatever goes wrong while looking, what is in
service stays. How the folder is laid out is store.py's, what a model's folder comes to
is loading.py's; what may hang is done in threads of patience.py's.

A model is in service as long as its folder is there. It need not be in memory: with many models
those that were not asked for in the longest time are let go, and read again when somebody asks.
"""

import asyncio
import errno
import logging
import math
import os
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from time import monotonic, time
from typing import Any, Literal, NamedTuple, TypeVar

from hourglass.service.errors import (
    PASSING,
    InvalidArtifact,
    NotLoaded,
    NotPromoted,
    ReadOnly,
    ThresholdNotStored,
    UnknownModel,
)
from hourglass.service.model.artifact import EXHIBIT_PREFIX, MODEL_NAME
from hourglass.service.model.detector import Detector
from hourglass.service.model.served import Served, Summary
from hourglass.service.serving.disk import ModelFile
from hourglass.service.serving.exhibits import Exhibits
from hourglass.service.serving.loading import (
    Problem,
    load,
    problem_of,
    threshold_of,
    with_threshold,
)
from hourglass.service.serving.patience import Hanging, PatientThread
from hourglass.service.serving.store import (
    POINTER,
    THRESHOLD_FILE,
    Store,
    StoredThreshold,
    ThresholdChange,
)
from hourglass.service.serving.versions import Version, read_versions

T = TypeVar("T")
CHANGE_SECONDS = 5.0  # for a threshold to be written
LOAD_SECONDS = 30.0
CLOSE_SECONDS = 2.0  # that what is being loaded may hold up the end
AWAKE_MODELS = 64  # in memory; of more, those that nobody asks for take a tenth of the room
GONE_LOOKS = 2  # in a row without its folder, after which a model is retired
FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS = 1.0, 60.0  # after a failure whose cause may pass
HANGS = "the file system hangs"
_logger = logging.getLogger(__name__)


class Load(NamedTuple):
    """What came of looking at one model's folder."""

    name: str
    outcome: Literal["unchanged", "loaded", "swapped", "failed", "retired"]
    version: str | None  # now in service
    reason: str | None = None  # why it failed, or what else is wrong
    served: Served | None = None  # what was read; it may have been let go since


@dataclass(slots=True, eq=False)
class _Known:
    """What is known of one model, beside the model itself."""

    summary: Summary | None = None  # of what is, or was last, in memory
    problem: Problem | None = None
    seen: object = None  # what the folder looked like when it was last acted on
    deep: object = None  # the same, the version's file included, where that failed
    missed: int = 0  # looks in a row without its folder
    failures: int = 0  # in a row
    retry_at: float = math.inf
    used_at: float = -math.inf
    stored: StoredThreshold | None = None  # by this process, the last time
    hanging: "Future[Any] | None" = None  # a load that was let go
    loading: asyncio.Lock = field(default_factory=asyncio.Lock)
    begun: int = 0  # loads
    last: tuple[int, Load] | None = None  # of those that ended: which it was, what came of it
    versions: dict[tuple[object, ...], Version] = field(default_factory=dict)  # that were read


class Registry:
    """The models in service; changed on the event loop alone.

    `max_loaded` models at most are kept in memory.
    """

    def __init__(
        self,
        store: Store,
        *,
        threads: int,
        max_bytes: int,
        max_loaded: int | None = None,
        exhibits: Exhibits | None = None,
        after_load: Callable[[], None] = lambda: None,
    ) -> None:
        self._store, self._max_bytes, self._after_load = store, max_bytes, after_load
        self._max_loaded = max_loaded
        self._exhibits = exhibits
        # one for all models and all their versions: what one of them does not use is the others'
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="runs") if threads > 1 else None
        self._disk, self._loads = PatientThread("disk"), PatientThread("loads")
        self._changes = PatientThread("changes")  # which wait for each other, and nobody for them
        self._served: dict[str, Served] = {}
        self._known: dict[str, _Known] = {}
        self._unloaded: set[str] = set()
        self._ignored: set[str] = set()
        # why the folder itself could not be looked into, the last time
        self._unreadable: str | None = None
        self.looked_at: float | None = None  # when the store last answered, since the epoch
        self._hanging: Future[Any] | None = None  # a look that was let go
        self._looking = asyncio.Lock()
        self.tell: Callable[[Load], None] = lambda _: None  # of each folder that was acted on

    @property
    def names(self) -> frozenset[str]:
        """Of all models whose folders are there, in service or not."""
        return frozenset(self._known)

    @property
    def served(self) -> Mapping[str, Served]:
        """Those in memory, by name, in the names' order."""
        return self._served

    @property
    def unloaded(self) -> frozenset[str]:
        """Names of the models that are in service, or may be, but not in memory."""
        return frozenset(self._unloaded)

    @property
    def away(self) -> str | None:
        """Why the store could not be looked into the last time, if it could not."""
        return self._unreadable or self._store.away

    @property
    def store(self) -> Store:
        """Where the models' files lie."""
        return self._store

    @property
    def exhibits(self) -> Exhibits | None:
        """The models that ship with the service, which are none of the others."""
        return self._exhibits

    @property
    def summaries(self) -> list[Summary]:
        """Of all that were ever in memory and are in service, in the names' order."""
        known = sorted(self._known.items())
        return [each.summary for name, each in known if each.summary and self._is_served(name)]

    @property
    def problems(self) -> Mapping[str, Problem]:
        """By name: why the newest state of a model's folder is not, or not wholly, in service."""
        known = sorted(self._known.items())
        return {name: each.problem for name, each in known if each.problem}

    @property
    def errors(self) -> Mapping[str, str]:
        """The same in a sentence each."""
        return {name: problem.sentence for name, problem in self.problems.items()}

    def version(self, name: str) -> str | None:
        """The version in service, in memory or not."""
        if name in self._served:
            return self._served[name].detector.version
        summary = self._known[name].summary if name in self._known else None
        return summary.version if summary else None

    def is_loaded(self, name: str | None) -> bool:
        """Whether `find` need not be waited for; True also of a model that is nowhere."""
        return not self._unloaded or (name not in self._unloaded and name is not None)

    def find(self, name: str | None) -> Served:
        """The model of that name; of no name, the only one there is. NotLoaded where it is not in
        memory, UnknownModel where it is nowhere.
        """
        if name is not None and (served := self._served.get(name)):
            if self._max_loaded:
                self._known[name].used_at = monotonic()
            return served
        if name is None and len(self._served) + len(self._unloaded) == 1:
            (name,) = self._served or self._unloaded
            return self.find(name)
        if name in self._unloaded:
            raise NotLoaded(f"model {name!r} is not loaded yet")
        names = sorted({*self._served, *self._unloaded})
        choice = f"served are: {', '.join(names)}" if names else "no model is served"
        if name is None:
            raise UnknownModel(
                f"the path names no model, which needs exactly one to be served; {choice}"
            )
        problem = self._known[name].problem if name in self._known else None
        broken = f" ({problem.sentence})" if problem else ""
        raise UnknownModel(f"no model {name!r} is served{broken}; {choice}")

    async def get(self, name: str | None) -> Served:
        """The same, read from the folder first where it is not in memory; or an exhibit."""
        if self._exhibits and name and name.startswith(EXHIBIT_PREFIX):
            return await self._exhibits.get(name)
        try:
            return self.find(name)
        except NotLoaded:
            name = name or next(iter(self._unloaded))
            if (known := self._known.get(name)) is not None:
                known.used_at = monotonic()
                load = await self._load(name, known, only_missing=True)
                if load.served:
                    return load.served
            return self.find(name)

    async def look(self, name: str | None = None) -> list[Load]:
        """Bring what changed on disk into service: of every model, or of one, which is then tried
        even if nothing changed.
        """
        if name is None:
            async with self._looking:
                return await self._look_at_all()
        _require_changeable(name)
        if name not in self._known:
            state = None
            if MODEL_NAME.fullmatch(name):
                with suppress(Hanging, OSError):  # then it is nowhere
                    state = await self._state(name)
            if state is None or not _is_model(name, state):
                self.find(name)  # raises
            self._known.setdefault(name, _Known())
        return [await self._load(name, self._known[name])]

    async def refresh(self, name: str) -> None:
        """Serve with the budget that another process has stored."""
        if name in self._served:
            await self._load(name, self._known[name])

    async def change_threshold(self, name: str, change: ThresholdChange) -> Served:
        """Store another false-alarm budget, made of the one that is stored now, and serve with it;
        UncertifiableAlpha or ThresholdNotStored when it cannot be.
        """
        _require_changeable(name)
        known, served = self._known.get(name, _Known()), await self.get(name)
        own, end = served.threshold, monotonic() + CHANGE_SECONDS

        def changed(stored: StoredThreshold | None) -> StoredThreshold:
            if monotonic() > end:  # its client was told that nothing was changed
                raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
            in_force = StoredThreshold(own.alpha, own.delta, not own.certified)
            after = change.of(stored or in_force)
            threshold_of(served.detector, after)  # raises
            return after

        store = partial(self._store.model(name).change_threshold, changed)
        try:
            stored = await self._changes.run(store, seconds=CHANGE_SECONDS)
        except (OSError, Hanging) as error:
            why = error.strerror if isinstance(error, OSError) else HANGS
            raise ThresholdNotStored(
                f"{THRESHOLD_FILE} of {name} cannot be written ({why}), so the threshold stays as"
                " it is"
            ) from error
        known.stored = stored
        known.seen = None  # the file may be taken away again before anybody looks
        after, problem = with_threshold(self._served.get(name, served), stored)
        if name in self._served:  # it may have been let go meanwhile
            self._served[name] = after
        known.summary = after.summary
        if problem or (known.problem and known.problem.fault in ("threshold", "uncertifiable")):
            known.problem = problem
        self.tell(Load(name, "unchanged", after.detector.version, served=after))
        return after

    async def promote(self, name: str, version: str) -> Served:
        """Point a model at a version that is there, named in full or by an unambiguous beginning,
        and serve it; UnknownVersion, InvalidArtifact or NotPromoted when that cannot be, and then
        nothing is changed.
        """
        _require_changeable(name)
        if name not in self._known:
            await self.get(name)  # raises

        def check(file: ModelFile) -> None:
            Detector.from_bytes(file.data, max_bytes=self._max_bytes)

        point = partial(self._store.model(name).promote, version, check)
        try:
            await self._changes.run(point, seconds=LOAD_SECONDS)
        except (OSError, Hanging) as error:
            why = error.strerror if isinstance(error, OSError) else HANGS
            raise NotPromoted(
                f"{POINTER} of {name} cannot be written ({why}), so the version stays as it is"
            ) from error
        load = await self._load(name, self._known[name])
        if load.served is None:
            raise InvalidArtifact(f"{load.reason}; version {load.version} stays in service")
        return load.served

    async def versions(self, name: str) -> list[Version]:
        """Those of a model that are there, the newest first; none of an exhibit."""
        if name not in self._known:
            await self.get(name)  # raises, but for an exhibit
            return []
        read = partial(
            read_versions,
            self._store.model(name),
            max_bytes=self._max_bytes,
            known=self._known[name].versions,
        )
        try:
            return await self._changes.run(read, seconds=LOAD_SECONDS)
        except Hanging as error:
            raise InvalidArtifact(f"the versions of {name} cannot be read: {HANGS}") from error
        except OSError as error:
            why = error.strerror or error
            raise InvalidArtifact(f"the versions of {name} cannot be read: {why}") from error

    def close(self) -> None:
        """End the threads; what hangs in them is left behind."""
        self._disk.close(seconds=0.0)
        self._changes.close(seconds=0.0)
        self._loads.close(seconds=CLOSE_SECONDS)

    def _is_served(self, name: str) -> bool:
        return name in self._served or name in self._unloaded

    async def _look_at_all(self) -> list[Load]:
        if self._hanging and not self._hanging.done():
            return self._all_unreadable(HANGS)
        try:
            folders = await self._disk.run(self._store.look, seconds=self._store.look_seconds)
        except OSError as error:
            return self._all_unreadable(error.strerror or str(error))
        except Hanging as error:
            self._hanging = error.work
            return self._all_unreadable(HANGS)
        self._unreadable = self._hanging = None
        if self._store.away is None:
            self.looked_at = time()
        self._take_up(folders)
        loads = [self._miss(name) for name in sorted(self._known.keys() - folders.keys())]
        loads += [await self._look_at(name, folders[name]) for name in self._by_use(folders)]
        return sorted(loads)

    def _all_unreadable(self, why: str) -> list[Load]:
        """Of all models, which stay in service: the folder they lie in cannot be looked into."""
        outcome: Literal["failed", "unchanged"] = "unchanged"
        if why != self._unreadable:
            outcome, self._unreadable = "failed", why
            _logger.error("%s cannot be read: %s", self._store, why)
            for known in self._known.values():
                sentence = f"{self._store} cannot be read: {why}"
                known.problem, known.seen = Problem("unreadable", sentence), None
        return [Load(name, outcome, self.version(name), why) for name in sorted(self._known)]

    def _take_up(self, folders: Mapping[str, tuple[object, ...]]) -> None:
        """Know of the models whose folders have appeared."""
        for name, state in folders.items():
            if name in self._known or name in self._ignored or not _is_model(name, state):
                continue
            if MODEL_NAME.fullmatch(name):
                self._known[name] = _Known()
                self._unloaded.add(name)
            else:
                self._ignored.add(name)
                place, names = self._store.model(name).path, MODEL_NAME.pattern
                _logger.warning("%s is ignored: a model's name matches %s", place, names)

    def _by_use(self, folders: Mapping[str, tuple[Any, ...]]) -> list[str]:
        """Those asked for last first, then those published last."""

        def order(name: str) -> tuple[float, int]:
            pointer = folders[name][0] if folders[name] else None
            return -self._known[name].used_at, -(pointer[0] if pointer else 0)

        return sorted(sorted(self._known.keys() & folders.keys()), key=order)

    def _miss(self, name: str) -> Load:
        """Retire a model whose folder is gone, once that is no mere moment."""
        known, version = self._known[name], self.version(name)
        known.missed += 1
        if known.missed < GONE_LOOKS:
            sentence = f"{self._store.model(name).path} cannot be read: No such file or directory"
            known.problem, known.seen = Problem("gone", sentence), None
            return Load(name, "failed", version, sentence)
        del self._known[name]
        self._served.pop(name, None)
        self._unloaded.discard(name)
        _logger.info("model %s: its folder is gone, it is out of service", name)
        return Load(name, "retired", version)

    async def _look_at(self, name: str, state: tuple[object, ...]) -> Load:
        known = self._known.get(name)
        if known is None or (known.hanging and not known.hanging.done()):
            return Load(name, "unchanged", self.version(name))
        known.missed = 0
        if state == known.seen:
            if not known.failures:
                return Load(name, "unchanged", self.version(name))
            try:
                if monotonic() < known.retry_at and await self._deep(name) == known.deep:
                    return Load(name, "unchanged", self.version(name))
            except Hanging as error:
                return self._fail(name, known, error)  # other models are looked at all the same
        elif name in self._unloaded and not known.failures and self._is_full():
            known.seen = state  # read when somebody asks for it
            return Load(name, "unchanged", self.version(name))
        return await self._load(name, known, state)

    def _is_full(self) -> bool:
        return self._max_loaded is not None and len(self._served) >= self._max_loaded

    async def _state(self, name: str) -> tuple[object, ...]:
        return await self._disk.run(self._store.model(name).look, seconds=self._store.look_seconds)

    async def _deep(self, name: str) -> object:
        return await self._disk.run(self._store.model(name).state, seconds=self._store.look_seconds)

    async def _load(
        self,
        name: str,
        known: _Known,
        state: tuple[object, ...] = (),
        *,
        only_missing: bool = False,
    ) -> Load:
        """Read a model's folder and serve what it says; of those who ask while that is done one
        does it again, for all of them.
        """
        asked = known.begun
        async with known.loading:
            if only_missing and name not in self._unloaded:
                served = self._served.get(name)
                return Load(name, "unchanged", self.version(name), served=served)
            if not only_missing and known.last and known.last[0] > asked:
                return known.last[1]
            known.begun = number = known.begun + 1
            load = await self._load_alone(name, known, state)
            known.last = number, load._replace(served=None)
        self.tell(load)
        return load

    async def _load_alone(self, name: str, known: _Known, state: tuple[object, ...]) -> Load:
        model, before = self._store.model(name), self._served.get(name)
        last = self.version(name)
        try:
            known.seen, known.deep = state or await self._state(name), await self._deep(name)
            stored = known.stored
            work = partial(load, model, before, pool=self._pool, max_bytes=self._max_bytes)
            after, problem = await self._loads.run(work, seconds=LOAD_SECONDS)
            if known.stored is not stored:  # changed while it was read
                after, problem = with_threshold(after, known.stored)
        except Exception as error:
            return self._fail(name, known, error)
        return await self._serve(name, known, after, problem, last)

    async def _serve(
        self, name: str, known: _Known, after: Served, problem: Problem | None, last: str | None
    ) -> Load:
        if self._known.get(name) is not known:  # retired meanwhile
            return Load(name, "retired", None)
        before = self._served.get(name)
        is_new = before is None or after.detector is not before.detector
        self._unloaded.discard(name)
        if before is None:
            self._served = dict(sorted({**self._served, name: after}.items()))
        else:
            self._served[name] = after
        said = known.problem
        known.summary, known.problem = after.summary, problem
        known.failures, known.retry_at, known.hanging = 0, math.inf, None
        if is_new:
            if len(self._served) > AWAKE_MODELS:
                after.detector.rest()
            self._let_go(keep=name)
            await self._loads.run(self._after_load, seconds=LOAD_SECONDS)
        if problem and problem != said:
            _logger.error("model %s: %s", name, problem.sentence)
        version = after.detector.version
        sentence = problem.sentence if problem else None
        if version == last:
            return Load(name, "unchanged", version, sentence, after)
        _logger.info("model %s: version %s is in service", name, version)
        return Load(name, "swapped" if last else "loaded", version, sentence, after)

    def _let_go(self, *, keep: str) -> None:
        """Of more models than are to be kept in memory those that were not asked for in the longest
        time.
        """
        while self._max_loaded and len(self._served) > self._max_loaded:
            others = (name for name in self._served if name != keep)
            oldest = min(others, key=lambda name: self._known[name].used_at, default=None)
            if oldest is None:
                return
            self._served = {name: each for name, each in self._served.items() if name != oldest}
            self._unloaded.add(oldest)

    def _fail(self, name: str, known: _Known, error: Exception) -> Load:
        problem, version = problem_of(error), self.version(name)
        if isinstance(error, Hanging):
            known.hanging = error.work
            problem = Problem("timeout", f"the model was not loaded within {LOAD_SECONDS:g} s")
        known.failures += 1
        known.retry_at = math.inf
        if problem.fault in PASSING:
            wait = min(FIRST_RETRY_SECONDS * 2 ** (known.failures - 1), LAST_RETRY_SECONDS)
            known.retry_at = monotonic() + wait
        if name not in self._served:
            self._unloaded.discard(name)
            known.summary = None
        if problem != known.problem:  # said once, however often it is tried
            stays = version or "none"
            _logger.error("model %s: %s; in service stays %s", name, problem.sentence, stays)
        known.problem = problem
        return Load(name, "failed", version, problem.sentence)


def _require_changeable(name: str) -> None:
    if name.startswith(EXHIBIT_PREFIX):
        raise ReadOnly(f"{name[:80]!r} ships with the service: nothing of it can be changed")


def _is_model(name: str, state: tuple[object, ...]) -> bool:
    """Whether a folder that looks so has a pointer; of one that is closed to us by its name."""
    return state[0] is not None if state else MODEL_NAME.fullmatch(name) is not None
