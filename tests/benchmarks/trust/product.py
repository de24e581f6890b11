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
from hourglass.service.rows.tables import encode_table, read_table
from hourglass.training.calibrate import SCORE_RESOLUTION, choose_threshold
from hourglass.training.config import load_config
from hourglass.training.core import Core, CoreOutput
from hourglass.training.data import prepare
from hourglass.training.errors import RunError
from hourglass.training.split import split_data
from hourglass.training.suspects import list_suspects, look_for_suspects, strangest, warn
from hourglass.training.trial import absorb_held_out, fit_trial

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


class Fit(Protocol):
    def __call__(
        self,
        rows_ND: Floats,
        *,
        preset: str,
        seed: int,
        alpha: float | None = None,
        contamination: float = 0.0,
    ) -> Fitted:
        """Rows in their order; Refused where the product would not fit them."""


@dataclass(frozen=True, slots=True)
class Product:
    core: Core
    columns: tuple[str, ...]
    encode: Callable[[pl.DataFrame], NDArray[np.float32]]
    table: Table
    default: Threshold
    warnings: tuple[str, ...] = ()
    suspects: Integers | None = None

    @property
    def n(self) -> int:
        return self.table.n

    @property
    def alpha(self) -> float:
        return self.default.alpha

    @property
    def guarantee(self) -> str:
        return "certified" if self.default.certified else "marginal"

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
        return None

    def explain(self, rows_ND: Floats) -> Blame:
        parts = self._run(rows_ND)
        contributions_ND = np.concatenate([part.contributions_ND.numpy() for part in parts])
        expected_ND = np.concatenate([part.reconstruction_ND.numpy() for part in parts])
        # the order in which the service names them
        return Blame(np.argsort(-contributions_ND, axis=1, kind="stable"), expected_ND)

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
) -> Product:
    columns = tuple(f"x{i}" for i in range(rows_ND.shape[1]))
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "rows.parquet"
        pl.DataFrame(rows_ND, schema=columns).fill_nan(None).write_parquet(data)
        flags = {"data": str(data), "name": "trust", "seed": seed, "preset": preset, "alpha": alpha}
        flags["contamination"] = contamination
        try:
            config = load_config(None, flags)
            found = prepare(read_table(data))
            strange = look_for_suspects(found, config)
            suspects = list_suspects(found, strange) if strange else ()
            warning = warn(strange) if strange else None
            if contamination:
                found = found.without(strangest(found, strange, contamination))
            prepared = split_data(found, config)
            trial = fit_trial(prepared, config, config.model)
        except (RunError, HourglassError) as error:
            raise Refused(str(error)) from error
    absorb_held_out(trial, prepared.split, config.seed)
    calibration = torch.from_numpy(prepared.split.calibration_ND)
    with torch.no_grad():
        score_N = torch.cat([trial.core(part).score_N for part in calibration.split(BULK)]).numpy()
    table = build_table(np.maximum(score_N, SCORE_RESOLUTION))
    return Product(
        core=trial.core,
        columns=columns,
        encode=lambda frame: encode_table(frame, prepared.features),
        table=table,
        default=choose_threshold(table, config.alpha, config.delta, uncertified=False),
        warnings=(warning,) if warning else (),
        suspects=np.array([it.row - 1 for it in suspects], dtype=np.int64),
    )
