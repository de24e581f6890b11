"""Tables to fit: correlated numbers, and one with every kind of column."""

from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

Float32 = NDArray[np.float32]


def correlated(
    rows: int, *, width: int = 4, latent: int = 2, noise: float = 0.3, seed: int = 0, of: int = 0
) -> Float32:
    """Gaussian rows around a plane; `of` names the distribution, `seed` the draw from it."""
    plane_KD = np.random.default_rng(of).normal(size=(latent, width))
    rng = np.random.default_rng((seed, of, 1))
    return (
        rng.normal(size=(rows, latent)) @ plane_KD + noise * rng.normal(size=(rows, width))
    ).astype(np.float32)


def mixed(
    rows: int = 300, *, anomalies: int = 20, seed: int = 0, anomalous_site: str = "south"
) -> pl.DataFrame:
    """Numbers, true/false and categories that hang together, with missing cells, a constant and an
    empty column; `fault` labels.
    """
    rng = np.random.default_rng(seed)
    total = rows + anomalies
    state = rng.normal(size=total)
    table = pl.DataFrame(
        {
            "load": 50 + 10 * state,
            "flow": 3 * state + 0.3 * rng.normal(size=total),
            "heat": -0.02 * state + 0.004 * rng.normal(size=total),
            "open": state > 0.5,
            "site": np.where(state < -0.5, "north", np.where(state < 0.5, "south", "west")),
            "fixed": np.full(total, 5.0),
            "broken": np.full(total, np.nan),
            "fault": np.repeat([0, 1], [rows, anomalies]),
        }
    )
    faulty = pl.col("fault") == 1
    table = table.with_columns(
        flow=pl.when(faulty).then(-pl.col("flow") + 8).otherwise(pl.col("flow")),
        site=pl.when(faulty).then(pl.lit(anomalous_site)).otherwise(pl.col("site")),
        broken=pl.lit(None, dtype=pl.Float64),
    )
    for column, share in (("flow", 0.1), ("site", 0.05)):
        hidden = pl.Series(rng.random(total) < share)
        table = table.with_columns(
            pl.when(hidden).then(None).otherwise(pl.col(column)).alias(column)
        )
    return table.sample(fraction=1.0, shuffle=True, seed=seed)


def write(table: pl.DataFrame | Float32, path: Path) -> Path:
    """To CSV or Parquet, by the path's ending; an array's columns are called x0, x1, ..."""
    if not isinstance(table, pl.DataFrame):
        table = pl.DataFrame(table, schema=[f"x{i}" for i in range(table.shape[1])])
    path.parent.mkdir(parents=True, exist_ok=True)
    table.write_csv(path) if path.suffix == ".csv" else table.write_parquet(path)
    return path
