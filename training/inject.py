"""Made-up anomalies, to measure a detector's power where nobody has labels.

Two sorts, of which real ones are mostly made (Han et al., ADBench, NeurIPS 2022, section 3.2):
cells taken from other rows, which keep every feature's own distribution and break its dependence on
the others; and cells far from where they were.
"""

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hourglass.service.model.artifact import UNSEEN, Feature
from hourglass.service.rows.tables import FLOAT32_MAX

Float32 = NDArray[np.float32]

CELL_SHARE = 0.2  # of a row's cells
SHIFT = (2.0, 5.0)  # standard deviations


class Fault(NamedTuple):
    """One kind of wrong value in one feature."""

    kind: Literal["shift", "swap", "stuck", "frozen", "flip", "unseen", "missing"]
    size: float | None = None  # standard deviations of a shift
    lasts: bool = False  # over the last rows of a window, or else in its last row alone

    def say(self, rows: int = 1) -> str:
        """In words; what lasts does so for that many rows."""
        if self.lasts:
            what = {"shift": f"{self.size or 0:g} sd", "swap": "another's", "flip": "flipped"}
            return f"{what.get(self.kind, self.kind)}, {rows} rows"
        return {
            "shift": f"shifted by {self.size or 0:g} sd",
            "swap": "another row's value",
            "stuck": "stuck at the median",
            "frozen": "frozen",
            "flip": "true for false",
            "unseen": "a new category",
            "missing": "missing",
        }[self.kind]


NUMERIC_FAULTS = (
    *(Fault("shift", size) for size in (1.0, 2.0, 4.0, 8.0)),
    Fault("swap"),
    Fault("stuck"),
    Fault("missing"),
)
FAULTS = {
    "numeric": NUMERIC_FAULTS,
    "boolean": (Fault("flip"), Fault("missing")),
    "categorical": (Fault("swap"), Fault("unseen"), Fault("missing")),
}
LASTING_FAULTS = {
    "numeric": (
        *(Fault("shift", size, lasts=True) for size in (1.0, 2.0, 4.0)),
        Fault("swap", lasts=True),
        Fault("frozen", lasts=True),
    ),
    "boolean": (Fault("flip", lasts=True), Fault("frozen", lasts=True)),
    "categorical": (Fault("swap", lasts=True),),
}


def inject(
    rows_ND: Float32, features: tuple[Feature, ...], seed: int, *, copies: int = 2
) -> Float32:
    """[2 * copies * N, D]: for each row, copies with swapped cells and copies with shifted ones;
    missing cells stay missing.
    """
    rng = np.random.default_rng(seed)
    repeated = np.tile(rows_ND, (copies, 1))
    return np.concatenate([_swap(repeated, rng), _shift(repeated, features, rng)])


def inject_fault(
    rows_ND: Float32, column: int, fault: Fault, rng: np.random.Generator
) -> tuple[Float32, NDArray[np.bool_]]:
    """[N, D] the rows with this fault in one column, and [N] which of them it changed."""
    faulty_ND = rows_ND.copy()
    before_N, after_N = rows_ND[:, column], faulty_ND[:, column]
    known_N = ~np.isnan(before_N)
    match fault.kind:
        case "shift":
            assert fault.size is not None
            sign_N = rng.choice([-1.0, 1.0], len(before_N))
            values_N = before_N.astype(np.float64)
            spread = float(np.nanstd(values_N)) if known_N.any() else 0.0
            shifted_N = values_N + sign_N * fault.size * (spread or 1.0)
            after_N[:] = np.clip(shifted_N, -FLOAT32_MAX, FLOAT32_MAX)
        case "swap":
            after_N[:] = rng.permutation(before_N)
        case "stuck":
            after_N[known_N] = np.nanmedian(before_N) if known_N.any() else 0.0
        case "flip":
            after_N[:] = 1 - before_N
        case "unseen":
            after_N[:] = UNSEEN
        case "missing":
            after_N[:] = np.nan
    changed_N = known_N & ~(after_N == before_N)
    if fault.kind != "missing":
        changed_N &= ~np.isnan(after_N)
    return faulty_ND, changed_N


def inject_fault_in_windows(
    windows_NWD: Float32, column: int, fault: Fault, rows: int, rng: np.random.Generator
) -> tuple[Float32, NDArray[np.bool_]]:
    """[N, W, D] the windows with this fault in one column of their last row, or of so many rows if
    it lasts; and [N] which of them it changed.
    """
    faulty_NWD = windows_NWD.copy()
    last_NR = faulty_NWD[:, -rows if fault.lasts else -1 :, column]
    before_NR = last_NR.copy()
    known_NR = ~np.isnan(before_NR)
    if not fault.lasts:
        faulty_NWD[:, -1], changed_N = inject_fault(windows_NWD[:, -1], column, fault, rng)
        return faulty_NWD, changed_N
    match fault.kind:
        case "shift":
            assert fault.size is not None
            values_N = before_NR[:, -1].astype(np.float64)
            spread = float(np.nanstd(values_N)) if known_NR[:, -1].any() else 0.0
            by_N1 = rng.choice([-1.0, 1.0], (len(before_NR), 1)) * fault.size * (spread or 1.0)
            last_NR[:] = np.clip(before_NR + by_N1, -FLOAT32_MAX, FLOAT32_MAX)
        case "swap":
            last_NR[:] = rng.permutation(before_NR)
        case "frozen":
            last_NR[:] = before_NR[:, :1]
        case "flip":
            last_NR[:] = 1 - before_NR
        case _:
            raise ValueError(f"{fault.kind} does not last")
    changed_NR = known_NR & ~np.isnan(last_NR) & (last_NR != before_NR)
    return faulty_NWD, changed_NR[:, -1] if fault.kind != "frozen" else changed_NR.any(axis=1)


def _cells(shape: tuple[int, int], rng: np.random.Generator) -> NDArray[np.bool_]:
    """About CELL_SHARE of each row's cells, at least one."""
    count = max(1, round(CELL_SHARE * shape[1]))
    return np.argsort(np.argsort(rng.random(shape), axis=1), axis=1) < count


def _swap(rows_ND: Float32, rng: np.random.Generator) -> Float32:
    others_ND = np.stack([rng.permutation(column) for column in rows_ND.T], axis=1)
    exchanged = _cells(rows_ND.shape, rng) & ~np.isnan(rows_ND) & ~np.isnan(others_ND)
    return np.where(exchanged, others_ND, rows_ND)


def _shift(rows_ND: Float32, features: tuple[Feature, ...], rng: np.random.Generator) -> Float32:
    shifted_ND = rows_ND.copy()
    cells = _cells(rows_ND.shape, rng)
    for column, feature, chosen in zip(shifted_ND.T, features, cells.T, strict=True):
        if feature.kind == "numeric":
            spread = float(np.nanstd(column)) if not np.isnan(column).all() else 0.0
            distance = (
                rng.uniform(*SHIFT, len(column)) * rng.choice([-1.0, 1.0], len(column)) * spread
            )
            column[chosen] += distance[chosen].astype(np.float32)
        else:
            width = len(feature.categories) or 2
            moved = (column + rng.integers(1, max(2, width), len(column))) % width
            column[chosen] = moved[chosen]
    return shifted_ND
