"""The same row gets the same answer, to the last bit, by every route: over HTTP by the fast protocol
and the ordinary app, alone and while others ask, and from a file.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import polars as pl
import pytest

from hourglass.service.adapters.files import open_model, score_file
from hourglass.service.rows.tables import encode_table
from tests.artifacts import publish
from tests.contract.conftest import Pair
from tests.serving import serving
from tests.training import tables
from tests.training.tables import Float32

COUNT = 48

Answer = tuple[list[float], list[float], list[float]]


@pytest.fixture(scope="module")
def pair(pairs: Callable[[str], Pair]) -> Pair:
    return pairs("associative")


@pytest.fixture(scope="module")
def models(pair: Pair, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    publish(folder, "pump", pair.data)
    return folder


@pytest.fixture(scope="module")
def table(pair: Pair) -> pl.DataFrame:
    names = [feature.name for feature in pair.detector.manifest.features]
    return tables.mixed(COUNT - 8, anomalies=8, seed=9).select(names)


@pytest.fixture(scope="module")
def rows_ND(pair: Pair, table: pl.DataFrame) -> Float32:
    return encode_table(table, pair.detector.manifest.features)


@pytest.fixture(scope="module")
def expected(pair: Pair, rows_ND: Float32) -> bytes:
    """Scores, p-values and severities as they are of each row alone."""
    scores = [pair.detector.score(rows_ND[i : i + 1].copy()) for i in range(len(rows_ND))]
    return b"".join(np.concatenate(each).tobytes() for each in zip(*scores, strict=True))


@pytest.fixture(scope="module", params=[True, False], ids=["fast", "ordinary"])
def client(request: pytest.FixtureRequest, models: Path) -> Iterator[httpx.Client]:
    with serving(models, fast=request.param) as running:
        yield running


@pytest.mark.parametrize("size", [1, 2, 7, COUNT])
@pytest.mark.parametrize("route", ["json", "float32", "explain", "v2", "v2 whole"])
def test_a_row_is_answered_alike_by_every_route(
    client: httpx.Client,
    table: pl.DataFrame,
    rows_ND: Float32,
    expected: bytes,
    route: str,
    size: int,
) -> None:
    parts = [slice(start, start + size) for start in range(0, COUNT, size)]

    def ask(part: slice) -> Answer:
        return ASK[route](client, table[part], rows_ND[part])

    with ThreadPoolExecutor(8) as others:
        found = list(others.map(ask, parts))
    columns = [np.concatenate(column).astype(np.float32) for column in zip(*found, strict=True)]
    assert b"".join(column.tobytes() for column in columns) == expected


def test_a_row_is_answered_alike_from_a_file(
    models: Path, table: pl.DataFrame, expected: bytes, tmp_path: Path
) -> None:
    served, _ = open_model(models / "pump")
    path = tables.write(table, tmp_path / "rows.parquet")
    scored = score_file(served, path, progress=lambda _done, _of: None)
    assert np.array(
        scored.select("score", "p_value", "severity").to_numpy().T, np.float32
    ).tobytes() == (expected)


def ask_json(client: httpx.Client, table: pl.DataFrame, _: Float32, route: str = "score") -> Answer:
    answer = client.post(f"/v1/models/pump/{route}", json={"rows": table.rows()})
    found = answer.raise_for_status().json()
    return found["score"], found["p_value"], found["severity"]


def ask_float32(client: httpx.Client, _: pl.DataFrame, rows_ND: Float32) -> Answer:
    answer = client.post(
        "/v1/models/pump/score",
        content=rows_ND.tobytes(),
        headers={"Content-Type": "application/octet-stream"},
    )
    found = answer.raise_for_status().json()
    return found["score"], found["p_value"], found["severity"]


def ask_explain(client: httpx.Client, table: pl.DataFrame, rows_ND: Float32) -> Answer:
    return ask_json(client, table, rows_ND, "explain")


def ask_v2(
    client: httpx.Client, _: pl.DataFrame, rows_ND: Float32, outputs: tuple[str, ...] = ()
) -> Answer:
    data = [None if cell != cell else cell for cell in rows_ND.ravel().tolist()]
    features = {"name": "features", "shape": rows_ND.shape, "datatype": "FP32", "data": data}
    wanted = [{"name": name} for name in ("score", "p_value", "severity", *outputs)]
    body = {"inputs": [features], "outputs": wanted}
    answer = client.post("/v2/models/pump/infer", json=body).raise_for_status().json()
    found = {output["name"]: output["data"] for output in answer["outputs"]}
    return found["score"], found["p_value"], found["severity"]


def ask_v2_whole(client: httpx.Client, table: pl.DataFrame, rows_ND: Float32) -> Answer:
    return ask_v2(client, table, rows_ND, ("contributions",))


ASK = {
    "json": ask_json,
    "float32": ask_float32,
    "explain": ask_explain,
    "v2": ask_v2,
    "v2 whole": ask_v2_whole,
}
