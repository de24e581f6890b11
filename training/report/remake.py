"""Remake: the report of a model on other rows than those of its run.

What only the run could know, such as the learning curves, is taken from the report that lies beside
the model, where there is one.
"""

import math
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from hourglass.service.errors import InvalidTable
from hourglass.service.model.detector import Detector
from hourglass.service.model.schema import Schema
from hourglass.service.rows.dialect import USUAL, Dialect
from hourglass.service.rows.tables import encode_table, read_table
from hourglass.service.serving.disk import write_atomically
from hourglass.service.serving.store import name_of
from hourglass.training.columns import suspect_sentinel
from hourglass.training.config import RunConfig
from hourglass.training.data import Data, Oddity, group_names, groups, is_clock, times
from hourglass.training.errors import RunError
from hourglass.training.evaluate_ordered import judge
from hourglass.training.exchangeability import examine
from hourglass.training.fingerprints import Fingerprints, read_fingerprints
from hourglass.training.gate import read_decision
from hourglass.training.guarantee import effective_rows
from hourglass.training.labels import is_anomalous
from hourglass.training.report.card import CARD, write_card
from hourglass.training.report.columns import columns_of
from hourglass.training.report.facts import Facts, Told, gather
from hourglass.training.report.figures import write_sections
from hourglass.training.report.material import (
    Material,
    Series,
    names_of_spans,
    rows_a_day,
    scored,
    spans_of,
)
from hourglass.training.report.origin import Curve
from hourglass.training.report.page import PAGE, write_page
from hourglass.training.report.sample import Sample
from hourglass.training.split import row_hashes
from hourglass.training.suspects import (
    REPORTED,
    list_suspects,
    look_for_suspects,
    warn,
)

FIGURES = "report.json"
FEWEST = 20  # normal rows that are new to the model, or else all are taken

Float32 = NDArray[np.float32]
Booleans = NDArray[np.bool_]


class Rows(NamedTuple):
    """Which rows a report is made anew of, and how they are to be read."""

    data: Path
    dialect: Dialect = USUAL
    label: str | None = None
    normal: str | None = None
    time: str | None = None
    entity: str | None = None
    group: str | None = None
    rows_per_day: float | None = None


class _FitCost(msgspec.Struct, frozen=True):
    fit_cpu_seconds: float | None = None
    fit_seconds: float | None = None


class _Calibration(msgspec.Struct, frozen=True):
    calibration_effective: float


class _OfRun(msgspec.Struct, frozen=True):
    """What only the run could know."""

    timeline: _Calibration | None = None
    learning: tuple[Curve, ...] = ()
    cost: _FitCost = _FitCost()


class _Table(NamedTuple):
    """What was read, in order of entity and time where that is told."""

    rows: Rows
    frame: pl.DataFrame
    rows_ND: Float32
    number_N: NDArray[np.int64]  # in the file, from 1
    time_N: NDArray[np.float64] | None
    entity_N: NDArray[np.int64]
    anomalous_N: Booleans  # by the label


class _Judged(NamedTuple):
    """Which rows the report is made of."""

    score_N: Float32  # NaN of those that have none
    normal_N: Booleans  # that have one, and of windows no labelled row in theirs
    held_out_N: Booleans  # of these the new ones, if they are enough
    are_new: bool


def remake(file: Path, rows: Rows) -> Facts:
    """Score the rows with a model file, and gather the facts; RunError or InvalidTable where the
    rows cannot tell.
    """
    detector = Detector.from_bytes(file.read_bytes())
    features = detector.manifest.features
    table = _read(detector, rows)
    frame, rows_ND, anomalous_N = table.frame, table.rows_ND, table.anomalous_N
    known = read_fingerprints(file.parent)
    judged = _judge(detector, table, known)
    of_run, run_toml = _read_of_run(file.with_name(FIGURES)), file.with_name("run.toml")
    if detector.window == 1:
        material = _material(detector, table, judged)
    else:
        material = _material_of_windows(detector, table, judged, of_run)
    seed, held_out_ND = material.seed, material.held_out.rows_ND
    enough_N = Schema.of(detector.manifest).has_enough(rows_ND)
    normal_ND = rows_ND[~anomalous_N] if detector.window > 1 else rows_ND[judged.normal_N]
    lacking_N = ~enough_N if detector.window > 1 else np.isnan(judged.score_N)
    columns = columns_of(
        features,
        normal_ND,
        rows_ND[anomalous_N],
        dropped=int((lacking_N & ~anomalous_N).sum()),
        copies=len(normal_ND) - len(np.unique(row_hashes(normal_ND, seed))),
        oddities=[
            Oddity("sentinel", feature.name, sentence)
            for feature in features
            if (sentence := suspect_sentinel(frame[feature.name]))
        ],
        warnings=(),
        seed=seed,
    )
    tests = None
    if len(held_out_ND) >= FEWEST:
        tests = examine(
            held_out_ND,
            features,
            alpha=detector.threshold.alpha,
            seed=seed,
            order=rows.time,
            group_N=None if rows.group is None else material.block_N,
        )
    numbers = table.number_N[material.held_out.place_N]
    if detector.window == 1:
        numbers = table.number_N[judged.held_out_N]
    looked_at = Data(features, held_out_ND, material.anomalies.rows_ND, numbers)
    config = RunConfig(data=str(rows.data), name="report", seed=seed)
    strange = look_for_suspects(looked_at, config)
    suspects = list_suspects(looked_at, strange) if strange else ()
    place = {int(number): n for n, number in enumerate(numbers)}
    which = (
        "that are new to the model" if judged.are_new else "some of which may have made the model"
    )
    return gather(
        material,
        Told(
            name=name_of(file),
            rows=f"{len(held_out_ND):,} normal {material.unit} of {rows.data.name}, {which}",
            is_run=False,
            seen=known.seen(rows_ND[~np.isnan(judged.score_N)]) if known else None,
            data_file=rows.data,
            run_toml=run_toml.read_text(encoding="utf-8") if run_toml.is_file() else None,
            columns=columns,
            tests=tests,
            differences=None,
            suspects=suspects[:REPORTED],
            suspect_MD=held_out_ND[[place[suspect.row] for suspect in suspects[:REPORTED]]],
            suspects_listed=len(suspects),
            suspects_of=len(held_out_ND),
            contamination_warning=warn(strange) if strange else None,
            curves=of_run.learning,
            fit_cpu_seconds=of_run.cost.fit_cpu_seconds,
            fit_seconds=of_run.cost.fit_seconds,
            fingerprints=known is not None,
            gate=read_decision(file.parent),
        ),
    )


def _read(detector: Detector, rows: Rows) -> _Table:
    """RunError or InvalidTable says what cannot be read, or is not told."""
    if detector.window > 1 and rows.time is None:
        raise RunError(
            f"the model judges windows of {detector.window} rows in order of time; --time COLUMN"
            " names their time, and --entity COLUMN what each is of"
        )
    if detector.window == 1 and rows.entity is not None:
        raise RunError(
            "--entity is of models of windows, and this one judges single rows; --group"
            f" {rows.entity} tells their alarm rates apart"
        )
    features = detector.manifest.features
    text = [feature.name for feature in features if feature.kind == "categorical"]
    text += [] if rows.entity is None else [rows.entity]
    frame = read_table(rows.data, rows.dialect, text)
    for column in (rows.time, rows.entity, rows.group):
        if column is not None and column not in frame.columns:
            raise RunError(f"there is no column {column!r} in {rows.data}")
    if rows.rows_per_day is not None and not 0 < rows.rows_per_day < math.inf:
        raise RunError(f"rows_per_day must be above 0, got {rows.rows_per_day:g}")
    rows_ND = encode_table(frame, features, rows.dialect)
    entity_N = np.zeros(len(rows_ND), dtype=np.int64)
    if rows.entity is not None:
        entity_N = groups(frame[rows.entity])
    time_N, order_N = None, np.arange(len(rows_ND))
    if rows.time is not None:
        time_N = times(frame[rows.time])
        order_N = np.lexsort((order_N, time_N, entity_N))
        time_N = time_N[order_N]
    frame = frame[order_N]
    anomalous_N = np.zeros(len(rows_ND), dtype=bool)
    if rows.label is not None:
        anomalous_N = is_anomalous(frame, rows.label, rows.normal)
    return _Table(
        rows, frame, rows_ND[order_N], order_N + 1, time_N, entity_N[order_N], anomalous_N
    )


def _judge(detector: Detector, table: _Table, known: Fingerprints | None) -> _Judged:
    """Score the rows; InvalidTable where no normal one can be."""
    if detector.window == 1:
        score_N = _scores(detector, table.rows_ND)
        normal_N = ~np.isnan(score_N) & ~table.anomalous_N
    else:
        assert table.time_N is not None
        names = () if table.rows.entity is None else group_names(table.frame[table.rows.entity])
        score_N = judge(detector, table.rows_ND, table.time_N, table.entity_N, names).score_N
        labelled_N = np.cumsum(table.anomalous_N)
        before_N = np.concatenate([np.zeros(detector.window, dtype=np.int64), labelled_N])
        normal_N = ~np.isnan(score_N) & (labelled_N == before_N[: len(score_N)])
    if not normal_N.any():
        before = f" and {detector.window - 1} normal rows before it" if detector.window > 1 else ""
        raise InvalidTable(
            f"{table.rows.data}: expected at least one normal row with enough values to be scored"
            f"{before}, got none among {len(score_N)}"
        )
    seen_N = known.holds(table.rows_ND) if known else np.zeros(len(score_N), dtype=bool)
    new_N = normal_N & ~seen_N
    are_new = known is not None and int(new_N.sum()) >= FEWEST
    return _Judged(score_N, normal_N, new_N if are_new else normal_N, are_new)


def _material(detector: Detector, table: _Table, judged: _Judged) -> Material:
    """Of single rows, each other one of which the other methods are fitted on."""
    rows, seed = table.rows, detector.manifest.model.seed
    held_out_ND = table.rows_ND[judged.held_out_N]
    halves_N = np.random.default_rng(seed).permutation(len(held_out_ND)) % 2 == 0
    rows_per_day, rows_per_day_is = rows_a_day(rows.rows_per_day, table.time_N)
    block_N, block_names = _groups(table)
    anomalies, anomaly_score_A = scored(Sample.of(detector, table.rows_ND[table.anomalous_N]))
    return Material(
        detector=detector,
        threshold=detector.threshold,
        held_out=Sample.of(detector, held_out_ND),
        score_N=judged.score_N[judged.held_out_N],
        order="the order of the file" if rows.time is None else f"the order of {rows.time}",
        calibrated=False,
        are_new=judged.are_new,
        block_N=None if block_N is None else block_N[judged.held_out_N],
        block_names=block_names,
        blocks_of=rows.group or rows.entity or "block",
        anomalies=anomalies,
        anomaly_score_A=anomaly_score_A,
        reference=Sample.of(detector, held_out_ND[halves_N]),
        new_N=~halves_N,
        rows_per_day=rows_per_day,
        rows_per_day_is=rows_per_day_is,
        seed=seed,
    )


def _material_of_windows(
    detector: Detector, table: _Table, judged: _Judged, of_run: _OfRun
) -> Material:
    """Of windows, on the earlier half of which the other methods are fitted."""
    rows, time_N, window = table.rows, table.time_N, detector.manifest.window
    assert rows.time is not None
    assert time_N is not None
    assert window is not None
    gap = np.inf if window.gap is None else window.gap
    begins_N = (np.diff(table.entity_N) != 0) | (np.diff(time_N) > gap)
    segment_N = np.concatenate([[0], np.cumsum(begins_N)]).astype(np.int64)
    clean_M = np.flatnonzero(judged.normal_N)
    place_N = np.flatnonzero(judged.held_out_N)
    worth = effective_rows(judged.score_N[place_N], segment_N[place_N]) / len(place_N)
    calibration_worth = worth  # where no run says
    if of_run.timeline is not None:
        calibration_worth = of_run.timeline.calibration_effective / detector.table.n
    place_N = place_N[np.argsort(time_N[place_N], kind="stable")]
    half = len(place_N) // 2
    # no window that is judged shares a row with one that they were fitted on
    new_N = time_N[place_N - window.rows + 1] > time_N[place_N[max(half - 1, 0)]]
    if not new_N.any():
        new_N = np.arange(len(place_N)) >= half
    has_clock = is_clock(table.frame[rows.time], time_N)
    rows_per_day, rows_per_day_is = rows_a_day(rows.rows_per_day, time_N if has_clock else None)
    block_N, block_names = _groups(table)
    span_N = spans_of(len(place_N))
    names = () if rows.entity is None else group_names(table.frame[rows.entity])
    held_out = Sample(detector, table.rows_ND, place_N, table.entity_N, names)
    anomaly_A = np.flatnonzero(table.anomalous_N & ~np.isnan(judged.score_N))
    return Material(
        detector=detector,
        threshold=detector.threshold,
        held_out=held_out,
        score_N=judged.score_N[place_N],
        order=f"the order of {rows.time}",
        calibrated=False,
        are_new=judged.are_new,
        block_N=None if block_N is None else block_N[place_N],
        block_names=block_names,
        blocks_of=rows.group or rows.entity or "block",
        anomalies=held_out.at(anomaly_A),
        anomaly_score_A=judged.score_N[anomaly_A],
        reference=held_out.at(place_N[: max(half, 1)]),
        new_N=new_N,
        rows_per_day=rows_per_day,
        rows_per_day_is=rows_per_day_is,
        seed=detector.manifest.model.seed,
        worth=min(worth, 1.0),
        calibration_worth=min(calibration_worth, 1.0),
        series=Series(
            column=rows.time,
            is_clock=has_clock,
            entity_column=rows.entity,
            entity_names=names,
            number_T=table.number_N,
            time_T=time_N,
            entity_T=table.entity_N,
            segment_T=segment_N,
            is_normal_T=~table.anomalous_N,
            part_T=None,
            unsorted=int((np.diff(table.number_N)[np.diff(table.entity_N) == 0] < 0).sum()),
            gap_rows=0,
            place_M=clean_M,
            score_M=judged.score_N[clean_M],
            span_N=span_N,
            span_names=names_of_spans(time_N[place_N], span_N, is_clock=has_clock),
        ),
    )


def _groups(table: _Table) -> tuple[NDArray[np.int64] | None, tuple[str, ...]]:
    """[N] the group of each row, or else its entity; None where neither is told."""
    column = table.rows.group or table.rows.entity
    if column is None:
        return None, ()
    return groups(table.frame[column]), group_names(table.frame[column])


def write_beside(file: Path, facts: Facts, folder: Path) -> Path:
    """Put page, card and facts into a folder, each whole; returns where the page is."""
    old = {**_read_figures(file.with_name(FIGURES)), "summary": facts.verdict.text}
    texts = {
        FIGURES: write_sections(msgspec.to_builtins(facts), old),
        CARD: write_card(facts),
        PAGE: write_page(facts),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        write_atomically(folder / name, text.encode())
    return folder / PAGE


def _scores(detector: Detector, rows_ND: Float32) -> Float32:
    """[N] scores; NaN of rows that have none."""
    enough_N = Schema.of(detector.manifest).has_enough(rows_ND)
    score_N = np.full(len(rows_ND), np.nan, dtype=np.float32)
    score_N[enough_N] = detector.score(rows_ND[enough_N]).score
    return score_N


def _read_figures(file: Path) -> dict[str, object]:
    """What an earlier report says; nothing where there is none that can be read."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=dict[str, object])
    except (OSError, msgspec.DecodeError):
        return {}


def _read_of_run(file: Path) -> _OfRun:
    try:
        return msgspec.json.decode(file.read_bytes(), type=_OfRun)
    except (OSError, msgspec.DecodeError):
        return _OfRun()
