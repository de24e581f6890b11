"""Apache Spark: a frame's rows are scored where they lie, by mapInArrow, with the model broadcast.

    python -m hourglass.service.adapters.spark --model models/pump rows.parquet scored.parquet

Executors need this package, with its extra `spark`, as the driver does.

Shapes: N rows of a batch, D features.
"""

import argparse
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
OPENED_MODELS = 4  # of a Python worker, which outlives a task


def score(
    frame: "DataFrame",
    model: bytes,
    columns: Sequence[str] | None = None,
    *,
    alpha: float | None = None,
    time: str | None = None,
    entity: str | None = None,
) -> "DataFrame":
    """A frame with what the model says of each row: the results of `hourglass score`, and `blamed`,
    the features to blame. Null of a row with too few values.

    `columns` are those of the frame that stand beside the results, all unless it says which; where
    one has the name of a result, results get a prefix. `alpha` is another budget than the file's.
    A model of rows in order needs `time` and `entity`: the rows of an entity are scored together,
    and must go into the memory of one worker. InvalidTable or InvalidSettings where frame and model
    do not go together; a cell that is wrong ends the job, in a sentence that names its column, and
    its row within the batch.
    """
    try:
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
    served = _open(model, alpha)
    is_ordered = served.detector.window > 1
    files.require_order(served, time=time, entity=entity)
    if is_ordered and (time is None or entity is None):
        raise InvalidSettings(
            "a model of rows in order needs the columns time= and entity=: a frame of Spark has no"
            " order"
        )
    features = [feature.name for feature in served.schema.features]
    read = list(dict.fromkeys([*features, *(name for name in (time, entity) if name)]))
    kept = list(frame.columns if columns is None else columns)
    if absent := [name for name in (*read, *kept) if name not in frame.columns]:
        raise InvalidTable(
            f"the frame has no column {absent[0]!r}, which is asked for; its columns are"
            f" {', '.join(map(repr, frame.columns[:20]))}"
        )
    names = [*files.COLUMNS, files.BLAMED]
    names += [files.WARMING] if is_ordered else []
    names += [files.KNOWN_ENTITY] if served.detector.manifest.baseline else []
    prefix = files.PREFIX if {*names} & {*kept} else ""
    kinds = {
        **dict.fromkeys(NUMBERS, FloatType()),
        **dict.fromkeys(FLAGS, BooleanType()),
        "reason": StringType(),
        files.BLAMED: ArrayType(StringType()),
    }
    results = [StructField(prefix + name, kinds[name]) for name in names]
    schema = StructType([*(frame.schema[name] for name in kept), *results])
    shipped = frame.sparkSession.sparkContext.broadcast(model)

    def scored(part: Any) -> Any:
        """A batch or table -> the same with results."""
        import polars as pl

        rows = pl.DataFrame(pl.from_arrow(part.select(read)))
        told = files.score_frame(_open(shipped.value, alpha), rows, time=time, entity=entity)
        arrays = [*part.select(kept).columns, *(_arrow(told[name]) for name in names)]
        return type(part).from_arrays(arrays, names=[*kept, *(prefix + name for name in names)])

    def scored_batches(batches: "Iterable[pa.RecordBatch]") -> "Iterator[pa.RecordBatch]":
        return (scored(batch) for batch in batches)

    needed = frame.select(*dict.fromkeys([*read, *kept]))
    if is_ordered:
        return needed.groupBy(entity).applyInArrow(scored, schema)
    return needed.mapInArrow(scored_batches, schema)


@lru_cache(maxsize=OPENED_MODELS)
def _open(model: bytes, alpha: float | None) -> Served:
    """The Detector does not pickle: each worker makes its own of the bytes."""
    detector = Detector.from_bytes(model)
    own = detector.threshold
    threshold = own
    if alpha is not None:
        threshold = detector.table.threshold(alpha, own.delta, certified=own.certified)
    return Served("model", detector, Schema.of(detector.manifest), threshold, 0.0)


def _arrow(column: "pl.Series") -> "pa.Array":
    """As Spark has it: polars' text is large_string."""
    import pyarrow as pa

    if column.name == "reason":
        return column.to_arrow().cast(pa.string())
    if column.name == files.BLAMED:
        return column.to_arrow().cast(pa.list_(pa.string()))
    return column.to_arrow()


def parser() -> argparse.ArgumentParser:
    """What the script is told."""
    made = argparse.ArgumentParser(prog="python -m hourglass.service.adapters.spark")
    made.add_argument("data", help="Parquet that Spark reads")
    made.add_argument("out", help="where it writes Parquet")
    made.add_argument("--model", type=Path, required=True, help="a model file, or MODELS/NAME")
    made.add_argument("--columns", nargs="+", help="of the data, that stand beside the results")
    made.add_argument("--alpha", type=float, help="another budget than the model's")
    made.add_argument("--time", help="the column of times, of a model of rows in order")
    made.add_argument("--entity", help="the column that says whose a row is")
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    """Parquet in, Parquet out."""
    asked = parser().parse_args(arguments)
    try:
        from pyspark.sql import SparkSession
    except ImportError:
        raise SystemExit(NEEDED) from None
    spark = SparkSession.builder.appName("hourglass").getOrCreate()
    try:
        scored = score(
            spark.read.parquet(asked.data),
            locate(asked.model).read_bytes(),
            asked.columns,
            alpha=asked.alpha,
            time=asked.time,
            entity=asked.entity,
        )
        scored.write.parquet(asked.out)
    except HourglassError as error:
        raise SystemExit(str(error)) from None
    finally:
        spark.stop()


if __name__ == "__main__":
    # workers look for what they are sent in the module of its own name
    from hourglass.service.adapters import spark

    spark.main()
