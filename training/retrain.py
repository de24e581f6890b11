"""Retrain: the run of the model in service again, on newer rows, and through the gate."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from hourglass.service.model.detector import Detector
from hourglass.service.serving.store import Store
from hourglass.training.config import RunConfig, load_config
from hourglass.training.errors import RunError
from hourglass.training.journal import Journal, read_journal
from hourglass.training.progress import SILENT, Progress
from hourglass.training.report import Report
from hourglass.training.run import run

RUN = "run.toml"  # beside each version


class Rows(NamedTuple):
    """Which rows the next model is made of."""

    data: Path
    recent: str | None = None  # of `time`: 30d takes the last thirty days
    exclude_times: tuple[str, ...] = ()  # of `time`: FROM/TO
    time: str | None = None  # where the champion's run has none
    journal: Path | None = None  # of the service
    exclude_alarms: bool = False
    confirmed: Sequence[str] = ()  # keys of groups of alarms in the journal


def retrain(
    name: str,
    rows: Rows,
    models: Path,
    *,
    force: bool = False,
    shadow: bool = False,
    progress: Progress = SILENT,
) -> Report:
    """Fit as the model in service was fitted, and publish what the gate lets through, in `shadow`
    as a challenger; Refused where it does not, RunError or HourglassError where the rows cannot be
    used.
    """
    folder = Store(models).model(name)
    if not folder.has_current():
        raise RunError(
            f"there is no model {name!r} in service in {models}; hourglass-train fit makes a first"
        )
    version = folder.current()
    file = folder.path / version / RUN
    config = next_run(file, name, rows, models, force=force, shadow=shadow)
    return run(config, progress, _journal(folder.file(version), name, rows))


def next_run(
    file: Path,
    name: str,
    rows: Rows,
    models: Path,
    *,
    force: bool = False,
    shadow: bool = False,
) -> RunConfig:
    """The champion's configuration for other rows: what was said of its own rows alone is gone."""
    if not file.is_file():
        raise RunError(
            f"there is no {file}, which says how the model in service was fitted;"
            f" hourglass-train fit --name {name} fits one anew"
        )
    before = load_config(file, {"data": str(rows.data), "name": name, "models": str(models)})
    time = before.time or rows.time
    for flag, given in (("recent", rows.recent), ("exclude", rows.exclude_times)):
        if given and time is None:
            raise RunError(
                f"--{flag} is of rows that have a time, and the model in service was fitted without"
                " one; --time COLUMN names it"
            )
    try:
        return msgspec.structs.replace(
            before,
            time=time,
            window=before.window_rows,
            fitted_at=None,
            exclude=None,
            recent=rows.recent,
            exclude_times=rows.exclude_times,
            force=force,
            shadow=shadow,
        )
    except ValueError as error:
        raise RunError(str(error)) from error


def _journal(file: Path, name: str, rows: Rows) -> Journal | None:
    if rows.journal is None:
        if rows.exclude_alarms or rows.confirmed:
            flag = "--exclude-alarms" if rows.exclude_alarms else "--confirmed"
            raise RunError(f"{flag} is of alarms that a service keeps; --journal FILE names them")
        return None
    features = Detector.from_bytes(file.read_bytes()).manifest.features
    return read_journal(
        rows.journal,
        name,
        features,
        confirmed=rows.confirmed,
        exclude_alarms=rows.exclude_alarms,
    )
