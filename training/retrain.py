"""Retrain: the run of the model in service again, on newer rows, and through the gate."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import polars as pl

from hourglass.service.model.artifact import Feature
from hourglass.service.model.detector import Detector
from hourglass.service.watch.recording import ENTITY, TIME
from hourglass.training.config import Columns, RunConfig, load_config
from hourglass.training.errors import RunError
from hourglass.training.gate import read_decision
from hourglass.training.journal import Journal, read_journal, with_alarms
from hourglass.training.progress import SILENT, Progress
from hourglass.training.publish import model_of
from hourglass.training.recorded import alarms_of, is_recording, newest_time, read_recording
from hourglass.training.report import Report
from hourglass.training.run import run

RUN = "run.toml"  # beside each version


class Rows(NamedTuple):
    """Which rows the next model is made of."""

    data: str | Path | None  # a URL is no path; None: what the champion's Prometheus says now
    recent: str | None = None  # of `time`: 30d takes the last thirty days
    exclude_times: tuple[str, ...] = ()  # of `time`: FROM/TO
    time: str | None = None  # where the champion's run has none
    journal: Path | None = None  # of the service
    exclude_alarms: bool = False
    confirmed: Sequence[str] = ()  # keys of groups of alarms in the journal


def retrain(
    name: str,
    rows: Rows,
    models: str | Path,
    *,
    force: bool = False,
    shadow: bool = False,
    cache: Path | None = None,
    sign_with: Path | None = None,
    progress: Progress = SILENT,
) -> Report:
    """Fit as the model in service was fitted, and publish what the gate lets through, in `shadow`
    as a challenger; Refused where it does not, RunError or HourglassError where the rows cannot be
    used.
    """
    folder = model_of(models, name, cache)
    if not folder.has_current():
        raise RunError(
            f"there is no model {name!r} in service in {models}; hourglass-train fit makes a first"
        )
    folder.fetch(version := folder.current())
    file = folder.path / version / RUN
    config = msgspec.structs.replace(
        next_run(file, name, rows, models, force=force, shadow=shadow),
        cache=str(cache) if cache else None,
        sign_with=str(sign_with) if sign_with else None,
    )
    recorded = read_recording(config.data, name) if is_recording(config.data) else None
    if recorded is None and rows.journal is None:
        if rows.exclude_alarms or rows.confirmed:
            flag = "--exclude-alarms" if rows.exclude_alarms else "--confirmed"
            raise RunError(f"{flag} is of alarms that a service keeps; --journal FILE names them")
        return run(config, progress)
    features = Detector.from_bytes(folder.file(version).read_bytes()).manifest.features
    if recorded is not None:
        config = of_recorded(config, features, recorded)
    decision = read_decision(file.parent)
    since = decision.forced_at if decision else None
    return run(config, progress, _journal(features, name, rows, recorded, since or 0.0))


def next_run(
    file: Path,
    name: str,
    rows: Rows,
    models: str | Path,
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
    now = {"name": name, "models": str(models), "recent": None, "exclude_times": ()}
    before = load_config(file, now if rows.data is None else {**now, "data": str(rows.data)})
    if rows.data is None and not before.asks_prometheus:
        raise RunError(
            f"{name} was not fitted from a Prometheus: expected DATA, the newer rows, or"
            " --prometheus URL"
        )
    asked = before.prometheus and msgspec.structs.replace(before.prometheus, until=None)
    if columns := before.file_columns:  # the champion's rows were recorded by the service
        own = {name: getattr(columns, name) for name in Columns.__struct_fields__}
        before = msgspec.structs.replace(before, **own, file_columns=None)
    time = before.time or rows.time
    for flag, given in (("recent", rows.recent), ("exclude", rows.exclude_times)):
        if given and time is None and not is_recording(before.data):
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
            prometheus=asked,
        )
    except ValueError as error:
        raise RunError(str(error)) from error


def of_recorded(
    config: RunConfig, features: Sequence[Feature], recorded: pl.DataFrame
) -> RunConfig:
    """The same for rows that the service has recorded: their columns are the champion's features,
    and those of the answers. What it was told of its file's columns is kept for the next file;
    RunError where it was told what recorded rows do not say.
    """
    if config.group:
        raise RunError(
            f"the model in service was fitted with --group {config.group}, which rows that the"
            " service has recorded do not say; fit a file that has it"
        )
    is_ordered = config.window_rows > 1
    return msgspec.structs.replace(
        config,
        file_columns=Columns.of(config),
        label=None,
        normal=None,
        ignore=(),
        null=(),
        # whatever they look like
        keep=tuple(each.name for each in features),
        categorical=tuple(each.name for each in features if each.kind == "categorical"),
        time=config.time and TIME,
        entity=ENTITY if is_ordered else None,
        fitted_at=None if config.time else newest_time(recorded),
    )


def _journal(
    features: Sequence[Feature],
    name: str,
    rows: Rows,
    recorded: pl.DataFrame | None,
    ordinary_since: float,
) -> Journal | None:
    """Of the service's journal, and of recorded rows those that alarmed, where they are to be left
    out. What was ordinary before a person published by force is not asked about.
    """
    journal = None
    if rows.journal is None and rows.confirmed:
        raise RunError("--confirmed is of alarms that a service keeps; --journal FILE names them")
    if rows.journal is not None:
        journal = read_journal(
            rows.journal,
            name,
            features,
            confirmed=rows.confirmed,
            exclude_alarms=rows.exclude_alarms,
            ordinary_since=ordinary_since,
        )
    if recorded is not None and rows.exclude_alarms:
        return with_alarms(journal, alarms_of(recorded, features))
    return journal
