"""`from hourglass.spark import score`: a frame's rows are scored where they lie, by mapInArrow.

The model is sent along with the function, not broadcast: a session of Spark Connect cannot.

    python -m hourglass.spark --model models/pump rows.parquet scored.parquet

Executors need this package, with its extra `spark`, as the driver does.

Shapes: N rows of a batch, D features.
"""

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hourglass.service.adapters import files
from hourglass.service.errors import HourglassError, InvalidSettings, InvalidTable
from hourglass.service.model.detector import Detector
from hourglass.service.model.schema import Schema
from hourglass.service.model.served import Served
from hourglass.service.serving.store import locate

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa
    from pyspark.sql import DataFrame

NEEDED = (
    "scoring in Spark needs pyspark, pyarrow, pandas and polars: pip install 'hourglass[spark]'"
)
NUMBERS = ("score", "ratio", "p_value", "severity")
FLAGS = ("extrapolated", "is_anomaly", files.WARMING, files.KNOWN_ENTITY)
LARGE = "spark.sql.execution.arrow.useLargeVarTypes"
OPENED_MODELS = 4  # of a Python worker, which outlives a task


def score(
    frame: "DataFrame",
    model: bytes | str | Path,
    columns: Sequence[str] | None = None,
    *,
    alpha: float | None = None,
    time: str | None = None,
    entity: str | None = None,
) -> "DataFrame":
    """A frame with what the model says of each row: the results of `hourglass score`, and `blamed`,
    the features to blame. Null of a row with too few values.

    `model` is the bytes of a file, or where it lies: the file, the folder of a version, or
    MODELS/NAME. `columns` are those of the frame that stand beside the results, all unless it says
    which; where one has the name of a result, in capitals or not, results get a prefix. `alpha` is
    another budget than the file's.
    A model of rows in order needs `time` and `entity`: the rows of an entity are scored together,
    and must go into the memory of one worker. InvalidTable or InvalidSettings where frame and model
    do not go together; a cell that is wrong ends the job, in a sentence that names its column, and
    its row within the batch.
    """
    try:
        from pyspark.sql.functions import col
        from pyspark.sql.types import (
            ArrayType,
            BooleanType,
            FloatType,
            StringType,
            StructField,
            StructType,
        )
    except ImportError as error:
        raise InvalidSettings(NEEDED) from error
    data = locate(Path(model)).read_bytes() if isinstance(model, str | Path) else bytes(model)
    served = _open(data, alpha)
    is_ordered = served.detector.window > 1
    files.require_order(served, time=time, entity=entity)
    if is_ordered and (time is None or entity is None):
        raise InvalidSettings(
            "a model of rows in order needs the columns time= and entity=: a frame of Spark has no"
            " order"
        )
    features = [feature.name for feature in served.schema.features]
    read = list(dict.fromkeys([*features, *(name for name in (time, entity) if name)]))
    kept = list(frame.columns if columns is None else dict.fromkeys(columns))
    if absent := [name for name in (*read, *kept) if name not in frame.columns]:
        raise InvalidTable(
            f"the frame has no column {absent[0]!r}, which is asked for; its columns are"
            f" {', '.join(map(repr, frame.columns[:20]))}"
        )
    if twice := [name for name in (*read, *kept) if frame.columns.count(name) > 1]:
        raise InvalidTable(f"the frame has several columns {twice[0]!r}")
    names = [*files.COLUMNS, files.BLAMED]
    names += [files.WARMING] if is_ordered else []
    names += [files.KNOWN_ENTITY] if served.detector.manifest.baseline else []
    taken = {name.lower() for name in kept}  # Spark takes Score and score for one name
    prefix = files.PREFIX if {*names} & taken else ""
    if both := [name for name in names if prefix + name in taken]:
        raise InvalidTable(
            f"the frame has the columns {both[0]!r} and {prefix + both[0]!r} already, which is"
            " where a result would go; columns= says which to keep"
        )
    kinds = {
        **dict.fromkeys(NUMBERS, FloatType()),
        **dict.fromkeys(FLAGS, BooleanType()),
        "reason": StringType(),
        files.BLAMED: ArrayType(StringType()),
    }
    results = [StructField(prefix + name, kinds[name]) for name in names]
    schema = StructType([*(frame.schema[name] for name in kept), *results])
    is_large = frame.sparkSession.conf.get(LARGE, "false") == "true"

    # mapInArrow refers to columns by names that it does not quote
    plain = {name: f"c{n}" for n, name in enumerate(dict.fromkeys([*read, *kept]))}

    def scored(part: Any) -> Any:
        """A batch or table -> the same with results."""
        import polars as pl

        asked = part.select([plain[name] for name in read]).rename_columns(read)
        told = files.score_frame(
            _open(data, alpha), pl.DataFrame(pl.from_arrow(asked)), time=time, entity=entity
        )
        beside = part.select([plain[name] for name in kept]).columns
        arrays = [*beside, *(_arrow(told[name], is_large) for name in names)]
        return type(part).from_arrays(arrays, names=[*kept, *(prefix + name for name in names)])

    def scored_batches(batches: "Iterable[pa.RecordBatch]") -> "Iterator[pa.RecordBatch]":
        return (scored(batch) for batch in batches)

    needed = frame.select(
        *(col(f"`{name.replace('`', '``')}`").alias(to) for name, to in plain.items())
    )
    if is_ordered:
        return needed.groupBy(plain[str(entity)]).applyInArrow(scored, schema)
    return needed.mapInArrow(scored_batches, schema)


@lru_cache(maxsize=OPENED_MODELS)
def _open(model: bytes, alpha: float | None) -> Served:
    """The Detector does not pickle: each worker makes its own of the bytes."""
    detector = Detector.from_bytes(model)
    served = Served("model", detector, Schema.of(detector.manifest), detector.threshold, 0.0)
    return served if alpha is None else files.with_budget(served, alpha)


def _arrow(column: "pl.Series", is_large: bool) -> "pa.Array":
    """As Spark has it: polars' text is large_string."""
    import pyarrow as pa

    text = pa.large_string() if is_large else pa.string()
    if column.name == "reason":
        return column.to_arrow().cast(text)
    if column.name == files.BLAMED:
        return column.to_arrow().cast(pa.list_(text))
    return column.to_arrow()


def parser() -> argparse.ArgumentParser:
    """What the script is told."""
    made = argparse.ArgumentParser(prog="python -m hourglass.spark")
    made.add_argument("data", help="Parquet that Spark reads")
    made.add_argument("out", help="where it writes Parquet")
    made.add_argument("--model", type=Path, required=True, help="a model file, or MODELS/NAME")
    made.add_argument("--columns", nargs="+", help="of the data, that stand beside the results")
    made.add_argument("--alpha", type=float, help="another budget than the model's")
    made.add_argument("--time", help="the column of times, of a model of rows in order")
    made.add_argument("--entity", help="the column that says whose a row is")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Parquet in, Parquet out; 2 and one sentence on stderr where this cannot be."""
    asked = parser().parse_args(arguments)
    try:
        from pyspark.errors import PySparkException
        from pyspark.sql import SparkSession
    except ImportError:
        print(NEEDED, file=sys.stderr)
        return 2
    spark = SparkSession.builder.appName("hourglass").getOrCreate()
    try:
        scored = score(
            spark.read.parquet(asked.data),
            asked.model,
            asked.columns,
            alpha=asked.alpha,
            time=asked.time,
            entity=asked.entity,
        )
        scored.write.parquet(asked.out)
    except (HourglassError, PySparkException) as error:
        print(_sentence(error), file=sys.stderr)
        return 2
    finally:
        spark.stop()
    return 0


def _sentence(error: Exception) -> str:
    """Ours, which a worker's error ends with, or the first line of Spark's."""
    lines = [line for line in str(error).splitlines() if line.strip()] or [repr(error)]
    ours = [line for line in lines if line.strip().startswith(HourglassError.__module__)]
    return ours[-1].partition(": ")[2] if ours else lines[0]
