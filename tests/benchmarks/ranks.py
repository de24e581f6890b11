"""`python -m tests.benchmarks.ranks`: a fit from more rows than memory should hold, by one process
and by two, and how far their models differ.

It writes a folder of Parquet files with correlated columns, of which some cells are missing, and
removes it at the end.
"""

import argparse
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from hourglass.service.model.detector import Detector

ROW_GROUP = 100_000
FILE_ROWS = 500_000
LATENT, NOISE = 8, 0.4
GAPPY, MISSING = 5, 0.02  # columns with missing cells, and their share
FRESH, ANOMALIES, BROKEN = 20_000, 2_000, 4  # rows that models are compared on; columns each
BEYOND = 1_000_000  # seeds that no file has
FITS = {
    "one process": (sys.executable,),
    "two processes": (
        *(str(Path(sys.executable).parent / "torchrun"), "--standalone"),
        *("--nproc_per_node", "2"),
    ),
}

Float32 = NDArray[np.float32]


class Fit(NamedTuple):
    """What one fit took, and its model."""

    seconds: float
    cpu_seconds: float  # of all processes
    peaks: tuple[float, ...]  # GiB of resident memory, of each process that trained
    model: Path


def rows_of(count: int, columns: int, seed: int) -> Float32:
    """Rows [N, D] of one law, whatever the seed."""
    mix_LD = np.random.default_rng(0).standard_normal((LATENT, columns), dtype=np.float32)
    generator = np.random.default_rng(seed + 1)
    rows_ND = generator.standard_normal((count, LATENT), dtype=np.float32) @ mix_LD
    rows_ND += NOISE * generator.standard_normal((count, columns), dtype=np.float32)
    rows_ND[:, 0] = np.exp(rows_ND[:, 0] / 4)
    rows_ND[:, :GAPPY][generator.random((count, GAPPY), dtype=np.float32) < MISSING] = np.nan
    return rows_ND


def anomalies_of(count: int, columns: int) -> Float32:
    """Rows of which some columns are another row's."""
    rows_ND, others_ND = rows_of(count, columns, BEYOND), rows_of(count, columns, BEYOND + 1)
    generator = np.random.default_rng(0)
    for row_D, other_D in zip(rows_ND, others_ND, strict=True):
        broken = generator.permutation(columns)[:BROKEN]
        row_D[broken] = other_D[broken]
    return rows_ND


def write_rows(folder: Path, rows: int, columns: int) -> float:
    """The files; returns their size in GB."""
    for number, start in enumerate(range(0, rows, FILE_ROWS)):
        rows_ND = rows_of(min(FILE_ROWS, rows - start), columns, number)
        frame = pl.DataFrame(rows_ND, schema=[f"x{i}" for i in range(columns)], nan_to_null=True)
        frame.write_parquet(folder / f"part-{number:04}.parquet", row_group_size=ROW_GROUP)
    return sum(path.stat().st_size for path in folder.iterdir()) / 1e9


def fit(data: Path, models: Path, preset: str, how: str) -> Fit:
    """Fit in processes of their own, and watch their memory."""
    name = f"{preset}-{how.split()[0]}"
    command = [*FITS[how], "-m", "hourglass.training", "fit", str(data), "--name", name]
    command += ["--models", str(models), "--preset", preset, "--device", "cpu"]
    began, cpu_began = time.perf_counter(), cpu_seconds()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    peaks: dict[int, float] = {}
    while process.poll() is None:
        peaks |= {pid: peak for pid in family(process.pid) if (peak := peak_of(pid))}
        time.sleep(0.5)
    seconds = time.perf_counter() - began
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    version = (models / name / "current").read_text().strip()
    training = sorted(peaks.values())[-1 if how == "one process" else -2 :]
    cpu = cpu_seconds() - cpu_began
    return Fit(seconds, cpu, tuple(training), models / name / version / "model.onnx")


def cpu_seconds() -> float:
    """Of all processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def family(pid: int) -> list[int]:
    """A process and those it started."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return [pid]
    return [pid, *(each for child in children for each in family(int(child)))]


def peak_of(pid: int) -> float:
    """The most memory that a process had, in GiB; 0 where it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0) / 2**20


def main() -> None:
    options = parser().parse_args()
    work = Path(tempfile.mkdtemp(dir=options.work))
    try:
        compare(work, options.rows, options.columns, options.presets)
    finally:
        shutil.rmtree(work)


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.ranks")
    parser.add_argument("--rows", type=int, default=20_000_000)
    parser.add_argument("--columns", type=int, default=50)
    parser.add_argument("--presets", nargs="+", default=["fast", "balanced"])
    parser.add_argument("--work", type=Path, help="where the folder goes (the system's)")
    return parser


def compare(work: Path, rows: int, columns: int, presets: list[str]) -> None:
    data = work / "rows"
    data.mkdir()
    size = write_rows(data, rows, columns)
    print(f"{rows:,} rows of {columns} columns, {size:.1f} GB of Parquet", flush=True)
    fresh_ND, strange_ND = rows_of(FRESH, columns, BEYOND + 2), anomalies_of(ANOMALIES, columns)
    tested_ND = np.concatenate([fresh_ND, strange_ND])
    is_strange = np.arange(len(tested_ND)) >= FRESH
    for preset in presets:
        scores = []
        for how in FITS:
            fitted = fit(data, work / "models", preset, how)
            score_N = Detector.from_bytes(fitted.model.read_bytes()).score(tested_ND).score
            scores.append(score_N)
            peaks = " and ".join(f"{peak:.2f}" for peak in fitted.peaks)
            print(
                f"{preset}, {how}: {fitted.seconds:.0f} s, {fitted.cpu_seconds:.0f} of CPU,"
                f" {peaks} GiB,"
                f" AUROC {roc_auc_score(is_strange, score_N):.4f}",
                flush=True,
            )
        one_N, two_N = scores
        relative = np.abs(two_N / one_N - 1)
        print(
            f"{preset}: scores differ by {relative.max():.1e} at most, {np.median(relative):.1e}"
            f" in the median; Spearman {spearmanr(one_N, two_N).statistic:.6f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
