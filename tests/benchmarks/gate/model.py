"""A fitted model as the gate sees it, without export: what a run does up to its threshold, and the
core on torch in place of the exported graph, which takes ten times as long as the fit.

Shapes: N rows, D features.
"""

import hashlib
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple, cast

import msgspec
import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from hourglass.service.model.calibration import Table, Threshold, build_table
from hourglass.service.model.detector import Detector, Scores
from hourglass.training.calibrate import SCORE_RESOLUTION, choose_threshold
from hourglass.training.challenge import (
    Challenger,
    Champion,
    judge_rows,
    meet_challenger,
    meet_rows,
    without_strange_fit_rows,
)
from hourglass.training.config import AutoConfig, RunConfig, load_config
from hourglass.training.core import Core
from hourglass.training.fingerprints import Fingerprints, fingerprint
from hourglass.training.gate import Decision
from hourglass.training.manifest import drift_reference
from hourglass.training.screen import Screened
from hourglass.training.split import Prepared, data_of, split_data, table_of
from hourglass.training.trial import Trial, absorb_held_out, fit_trial
from hourglass.training.verify import Difference

BULK = 1024

Float32 = NDArray[np.float32]


class Model:
    """What the gate asks of a detector."""

    window = 1

    def __init__(self, trial: Trial, prepared: Prepared, config: RunConfig) -> None:
        assert isinstance(trial.core, Core)
        self._core = trial.core
        self.score_C = np.maximum(self._scores(prepared.split.calibration_ND), SCORE_RESOLUTION)
        self.table: Table = build_table(self.score_C)
        self.threshold: Threshold = choose_threshold(
            self.table, config.alpha, config.delta, uncertified=False
        )
        self.manifest = SimpleNamespace(
            features=prepared.features,
            drift=tuple(map(drift_reference, prepared.features, prepared.split.fit_ND.T)),
            min_observed_fraction=prepared.min_observed_fraction,
            model=SimpleNamespace(hyper_parameters=msgspec.to_builtins(trial.config)),
        )
        self.version = hashlib.sha256(self.score_C.tobytes()).hexdigest()
        self.size_bytes = sum(tensor.nbytes for tensor in trial.core.state_dict().values())

    def score(self, rows_ND: Float32) -> Scores:
        score_N = self._scores(rows_ND)
        return Scores(score_N, *self.table.look_up(score_N))

    @torch.no_grad()
    def _scores(self, rows_ND: Float32) -> Float32:
        parts = torch.from_numpy(np.ascontiguousarray(rows_ND)).split(BULK)
        score_N: Float32 = torch.cat([self._core(part).score_N for part in parts]).numpy()
        return score_N


class Fitted(NamedTuple):
    model: Model | None  # None where the gate refused the rows
    known: Fingerprints | None
    decision: Decision | None  # of the gate; None without a champion
    screened: Screened | None


def fit(
    rows_ND: Float32, *, preset: str, seed: int, champion: Fitted | None, force: bool
) -> Fitted:
    """What a run does with these rows; RunError where they cannot be used."""
    columns = [f"x{d}" for d in range(rows_ND.shape[1])]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.parquet"
        pl.DataFrame(rows_ND, schema=columns).write_parquet(file)
        given = {"data": str(file), "name": "gate", "seed": seed, "preset": preset}
        config = load_config(None, {**given, "folds": 0, "keep": columns, "force": force})
        data = data_of(table_of(config), config)
    looked_at_ND = data.normal_ND
    met: Champion | None = None
    if champion:
        serving = cast(Detector, champion.model)
        met = meet_rows(serving, champion.known, data, config)
        decision = judge_rows(met, config)
        if not decision.published:
            return Fitted(None, None, decision, None)
        data = data.without(met.left_out_N)
    prepared = split_data(data, config)
    screened = met.screened if met else None
    if met and screened and screened.left_out:
        prepared = without_strange_fit_rows(met, prepared)
    assert not isinstance(config.model, AutoConfig)
    trial = fit_trial(prepared, config, config.model)
    absorb_held_out(trial, prepared.split, config.seed)
    model, decision = Model(trial, prepared, config), None
    if met:
        alike = (Difference("score", 0, 0.0, 0.0, 0.0),)
        challenger = Challenger(cast(Detector, model), trial, prepared, model.score_C, alike)
        decision = meet_challenger(met, challenger, config)
    return Fitted(
        model, fingerprint(np.concatenate(prepared.split), looked_at_ND), decision, screened
    )
