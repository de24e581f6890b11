"""`hourglass stream --kafka`: rows of a topic scored as they come, exactly once."""

import json
import subprocess
import sys
import time
import urllib.request
from collections import defaultdict
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from hourglass.service.__main__ import main
from hourglass.service.adapters.entities import Entities
from hourglass.service.adapters.messages import Rows
from tests.artifacts import (
    NUMERIC,
    make_windowed_artifact,
    make_windowed_served,
    publish,
    sample_rows,
)
from tests.kafka import Cluster, streaming
from tests.serving import free_port

BEGIN = 1.77e9
NAMES = [feature.name for feature in NUMERIC]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kafka") / "models"
    publish(folder, "plant", make_windowed_artifact(rows=4, gap=600.0))
    return folder


@pytest.fixture
def cluster() -> Cluster:
    cluster = Cluster()
    cluster.make("rows", "scores", "scores-dead-letters")
    return cluster


def rows_of(entities: list[str], first: int, count: int) -> list[tuple[str, dict[str, Any]]]:
    """Rows of entities in turn, a minute apart; of 100 rows of each five are far out."""
    found = []
    for place, entity in enumerate(entities):
        rows = sample_rows(NUMERIC, first + count, seed=len(entity) * 7 + place)
        far = np.arange(first + count) % 100 >= 95
        rows[far] += 200
        for i in range(first, first + count):
            cells = dict(zip(NAMES, map(float, rows[i]), strict=True))
            found.append((BEGIN + 60 * i, entity, {"time": BEGIN + 60 * i, **cells}))
    return [(entity, cells) for _, entity, cells in sorted(found, key=lambda each: each[:2])]


def expected(sent: list[tuple[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    """What is answered to rows that come one by one and are never interrupted."""
    served = make_windowed_served(rows=4, gap=600.0)
    entities = Entities()
    cells = np.array([[row[name] for name in NAMES] for _, row in sent], np.float32)
    answers = []
    for place, (entity, row) in enumerate(sent):
        rows = Rows([place], [entity], np.array([row["time"]]), cells[place : place + 1])
        (answered,) = entities.take(served, rows).answered
        answers.append({**as_json(answered.answer), "model": "plant"})
    return answers


def as_json(answer: Any) -> dict[str, Any]:
    return steady(json.loads(msgspec.json.encode(answer)))


def steady(answer: dict[str, Any]) -> dict[str, Any]:
    """What does not depend on which rows came together: these tell of events at their last row."""
    return {name: value for name, value in answer.items() if name not in ("event", "changes")}


def read(cluster: Cluster, partition: int = 0) -> tuple[list[int], list[dict[str, Any]]]:
    """The offsets of the rows that were answered, and the answers."""
    messages = cluster.get("scores", partition)
    sources = [dict(each.headers())["hourglass-source"].decode() for each in messages]
    assert {each.rpartition(" ")[0] for each in sources} <= {f"hourglass-plant rows {partition}"}
    return (
        [int(each.rpartition(" ")[2]) for each in sources],
        [json.loads(each.value()) for each in messages],
    )


def assert_once(cluster: Cluster, sent: list[tuple[str, Any]], partition: int = 0) -> None:
    """Each row was answered once, in order, as if nothing had happened."""
    places, answers = read(cluster, partition)
    assert places == [*range(len(sent))]
    for answer, wanted in zip(answers, expected(sent), strict=True):
        assert steady(answer).keys() == wanted.keys()
        for name, value in wanted.items():
            if isinstance(value, float):
                # the last digit depends on a row's place among those that are scored together
                assert answer[name] == pytest.approx(value, rel=1e-5), name
            else:
                assert answer[name] == value, name


@pytest.mark.slow
def test_rows_are_answered_in_order_and_what_is_wrong_is_a_dead_letter_with_its_reason(
    models: Path, cluster: Cluster, tmp_path: Path
) -> None:
    sent: list[tuple[str | bytes | None, Any]] = [*rows_of(["left", "right"], 0, 100)]
    good = dict(sent[0][1])
    sent[10:10] = [
        ("left", b"{none"),
        (None, good),
        ("left", {**good, "a": "high"}),
        ("left", {name: value for name, value in good.items() if name != "b"}),
        ("left", {**good, "time": "yesterday"}),
        ("left", {**good, "time": BEGIN - 60}),
        (b"left\xff", good),
        ("left", b"[" + b"1," * 450_000),
        sent[2],  # comes again
    ]
    cluster.put("rows", sent)
    port = free_port()
    with streaming(cluster.address, models, port=port, log=tmp_path / "log") as process:
        cluster.wait("scores", 200)
        cluster.wait("scores-dead-letters", 8)
        cluster.put("rows", rows_of(["left"], 100, 1))
        cluster.wait("scores", 201)
        metrics = ""
        deadline = time.monotonic() + 120
        while "hourglass_stream_messages_total 210.0" not in metrics:  # counted after the answers
            assert time.monotonic() < deadline, metrics
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
                metrics = answer.read().decode()
        assert process.stop() == 0
    letters = cluster.get("scores-dead-letters")
    reasons = [dict(each.headers())["hourglass-reason"].decode() for each in letters]
    assert letters[0].value() == b"{none"
    for place, (reason, said) in enumerate(
        zip(
            reasons,
            [
                "expected a JSON object, got what is no JSON in row 10",
                "expected a string of 1 to 256 characters or a whole number as its key, got null",
                "expected a number or null for 'a', got \"high\" in row 12",
                "row 13 lacks the feature 'b'; null stands for a missing value",
                'expected a number of seconds, or a time as ISO 8601 has it, got "yesterday"',
                "row 15 is late: the newest row of this entity is of 2026-02-02T02:44:00Z",
                'or a whole number as its key, got "left\\udcff" in row 16',
                "got what is no JSON in row 17: ",
            ],
            strict=True,
        ),
        10,
    ):
        assert reason.startswith(f"rows, partition 0, offset {place}: "), reason
        assert said in reason
    assert letters[6].key() == b"left\xff"
    assert reasons[7].endswith(" (here are its first 500000 bytes of 900001)")
    assert len(letters[7].value()) == 500_000
    places, answers = read(cluster)
    assert places == [*range(10), *range(19, 210)]
    good_rows = [sent[i] for i in (*range(10), *range(19, 209))]
    wanted = expected([*good_rows, *rows_of(["left"], 100, 1)])  # type: ignore[list-item]
    assert [each["is_anomaly"] for each in answers] == [each["is_anomaly"] for each in wanted]
    assert any(each["is_anomaly"] for each in answers)
    changes = [change for each in answers for change in each.get("changes", [])]
    assert {change["entity"] for change in changes if change["open"]} == {"left", "right"}
    assert all(change["sentence"] or change["features"] for change in changes)
    for line in (
        "hourglass_stream_messages_total 210.0",
        "hourglass_stream_answers_total 201.0",
        "hourglass_stream_refused_total 8.0",
        "hourglass_stream_repeated_total 1.0",
        'hourglass_stream_lag_messages{partition="0"} 0.0',
    ):
        assert line in metrics.splitlines()


@pytest.mark.heavy
def test_a_process_that_is_killed_loses_nothing_and_answers_nothing_twice(
    models: Path, cluster: Cluster, tmp_path: Path
) -> None:
    entities = ["left", "right", "third"]
    sent: list[tuple[str, Any]] = []
    log = tmp_path / "log"
    for turn in range(3):
        more = rows_of(entities, 200 * turn, 200)
        sent += more
        with streaming(cluster.address, models, log=log) as process:
            for start in range(0, len(more), 40):
                cluster.put("rows", more[start : start + 40])
                if turn < 2 and start == 320:
                    # in the midst of what it does: some of these were answered, others were not
                    cluster.wait("scores", len(sent) - len(more) + start // 2)
                    process.kill()
            if turn == 2:
                cluster.wait("scores", len(sent))
                assert process.stop() == 0
    assert_once(cluster, sent)
    assert "Traceback" not in log.read_text()


@pytest.mark.heavy
def test_partitions_change_hands_without_a_loss_or_a_second_answer(
    models: Path, cluster: Cluster, tmp_path: Path
) -> None:
    """A second process joins, the first one is killed, and the second one goes on alone."""
    sent: dict[int, list[tuple[str, Any]]] = defaultdict(list)

    def feed(first: int, count: int) -> None:
        for start in range(first, first + count, 10):
            for partition in range(cluster.partitions):
                names = [f"pump-{partition}-{k}" for k in range(2)]
                more = rows_of(names, start, 10)
                sent[partition] += more
                cluster.put("rows", more, partition)

    def wait() -> None:
        for partition, rows in sent.items():
            cluster.wait("scores", len(rows), partition=partition)

    logs = tmp_path / "one", tmp_path / "two"
    with streaming(cluster.address, models, log=logs[0]) as one:
        feed(0, 40)
        wait()
        with streaming(cluster.address, models, log=logs[1]) as two:
            feed(40, 100)
            wait()
            deadline_feeds = 0
            while "partition " not in logs[1].read_text():  # it has rows of its own
                assert deadline_feeds < 60
                deadline_feeds += 1
                feed(140 + 10 * (deadline_feeds - 1), 10)
                wait()
            after = 140 + 10 * deadline_feeds
            feed(after, 30)
            one.kill()
            feed(after + 30, 30)
            wait()
            assert two.stop() == 0
    for partition, rows in sent.items():
        assert_once(cluster, rows, partition)
    assert all("Traceback" not in each.read_text() for each in logs)


def test_topics_that_are_not_named_are_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["stream", "--kafka", "127.0.0.1:1", "--model", "plant", "--input", "rows"]
    assert main(flags) == 2
    error = capsys.readouterr().err
    assert "--kafka expects --input TOPIC and --output TOPIC" in error
    assert error.count("\n") == 1


@pytest.mark.slow
def test_a_model_that_is_not_there_is_named_in_one_sentence(models: Path) -> None:
    flags = ["--kafka", "127.0.0.1:1", "--input", "rows", "--output", "scores"]
    command = [sys.executable, "-m", "hourglass.service", "stream", *flags]
    ended = subprocess.run(
        [*command, "--model", "absent", "--models", str(models)],
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert ended.returncode == 2
    assert "no model 'absent' is served; " in ended.stderr
    assert ended.stderr.count("\n") == 1


@pytest.mark.slow
def test_brokers_that_are_away_are_waited_for(models: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with streaming(f"127.0.0.1:{free_port()}", models, log=log) as process:
        deadline = time.monotonic() + 120
        while log.read_text().count("; it is tried again") < 2:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert process.stop() == 0
    assert "Traceback" not in log.read_text()


@pytest.mark.slow
def test_a_topic_that_was_made_anew_under_its_name_is_told_of(
    models: Path, cluster: Cluster, tmp_path: Path
) -> None:
    """Its offsets are others than those that were answered before."""
    cluster.put("rows", rows_of(["left"], 0, 10))
    source = [("hourglass-source", b"hourglass-plant rows 0 500")]
    cluster.put("scores", [("left", {})], headers=source)
    log = tmp_path / "log"
    with streaming(cluster.address, models, log=log) as process:
        assert process.process.wait(120) == 2
    said = log.read_text()
    assert "answer rows up to offset 500 of partition 0 of 'rows', which ends at 10" in said
    assert "Traceback" not in said
    assert cluster.end("scores") == 1
