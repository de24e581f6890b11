"""Sums: what a closed form needs of rows, added up over those in memory and those beyond it, by
every process over its share.

Shapes: N rows, D features.
"""

from collections.abc import Callable, Iterator
from itertools import chain
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hourglass.training.ranks import ALONE, Ranks

CHUNK = 8192  # rows at a time, which a core's cache holds
FLOAT32_STEP = 1.2e-7  # relative distance of neighbouring numbers

Rows = TypeVar("Rows", bound=tuple[Tensor, ...])


class Terms(NamedTuple):
    """What some rows add to a closed form, in float64."""

    sums: tuple[Tensor, ...]
    largest: tuple[Tensor, ...] = ()  # of which the largest counts instead of the sum


class Raw(NamedTuple):
    """Rows as the model takes them."""

    rows_ND: Tensor


class Sums(NamedTuple):
    """Where the rows are that a sum is over."""

    ranks: Ranks = ALONE
    # raw rows [N, D] that memory does not hold, this process's share of them, once a call
    beyond: Callable[[], Iterator[Tensor]] | None = None

    @property
    def in_memory(self) -> "Sums":
        """The same without the rows beyond."""
        return self._replace(beyond=None)

    @torch.no_grad()
    def over(
        self, rows: Rows, terms: Callable[[Rows], Terms], read: Callable[[Tensor], Rows]
    ) -> Terms:
        """The terms of all rows: of these, which every process holds, and of those beyond, as
        `read` makes them of raw rows.
        """
        parts = [torch.split(self.ranks.share(tensor), CHUNK) for tensor in rows]
        chunks = (type(rows)(*chunk) for chunk in zip(*parts, strict=True))
        beyond = map(read, self.beyond()) if self.beyond else ()
        found = None
        for chunk in chain(chunks, beyond):
            more = terms(chunk)
            found = (
                more
                if found is None
                else Terms(
                    tuple(map(torch.add, found.sums, more.sums)),
                    tuple(map(torch.maximum, found.largest, more.largest)),
                )
            )
        assert found is not None
        return Terms(
            tuple(map(self.ranks.total, found.sums)), tuple(map(self.ranks.largest, found.largest))
        )


IN_MEMORY = Sums()


class Measures(NamedTuple):
    """What rows have in each column; NaN where no row has a value."""

    rows: int
    seen_D: NDArray[np.int64]  # cells that are not missing
    mean_D: NDArray[np.float64]
    deviation_D: NDArray[np.float64]
    least_D: NDArray[np.float64]
    largest_D: NDArray[np.float64]

    @property
    def unit_D(self) -> NDArray[np.float64]:
        """What a column is measured by: its deviation, no finer than float32 is there; a constant
        keeps its unit, so that any other value stands out.
        """
        finest_D = np.maximum(FLOAT32_STEP * np.abs(self.mean_D), 1e-30)
        varies_D = self.least_D < self.largest_D
        return np.where(varies_D, np.maximum(self.deviation_D, finest_D), 1.0)

    @property
    def ends_2D(self) -> NDArray[np.float32]:
        """Two rows that lie as far apart as all of them."""
        return np.stack([self.least_D, self.largest_D]).astype(np.float32)


def measure(rows_ND: NDArray[np.float32], sums: Sums = IN_MEMORY) -> Measures:
    """Count, mean, deviation and range of each column, over all rows that the sums are over."""
    seen_DN = ~np.isnan(rows_ND.T)
    known_D = np.maximum(seen_DN.sum(axis=1), 1)
    # sums of what differs from about the mean lose no digits
    middle_D = np.where(seen_DN, rows_ND.T, 0.0).sum(axis=1, dtype=np.float64) / known_D
    del seen_DN
    middle = torch.from_numpy(middle_D)

    def terms(rows: Raw) -> Terms:
        x_ND = rows.rows_ND
        missing_ND = torch.isnan(x_ND)
        left_ND = torch.where(missing_ND, 0.0, x_ND.double() - middle)
        count = torch.tensor(float(len(x_ND)), dtype=torch.float64)
        seen_D = count - missing_ND.double().sum(dim=0)
        ends = (torch.where(missing_ND, -torch.inf, each).amax(dim=0) for each in (x_ND, -x_ND))
        return Terms(
            (count, seen_D, left_ND.sum(dim=0), left_ND.square().sum(dim=0)),
            tuple(each.double() for each in ends),
        )

    found = sums.over(Raw(torch.from_numpy(rows_ND)), terms, Raw)
    rows, seen_D, left_D, squares_D = (each.numpy() for each in found.sums)
    largest_D, negated_D = (each.numpy() for each in found.largest)
    count_D = np.where(seen_D > 0, seen_D, np.nan)
    return Measures(
        int(rows),
        seen_D.astype(np.int64),
        middle_D + left_D / count_D,
        np.sqrt(np.maximum(squares_D / count_D - np.square(left_D / count_D), 0.0)),
        np.where(seen_D > 0, -negated_D, np.nan),
        np.where(seen_D > 0, largest_D, np.nan),
    )
