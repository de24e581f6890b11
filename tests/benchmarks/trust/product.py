"""The product as the protocols see it: everything they ask of it, and all they know of it.

Fits run in this process and without export: what training calls on the way to an artifact, up to
the threshold, and the core on torch in place of the exported graph. A change of training's
functions is followed here and nowhere else.

Shapes: N rows, D features.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import msgspec
import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from hourglass.service.errors import HourglassError
from hourglass.service.model.calibration import (
    Table,
    Threshold,
    build_table,
    certified_rank,
)
from hourglass.service.model.conditional import Conditional
from hourglass.service.model.reasons import find_reasons
from hourglass.service.rows.tables import encode_table, read_table
from hourglass.training.calibrate import SCORE_RESOLUTION, choose_threshold, rank_table
from hourglass.training.config import AutoConfig, load_config
from hourglass.training.core import Core, CoreOutput
from hourglass.training.data import prepare
from hourglass.training.errors import RunError
from hourglass.training.folds import Folds
from hourglass.training.guarantee import exchangeability_of, promise
from hourglass.training.split import split_data
from hourglass.training.suspects import list_suspects, look_for_suspects, strangest, warn
from hourglass.training.trial import absorb_held_out, fit_folds, fit_trial

BULK = 1024

Floats = NDArray[np.floating]
Integers = NDArray[np.integer]


class Refused(Exception):
    """The product does not do what was asked, with its reason."""


class Blame(NamedTuple):
    order: Integers  # [N, D] features by blame, the first named first
    expected: Floats  # [N, D] in raw units


class Fitted(Protocol):
    """One fitted and calibrated model. Rows are [N, D] in raw units, float64 or float32."""

    n: int  # calibration rows
    alpha: float  # of the default threshold
    guarantee: str
    warnings: tuple[str, ...]  # why the guarantee may not hold, as the run says it
    suspects: Integers | None  # row numbers, strangest first; None where the product lists none

    def threshold(self, alpha: float | None = None) -> float:
        """The certified one, or the run's own by default; Refused where there is none."""

    def scores(self, rows_ND: Floats) -> Floats: ...

    def p_values(self, rows_ND: Floats) -> Floats: ...

    def severities(self, rows_ND: Floats) -> Floats | None:
        """None where the product has no severity."""

    def explain(self, rows_ND: Floats) -> Blame: ...

    def fill(self, rows_ND: Floats) -> Floats:
        """[N, D] the rows as /reconstruct has them, with their gaps (NaN) filled."""


class Fit(Protocol):
    def __call__(
        self,
        rows_ND: Floats,
        *,
        preset: str,
        seed: int,
        alpha: float | None = None,
        contamination: float = 0.0,
        split_seed: int | None = None,
    ) -> Fitted:
        """Rows in their order; Refused where the product would not fit them. The rows that
        calibrate are drawn by the split's seed; it is the seed unless it is given, so that draws
        are independent of each other, where a user's refit takes the same.
        """


@dataclass(frozen=True, slots=True)
class Product:
    core: Core | Folds
    conditional: Conditional  # of the core, as the service asks it
    columns: tuple[str, ...]
    encode: Callable[[pl.DataFrame], NDArray[np.float32]]
    table: Table
    default: Threshold
    guarantee: str
    warnings: tuple[str, ...] = ()
    suspects: Integers | None = None

    @property
    def n(self) -> int:
        return self.table.n

    @property
    def alpha(self) -> float:
        return self.default.alpha

    def threshold(self, alpha: float | None = None) -> float:
        if alpha is None:
            return self.default.score
        if not certified_rank(self.n, alpha, self.default.delta):
            raise Refused(f"{self.n} calibration rows cannot certify {alpha:g}")
        return self.table.threshold(alpha, self.default.delta).score

    def scores(self, rows_ND: Floats) -> Floats:
        return np.concatenate([part.score_N.numpy() for part in self._run(rows_ND)])

    def p_values(self, rows_ND: Floats) -> Floats:
        return self.table.p_value(self.scores(rows_ND))

    def severities(self, rows_ND: Floats) -> Floats | None:
        return self.table.severities(self.scores(rows_ND))

    def explain(self, rows_ND: Floats) -> Blame:
        parts = self._run(rows_ND)
        reasons = find_reasons(
            self.conditional,
            rows_ND.astype(np.float32),
            np.concatenate([part.score_N.numpy() for part in parts]),
            np.concatenate([part.contributions_ND.numpy() for part in parts]),
            threshold=self.threshold_asked(),
            score=self.scores,
        )
        return Blame(reasons.order_ND, reasons.expected.value_ND)

    def fill(self, rows_ND: Floats) -> Floats:
        clean_ND = np.concatenate([part.reconstruction_ND.numpy() for part in self._run(rows_ND)])
        return self.conditional.fill(rows_ND.astype(np.float32), clean_ND)

    def threshold_asked(self) -> float:
        """The certified one of 5 %, which the protocols ask about, or the run's own."""
        try:
            return self.threshold(0.05)
        except Refused:
            return self.threshold()

    @torch.no_grad()
    def _run(self, rows_ND: Floats) -> list[CoreOutput]:
        rows = torch.from_numpy(self.encode(pl.DataFrame(rows_ND, schema=self.columns)))
        return [self.core(part) for part in rows.split(BULK)]


def fit(
    rows_ND: Floats,
    *,
    preset: str,
    seed: int,
    alpha: float | None = None,
    contamination: float = 0.0,
    split_seed: int | None = None,
) -> Product:
    columns = tuple(f"x{i}" for i in range(rows_ND.shape[1]))
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "rows.parquet"
        pl.DataFrame(rows_ND, schema=columns).fill_nan(None).write_parquet(data)
        flags = {"data": str(data), "name": "trust", "seed": seed, "preset": preset, "alpha": alpha}
        flags["contamination"] = contamination
        try:
            config = load_config(None, flags)
            drawn = msgspec.structs.replace(
                config.split, seed=seed if split_seed is None else split_seed
            )
            config = msgspec.structs.replace(config, split=drawn)
            data_found = prepare(read_table(data))
            strange = look_for_suspects(data_found, config)
            suspects = list_suspects(data_found, strange) if strange else ()
            warning = warn(strange) if strange else None
            if contamination:
                data_found = data_found.without(strangest(data_found, strange, contamination))
            prepared = split_data(data_found, config)
            assert not isinstance(config.model, AutoConfig)
            fit = fit_folds if prepared.folds else fit_trial
            trial = fit(prepared, config, config.model)
        except (RunError, HourglassError) as error:
            raise Refused(str(error)) from error
    if isinstance(trial.core, Folds):
        table = rank_table(trial.core)
    else:
        absorb_held_out(trial, prepared.split, config.seed)
        calibration = torch.from_numpy(prepared.split.calibration_ND)
        with torch.no_grad():
            parts = [trial.core(part).score_N for part in calibration.split(BULK)]
        table = build_table(np.maximum(torch.cat(parts).numpy(), SCORE_RESOLUTION))
    fitted = trial.core.conditional
    assert fitted is not None
    default = choose_threshold(table, config.alpha, config.delta, uncertified=False)
    found = exchangeability_of(prepared, default.alpha, config)
    guarantee = promise(prepared, default, found, config)
    return Product(
        core=trial.core,
        conditional=Conditional(
            prepared.features,
            *(
                tensor.numpy().astype(np.float64)
                for tensor in (fitted.mean, fitted.scale, fitted.precision)
            ),
        ),
        columns=columns,
        encode=lambda frame: encode_table(frame, prepared.features),
        table=table,
        default=default,
        guarantee=guarantee.kind,
        warnings=tuple(text for text in (None if found.passed else found.text, warning) if text),
        suspects=np.array([it.row - 1 for it in suspects], dtype=np.int64),
    )
