"""Shared counts: numbers that several workers count, each in a file of the folder where they meet;
any of them adds up all. A worker's counts outlive it.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]
_logger = logging.getLogger(__name__)


class SharedCounts:
    """One worker's counts of one model under one key, in a file once `share` is called; without a
    folder they are its own alone. What any worker counted under another key is over.
    """

    __slots__ = ("_folder", "_kind", "_model", "_place", "_shared", "counts", "key", "since")

    def __init__(
        self, size: int, folder: Path | None, *, kind: str, model: str, key: str, pid: int
    ) -> None:
        self.key, self.since = key, time.time()
        self.counts: Integers = np.zeros(size, np.int64)
        self._kind, self._model, self._shared = kind, model, False
        self._folder = folder
        self._place = folder and folder / f"{model}.{key}.{pid}.{kind}"
        if folder is not None:
            for path in folder.glob(f"{model}.*.{kind}"):
                if path.name.split(".")[1] != key:
                    path.unlink(missing_ok=True)

    def share(self) -> None:
        """Have a file from now on: the counts are written first, so that there is room for every
        one.
        """
        if self._place is None or self._shared:
            return
        head = np.array([self.since * 1000], np.int64)
        try:
            self._place.write_bytes(head.tobytes() + self.counts.tobytes())
            self.counts = np.asarray(np.memmap(self._place, np.int64, "r+"))[1:]
            self._shared = True
        except OSError as error:
            _logger.warning("counts of %s are not shared: %s", self._model, error)
            self._place = None

    def total(self) -> tuple[float, Integers]:
        """What all workers have counted, and since when."""
        since, counts = self.since, self.counts.copy()
        for other in self._others():
            since, counts = min(since, float(other[0]) / 1000), counts + other[1:]
        return since, counts

    def drop(self) -> None:
        """Have no file any more."""
        if self._place is not None:
            self._place.unlink(missing_ok=True)

    def _others(self) -> Iterator[Integers]:
        if self._folder is None:
            return
        for path in self._folder.glob(f"{self._model}.{self.key}.*.{self._kind}"):
            if path != self._place:
                with suppress(OSError):  # its worker has gone on to another key
                    if len(array := np.fromfile(path, np.int64)) == len(self.counts) + 1:
                        yield array
