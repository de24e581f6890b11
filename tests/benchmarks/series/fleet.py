"""Fleets: one model of many machines, judged by the fleet's level and spread or by each one's own,
against one model of each machine.

- simulated: two states that remember themselves move all sensors, by loads that all machines have;
  each machine has a level and a spread of each sensor. Some machines have faults: a sensor shifts,
  leaves the states, is louder, or jumps at single rows.
- cut: series of a folder of CSVs, cut in time into machines, each with an affine change of each
  column; their labels are the anomalies.

What is compared is the severity, which two models' scores can be compared by, of all rows of the
machines that are tested together. Models are fitted as `hourglass-train fit` fits them and answer
by torch: most of a fit is the export, which a run checks to answer the same. What a file takes is
measured by whole runs of one file of the simulated fleet, and of one machine's.

Shapes: N rows, D sensors, M windows.
"""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import process_time
from typing import NamedTuple

import msgspec
import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score
from threadpoolctl import threadpool_limits

from hourglass.service.model.artifact import NOBODY
from hourglass.service.model.calibration import Table, build_table
from hourglass.training.config import AutoConfig, RunConfig, load_config
from hourglass.training.core import Core
from hourglass.training.progress import SILENT
from hourglass.training.run import run
from hourglass.training.split import data_of, split_data
from hourglass.training.trial import absorb_held_out, fit_trial
from hourglass.training.vus import vus_pr
from hourglass.training.windows import Windowed
from tests.benchmarks.adbench.report import Grid
from tests.benchmarks.machine import machine as processor
from tests.benchmarks.series.files import Source
from tests.benchmarks.series.table import say

WINDOW = 30
LEVELS, SPREADS = 10.0, 0.7  # standard deviations: of levels in spreads, of a spread's logarithm
STATES, KEPT = 2, 0.95  # how much of a state is left after a row
FAULT_ROWS, FAULTS = 15, 4  # rows of a fault, and faults of a machine
LEADING = 60  # rows of a test before its first fault
ALPHA = 0.05
FILE = "fleets.jsonl"
WAYS: dict[str, str | None] = {  # by which baseline one model judges all; None: a model of each
    "one file, the fleet's baseline": "fleet",
    "one file, each machine's baseline": "entity",
    "a file for each machine": None,
}
PARTS = {"asd": 10, "tep": 5}  # machines of a series, by its family

Floats = NDArray[np.float64]
Float32 = NDArray[np.float32]
Booleans = NDArray[np.bool_]


class Machine(NamedTuple):
    name: str
    train_ND: Floats
    test_ND: Floats  # no rows where it is not tested
    anomalous_N: Booleans

    @property
    def is_tested(self) -> bool:
        return len(self.test_ND) > 0


class Fleet(NamedTuple):
    name: str
    machines: tuple[Machine, ...]

    @property
    def tested(self) -> tuple[Machine, ...]:
        return tuple(each for each in self.machines if each.is_tested)


class Model(NamedTuple):
    """A fitted one, and the calibration scores of its windows."""

    core: Windowed
    table: Table
    codes: dict[str, int]  # of machines with a baseline

    def judge(self, machine: Machine) -> tuple[Float32, Float32]:
        """Severities and p-values [M] of the machine's tests."""
        columns = [int(each.name.removeprefix("x")) for each in self.core.features]
        rows_1ND = torch.from_numpy(machine.test_ND[None, :, columns].astype(np.float32))
        code_1 = torch.tensor([self.codes.get(machine.name, NOBODY)])
        with torch.no_grad():
            score_M = self.core(rows_1ND, code_1).score_N.numpy()
        return self.table.severities(score_M), self.table.p_value(score_M)


class Cost(NamedTuple):
    megabytes: float
    cpu_seconds: float


class FleetOutcome(msgspec.Struct, frozen=True, kw_only=True):
    fleet: str
    way: str
    machines: int
    tested: int
    auroc: float
    average_precision: float
    vus_pr: float
    alarm_rate: float  # of normal rows, at ALPHA
    files: int
    megabytes: float | None  # of all files; None where it was not measured
    cpu_minutes: float | None  # of fitting all of them


def simulated(
    machines: int = 200,
    sensors: int = 6,
    *,
    train_rows: int = 500,
    test_rows: int = 500,
    tested: int = 8,
    seed: int = 0,
) -> Fleet:
    """The first machines are tested, and have faults."""
    draw = np.random.default_rng(seed)
    load_SD = draw.normal(size=(STATES, sensors))
    made = []
    for number in range(machines):
        rows = train_rows + (test_rows if number < tested else 0)
        state_NS = _remembering(draw.normal(size=(rows, STATES)))
        rows_ND = state_NS @ load_SD + 0.5 * draw.normal(size=(rows, sensors))
        anomalous_N = np.zeros(rows - train_rows, dtype=bool)
        if number < tested:
            _break(rows_ND[train_rows:], anomalous_N, np.std(rows_ND, axis=0), draw)
        rows_ND = _in_own_units(rows_ND, draw)
        name = f"machine {number}"
        made.append(Machine(name, rows_ND[:train_rows], rows_ND[train_rows:], anomalous_N))
    return Fleet(f"simulated, {machines:,} machines of {sensors} sensors", tuple(made))


def cut(sources: Sequence[Source], family: str, *, tested: int = 8, seed: int = 0) -> Fleet:
    """Each series of a family in parts, of its training rows and of its tests; of those with
    anomalies the first ones of each series are tested.
    """
    draw, machines = np.random.default_rng(seed), []
    parts = PARTS[family]
    for source in sources:
        left = tested // len(sources)
        series = source.read()
        normal = [test.rows_ND for test in series.tests if not test.anomalous_N.any()]
        trains = np.array_split(np.concatenate([series.train_ND, *normal]), parts)
        faulty = [test for test in series.tests if test.anomalous_N.any()]
        spread_D = series.train_ND.std(axis=0)
        for part, train_ND in enumerate(trains):
            if len(faulty) == 1:  # its parts are the machines'
                test_ND = np.array_split(faulty[0].rows_ND, parts)[part]
                anomalous_N = np.array_split(faulty[0].anomalous_N, parts)[part]
            else:  # each machine has one of them
                test = faulty[part % len(faulty)]
                test_ND, anomalous_N = test.rows_ND, test.anomalous_N
            if not left or not 0 < anomalous_N[WINDOW - 1 :].sum() < len(anomalous_N):
                test_ND, anomalous_N = test_ND[:0], anomalous_N[:0]
            left -= len(test_ND) > 0
            both_ND = _in_own_units(np.concatenate([train_ND, test_ND]), draw, spread_D)
            rows = len(train_ND)
            name = f"{source.name} {part}"
            machines.append(Machine(name, both_ND[:rows], both_ND[rows:], anomalous_N))
    return Fleet(f"{family.upper()}, cut into {len(machines)} machines", tuple(machines))


def fleets(sources: Sequence[Source], tested: int) -> list[Fleet]:
    """One that is simulated, and those that can be made of the series."""
    own = {family: [each for each in sources if each.family == family] for family in PARTS}
    made = [cut(some, family, tested=tested) for family, some in own.items() if some]
    return [simulated(tested=tested), *made]


def measure_all(made: Sequence[Fleet], preset: str, output: Path) -> Iterator[FleetOutcome]:
    """What has no line in the output folder yet, each kept as soon as it is done; one thread."""
    done = {(each.fleet, each.way, each.tested) for each in read_outcomes(output)}
    output.mkdir(parents=True, exist_ok=True)
    for fleet in made:
        for way in WAYS:
            if (fleet.name, way, len(fleet.tested)) in done:
                continue
            with threadpool_limits(1):
                outcome = measure(fleet, way, preset, with_cost=fleet is made[0])
            with (output / FILE).open("ab") as file:
                file.write(msgspec.json.encode(outcome) + b"\n")
            yield outcome


def measure(fleet: Fleet, way: str, preset: str, *, with_cost: bool) -> FleetOutcome:
    """One of WAYS on a fleet."""
    baseline, tested = WAYS[way], fleet.tested
    if baseline is None:
        apart = [_config(preset, {}) for _ in tested]
        frames = [_frame(each).drop("machine") for each in tested]
        models = [_fit(*each) for each in zip(frames, apart, strict=True)]
        answers = [model.judge(each) for model, each in zip(models, tested, strict=True)]
        files, one = len(fleet.machines), (frames[0], apart[0])
    else:
        frame = pl.concat([_frame(each) for each in fleet.machines])
        config = _config(preset, {"entity": "machine", "baseline": baseline})
        model = _fit(frame, config)
        answers = [model.judge(each) for each in tested]
        files, one = 1, (frame, config)
    cost = _cost(*one) if with_cost else None
    anomalous_N = np.concatenate([each.anomalous_N[WINDOW - 1 :] for each in tested])
    machine_N = np.repeat(np.arange(len(tested)), [len(severity_M) for severity_M, _ in answers])
    severity_N, p_value_N = (np.concatenate(each) for each in zip(*answers, strict=True))
    return FleetOutcome(
        fleet=fleet.name,
        way=way,
        machines=len(fleet.machines),
        tested=len(tested),
        auroc=float(roc_auc_score(anomalous_N, severity_N)),
        average_precision=float(average_precision_score(anomalous_N, severity_N)),
        vus_pr=vus_pr(anomalous_N, severity_N, machine_N),
        alarm_rate=float((p_value_N[~anomalous_N] <= ALPHA).mean()),
        files=files,
        megabytes=cost.megabytes * files if cost else None,
        cpu_minutes=cost.cpu_seconds * files / 60 if cost else None,
    )


def read_outcomes(output: Path) -> list[FleetOutcome]:
    path = output / FILE
    lines = path.read_bytes().splitlines() if path.exists() else []
    return [msgspec.json.decode(line, type=FleetOutcome) for line in lines]


def make_grid(outcomes: Sequence[FleetOutcome]) -> Grid:
    return Grid(
        "Fleets: AUROC / average precision / VUS-PR of the machines tested, by severity",
        ["", "quality", "alarms at 5 %", "files", "MB", "fit, CPU min"],
        [
            [
                f"{each.fleet}: {each.way}",
                " / ".join(map(say, (each.auroc, each.average_precision, each.vus_pr))),
                say(each.alarm_rate),
                f"{each.files:,}",
                say(each.megabytes, ".3g"),
                say(each.cpu_minutes, ".3g"),
            ]
            for each in outcomes
        ],
    )


def make_notes(outcomes: Sequence[FleetOutcome]) -> list[str]:
    counts = ", ".join(dict.fromkeys(f"{each.tested} of {each.machines:,}" for each in outcomes))
    return [
        f"Machines that were tested and fitted apart: {counts}; what files for all machines take is"
        f" that of one in proportion. {processor()}, one thread."
    ]


def _remembering(noise_NS: Floats) -> Floats:
    state_NS = np.zeros_like(noise_NS)
    for n in range(1, len(noise_NS)):
        state_NS[n] = KEPT * state_NS[n - 1] + np.sqrt(1 - KEPT**2) * noise_NS[n]
    return state_NS


def _in_own_units(
    rows_ND: Floats, draw: np.random.Generator, spread_D: Floats | float = 1.0
) -> Floats:
    sensors = rows_ND.shape[1]
    scale_D = np.exp(draw.normal(0, SPREADS, sensors))
    return draw.normal(0, LEVELS, sensors) * spread_D * scale_D + rows_ND * scale_D


def _break(
    rows_ND: Floats, anomalous_N: Booleans, spread_D: Floats, draw: np.random.Generator
) -> None:
    """Faults of each kind in turn, spread over the rows."""
    sensors = rows_ND.shape[1]
    starts = np.linspace(LEADING, len(rows_ND) - FAULT_ROWS, FAULTS, endpoint=False).astype(int)
    for kind, start in enumerate(starts.tolist()):
        part, sensor = slice(start, start + FAULT_ROWS), int(draw.integers(sensors))
        match kind % 4:
            case 0:
                rows_ND[part, sensor] += 3 * spread_D[sensor]
            case 1:
                own_N1 = _remembering(draw.normal(size=(FAULT_ROWS + 200, 1)))[200:]
                rows_ND[part, sensor] = own_N1[:, 0] * spread_D[sensor]
            case 2:
                rows_ND[part, sensor] += spread_D[sensor] * draw.normal(size=FAULT_ROWS)
            case _:
                rows_ND[start : start + FAULT_ROWS : 5, sensor] -= 4 * spread_D[sensor]
        anomalous_N[part] = True


def _config(preset: str, asked: dict[str, object]) -> RunConfig:
    flags = {"data": "rows.parquet", "name": "fleet", "preset": preset, "threads": 1}
    return load_config(None, {**flags, "time": "at", "window": WINDOW, "report": False, **asked})


def _fit(frame: pl.DataFrame, config: RunConfig) -> Model:
    """As a run does, up to the export."""
    prepared = split_data(data_of(frame, config), config)
    ordered = prepared.ordered
    assert ordered is not None
    assert not isinstance(config.model, AutoConfig)
    trial = fit_trial(prepared, config, config.model, SILENT)
    absorb_held_out(trial, prepared.split, config.seed)
    assert isinstance(trial.core, Core)
    core = Windowed(ordered.windowing, trial.core, ordered.baselines).eval()
    with torch.no_grad():
        calibration_MD = torch.from_numpy(prepared.split.calibration_ND)
        table = build_table(trial.core(calibration_MD).score_N.numpy())
    codes = {name: code for code, name in enumerate(ordered.entity_names)}
    return Model(core, table, codes if ordered.baselines else {})


def _cost(frame: pl.DataFrame, config: RunConfig) -> Cost:
    """Of a whole run."""
    started = process_time()
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "rows.parquet"
        frame.write_parquet(data)
        report = run(msgspec.structs.replace(config, data=str(data), models=folder))
    return Cost(report.size_bytes / 1e6, process_time() - started)


def _frame(machine: Machine) -> pl.DataFrame:
    columns = [f"x{d}" for d in range(machine.train_ND.shape[1])]
    frame = pl.DataFrame(machine.train_ND, schema=columns)
    return frame.with_row_index("at").with_columns(machine=pl.lit(machine.name))
