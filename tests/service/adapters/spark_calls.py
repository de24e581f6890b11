"""What Spark makes of a request, in an environment of its own; tests/service/adapters/test_spark.py
asks. The request and the answer are JSON.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
from pyspark.errors import PythonException
from pyspark.sql import SparkSession

from hourglass.service.adapters.files import score_frame
from hourglass.service.adapters.spark import main, score
from hourglass.service.errors import HourglassError
from hourglass.service.model.detector import Detector
from hourglass.service.model.schema import Schema
from hourglass.service.model.served import Served


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


request = json.load(sys.stdin)
folder = Path(request["folder"])
single, ordered = (folder / f"{name}.onnx" for name in ("single", "ordered"))
answer = {}
spark = (
    SparkSession.builder.master("local[2]")
    .config("spark.ui.enabled", "false")
    .config("spark.driver.host", "127.0.0.1")
    .config("spark.driver.bindAddress", "127.0.0.1")
    .config("spark.sql.session.timeZone", "UTC")
    .config("spark.sql.shuffle.partitions", "2")
    .getOrCreate()
)
frame = spark.read.parquet(f"{folder}/single.parquet").repartition(3)
model = single.read_bytes()
answer["single"] = rows_of(score(frame, model, ["n", "site"]))
answer["strict"] = rows_of(score(frame, model, ["n"], alpha=0.02))
answer["columns"] = score(frame.withColumnRenamed("n", "score"), model).columns
parts = spark.read.parquet(f"{folder}/ordered.parquet").repartition(3)
answer["ordered"] = rows_of(score(parts, ordered.read_bytes(), ["n"], time="at", entity="machine"))
answer["refused"] = {
    "cell": said(lambda: score(spark.read.parquet(f"{folder}/wrong.parquet"), model)),
    "column": said(lambda: score(frame.drop("heat"), model)),
    "kept": said(lambda: score(frame, model, ["m"])),
    "order": said(lambda: score(parts, ordered.read_bytes(), time="at")),
    "no order": said(lambda: score(frame, model, time="n")),
}
exec(request["snippet"])  # the README's, which has find_strange
answer["strange"] = rows_of(find_strange(spark, f"{folder}/single.parquet", single))  # noqa: F821
answer["rates"] = rates(spark, (folder / "wide.onnx").read_bytes(), folder, request["count"])
# ends the session
main([f"{folder}/single.parquet", f"{folder}/out", "--model", str(single), "--columns", "n"])
json.dump(answer, sys.stdout)
