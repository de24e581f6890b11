"""What Spark makes of a request, in an environment of its own; test_spark.py asks. The request and
the answer are JSON. With the argument `connect` it is Spark Connect, which answers a part of it.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
from pyspark.errors import PythonException
from pyspark.sql import SparkSession
from pyspark.sql.functions import col

from hourglass.service.adapters.files import score_frame
from hourglass.service.errors import HourglassError
from hourglass.service.model.detector import Detector
from hourglass.service.model.schema import Schema
from hourglass.service.model.served import Served
from hourglass.spark import score


def said(ask):
    """The sentence of what was refused, by us or in a worker."""
    try:
        ask().collect()
    except (HourglassError, PythonException) as error:
        lines = [line for line in str(error).splitlines() if "hourglass.service.errors." in line]
        return lines[-1].split(": ", 1)[1] if lines else str(error)
    return None


def rows_of(frame):
    return [row.asDict() for row in frame.orderBy("n").collect()]


def rates(spark, model, folder, count):
    """Rows a second, warm: of Spark, Parquet in and Parquet out; in one process of a table, with
    reasons, and of the Detector alone.
    """
    frame = spark.read.parquet(f"{folder}/many.parquet")
    table = pl.read_parquet(f"{folder}/many.parquet")
    rows_ND = table.to_numpy().astype(np.float32)
    detector = Detector.from_bytes(model)
    served = Served("many", detector, Schema.of(detector.manifest), detector.threshold, 0.0)
    ways = {
        "Spark": lambda: (
            score(frame, model, []).write.mode("overwrite").parquet(f"{folder}/many-scored")
        ),
        "table": lambda: score_frame(served, table),
        "Detector": lambda: [
            detector.score(rows_ND[start : start + 65536]) for start in range(0, count, 65536)
        ],
    }
    return {name: count / min(map(seconds, [way] * 3)) for name, way in ways.items()}


def seconds(way):
    began = time.perf_counter()
    way()
    return time.perf_counter() - began


def session(builder):
    for name, value in (
        ("spark.ui.enabled", "false"),
        ("spark.driver.host", "127.0.0.1"),
        ("spark.driver.bindAddress", "127.0.0.1"),
        ("spark.sql.session.timeZone", "UTC"),
        ("spark.sql.shuffle.partitions", "2"),
    ):
        builder = builder.config(name, value)
    return builder.getOrCreate()


def answered(spark, request):
    folder = Path(request["folder"])
    single, ordered, odd = (folder / f"{name}.onnx" for name in ("single", "ordered", "odd"))
    frame = spark.read.parquet(f"{folder}/single.parquet").repartition(3)
    model = single.read_bytes()
    told = score(frame, model, ["n", "site"])
    taken = frame.withColumnsRenamed({"n": "score", "site": "hourglass_score"})
    parts = spark.read.parquet(f"{folder}/ordered.parquet").repartition(3)
    # names that Spark would read as paths
    dotted = parts.withColumnsRenamed({"at": "at.x", "machine": "a `machine`", "a": "Score"})
    dotted = dotted.withColumn("a", col("Score"))
    answer = {
        "single": rows_of(told),
        "strict": rows_of(score(frame, single, ["n"], alpha=0.02)),
        "columns": score(frame.withColumnRenamed("n", "Score"), model).columns,
        "odd": rows_of(score(spark.read.parquet(f"{folder}/odd.parquet"), str(odd))),
        "refused": {
            "cell": said(lambda: score(spark.read.parquet(f"{folder}/wrong.parquet"), model)),
            "column": said(lambda: score(frame.drop("heat"), model)),
            "kept": said(lambda: score(frame, model, ["m"])),
            "twice": said(lambda: score(frame.select("*", "heat"), model)),
            "taken": said(lambda: score(taken.withColumn("site", col("heat")), model)),
            "alpha": said(lambda: score(frame, model, alpha=5)),
            "order": said(lambda: score(parts, ordered, time="at")),
            "no order": said(lambda: score(frame, model, time="n")),
        },
    }
    for text in ("false", "true"):
        spark.conf.set("spark.sql.execution.arrow.useLargeVarTypes", text)
        of_entities = score(
            dotted, ordered, ["n", "Score", "a `machine`"], time="at.x", entity="a `machine`"
        )
        answer[f"ordered, {text}"] = rows_of(of_entities)
    return answer


request = json.load(sys.stdin)
if sys.argv[1:] == ["connect"]:
    spark = session(SparkSession.builder.remote("local[2]"))
    answer = answered(spark, request)
else:
    spark = session(SparkSession.builder.master("local[2]"))
    answer = answered(spark, request)
    folder = Path(request["folder"])
    exec(request["snippet"])  # the README's, which has find_strange
    strange = find_strange(spark, f"{folder}/single.parquet", folder / "single.onnx")  # noqa: F821
    answer["strange"] = rows_of(strange)
    answer["rates"] = rates(spark, (folder / "wide.onnx").read_bytes(), folder, request["count"])
spark.stop()
json.dump(answer, sys.stdout)
