"""Origin: what a model cost, how its fit went, and what makes it again."""

import hashlib
import platform
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

import msgspec
import numpy as np
from numpy.typing import NDArray

from hourglass.service.model.detector import Detector
from hourglass.training.progress import Epoch, Progress

TIMED_RUNS, WARM_UPS = 20, 3
BULK_ROWS = 1024
MOST_POINTS = 200  # of a learning curve

Float32 = NDArray[np.float32]


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """What scoring and fitting took on the machine of the report, with one thread."""

    one_row_ms: float  # median wall time of a call with one row or window, without a server
    bulk_row_ms: float  # a row of BULK_ROWS
    timed_runs: int  # behind each median
    size_kib: float
    fit_cpu_seconds: float | None  # of the processor, all stages before the report; None: unknown
    fit_seconds: float | None  # wall time of the same
    report_cpu_seconds: float


class Curve(msgspec.Struct, frozen=True, kw_only=True):
    """The loss of one network by epoch; thinned to MOST_POINTS."""

    name: str
    epoch: tuple[int, ...]
    loss: tuple[float, ...]
    held_out_loss: tuple[float, ...]


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """What makes the same file again."""

    version: str  # SHA-256 of the model file
    data: str  # the file of rows
    data_sha256: str | None  # None: it was not there any more
    run_toml: str | None  # the complete configuration; None of a model that has none beside it
    seed: int
    versions: dict[str, str]


class Recorder:
    """A progress that keeps the epochs of each network, and passes everything on."""

    def __init__(self, progress: Progress) -> None:
        self._progress, self._name = progress, ""
        self._epochs: dict[str, list[Epoch]] = {}

    @property
    def progress(self) -> Progress:
        """What a run reports to."""
        return self._progress._replace(stage=self._stage, epoch=self._epoch)

    def curves(self, variant: str) -> tuple[Curve, ...]:
        """Of the networks that are in the file: where several variants were tried, the chosen."""
        names = list(self._epochs)
        if f"fitting {variant}" in names:
            names = [f"fitting {variant}"]
        return tuple(_curve(name.removeprefix("fitting "), self._epochs[name]) for name in names)

    def _stage(self, name: str) -> None:
        self._name = name
        self._progress.stage(name)

    def _epoch(self, epoch: Epoch) -> None:
        self._epochs.setdefault(self._name, []).append(epoch)
        self._progress.epoch(epoch)


def cost_of(
    detector: Detector,
    rows_ND: Float32,
    *,
    fit_cpu_seconds: float | None,
    fit_seconds: float | None,
    report_cpu_seconds: float,
) -> Cost:
    """Time the detector on these rows; a windowed one on as many as make BULK_ROWS windows."""
    bulk_ND = np.resize(rows_ND, (BULK_ROWS + detector.window - 1, rows_ND.shape[1]))
    return Cost(
        one_row_ms=_milliseconds(detector, bulk_ND[: detector.window]),
        bulk_row_ms=_milliseconds(detector, bulk_ND) / BULK_ROWS,
        timed_runs=TIMED_RUNS,
        size_kib=detector.size_bytes / 1024,
        fit_cpu_seconds=fit_cpu_seconds,
        fit_seconds=fit_seconds,
        report_cpu_seconds=report_cpu_seconds,
    )


def origin_of(detector: Detector, data: Path, run_toml: str | None) -> Origin:
    """Of a model and the file that it was fitted on, or reported on."""
    producer = detector.manifest.producer
    return Origin(
        version=detector.version,
        data=data.name,
        data_sha256=hash_file(data),
        run_toml=run_toml,
        seed=detector.manifest.model.seed,
        versions={
            "hourglass": producer.hourglass,
            "torch": producer.torch,
            "onnx": producer.onnx,
            "onnxruntime": producer.onnxruntime,
            "numpy": np.__version__,
            "python": platform.python_version(),
            "model format": detector.manifest.format,
            "threads": str(producer.threads),
        },
    )


def hash_file(path: Path) -> str | None:
    """SHA-256 in hex."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def _curve(name: str, epochs: Sequence[Epoch]) -> Curve:
    places = np.unique(np.linspace(0, len(epochs) - 1, min(len(epochs), MOST_POINTS)).astype(int))
    kept = [epochs[place] for place in places]
    return Curve(
        name="the network" if name == "fitting" else name,
        epoch=tuple(each.number for each in kept),
        loss=tuple(each.loss for each in kept),
        held_out_loss=tuple(each.held_out_loss for each in kept),
    )


def _milliseconds(detector: Detector, rows_ND: Float32) -> float:
    seconds = []
    for _ in range(TIMED_RUNS + WARM_UPS):
        started = perf_counter()
        detector.score(rows_ND)
        seconds.append(perf_counter() - started)
    return float(np.median(seconds[WARM_UPS:])) * 1e3
