"""The Python client against a live service: every kind of rows, every method, and bad days."""

import asyncio
import inspect
import itertools
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import numpy as np
import pandas as pd
import polars as pl
import pytest

from hourglass.client import AsyncClient, Client, ClientError, NoAnswer, Problem
from hourglass.client.rows import MOST_ROWS, parts_of
from hourglass.service.model.artifact import Feature
from hourglass.service.model.detector import Detector
from tests.artifacts import (
    MIXED,
    NUMERIC,
    as_json_rows,
    make_artifact,
    make_windowed_artifact,
    point,
    publish,
    sample_rows,
)
from tests.serving import serving

NAMES = [feature.name for feature in NUMERIC]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    models = tmp_path_factory.mktemp("models")
    publish(models, "plain", make_artifact(NUMERIC))
    publish(models, "mixed", make_artifact(MIXED, conditional=True))
    publish(models, "ordered", make_windowed_artifact())
    return models


@pytest.fixture(scope="module")
def service(models: Path) -> Iterator[httpx.Client]:
    with serving(models, fast=True) as service:
        yield service


@pytest.fixture
def client(service: httpx.Client) -> Iterator[Client]:
    with Client(str(service.base_url)) as client:
        yield client


def rows(n: int = 5) -> np.ndarray:
    return sample_rows(NUMERIC, n, seed=3)


def test_all_kinds_of_rows_have_the_same_scores(client: Client, models: Path):
    table = rows()
    table[1, 2] = np.nan
    as_lists = as_json_rows(NUMERIC, table)
    as_dicts = [dict(zip(NAMES, row, strict=True)) for row in as_lists]
    shuffled = pl.DataFrame(as_dicts).select("d", "b", pl.lit("x").alias("note"), "a", "c")
    kinds = {
        "lists": as_lists,
        "dicts": as_dicts,
        "a generator": (row for row in as_lists),
        "float32": table,
        "float64": table.astype(np.float64),
        "rows of numpy": list(table[[0, 2, 3, 4]]),
        "polars": shuffled,
        "pandas": pd.DataFrame(as_dicts)[["d", "b", "a", "c"]],
        "nullable pandas": pd.DataFrame(as_dicts).convert_dtypes(),
    }
    expected = Detector.from_bytes(
        (models / "plain" / point_of(models, "plain") / "model.onnx").read_bytes()
    ).score(table)
    for kind, given in kinds.items():
        scores = client.score("plain", given)
        wanted = expected.score[[0, 2, 3, 4]] if kind == "rows of numpy" else expected.score
        np.testing.assert_allclose(scores.score, wanted, rtol=1e-6, err_msg=kind)
        assert len(scores) == len(wanted)
        assert (scores.is_anomaly == (scores.score > scores.threshold)).all()
        np.testing.assert_allclose(scores.ratio, scores.score / scores.threshold, rtol=1e-6)
    assert scores.warming is None
    assert scores.warning is None


def point_of(models: Path, name: str) -> str:
    return (models / name / "current").read_text().strip()


def test_frames_with_categories_and_gaps_are_what_lists_are(client: Client):
    table = sample_rows(MIXED, 6, seed=2)
    table[0, 0] = table[1, 1] = table[2, 2] = np.nan
    lists = as_json_rows(MIXED, table)
    lists[3][2] = "nowhere"  # a category that is new to the model
    columns = {feature.name: [row[d] for row in lists] for d, feature in enumerate(MIXED)}
    expected = client.score("mixed", lists).score
    frame = pd.DataFrame(columns)
    for given in (
        pl.DataFrame(columns),
        pl.DataFrame(columns).with_columns(pl.col("site").cast(pl.Categorical)),
        frame,
        frame.astype({"site": "category", "open": "boolean"}),
    ):
        assert client.score("mixed", given).score.tolist() == expected.tolist()


@pytest.mark.parametrize("kind", ["lists", "array", "polars"])
def test_a_large_table_is_sent_in_parts(client: Client, service: httpx.Client, kind: str):
    table = rows(2 * MOST_ROWS + 3)
    given = {"lists": table.tolist(), "array": table, "polars": pl.DataFrame(table, schema=NAMES)}
    before = requests(service)
    scores = client.score("plain", given[kind])
    assert requests(service) - before == 3
    assert scores.score[:5].tolist() == client.score("plain", table[:5]).score.tolist()
    assert scores.score[-5:].tolist() == client.score("plain", table[-5:]).score.tolist()
    assert len(scores) == len(table)


def requests(service: httpx.Client) -> int:
    lines = service.get("/metrics").text.splitlines()
    return sum(
        int(float(line.rsplit(" ", 1)[1]))
        for line in lines
        if line.startswith("hourglass_requests_total") and "/score" in line
    )


def test_a_swap_between_two_parts_is_asked_again(client: Client, models: Path, tmp_path: Path):
    old = make_artifact(NUMERIC)
    folder = tmp_path / "models"
    publish(folder, "plain", old)
    new = publish(folder, "plain", make_artifact(NUMERIC, seed=1))
    old_version = sorted(each.name for each in (folder / "plain").iterdir() if each.is_dir())
    old_version = next(each for each in old_version if each != new)
    point(folder, "plain", old_version)
    with serving(folder, poll_seconds=3600) as service, Client(str(service.base_url)) as client:
        table = rows(MOST_ROWS + 1)

        def swapping() -> Iterator[list[float]]:
            yield from table[:MOST_ROWS].tolist()
            yield table[-1].tolist()

        sent = client._send

        def send(request):
            answer = sent(request)
            if request.first == 0 and request.path.endswith("/score") and not swapped:
                swapped.append(True)
                client.promote("plain", new)
            return answer

        swapped: list[bool] = []
        client._send = send
        scores = client.score("plain", swapping())
        assert swapped
        assert scores.version == new
        assert len(scores) == len(table)
        del client._send
        np.testing.assert_array_equal(scores.score, client.score("plain", table).score)


def test_rows_in_order_stay_in_one_request(client: Client, service: httpx.Client):
    table = rows(MOST_ROWS + 3)
    for given in (table, iter(table.tolist()), pl.DataFrame(table, schema=NAMES)):
        before = requests(service)
        scores = client.score("ordered", given)
        assert requests(service) - before == 1
        assert scores.warming.sum() == client.model("ordered").window.rows - 1


def test_a_swap_between_the_columns_and_the_rows_is_asked_again(tmp_path: Path):
    mirrored = tuple(reversed(NUMERIC))
    old, new = make_artifact(NUMERIC), make_artifact(mirrored)
    publish(tmp_path, "plain", new)
    later = (tmp_path / "plain" / "current").read_text().strip()
    publish(tmp_path, "plain", old)
    frame = pl.DataFrame(rows(), schema=NAMES)
    with serving(tmp_path, poll_seconds=3600) as service, Client(str(service.base_url)) as client:
        sent, swapped = client._send, []

        def send(request):
            answer = sent(request)
            if request.method == "GET" and not swapped:
                swapped.append(True)
                service.post("/v1/models/plain/promote", json={"version": later})
            return answer

        client._send = send
        scores = client.score("plain", frame)
        assert scores.version == later
        expected = Detector.from_bytes(new).score(np.ascontiguousarray(rows()[:, ::-1])).score
        np.testing.assert_allclose(scores.score, expected, rtol=1e-6)


def test_wide_lists_go_in_parts_of_bounded_size(client: Client):
    wide = [[0.1234567890123456] * 250] * 3000
    parts = list(parts_of(wide, None))
    assert [part.first for part in parts][:2] == [0, parts[0].rows]
    assert sum(part.rows for part in parts) == 3000
    assert max(len(part.body) for part in parts) < 5 * 2**20


def test_infinite_cells_are_refused_and_never_missing(client: Client):
    lists = as_json_rows(MIXED, sample_rows(MIXED, 3))
    lists[1][3] = float("-inf")
    names = [feature.name for feature in MIXED]
    with pytest.raises(ClientError, match="row 1, feature 3: expected a finite number, got -inf"):
        client.score("mixed", lists)
    for given in (
        [dict(zip(names, row, strict=True)) for row in lists],
        pl.DataFrame(lists, schema=names, orient="row"),
        pd.DataFrame(lists, columns=names),
    ):
        with pytest.raises(ClientError, match="row 1, feature 'heat': expected a finite number"):
            client.score("mixed", given)


def test_categories_that_look_like_numbers_are_what_training_reads(tmp_path: Path):
    features = (
        Feature(name="zone", kind="categorical", categories=("1", "2")),
        Feature(name="wet", kind="categorical", categories=("false", "true")),
        *NUMERIC[:2],
    )
    publish(tmp_path, "zones", make_artifact(features))
    frame = pd.DataFrame({"zone": [1, 2, None], "wet": [True, False, True], "a": 0.1, "b": 0.2})
    assert frame.zone.dtype == float
    with serving(tmp_path) as service, Client(str(service.base_url)) as client:
        expected = client.score(
            "zones", [["1", "true", 0.1, 0.2], ["2", "false", 0.1, 0.2], [None, "true", 0.1, 0.2]]
        )
        np.testing.assert_array_equal(client.score("zones", frame).score, expected.score)


def test_an_array_of_objects_may_have_gaps_and_must_be_a_table(client: Client):
    given = np.array([[0.1, None, pd.NA, 0.2], [0.1, np.nan, 0.3, 0.2]], dtype=object)
    expected = client.score("plain", [[0.1, None, None, 0.2], [0.1, None, 0.3, 0.2]]).score
    assert client.score("plain", given).score.tolist() == expected.tolist()
    with pytest.raises(ClientError, match=r"got one of shape \[2\]"):
        client.score("plain", np.array(["red", "sea"]))


def test_a_key_that_is_none_is_never_told(service: httpx.Client):
    url = str(service.base_url)
    for key in ("hg_id_secret more", "hg_id_sécret", "hg_id\nsecret"):
        with pytest.raises(ClientError, match="expected one line") as raised:
            Client(url, key=key)
        assert "hg_id" not in str(raised.value)
    with Client(url, key="hg_id_secret\n", headers={"x-request-id": "mine"}) as client:
        assert client._options["headers"] == {
            "x-request-id": "mine",
            "authorization": "Bearer hg_id_secret",
        }
        assert client.models().models


def test_who_points_elsewhere_is_no_answer(service: httpx.Client):
    moved = b"HTTP/1.1 301 x\r\nlocation: https://there/\r\nconnection: close\r\n\r\n"
    with (
        bad_days(service, [moved]) as (url, _),
        Client(url) as client,
        pytest.raises(ClientError, match="answers 301 and points to https://there/"),
    ):
        client.forget("ordered", "pump")


def test_problems_name_row_and_feature(client: Client):
    table = rows(MOST_ROWS + 5)
    table[MOST_ROWS + 2, 1] = np.inf
    with pytest.raises(ClientError, match="row 8194, feature 1: expected a float32"):
        client.score("plain", table)
    lists = rows(MOST_ROWS + 5).tolist()
    lists[MOST_ROWS + 2][1] = "1,5"
    with pytest.raises(Problem, match="b") as raised:
        client.score("plain", lists)
    problem = raised.value
    assert (problem.status, problem.row, problem.feature) == (422, MOST_ROWS + 2, "b")
    assert "1,5" in problem.got
    with pytest.raises(Problem, match="404") as raised:
        client.score("absent", [[1.0]])
    assert raised.value.type.endswith("#unknown-model")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([1.0, 2.0], "one row is|422|400"),
        (3.0, "expected a list of rows, an array or a frame, got float; one row is"),
        ({"a": 1.0}, "expected a list of rows, an array or a frame, got dict"),
        (np.zeros(4), r"expected an array \[rows, features\], got one of shape \[4\]"),
        (np.full((1, 4), 1e39), "row 0, feature 0: expected a float32 number, got 1e\\+39"),
        (pl.DataFrame({"a": [1.0]}), "no column 'b', a feature of the model, and 2 more"),
        (
            pl.DataFrame({"a": ["1,5"], "b": [1], "c": [1], "d": [1]}),
            "row 0, feature 'a': expected a number, got '1,5'",
        ),
        ([[1, 2, 3, object()]], "expected numbers, strings, booleans or None"),
        ([[float("nan"), 1, 2, 3]], None),
    ],
)
def test_rows_of_which_nothing_can_be_made_are_refused(client: Client, given, said: str | None):
    if said is None:
        assert len(client.score("plain", given)) == 1  # NaN is missing
        return
    with pytest.raises(ClientError, match=said):
        client.score("plain", given)


def test_no_rows_are_refused(client: Client):
    for nothing in ([], np.empty((0, 4)), pl.DataFrame(schema=dict.fromkeys(NAMES, pl.Float64))):
        with pytest.raises(Problem, match=r"at least one row|the body is empty"):
            client.score("plain", nothing)


def test_every_method_is_answered(client: Client):
    table = sample_rows(MIXED, 3, seed=4)
    table[0, 0] = 40.0
    frame = pl.DataFrame(
        as_json_rows(MIXED, table), schema=[each.name for each in MIXED], orient="row"
    )
    assert [each.name for each in client.models().models] == ["mixed", "ordered", "plain"]
    assert client.model("mixed").features[2].categories == ["north", "south", "west"]
    explained = client.explain("mixed", frame, top=2)
    assert explained.scores.is_anomaly[0]
    assert explained.reason[0].startswith("load is 40")
    assert explained.features[0][0].feature == "load"
    assert len(explained.features[1]) == 2
    assert client.reconstruct("mixed", frame).filled == [[], [], []]
    codes = client.encode("mixed", frame).codes
    assert len(client.decode("mixed", codes).rows) == 3
    replayed = client.replay("mixed", frame, alphas=[0.1], labels=[1, 0, None])
    assert replayed.alphas[0].alpha == 0.1
    assert replayed.alphas[0].recall == 1.0
    assert client.live_replay("mixed", alphas=[0.1]).alphas[0].alpha == 0.1
    client.score("mixed", frame)
    for _ in range(100):
        if groups := client.alarms("mixed").groups:
            break
        threading.Event().wait(0.05)
    group = client.alarms_of("mixed", groups[0].key)
    assert group.group.features == ["load"]
    said = client.say("mixed", "expected", key=groups[0].key, note="a test")
    assert client.feedback("mixed").feedback[0] == said
    assert client.drift("mixed").model == "mixed"
    assert client.set_budget("mixed", alpha=0.1).alpha == 0.1
    version = client.versions("mixed").current
    assert client.promote("mixed", version[:12]).version == version
    assert client.reload("mixed").outcome == "unchanged"


def test_streams(client: Client):
    window = client.model("ordered").window.rows
    began = datetime(2026, 1, 1, tzinfo=UTC)
    time = [began + timedelta(minutes=n) for n in range(window + 2)]
    table = rows(window + 2)
    answer = client.stream("ordered", "pump/1", table, time)
    assert answer.warming == [True] * (window - 1) + [False] * 3
    batch = client.score("ordered", table, entity="pump/1", time=time)
    assert batch.warming.tolist() == answer.warming
    assert np.isnan(batch.score).tolist() == answer.warming
    assert batch.score[-1] == pytest.approx(answer.score[-1])
    again = client.stream("ordered", "pump/1", pl.DataFrame(table[-1:], schema=NAMES), time[-1:])
    assert again.repeated == [True]
    assert [each.entity for each in client.streams("ordered").entities] == ["pump/1"]
    assert client.events("ordered", since=began, is_open=True, entity="pump/1").events == []
    with pytest.raises(Problem, match="409"):
        client.stream("ordered", "pump/1", table[:1], [began - timedelta(hours=1)])
    client.forget("ordered", "pump/1")
    assert client.streams("ordered").entities == []


def test_both_clients_have_the_same_methods_with_their_documentation(service: httpx.Client):
    def public(kind: type) -> dict[str, str]:
        return {
            name: inspect.getdoc(each)
            for name, each in vars(kind).items()
            if not name.startswith("_") and callable(each)
        }

    assert public(Client) == public(AsyncClient)
    assert all(public(Client).values())

    async def ask() -> None:
        async with AsyncClient(str(service.base_url)) as client:
            alone = await client.score("plain", rows())
            many = await asyncio.gather(*(client.score("plain", rows()) for _ in range(20)))
            assert all((each.score == alone.score).all() for each in many)
            with pytest.raises(Problem):
                await client.model("absent")

    asyncio.run(ask())


def whole_request(taken: socket.socket) -> bytes:
    asked = b""
    while b"\r\n\r\n" not in asked:
        asked += taken.recv(2**16)
    head, _, body = asked.partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
    while len(body) < int(length[1] if length else 0):
        body += taken.recv(2**16)
    return head + b"\r\n\r\n" + body


@contextmanager
def bad_days(service: httpx.Client, answers: list[bytes | None]) -> Iterator[tuple[str, list]]:
    """A way to the service on which the first requests come to grief: a connection that is cut
    without an answer (None), or an answer of its own.
    """
    seen: list[bytes] = []
    remaining = iter(answers)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.05)
        ended = threading.Event()

        def relay() -> None:
            while not ended.is_set():
                try:
                    taken, _ = listening.accept()
                except TimeoutError:
                    continue
                with taken:
                    taken.settimeout(5)
                    asked = whole_request(taken)
                    seen.append(asked.split(b" HTTP")[0])
                    answer = next(remaining, "through")
                    if answer == "through":
                        ask = httpx.get if asked.startswith(b"GET") else httpx.post
                        path = asked.split(b" ")[1].decode()
                        body = asked.partition(b"\r\n\r\n")[2]
                        url = str(service.base_url).rstrip("/") + path
                        came = (
                            ask(url)
                            if ask is httpx.get
                            else ask(
                                url, content=body, headers={"content-type": "application/json"}
                            )
                        )
                        answer = (
                            b"HTTP/1.1 %d x\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
                            % (came.status_code, len(came.content))
                        ) + came.content
                    if answer:
                        taken.sendall(answer)

        thread = threading.Thread(target=relay)
        thread.start()
        try:
            yield f"127.0.0.1:{listening.getsockname()[1]}", seen
        finally:
            ended.set()
            thread.join()


BUSY = (
    b"HTTP/1.1 503 x\r\nretry-after: 0\r\ncontent-type: application/problem+json\r\n"
    b'connection: close\r\ncontent-length: 25\r\n\r\n{"detail": "no room yet"}'
)


def test_what_may_be_asked_again_is(service: httpx.Client):
    with bad_days(service, [None, BUSY, None]) as (url, seen), Client(url) as client:
        assert client.model("plain").name == "plain"
        assert seen == [b"GET /v1/models/plain"] * 4
    with bad_days(service, itertools.repeat(None)) as (url, seen), Client(url, retries=1) as client:
        with pytest.raises(NoAnswer, match="no answer from http://127"):
            client.models()
        assert len(seen) == 2


def test_what_may_have_been_done_is_not_done_twice(service: httpx.Client):
    with bad_days(service, [None]) as (url, seen), Client(url) as client:
        with pytest.raises(NoAnswer):
            client.say("plain", "expected", row=[0.0, 0.0, 0.0, 0.0])
        assert len(seen) == 1
    with bad_days(service, [BUSY]) as (url, seen), Client(url) as client:  # nothing was done
        assert client.say("plain", "expected", row=[0.0, 0.0, 0.0, 0.0]).verdict == "expected"
        assert len(seen) == 2


def test_nobody_there_is_said(service: httpx.Client):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with (
        Client(f"127.0.0.1:{port}", retries=1) as client,
        pytest.raises(NoAnswer, match=f"no answer from http://127.0.0.1:{port}"),
    ):
        client.models()
