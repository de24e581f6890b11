"""A plant of three pumps that is made up, for `make demo-stream`: no series that is real comes with
the packages that are installed.

Water is drawn by day more than by night. A pump's speed follows what is drawn; flow, pressure and
current follow the speed, the bearing warms by the current, slowly, and vibrates by the speed. All
of it moves within what yesterday had, in the faults as well: what is strange about them is
how the numbers hang together, and how they go on.
"""

import csv
import io
import math
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hourglass.service.serving.disk import write_atomically

NAME = "plant"
TIME, ENTITY, LABEL = "time", "pump", "fault"
PUMPS = ("pump-1", "pump-2", "pump-3")
NUMBERS = ("speed", "flow", "pressure", "current", "temperature", "vibration")
BEGIN = datetime(2026, 5, 4, tzinfo=UTC)
DAYS = 2  # that are fitted, a row a minute of each pump
TODAY_HOURS = 8
SETTLING = 600  # minutes before the first row, for what is slow
# rows of today, from the first that is wrong to the last
BEARING = ("pump-2", 180, 240)
VALVE = ("pump-3", 330, 370)

Floats = NDArray[np.float64]


class Files(NamedTuple):
    """Rows to fit, and those of the day after, with faults and their label."""

    before: Path
    today: Path


def write_plant(folder: Path) -> Files:
    """Write FOLDER/plant.csv and FOLDER/plant-today.csv, the same bytes each time."""
    folder.mkdir(parents=True, exist_ok=True)
    files = Files(folder / f"{NAME}.csv", folder / f"{NAME}-today.csv")
    before_rows, rows = DAYS * 1440, DAYS * 1440 + TODAY_HOURS * 60
    series = {pump: simulate(pump, rows, seed) for seed, pump in enumerate(PUMPS)}
    _write(files.before, series, range(before_rows), label=False)
    _write(files.today, series, range(before_rows, rows), label=True)
    return files


def simulate(pump: str, rows: int, seed: int) -> Floats:
    """[rows, NUMBERS] of one pump, a row a minute; faults are where today has them."""
    random = np.random.default_rng(seed)
    total = SETTLING + rows
    minute_N = np.arange(total) - SETTLING
    today_N = minute_N - DAYS * 1440
    drawn_N = 0.6 + 0.25 * np.sin(2 * math.pi * (minute_N / 1440 - 0.18))
    drawn_N += 0.05 * _slow(random.normal(size=total), 0.95)
    speed_N = 900 + 700 * _slow(drawn_N, 0.8, first=drawn_N[0])
    wear_N = _rises(pump, BEARING, today_N)
    stuck_N = _rises(pump, VALVE, today_N)
    flow_N = 0.04 * speed_N * (1 - 0.12 * stuck_N) + 0.3 * random.normal(size=total)
    pressure_N = 2.2e-6 * speed_N**2 * (1 + 0.1 * stuck_N) + 0.03 * random.normal(size=total)
    current_N = 4e-9 * speed_N**3 + 0.2 + 0.1 * wear_N + 0.1 * random.normal(size=total)
    warmth_N = 35 + 1.2 * current_N + 2 * wear_N
    temperature_N = _slow(warmth_N, 0.97, first=warmth_N[0]) + 0.1 * random.normal(size=total)
    vibration_N = 0.5 + 9e-4 * speed_N + 0.3 * wear_N + 0.06 * random.normal(size=total)
    columns = (speed_N, flow_N, pressure_N, current_N, temperature_N, vibration_N)
    return np.stack(columns, axis=1)[SETTLING:]


def _rises(pump: str, fault: tuple[str, int, int], today_N: NDArray[np.int64]) -> Floats:
    """From 0 to 1 within ten minutes of a fault, and 0 without it."""
    whose, first, last = fault
    risen_N = np.clip((today_N - first + 1) / 10, 0, 1)
    return np.where((today_N >= first) & (today_N <= last) & (pump == whose), risen_N, 0.0)


def _slow(value_N: Floats, kept: float, first: float = 0.0) -> Floats:
    """What moves towards each value and keeps a share of what it was."""
    slow_N = np.empty_like(value_N)
    now = first
    for i, value in enumerate(value_N.tolist()):
        now = kept * now + (1 - kept) * value
        slow_N[i] = now
    return slow_N


def _write(path: Path, series: dict[str, Floats], minutes: range, *, label: bool) -> None:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow([TIME, ENTITY, *NUMBERS, *([LABEL] if label else [])])
    for minute in minutes:
        time = (BEGIN + timedelta(minutes=minute)).strftime("%Y-%m-%d %H:%M:%S")
        today = minute - DAYS * 1440
        for pump, rows_ND in series.items():
            faults = [
                first <= today <= last for who, first, last in (BEARING, VALVE) if who == pump
            ]
            row = [f"{value:.4g}" for value in rows_ND[minute].tolist()]
            table.writerow([time, pump, *row, *([int(any(faults))] if label else [])])
    write_atomically(path, text.getvalue().encode())
    # of the data, so that each demo gives equal bytes
    end = (BEGIN + timedelta(minutes=minutes.stop)).timestamp()
    os.utime(path, (end, end))
