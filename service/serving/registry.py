"""Registry: name -> the model in service. Looks at the models folder and swaps whole models, one
reference at a time.

Readers take one `Served` and answer from it alone; whatever goes wrong while looking, what is in
service stays. How the folder is laid out is store.py's.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Literal, NamedTuple, TypeVar

from hourglass.service.errors import (
    HourglassError,
    InvalidArtifact,
    ThresholdNotStored,
    UncertifiableAlpha,
    UnknownModel,
)
from hourglass.service.model.artifact import MODEL_NAME
from hourglass.service.model.calibration import Threshold
from hourglass.service.model.detector import DEFAULT_MAX_BYTES, Detector
from hourglass.service.model.schema import Schema
from hourglass.service.model.served import Served
from hourglass.service.serving.store import (
    THRESHOLD_FILE,
    ModelFile,
    ModelFolder,
    Store,
    StoredThreshold,
)

T = TypeVar("T")
_logger = logging.getLogger(__name__)


class Load(NamedTuple):
    """What came of looking at one model's folder."""

    name: str
    outcome: Literal["unchanged", "loaded", "swapped", "failed"]
    version: str | None  # now in service
    reason: str | None = None  # why it failed, or what else is wrong


class Registry:
    """The models in service.

    Only `look` and `set_threshold` change it, one at a time, and on the event loop.
    """

    def __init__(
        self,
        store: Store,
        *,
        threads: int,
        max_bytes: int,
        after_load: Callable[[], None] = lambda: None,
    ) -> None:
        self._store, self._max_bytes, self._after_load = store, max_bytes, after_load
        # one for all models and all their versions: what one of them does not use is the others'
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="runs") if threads > 1 else None
        # always the same thread: each thread has its own part of the heap, and every one would keep
        # the room that a load took
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="disk")
        self._served: dict[str, Served] = {}
        self._errors: dict[str, str] = {}
        self._seen: dict[str, object] = {}  # what the folder looked like when it was last acted on
        self._ignored: set[str] = set()
        self._unreadable: str | None = (
            None  # why the folder itself could not be looked into, the last time
        )
        self._changing = asyncio.Lock()

    @property
    def served(self) -> Mapping[str, Served]:
        """By name, in the names' order."""
        return self._served

    @property
    def errors(self) -> Mapping[str, str]:
        """By name: why the newest state of a model's folder is not, or not wholly, in service."""
        return self._errors

    def find(self, name: str | None) -> Served:
        """The model of that name; of no name, the only one there is. UnknownModel otherwise."""
        if name is not None and (served := self._served.get(name)):
            return served
        if name is None and len(self._served) == 1:
            return next(iter(self._served.values()))
        choice = f"served are: {', '.join(self._served)}" if self._served else "no model is served"
        if name is None:
            raise UnknownModel(
                f"the path names no model, which needs exactly one to be served; {choice}"
            )
        broken = f" ({self._errors[name]})" if name in self._errors else ""
        raise UnknownModel(f"no model {name!r} is served{broken}; {choice}")

    async def look(self, name: str | None = None) -> list[Load]:
        """Bring what changed on disk into service: of every model, or of one, which is then tried
        even if nothing changed.
        """
        async with self._changing:
            names = await self._off_loop(self._names)
            if name is None:
                self._errors = {
                    each: error for each, error in self._errors.items() if each in names
                }
                return [await self._look_at(each, again=False) for each in names]
            if name not in names:
                self.find(name)  # raises
            return [await self._look_at(name, again=True)]

    async def set_threshold(self, name: str, stored: StoredThreshold) -> Served:
        """Store another false-alarm budget and serve with it; UncertifiableAlpha or
        ThresholdNotStored when it cannot be.
        """
        async with self._changing:
            served = self.find(name)
            threshold = _threshold(served.detector, stored)
            try:
                await self._off_loop(partial(self._store.model(name).set_threshold, stored))
            except OSError as error:
                raise ThresholdNotStored(
                    f"{THRESHOLD_FILE} of {name} cannot be written ({error.strerror}), so the"
                    " threshold stays as it is"
                ) from error
            self._served = {**self._served, name: replace(served, threshold=threshold)}
            self._seen.pop(name, None)  # the file may be taken away again before anybody looks
            self._errors.pop(name, None)
            return self._served[name]

    async def _off_loop(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._disk, work)

    def _names(self) -> list[str]:
        """Names of folders with a pointer, and of models in service, whose folder may have gone."""
        try:
            names, unreadable = self._store.candidates(), None
        except OSError as error:
            names, unreadable = [], error.strerror
        if unreadable and unreadable != self._unreadable:
            _logger.error("%s cannot be read: %s", self._store.path, unreadable)
        self._unreadable = unreadable
        for name in names:
            if not MODEL_NAME.fullmatch(name) and name not in self._ignored:
                self._ignored.add(name)
                place = self._store.model(name).path
                _logger.warning(
                    "%s is ignored: a model's name matches %s", place, MODEL_NAME.pattern
                )
        return sorted(set(names) - self._ignored | self._served.keys())

    async def _look_at(self, name: str, *, again: bool) -> Load:
        model, before = self._store.model(name), self._served.get(name)
        version = before.detector.version if before else None
        seen = model.state()
        if seen == self._seen.get(name) and not again:
            return Load(name, "unchanged", version)
        self._seen[name] = seen
        try:
            after, problem = await self._off_loop(
                partial(load, model, before, pool=self._pool, max_bytes=self._max_bytes)
            )
        except Exception as error:
            # a file from elsewhere can break its readers in ways that have no name
            known = isinstance(error, HourglassError)
            reason = str(error) if known else f"the model file cannot be loaded: {error!r}"
            self._errors[name] = reason
            _logger.error("model %s: %s; in service stays %s", name, reason, version or "none")
            return Load(name, "failed", version, reason)
        if before is None or after.detector is not before.detector:
            await self._off_loop(self._after_load)
        self._served = dict(sorted({**self._served, name: after}.items()))
        self._errors.pop(name, None)
        if problem:
            self._errors[name] = problem
            _logger.error("model %s: %s", name, problem)
        if before and version == after.detector.version:
            return Load(name, "unchanged", version, problem)
        _logger.info("model %s: version %s is in service", name, after.detector.version)
        return Load(name, "swapped" if before else "loaded", after.detector.version, problem)


def load(
    model: ModelFolder,
    before: Served | None = None,
    *,
    pool: Executor | None = None,
    max_bytes: int = DEFAULT_MAX_BYTES,
) -> tuple[Served, str | None]:
    """What a model's folder says should be served, and what is wrong with its threshold;
    InvalidArtifact when nothing can be.

    `before` is kept, and not read again, where it is of the same version.
    """
    version = model.current()
    if before and before.detector.version == version:
        served = before
    else:
        file = model.read(version, max_bytes=max_bytes)
        served = served_from(file, model.name, pool=pool, max_bytes=max_bytes)
    own = served.detector.threshold
    try:
        stored = model.threshold()
        threshold = _threshold(served.detector, stored) if stored else own
        return replace(served, threshold=threshold), None
    except (InvalidArtifact, UncertifiableAlpha) as error:
        problem = (
            f"{THRESHOLD_FILE} cannot be used, the model's own alpha = {own.alpha:g} is in force:"
            f" {error}"
        )
        return replace(served, threshold=own), problem


def served_from(
    file: ModelFile, name: str, *, pool: Executor | None = None, max_bytes: int = DEFAULT_MAX_BYTES
) -> Served:
    """An artifact, with its own threshold; InvalidArtifact when it cannot be served."""
    detector = Detector.from_bytes(file.data, pool=pool, max_bytes=max_bytes)
    return Served(name, detector, Schema.of(detector.manifest), detector.threshold, file.written_at)


def _threshold(detector: Detector, stored: StoredThreshold) -> Threshold:
    return detector.table.threshold(stored.alpha, stored.delta, certified=not stored.uncertified)
