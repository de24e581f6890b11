"""Streamed: the rows of a table larger than memory that were not drawn, as sums go through them.

What needs rows themselves (k-means, a memory, a network's batches, held-out and calibration rows)
goes by those that were drawn. The rest count where a closed form is a sum over rows.

Shapes: N rows, D features.
"""

from collections.abc import Iterator
from tempfile import TemporaryFile, gettempdir
from typing import IO
from weakref import finalize

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hourglass.service.rows.tables import encode_table
from hourglass.training.data import Undrawn, describe_by
from hourglass.training.errors import RunError
from hourglass.training.fingerprints import hash_rows
from hourglass.training.progress import SILENT, Progress
from hourglass.training.ranks import Ranks
from hourglass.training.split import Prepared
from hourglass.training.sums import CHUNK, Sums, measure

SALT = b"rows"
FLOAT32_BYTES = 4

Float32 = NDArray[np.float32]


def share_sums(prepared: Prepared, ranks: Ranks, progress: Progress = SILENT) -> Prepared:
    """The same, but what is fitted in closed form goes by the rows that were not drawn as well, and
    each of several processes adds up its share.
    """
    undrawn = prepared.data.undrawn
    if undrawn is None or prepared.folds:
        return prepared._replace(sums=Sums(ranks))
    beyond = Beyond(undrawn, prepared, ranks, progress)
    sums = Sums(ranks, beyond)
    measures = measure(prepared.split.fit_ND, sums)
    features = describe_by(prepared.data.features, measures)
    others = measures.rows - len(prepared.split.fit_ND)
    warning = f"of the other rows {others:,} count in means, spreads, covariances and regressions"
    data = prepared.data._replace(warnings=(*prepared.data.warnings, warning))
    return prepared._replace(data=data, sums=sums, measures=measures, features=features)


class Beyond:
    """One process's share of the rows, gone through by each call."""

    def __init__(
        self, undrawn: Undrawn, prepared: Prepared, ranks: Ranks, progress: Progress
    ) -> None:
        self._undrawn, self._ranks, self._progress = undrawn, ranks, progress
        self._features = prepared.data.features
        self._least_observed = prepared.min_observed_fraction
        fit_ND, *held_out = prepared.split
        held_out_MD = np.concatenate(held_out)
        # what makes up much of all rows is both fitted and held out: split.py
        only_M = ~np.isin(hash_rows(held_out_MD, SALT), hash_rows(fit_ND, SALT))
        self._held_out = hash_rows(held_out_MD[only_M], SALT)
        self._scratch: IO[bytes] | None = None  # the rows, once they have been read
        self._sketches = np.unique(_sketch(held_out_MD[only_M]))

    def __call__(self) -> Iterator[Tensor]:
        """The rows in chunks: the first time from their files, then from a temporary one."""
        if self._scratch is None:
            scratch = TemporaryFile()  # noqa: SIM115 - closed with this object
            finalize(self, scratch.close)
            for rows_ND in self._read():
                try:
                    scratch.write(rows_ND.tobytes())
                except OSError as error:
                    raise RunError(
                        f"{gettempdir()}: {error.strerror}; the rows are kept there while they are"
                        " fitted, as float32, and TMPDIR names another place"
                    ) from error
                yield from torch.split(torch.from_numpy(rows_ND), CHUNK)
            self._scratch = scratch
            return
        done, width, of = 0, len(self._features), int(self._undrawn.rows_R.sum())
        self._scratch.seek(0)
        while block := self._scratch.read(CHUNK * width * FLOAT32_BYTES):
            rows = torch.frombuffer(bytearray(block), dtype=torch.float32).view(-1, width)
            done += len(rows) * self._ranks.count
            self._progress.rows(min(done, of), of)
            yield rows

    def _read(self) -> Iterator[Float32]:
        """This process's stretches of the files, without rows that are not to count."""
        table, dialect = self._undrawn.table, self._undrawn.dialect
        names = [feature.name for feature in self._features]
        for number, stretch in enumerate(table.stretches()):
            self._progress.rows(stretch.start, table.height)
            taken_N = self._undrawn.rows_R[stretch.start : stretch.start + stretch.rows]
            if number % self._ranks.count != self._ranks.rank or not taken_N.any():
                continue
            frame = table.read(stretch, names).filter(taken_N)
            rows_ND = encode_table(frame, self._features, dialect)
            kept_N = np.asarray((~np.isnan(rows_ND)).mean(axis=1) >= self._least_observed)
            alike = np.flatnonzero(np.isin(_sketch(rows_ND), self._sketches))
            kept_N[alike[np.isin(hash_rows(rows_ND[alike], SALT), self._held_out)]] = False
            yield rows_ND[kept_N]


def _sketch(rows_ND: Float32) -> NDArray[np.uint64]:
    """[N] a number that equal rows share, and few others: quicker than a hash."""
    plain_ND = np.where(np.isnan(rows_ND), np.float32(np.nan), rows_ND + np.float32(0.0))
    sketch_N = np.zeros(len(rows_ND), dtype=np.uint64)
    generator = np.random.default_rng(0)
    for column_N in plain_ND.T:
        sketch_N += column_N.copy().view(np.uint32) * generator.integers(2**63, dtype=np.uint64)
    return sketch_N
