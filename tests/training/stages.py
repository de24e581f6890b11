"""Stages of a run in one call each, for tests that need what `run` does not hand out."""

from pathlib import Path

import msgspec

from hourglass.service.model.calibration import build_table
from hourglass.service.rows.tables import read_table
from hourglass.training.calibrate import attach_table, calibration_scores, choose_threshold
from hourglass.training.config import RunConfig
from hourglass.training.data import prepare
from hourglass.training.export import export_core, to_bytes
from hourglass.training.guarantee import exchangeability_of, left_out_rates, promise
from hourglass.training.manifest import make_manifest
from hourglass.training.split import Prepared, split_data
from hourglass.training.trial import Trial, absorb_held_out


def prepare_rows(config: RunConfig) -> Prepared:
    """Load, look at the data, split once, however few the rows."""
    columns = ("label", "ignore", "units", "max_categories", "time", "group")
    asked = {field: getattr(config, field) for field in columns}
    once = msgspec.structs.replace(config, split=msgspec.structs.replace(config.split, folds=0))
    return split_data(prepare(read_table(Path(config.data)), **asked), once)


def finish(prepared: Prepared, trial: Trial, config: RunConfig) -> bytes:
    """Absorb the held-out rows, export, calibrate, describe: the bytes that would be published."""
    absorb_held_out(trial, prepared.split, config.seed)
    graph = export_core(trial.core)
    score_N = calibration_scores(graph, prepared.split.calibration_ND)
    table = build_table(score_N, block_N=prepared.block_N)
    uncertified = config.uncertified or prepared.block_N is not None
    threshold = choose_threshold(table, config.alpha, config.delta, uncertified=uncertified)
    found = exchangeability_of(prepared, threshold.alpha, config)
    rates = left_out_rates(prepared, score_N, threshold.alpha)
    guarantee = promise(prepared, threshold, found, config, rates)
    attach_table(graph, table)
    return to_bytes(graph, make_manifest(graph, trial, prepared, threshold, guarantee, config))
