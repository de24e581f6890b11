"""Remake: the report of a model on other rows than those of its run.

What only the run could know, such as the learning curves, is taken from the report that lies beside
the model, where there is one.
"""

import math
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from hourglass.service.errors import InvalidTable
from hourglass.service.model.detector import Detector
from hourglass.service.model.schema import Schema
from hourglass.service.rows.dialect import USUAL, Dialect
from hourglass.service.rows.tables import encode_table, read_table
from hourglass.service.serving.store import name_of, write_atomically
from hourglass.training.columns import suspect_sentinel
from hourglass.training.config import RunConfig
from hourglass.training.data import Data, Oddity, group_names, groups, times
from hourglass.training.errors import RunError
from hourglass.training.exchangeability import examine
from hourglass.training.fingerprints import read_fingerprints
from hourglass.training.labels import is_anomalous
from hourglass.training.report.card import CARD, write_card
from hourglass.training.report.columns import columns_of
from hourglass.training.report.facts import Facts, Told, gather
from hourglass.training.report.figures import write_sections
from hourglass.training.report.material import Material, rows_a_day
from hourglass.training.report.origin import Curve
from hourglass.training.report.page import PAGE, write_page
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


class Rows(NamedTuple):
    """Which rows a report is made anew of, and how they are to be read."""

    data: Path
    dialect: Dialect = USUAL
    label: str | None = None
    normal: str | None = None
    time: str | None = None
    group: str | None = None
    rows_per_day: float | None = None


class _FitCost(msgspec.Struct, frozen=True):
    fit_cpu_seconds: float | None = None
    fit_seconds: float | None = None


class _OfRun(msgspec.Struct, frozen=True):
    """What only the run could know."""

    learning: tuple[Curve, ...] = ()
    cost: _FitCost = _FitCost()


def remake(file: Path, rows: Rows) -> Facts:
    """Score the rows with a model file, and gather the facts; RunError or InvalidTable where the
    rows cannot tell.
    """
    detector = Detector.from_bytes(file.read_bytes())
    features = detector.manifest.features
    text = [feature.name for feature in features if feature.kind == "categorical"]
    frame = read_table(rows.data, rows.dialect, text)
    for column in (rows.time, rows.group):
        if column is not None and column not in frame.columns:
            raise RunError(f"there is no column {column!r} in {rows.data}")
    if rows.rows_per_day is not None and not 0 < rows.rows_per_day < math.inf:
        raise RunError(f"rows_per_day must be above 0, got {rows.rows_per_day:g}")
    rows_ND = encode_table(frame, features, rows.dialect)
    time_N, number_N = None, np.arange(frame.height) + 1
    if rows.time is not None:
        time_N = times(frame[rows.time])
        order_N = np.argsort(time_N, kind="stable")
        frame, rows_ND, time_N = frame[order_N], rows_ND[order_N], time_N[order_N]
        number_N = order_N + 1
    anomalous_N = np.zeros(len(rows_ND), dtype=bool)
    if rows.label is not None:
        anomalous_N = is_anomalous(frame, rows.label, rows.normal)
    score_N, scored_N = _score(detector, rows_ND)
    normal_N = scored_N & ~anomalous_N
    known = read_fingerprints(file.parent)
    seen_N = known.holds(rows_ND) if known else np.zeros(len(rows_ND), dtype=bool)
    new_N = normal_N & ~seen_N
    are_new = known is not None and int(new_N.sum()) >= FEWEST
    held_out_N = new_N if are_new else normal_N
    if not held_out_N.any():
        raise InvalidTable(
            f"{rows.data}: expected at least one normal row with enough values to be scored, got"
            f" none among {len(rows_ND)}"
        )
    seed = detector.manifest.model.seed
    order = "the order of the file" if rows.time is None else f"the order of {rows.time}"
    rows_per_day, rows_per_day_is = rows_a_day(rows.rows_per_day, time_N)
    group_N = None if rows.group is None else groups(frame[rows.group])
    held_out_ND = rows_ND[held_out_N]
    halves_N = np.random.default_rng(seed).permutation(len(held_out_ND)) % 2 == 0
    material = Material(
        detector=detector,
        threshold=detector.threshold,
        held_out_ND=held_out_ND,
        score_N=score_N[held_out_N],
        order=order,
        calibrated=False,
        are_new=are_new,
        block_N=None if group_N is None else group_N[held_out_N],
        block_names=() if rows.group is None else group_names(frame[rows.group]),
        anomalies_AD=rows_ND[anomalous_N],
        reference_RD=held_out_ND[halves_N],
        new_N=~halves_N,
        rows_per_day=rows_per_day,
        rows_per_day_is=rows_per_day_is,
        seed=seed,
    )
    normal_ND = rows_ND[normal_N]
    columns = columns_of(
        features,
        normal_ND,
        rows_ND[anomalous_N],
        dropped=int((~scored_N & ~anomalous_N).sum()),
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
            group_N=material.block_N,
        )
    numbers = number_N[held_out_N]
    looked_at = Data(features, held_out_ND, material.anomalies_AD, numbers)
    config = RunConfig(data=str(rows.data), name="report", seed=seed)
    strange = look_for_suspects(looked_at, config)
    suspects = list_suspects(looked_at, strange) if strange else ()
    place = {int(number): n for n, number in enumerate(numbers)}
    of_run, run_toml = _read_of_run(file.with_name(FIGURES)), file.with_name("run.toml")
    which = "that are new to the model" if are_new else "some of which may have made the model"
    return gather(
        material,
        Told(
            name=name_of(file),
            rows=f"{len(held_out_ND):,} normal rows of {rows.data.name}, {which}",
            is_run=False,
            seen=known.seen(rows_ND[scored_N]) if known else None,
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
        ),
    )


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


def _score(detector: Detector, rows_ND: Float32) -> tuple[Float32, NDArray[np.bool_]]:
    """[N] scores, and which rows have one."""
    scored_N = Schema.of(detector.manifest).has_enough(rows_ND)
    score_N = np.full(len(rows_ND), np.nan, dtype=np.float32)
    score_N[scored_N] = detector.score(rows_ND[scored_N]).score
    return score_N, scored_N & ~np.isnan(score_N)


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
