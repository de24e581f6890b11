"""Prometheus: the rows of a run, asked of a Prometheus by an expression for each column."""

from collections.abc import Sequence
from datetime import UTC, datetime
from os import environ
from time import time
from typing import NamedTuple

import msgspec
import numpy as np
import polars as pl

from hourglass.service.errors import HourglassError
from hourglass.service.model.artifact import Feature, Queries
from hourglass.service.rows.label_sets import name_of
from hourglass.service.rows.times import span_seconds
from hourglass.service.serving.prometheus import TOKEN, Grid, Prometheus, grid_until, say_several
from hourglass.training.errors import RunError

TIME, ENTITY = "time", "entity"  # columns beside the expressions'
MOST_MISSING = 0.2  # share of a column's cells, beyond which it is said
MOST_NAMED = 3
MOST_ROWS = 100_000_000  # of all entities


class PrometheusConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a run asks a Prometheus, whose address is the run's `data`."""

    queries: dict[str, str]  # column -> PromQL
    range: str = "14d"
    step: str = "30s"
    # seconds since 1970, at or before which the last row is; None: the run's begin
    until: float | None = None
    # samples that are older than so many steps are not taken for the present
    late: int = 5
    labels: tuple[str, ...] | None = None  # that make an entity; None: those that all series have

    def __post_init__(self) -> None:
        if not self.queries:
            raise ValueError("prometheus.queries names no column; --query NAME='PROMQL' does")
        for name, text in self.queries.items():
            if name in (TIME, ENTITY) or not name.strip():
                raise ValueError(
                    f"a query cannot have the name {name!r}; {TIME} and {ENTITY} are"
                    " columns beside the queries'"
                )
            if not text.strip():
                raise ValueError(f"the query {name!r} is empty, expected an expression of PromQL")
        for field in ("range", "step"):
            try:
                span_seconds(getattr(self, field))
            except ValueError as error:
                raise ValueError(f"{field}: {error}") from error
        if self.range_seconds < 2 * self.step_seconds:
            raise ValueError(f"range {self.range} has not two steps of {self.step}")
        if self.late < 1:
            raise ValueError(f"late must be at least 1 step, got {self.late}")

    @property
    def step_seconds(self) -> float:
        return span_seconds(self.step)

    @property
    def range_seconds(self) -> float:
        return span_seconds(self.range)

    def grid(self) -> Grid:
        """All times of the rows."""
        until = time() if self.until is None else self.until
        return grid_until(until, self.step_seconds, int(self.range_seconds / self.step_seconds))

    def of(self, features: Sequence[Feature]) -> Queries | None:
        """What a model's file says of them; None where a feature is no query's."""
        if any(each.name not in self.queries for each in features):
            return None
        return Queries(
            expressions=tuple(self.queries[each.name] for each in features),
            labels=self.labels or (),
            step_seconds=self.step_seconds,
            late_seconds=self.late * self.step_seconds,
        )


class Asked(NamedTuple):
    """A run's rows, and what it asked, with all choices made."""

    frame: pl.DataFrame
    config: PrometheusConfig


def is_address(data: str) -> bool:
    """Whether the data of a run is the address of a Prometheus."""
    return data.startswith(("http://", "https://"))


def ask(data: str, config: PrometheusConfig) -> Asked:
    """The columns of all queries beside TIME and ENTITY, a row for each entity and time at which it
    has a value; RunError where there is none, or several in one place.
    """
    grid, names = config.grid(), list(config.queries)
    try:
        asked = Prometheus(data, token=environ.get(TOKEN)).ask(
            config.queries,
            grid,
            late_seconds=config.late * config.step_seconds,
            labels=config.labels,
        )
    except HourglassError as error:
        raise RunError(str(error)) from error
    joined, time_T = asked.joined, asked.time_T
    if joined.several:
        raise RunError(say_several(joined.several[0], names, asked.labels))
    span = " to ".join(
        f"{datetime.fromtimestamp(time_T[i], UTC):%Y-%m-%dT%H:%M:%SZ}" for i in (0, -1)
    )
    for name, count in zip(names, asked.answers, strict=True):
        if not count:
            raise RunError(f"query {name!r} has no series from {span}: {config.queries[name]}")
    if len(joined.entities) > 1 and not asked.labels:
        raise RunError(f"no label is shared by the series of all queries ({', '.join(names)})")
    entity_N, place_N = np.nonzero(joined.is_row_ET)
    if not len(entity_N):
        raise RunError(
            f"all values from {span} are missing, no number, or of samples older than"
            f" {config.late} steps of {config.step}"
        )
    titles = pl.Series([name_of(asked.labels, each) for each in joined.entities], dtype=pl.String)
    cells_ND = joined.values_ETD[entity_N, place_N]
    frame = pl.DataFrame(
        {
            TIME: time_T[place_N],
            ENTITY: titles.gather(entity_N),
            **{name: cells_ND[:, place] for place, name in enumerate(names)},
        }
    )
    until = float(round((grid.first + grid.times - 1) * grid.step, 3))
    chosen = msgspec.structs.replace(config, until=until, labels=asked.labels)
    return Asked(frame.with_columns(pl.col(names).fill_nan(None)), chosen)


def say_missing(frame: pl.DataFrame, config: PrometheusConfig) -> str | None:
    """A sentence where columns lack many of their cells."""
    shares = {
        name: frame[name].null_count() / frame.height
        for name in config.queries
        if name in frame.columns
    }
    many = {name: share for name, share in shares.items() if share > MOST_MISSING}
    if not many:
        return None
    worst = sorted(many, key=lambda name: -many[name])[:MOST_NAMED]
    said = ", ".join(f"{name!r} {many[name]:.0%}" for name in worst)
    return (
        f"many values are missing ({said}{' and others' if len(many) > MOST_NAMED else ''}):"
        " Prometheus has none, or its samples were older than"
        f" {config.late} steps of {config.step}; a longer --step, or more --late, takes older ones"
    )
