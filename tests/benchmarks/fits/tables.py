"""Generated tables as odd as people's: heavy tails, many zeros, few distinct values, copies of
rows, columns that nearly repeat others, tiny and huge scales, few rows, gaps, categories, constants.

A seed gives the same table on any machine with the same numpy.
"""

from collections.abc import Callable

import numpy as np
import polars as pl
from numpy.typing import NDArray

Values = NDArray[np.float64]
Draw = Callable[[np.random.Generator, Values], Values]


def _scaled(rng: np.random.Generator, low: int, high: int, state_N: Values) -> Values:
    return _normal(rng, state_N) * 10.0 ** rng.integers(low, high)


def _normal(rng: np.random.Generator, state_N: Values) -> Values:
    share = rng.uniform(-1, 1)
    return share * state_N + np.sqrt(1 - share**2) * rng.normal(size=len(state_N))


def _nearly_constant(rng: np.random.Generator, state_N: Values) -> Values:
    values = np.full(len(state_N), float(rng.choice([0.0, 5.0, -1e4, 0.1])))
    values[rng.integers(len(values), size=rng.integers(1, 4))] += rng.choice([1.0, -3.0, 1e3])
    return values


def _sizes(rng: np.random.Generator, state_N: Values) -> Values:
    """Whole numbers over up to nine decades."""
    decades = rng.uniform(0.5, 3)
    return np.minimum(np.round(10 ** (decades * (1 + _normal(rng, state_N)))), 1e9)


NUMBERS: dict[str, Draw] = {
    "normal": _normal,
    "heavy tail": lambda rng, s_N: np.sign(s_N) * np.abs(s_N) / rng.random(len(s_N)) ** 2,
    "log-normal": lambda rng, s_N: np.exp(rng.uniform(1, 5) * _normal(rng, s_N)),
    "many zeros": lambda rng, s_N: np.where(
        rng.random(len(s_N)) < rng.uniform(0.3, 0.98), 0.0, np.exp(_normal(rng, s_N))
    ),
    "few values": lambda rng, s_N: np.round(rng.uniform(0.3, 3) * _normal(rng, s_N)),
    "sizes": _sizes,
    "counts": lambda rng, s_N: rng.poisson(np.exp(rng.uniform(-1, 2) + 0.5 * s_N)).astype(float),
    "tiny": lambda rng, s_N: _scaled(rng, -30, -6, s_N),
    "huge": lambda rng, s_N: _scaled(rng, 6, 34, s_N),
    "far from zero": lambda rng, s_N: 10.0 ** rng.integers(1, 5) + _normal(rng, s_N),
    "constant": lambda rng, s_N: np.full(len(s_N), float(rng.choice([0.0, 3.0, -1e6]))),
    "nearly constant": _nearly_constant,
    "two values": lambda rng, s_N: (s_N > rng.normal()).astype(float),
    "two modes": lambda rng, s_N: np.where(s_N > 0, 50.0, -50.0) + rng.normal(size=len(s_N)),
    "rounded": lambda rng, s_N: np.round(_normal(rng, s_N), int(rng.integers(0, 3))),
}
ROWS = ((15, 60), (60, 400), (400, 2000))
MOST_COLUMNS = 12


def make(seed: int) -> pl.DataFrame:
    """The table of this seed."""
    rng = np.random.default_rng(seed)
    rows = int(rng.integers(*ROWS[seed % len(ROWS)]))
    state_N = rng.normal(size=rows)
    kinds = [*NUMBERS, "category", "true or false", "nearly another", "another's copy"]
    if rng.random() < 0.3:  # a table of one kind has all its columns odd in the same way
        kinds = [str(rng.choice(list(NUMBERS)))]
    columns: dict[str, pl.Series] = {}
    numbers: list[Values] = []
    for i in range(int(rng.integers(1, MOST_COLUMNS + 1))):
        kind = str(rng.choice(kinds))
        name = f"{i} {kind}"
        if kind == "category":
            count = int(rng.integers(1, 15))
            skew_C = rng.dirichlet(np.full(count, 0.5))
            columns[name] = pl.Series([f"c{code}" for code in rng.choice(count, rows, p=skew_C)])
            continue
        if kind == "true or false":
            columns[name] = pl.Series(state_N > rng.normal())
            continue
        values = numbers[-1] if numbers else state_N
        if kind == "nearly another":
            values = values * rng.uniform(0.5, 2) + 1e-5 * values.std() * rng.normal(size=rows)
        elif kind != "another's copy":
            values = NUMBERS[kind](rng, state_N)
        numbers.append(values)
        columns[name] = pl.Series(np.clip(values, -3e38, 3e38))
    table = pl.DataFrame(columns)
    if rng.random() < 0.4:
        table = _with_copies(table, rng)
    if rng.random() < 0.4:
        table = _with_gaps(table, rng)
    return table


def sizes_and_counts(seed: int, rows: int = 2592) -> pl.DataFrame:
    """Like tables of what files and programs measure: 5 columns of sizes and counts with zeros over
    up to nine decades, of 11 to 700 distinct values; 70 % of the rows are copies.
    """
    rng = np.random.default_rng((seed, 7))
    distinct = int(rows * rng.uniform(0.25, 0.35))
    level_N, columns = rng.normal(size=distinct), {}
    for i in range(5):
        decades = rng.choice([0.5, 1, 2, 3]) if i else 3
        order_N = decades * 0.7 * (level_N + rng.normal(size=distinct))
        values = np.round(10 ** (order_N + rng.uniform(0, decades)))
        if i % 2:
            values = np.minimum(values, rng.choice([10, 30, 100, 700]))
        values = np.where(rng.random(distinct) < rng.choice([0, 0.2, 0.5]), 0, values)
        columns[f"x{i}"] = np.minimum(values, 1e9)
    often_N = rng.pareto(rng.uniform(1, 4), distinct) + 0.1
    more = rng.choice(distinct, rows - distinct, p=often_N / often_N.sum())
    places_N = rng.permutation(np.concatenate([np.arange(distinct), more]))
    return pl.DataFrame(columns)[places_N]


def _with_copies(table: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
    """As many rows, of which few are distinct."""
    distinct = max(1, int(table.height * rng.choice([0.02, 0.1, 0.3, 0.7])))
    often_N = rng.pareto(1, distinct) + 0.1
    return table[rng.choice(distinct, table.height, p=often_N / often_N.sum())]


def _with_gaps(table: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
    """Cells missing at another rate in each column; a column may be empty."""
    for column in table.columns:
        rate = rng.choice([0.0, 0.01, 0.1, 0.5, 0.95, 1.0], p=[0.4, 0.2, 0.2, 0.1, 0.06, 0.04])
        hidden = pl.Series(rng.random(table.height) < rate)
        table = table.with_columns(
            pl.when(hidden).then(None).otherwise(pl.col(column)).alias(column)
        )
    return table
