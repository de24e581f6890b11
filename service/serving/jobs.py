"""Jobs: models that clients of the retired Azure service asked to be trained, as files in
MODELS/.jobs, and the detections they asked for.

    .jobs/<id>.json             what was asked for, and what has come of it
    .jobs/<id>.lock             locked by the worker that has it: of one that died it is free
    .jobs/<id>.pairs.json       which variables go together, by the rows of the fit
    .jobs/detections/<id>.json  an answer, as it is sent
    .jobs/detections/<id>.lock  locked by the service that writes it

Every file is moved in whole. Who creates, changes or deletes a job holds .jobs/lock meanwhile, so
that a deleted one does not come back. The locks are flock's, which die with their process, also by
kill -9.
"""

import errno
import fcntl
import os
import re
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec import Meta

from hourglass.service.errors import InvalidTable, JobRefused, UnknownDetection, UnknownModel
from hourglass.service.rows.aligned import (
    AlignMode,
    FillMethod,
    TooFewRows,
    TooMuchMissing,
    VariableState,
)
from hourglass.service.serving.disk import write_atomically

FOLDER = ".jobs"
ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
MOST_JOBS = 1000
MOST_ATTEMPTS = 3  # by workers that died: what kills one may kill the next
LOCK_SECONDS = 10.0
KEPT_SECONDS, MOST_DETECTIONS = 7 * 86400.0, 1000

Status = Literal["CREATED", "RUNNING", "READY", "FAILED"]
OPEN: tuple[Status, ...] = ("CREATED", "RUNNING")


class TrainRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be trained on which rows."""

    source: str
    is_multi_table: bool
    start: float  # seconds since 1970, both included
    end: float
    display_name: str | None
    window: int  # rows
    align_mode: AlignMode
    fill_method: FillMethod
    padding: float


class Failure(msgspec.Struct, frozen=True):
    """Why a job, a detection or a row has no result."""

    code: str
    message: str


def failure_of(error: InvalidTable) -> Failure:
    """An error of the data as the API tells of it."""
    codes: dict[type[InvalidTable], str] = {
        TooMuchMissing: "TooManyMissingValues",
        TooFewRows: "NotEnoughInput",
    }
    return Failure(codes.get(type(error), "InvalidData"), str(error))


class EpochState(msgspec.Struct, frozen=True):
    """One pass over the rows."""

    number: int
    loss: float
    held_out_loss: float
    seconds: float


class Pair(msgspec.Struct, frozen=True, array_like=True):
    """Two variables, by their places, that went together in the rows of the fit."""

    first: int
    second: int
    correlation: float


class Pairs(msgspec.Struct, frozen=True, kw_only=True):
    """Which variables go together, and what a standard deviation of each is."""

    variables: tuple[str, ...]
    mean: tuple[float, ...]
    sd: tuple[float, ...]
    pairs: tuple[Pair, ...]


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One model that was asked for. Its id is its model's name, too."""

    version: Literal[1] = 1
    id: str
    created: float  # seconds since 1970
    updated: float
    asked: dict[str, Any]  # the request as it is echoed
    request: TrainRequest
    roots: tuple[str, ...]  # where the service that took it lets data come from
    status: Status = "CREATED"
    attempts: Annotated[int, Meta(ge=0)] = 0
    errors: tuple[Failure, ...] = ()
    epochs: tuple[EpochState, ...] = ()
    variables: tuple[VariableState, ...] = ()


class Claim(NamedTuple):
    """A job that this process works on, alone."""

    job: Job
    descriptor: int  # of the lock

    def release(self) -> None:
        os.close(self.descriptor)


class Jobs:
    """The jobs of a folder of models."""

    def __init__(self, models: Path) -> None:
        self.path = models / FOLDER

    def create(self, asked: dict[str, Any], request: TrainRequest, roots: tuple[str, ...]) -> Job:
        """A new job; JobRefused where the same one waits or runs, or there are too many."""
        with self._alone():
            known = self.all()
            for job in known:
                if job.request == request and job.status in OPEN:
                    raise JobRefused(
                        f"the same training was asked for before and is {job.status} as model"
                        f" {job.id}",
                        job=job.id,
                    )
            if len(known) >= MOST_JOBS:
                raise JobRefused(f"there are {len(known)} models, the most that are kept")
            now = time.time()
            job = Job(
                id=str(uuid.uuid4()),
                created=now,
                updated=now,
                asked=asked,
                request=request,
                roots=roots,
            )
            write_atomically(self._file(job.id), msgspec.json.encode(job))
        return job

    def get(self, identifier: str) -> Job:
        """UnknownModel where there is none of that id."""
        try:
            if ID.fullmatch(identifier):
                return msgspec.json.decode(self._file(identifier).read_bytes(), type=Job)
        except FileNotFoundError:
            pass
        except msgspec.MsgspecError as error:
            raise UnknownModel(f"the job of model {identifier} is no job: {error}") from error
        raise UnknownModel(f"there is no model {identifier[:80]!r}")

    def all(self) -> list[Job]:
        """All of them, the oldest first."""
        found = []
        for file in self.path.glob("*.json"):
            with suppress(UnknownModel):  # deleted meanwhile, or something else's file
                found.append(self.get(file.stem))
        return sorted(found, key=lambda job: (job.created, job.id))

    def update(self, identifier: str, **changes: Any) -> Job:
        """Change a job; UnknownModel where it was deleted."""
        with self._alone():
            job = self.get(identifier)
            job = msgspec.structs.replace(job, **changes, updated=time.time())
            write_atomically(self._file(identifier), msgspec.json.encode(job))
        return job

    def delete(self, identifier: str) -> None:
        """Forget a job; UnknownModel where there is none. A worker that has it finds it gone."""
        with self._alone():
            self.get(identifier)
            self._file(identifier).unlink()
            for rest in (".pairs.json", ".lock"):
                self.path.joinpath(identifier + rest).unlink(missing_ok=True)

    def claim(self) -> Claim | None:
        """The oldest job that no living process has, which is this one's from now on; None where
        there is none. One that has taken several workers with it is FAILED instead.
        """
        for job in self.all():
            if job.status not in OPEN:
                continue
            descriptor = _lock(self.path / f"{job.id}.lock")
            if descriptor is None:
                continue
            try:
                job = self.get(job.id)  # another one may have ended it before the lock was ours
                if job.status in OPEN and job.attempts < MOST_ATTEMPTS:
                    job = self.update(job.id, status="RUNNING", attempts=job.attempts + 1)
                    return Claim(job, descriptor)
                if job.status in OPEN:
                    ended = f"{job.attempts} workers ended before they had trained it"
                    self.update(job.id, status="FAILED", errors=(Failure("WorkerLost", ended),))
            except UnknownModel:
                self.path.joinpath(f"{job.id}.lock").unlink(missing_ok=True)
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)
        return None

    def keep_pairs(self, identifier: str, pairs: Pairs) -> None:
        """Keep which variables go together, beside the job."""
        write_atomically(self.path / f"{identifier}.pairs.json", msgspec.json.encode(pairs))

    def pairs(self, identifier: str) -> Pairs | None:
        """None where they are not known."""
        try:
            data = self.path.joinpath(f"{identifier}.pairs.json").read_bytes()
            return msgspec.json.decode(data, type=Pairs)
        except (FileNotFoundError, msgspec.MsgspecError):
            return None

    def _file(self, identifier: str) -> Path:
        return self.path / f"{identifier}.json"

    @contextmanager
    def _alone(self) -> Iterator[None]:
        self.path.mkdir(parents=True, exist_ok=True)
        end = time.monotonic() + LOCK_SECONDS
        while (descriptor := _lock(self.path / "lock")) is None:
            if time.monotonic() > end:
                raise OSError(errno.ETIMEDOUT, "another process holds its lock", str(self.path))
            time.sleep(0.005)
        try:
            yield
        finally:
            os.close(descriptor)


class Detections:
    """The answers to detections of a folder of models; those of the last week are kept."""

    def __init__(self, models: Path) -> None:
        self.path = models / FOLDER / "detections"

    @contextmanager
    def begun(self) -> Iterator[str]:
        """A new one's id; as long as the block runs, others see that somebody is at it."""
        self.path.mkdir(parents=True, exist_ok=True)
        self._forget()
        identifier = str(uuid.uuid4())
        lock = self.path / f"{identifier}.lock"
        descriptor = _lock(lock)
        assert descriptor is not None
        try:
            yield identifier
        finally:
            lock.unlink(missing_ok=True)
            os.close(descriptor)

    def keep(self, identifier: str, answer: bytes) -> None:
        """Write the answer, in the place of the one before."""
        write_atomically(self.path / f"{identifier}.json", answer)

    def get(self, identifier: str) -> bytes:
        """UnknownDetection where there is none, or not any more."""
        if ID.fullmatch(identifier):
            with suppress(FileNotFoundError):
                return self.path.joinpath(f"{identifier}.json").read_bytes()
        raise UnknownDetection(f"there is no detection {identifier[:80]!r}")

    def is_at_work(self, identifier: str) -> bool:
        """Whether a living process has it."""
        lock = self.path / f"{identifier}.lock"
        if not lock.exists():
            return False
        if (descriptor := _lock(lock)) is None:
            return True
        os.close(descriptor)
        return False

    def _forget(self) -> None:
        """Take the old ones away."""
        found = []
        for file in self.path.glob("*.json"):
            with suppress(FileNotFoundError):
                found.append((file.stat().st_mtime, file))
        found.sort(reverse=True)
        oldest = time.time() - KEPT_SECONDS
        for place, (written, file) in enumerate(found, 1):
            if written < oldest or place >= MOST_DETECTIONS:
                file.unlink(missing_ok=True)
                file.with_suffix(".lock").unlink(missing_ok=True)


def _lock(path: Path) -> int | None:
    """A descriptor that holds the lock of a file until it is closed; None where another has it."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
