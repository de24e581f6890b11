"""`hourglass watch` on a real Prometheus whose samples were written before: time is told by the test."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from msgspec import structs
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from hourglass.service.adapters.judges import Judge, ModelJudge, ServiceJudge
from hourglass.service.adapters.stream import Change, ServiceAway, ServiceRefused
from hourglass.service.adapters.watch import Watch
from hourglass.service.adapters.watch_metrics import WatchMetrics, expose
from hourglass.service.errors import InvalidSettings
from hourglass.service.model.artifact import Queries
from hourglass.service.model.detector import Detector
from hourglass.service.serving.prometheus import Prometheus
from tests import prometheus as real
from tests.artifacts import (
    NUMERIC,
    make_artifact,
    make_windowed_artifact,
    publish,
    sample_rows,
)
from tests.prometheus import Written
from tests.serving import serving

LENGTH = 500
BEGIN = int(time.time()) // 100 * 100 - LENGTH - 100
NAMES = [feature.name for feature in NUMERIC]
WINDOW = 4
QUERIES = Queries(expressions=tuple(NAMES), labels=("pump",), step_seconds=1.0, late_seconds=5.0)
WRONG, GONE, UNSAID, TWICE = range(200, 210), range(250, 270), range(290, 300), range(330, 340)
LEFT, RIGHT, OLD = ("left",), ("right",), ("old",)


def rows_of(pump: str) -> np.ndarray:  # type: ignore[type-arg]
    rows = sample_rows(NUMERIC, LENGTH, seed={"left": 3, "right": 4, "old": 5}[pump])
    if pump == "right":
        rows[WRONG.start : WRONG.stop, 2] += 200
    return rows


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[real.Prometheus]:
    """Two pumps, and an old one that ends soon."""
    written = []
    for pump in ("left", "right", "old"):
        seconds = range(20) if pump == "old" else range(LENGTH)
        for place, name in enumerate(NAMES):
            samples = [
                (BEGIN + second, float(rows_of(pump)[second, place]))
                for second in seconds
                if not (pump == "left" and second in GONE)
                and not (name == "d" and pump == "right" and second in UNSAID)
            ]
            written.append(Written(name, {"pump": pump}, samples))
    twice = [(BEGIN + second, 0.5) for second in TWICE]
    written.append(Written("b", {"pump": "left", "of": "another"}, twice))
    with real.running(tmp_path_factory.mktemp("prometheus"), written) as found:
        yield found


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("watched") / "models"
    publish(folder, "plant", make_windowed_artifact(rows=WINDOW, gap=60.0, queries=QUERIES))
    publish(folder, "single", make_artifact(conditional=True, queries=QUERIES))
    publish(folder, "filed", make_artifact())
    return folder


class Told:
    """A watch, and what it has said."""

    def __init__(self, server: real.Prometheus, judge: Judge, every: float | None = None) -> None:
        self.changes: list[Change] = []
        self.sentences: list[str] = []
        prometheus = Prometheus(server.url, timeout_seconds=60)
        self.watch = Watch(prometheus, judge, every, self.changes.append, self.sentences.append)

    def at(self, second: int) -> dict[tuple[str, ...], str]:
        self.watch.tick(BEGIN + second + 0.3)
        return {entity: seen.state for entity, seen in self.watch.board.entities.items()}

    def scrape(self) -> dict[tuple[str, tuple[str, ...]], float]:
        registry = CollectorRegistry()
        registry.register(WatchMetrics("plant", lambda: self.watch.board))
        return {
            (
                sample.name.removeprefix("hourglass_watch_"),
                tuple(sample.labels.values()),
            ): sample.value
            for family in text_string_to_metric_families(generate_latest(registry).decode())
            for sample in family.samples
        }


@pytest.fixture
def told(server: real.Prometheus, models: Path, monkeypatch: pytest.MonkeyPatch) -> Told:
    # so that what is asked of the past is news
    told = Told(server, ModelJudge("plant", str(models)))
    monkeypatch.setattr(
        "hourglass.service.adapters.watch_metrics.time.time", lambda: told.watch.board.at
    )
    return told


def scores_of(models: Path, pump: str) -> np.ndarray:  # type: ignore[type-arg]
    """As the batch has them; NaN while the window is not full."""
    folder = models / "plant" / (models / "plant/current").read_text().strip()
    detector = Detector.from_bytes((folder / "model.onnx").read_bytes())
    severity = detector.score(rows_of(pump)).severity
    return np.concatenate([np.full(WINDOW - 1, np.nan), severity])


def test_rows_are_judged_from_the_first_on_as_the_batch_judges_them(
    told: Told, models: Path
) -> None:
    expected = {pump: scores_of(models, pump) for pump in ("left", "right")}
    for second in range(100, 140):
        assert told.at(second) == {LEFT: "ok", RIGHT: "ok", OLD: "late"}
        for pump, severity in expected.items():
            verdict = told.watch.board.entities[(pump,)].verdict
            assert verdict is not None
            assert verdict.severity == pytest.approx(float(severity[second]), rel=1e-6)
    assert told.sentences == ['{pump="old"} is late']
    assert told.watch.board.plan is not None
    assert told.scrape()["severity", ("plant", "right")] == pytest.approx(
        float(expected["right"][139]), rel=1e-6
    )
    assert ("severity", ("plant", "old")) not in told.scrape()
    assert told.scrape()["state", ("plant", "old", "late")] == 1


def test_a_fault_raises_an_alarm_with_the_features_that_are_to_blame(told: Told) -> None:
    told.at(199)
    assert told.scrape()["alarm", ("plant", "right")] == 0
    told.at(200)
    found = told.scrape()
    assert found["alarm", ("plant", "right")] == found["event", ("plant", "right")] == 1
    assert found["p_value", ("plant", "right")] < 0.01
    blamed = {
        labels[3]: (labels[0], value) for (name, labels), value in found.items() if name == "blame"
    }
    assert list(blamed) == ["1", "2", "3"]
    assert blamed["1"][0] == "c"
    assert 0 < sum(share for _, share in blamed.values()) <= 1
    assert found["alarm", ("plant", "left")] == 0
    (change,) = told.changes
    assert (change.entity, change.open) == ('{pump="right"}', True)
    assert change.sentence
    assert "c is " in change.sentence
    for second in range(201, 245):
        told.at(second)
    assert [each.open for each in told.changes] == [True, False]


def test_what_is_late_or_missing_has_a_state_and_no_score(told: Told) -> None:
    told.at(249)
    for second in range(250, 255):  # the last samples are the present for so long
        assert told.at(second)[LEFT] == "ok"
    for second in range(255, 270):
        assert told.at(second)[LEFT] == "late"
        found = told.scrape()
        assert ("severity", ("plant", "left")) not in found
        assert found["state", ("plant", "left", "late")] == 1
        assert found["expression_state", ("a", "plant", "ok")] == 1
        assert ("severity", ("plant", "right")) in found
    assert told.at(270)[LEFT] == "ok"
    assert told.scrape()["misses_total", ("plant", "late")] > 15
    assert told.at(325)[OLD] == "missing"  # Prometheus has forgotten it, too
    assert '{pump="old"} is missing' in told.sentences
    assert told.scrape()["row_timestamp_seconds", ("plant", "left")] == BEGIN + 325


def test_a_row_is_scored_without_the_feature_that_is_late(told: Told) -> None:
    told.at(289)
    states = [told.at(second) for second in range(290, 300)]
    assert all(each[RIGHT] == "ok" for each in states)
    found = told.scrape()
    assert found["missing_features", ("plant", "right")] == 1
    assert found["missing_features", ("plant", "left")] == 0
    assert found["expression_state", ("d", "plant", "late")] == 1
    assert found["expression_state", ("a", "plant", "ok")] == 1


def test_an_expression_with_several_values_is_said_and_is_no_value(told: Told) -> None:
    told.at(329)
    assert told.at(332)[LEFT] == "ok"
    found = told.scrape()
    assert found["expression_state", ("b", "plant", "several")] == 1
    assert found["missing_features", ("plant", "left")] == 1
    (said,) = [each for each in told.sentences if "several" in each]
    assert said.startswith("expression 'b' has several values for {pump=\"left\"}, such as those")


def test_what_is_refused_or_has_no_value_at_all_is_said(
    server: real.Prometheus, tmp_path: Path
) -> None:
    wrong = Queries(
        expressions=("a", "b", "c * on(pump) group_left b", "nowhere"),
        labels=("pump",), step_seconds=1.0, late_seconds=5.0,
    )  # fmt: skip
    publish(tmp_path, "plant", make_windowed_artifact(rows=WINDOW, queries=wrong))
    told = Told(server, ModelJudge("plant", str(tmp_path)))
    assert told.at(335)[RIGHT] == "ok"  # of half of its values
    assert dict(told.watch.board.expressions) == {
        "a": "ok", "b": "several", "c": "refused", "d": "none",
    }  # fmt: skip
    assert any(each.startswith("expression 'c': ") for each in told.sentences)
    assert "expression 'd' has no value" in told.sentences
    before = list(told.sentences)
    told.at(336)
    assert told.sentences == before  # once


def test_while_prometheus_is_away_nothing_has_a_score_and_then_nothing_was_missed(
    told: Told, server: real.Prometheus, models: Path
) -> None:
    told.at(100)
    server.stop()
    try:
        assert set(told.at(101).values()) == {"away"}
        assert set(told.at(102).values()) == {"away"}
        found = told.scrape()
        assert found["up", ("plant",)] == 0
        assert not [key for key in found if key[0] in ("severity", "p_value", "alarm")]
        (said,) = [each for each in told.sentences if "no answer" in each]
        assert said.endswith("; it is asked again")
    finally:
        server.start()
    assert told.at(110)[LEFT] == "ok"
    assert told.sentences[-2:] == [f"{server.url} answers again", '{pump="old"} is late']
    found = told.scrape()
    assert found["up", ("plant",)] == 1
    expected = scores_of(models, "left")
    assert found["severity", ("plant", "left")] == pytest.approx(float(expected[110]), rel=1e-6)
    assert found["misses_total", ("plant", "away")] == 2
    assert told.at(90)[LEFT] == "ok"  # a clock that goes back asks nothing again
    assert told.watch.board.at == BEGIN + 110


def test_what_was_asked_long_ago_is_no_news(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    told.at(100)
    assert ("severity", ("plant", "left")) in told.scrape()
    monkeypatch.setattr(
        "hourglass.service.adapters.watch_metrics.time.time", lambda: told.watch.board.at + 5
    )
    found = told.scrape()
    assert found["up", ("plant",)] == 0
    assert found["state", ("plant", "left", "away")] == 1
    assert ("severity", ("plant", "left")) not in found


def test_a_new_version_is_taken_up_with_what_it_asks(
    server: real.Prometheus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(tmp_path, "plant", make_windowed_artifact(rows=WINDOW, queries=QUERIES))
    told = Told(server, ModelJudge("plant", str(tmp_path)))
    told.at(100)
    whole = Queries(
        expressions=tuple(f"sum({name})" for name in NAMES),
        labels=(), step_seconds=1.0, late_seconds=5.0,
    )  # fmt: skip
    version = publish(tmp_path, "plant", make_windowed_artifact(rows=WINDOW, queries=whole))
    assert told.at(101) == {(): "warming"}
    assert told.watch.board.plan is not None
    assert told.watch.board.plan.version == version
    told.at(103)
    assert told.at(104) == {(): "ok"}
    monkeypatch.setattr(
        "hourglass.service.adapters.watch_metrics.time.time", lambda: told.watch.board.at
    )
    assert ("severity", ("plant",)) in told.scrape()


def test_a_version_without_expressions_is_asked_for_by_those_before(
    server: real.Prometheus, tmp_path: Path
) -> None:
    publish(tmp_path, "plant", make_windowed_artifact(rows=WINDOW, queries=QUERIES))
    with serving(tmp_path, streams=tmp_path / "streams.sqlite") as client:
        service = ServiceJudge("plant", str(client.base_url))
        both = [Told(server, ModelJudge("plant", str(tmp_path))), Told(server, service)]
        for told in both:
            assert told.at(100)[LEFT] == "ok"
        version = publish(tmp_path, "plant", make_windowed_artifact(rows=WINDOW, seed=5))
        client.post("/v1/models/plant/reload").raise_for_status()
        for told in both:
            told.at(101)  # the service says then that it is another version
            assert told.at(102)[LEFT] == "ok"
            assert told.watch.board.plan is not None
            assert told.watch.board.plan.version == version
            said = f"version {version[:8]} holds no expressions: those of the version before are"
            assert told.sentences.count(f"{said} asked on") == 1
            assert told.scrape()["own_expressions", ("plant",)] == 0
        others = [structs.replace(each, name=each.name * 2) for each in NUMERIC]
        publish(tmp_path, "plant", make_windowed_artifact(others, rows=WINDOW))
        client.post("/v1/models/plant/reload").raise_for_status()
        for told in both:
            told.at(103)
            assert set(told.at(104).values()) == {"away"}
            assert "has other features than the version before" in told.sentences[-1]
        publish(tmp_path, "plant", make_windowed_artifact(rows=WINDOW, queries=QUERIES))
        client.post("/v1/models/plant/reload").raise_for_status()
        for told in both:
            assert told.at(110)[LEFT] in ("warming", "ok")
            assert told.at(115)[LEFT] == "ok"
            assert told.scrape()["own_expressions", ("plant",)] == 1
        service.close()


def test_rows_whose_answer_is_lost_count_once_and_their_events_are_told(
    models: Path, tmp_path: Path
) -> None:
    """However many they are: the service knows the last 64 of an entity when they come again."""
    rows = rows_of("right")[100:300]
    times = BEGIN + np.arange(200.0)
    with serving(models, streams=tmp_path / "streams.sqlite") as client:
        judge = ServiceJudge("plant", str(client.base_url))
        ask, lost = judge._service.ask, []

        def losing(method: str, path: str, body: bytes | None = None) -> bytes:
            answer = ask(method, path, body)
            if method == "POST" and body not in lost:
                lost.append(body)
                raise ServiceAway("the answer is lost")
            return answer

        judge._service.ask = losing  # type: ignore[method-assign]
        verdict = judge.judge("left", rows, times)
        assert len(lost) == 4
        (entity,) = client.get("/v1/models/plant/streams").json()["entities"]
        assert entity["rows"] == 200
        judge._service.ask = ask  # type: ignore[method-assign]
        undisturbed = judge.judge("other", rows, times)
        assert verdict.severity == undisturbed.severity
        assert [each.open for each in verdict.changes] == [True, False]
        assert [(each.open, each.start) for each in undisturbed.changes] == [
            (each.open, each.start) for each in verdict.changes
        ]
        judge.close()


def test_a_service_judges_as_the_model_does_and_keeps_the_streams(
    server: real.Prometheus, models: Path, tmp_path: Path
) -> None:
    here = Told(server, ModelJudge("plant", str(models)))
    with serving(models, streams=tmp_path / "streams.sqlite") as client:
        judges = [ServiceJudge(name, str(client.base_url)) for name in ("plant", "plant", "none")]
        there = Told(server, judges[0])
        for second in (150, 160, 199, 200, 204):
            assert here.at(second) == there.at(second)
            for entity in (LEFT, RIGHT):
                one = here.watch.board.entities[entity].verdict
                other = there.watch.board.entities[entity].verdict
                assert one is not None
                assert other is not None
                assert one.severity == pytest.approx(other.severity, rel=1e-6)
                assert (one.is_alarm, one.is_event) == (other.is_alarm, other.is_event)
                assert [name for name, _ in one.blamed] == [name for name, _ in other.blamed]
                np.testing.assert_allclose(
                    [share for _, share in one.blamed],
                    [share for _, share in other.blamed],
                    rtol=1e-4,
                )
        assert [each.entity for each in there.changes] == ['{pump="right"}']
        # a watch that starts anew goes on where the service is
        again = Told(server, judges[1])
        assert again.at(206) == {LEFT: "ok", RIGHT: "ok", OLD: "late"}
        entities = client.get("/v1/models/plant/streams").json()["entities"]
        assert {each["entity"] for each in entities} == {'{pump="left"}', '{pump="right"}'}
        with pytest.raises(ServiceRefused, match="answered 404"):
            Told(server, judges[2]).at(200)
    assert set(there.at(207).values()) == {"away"}
    for each in judges:
        each.close()


def test_a_model_of_single_rows_may_be_asked_for_more_seldom_than_at_the_fit(
    server: real.Prometheus, models: Path
) -> None:
    told = Told(server, ModelJudge("single", str(models)), every=10.0)
    assert told.at(95) == {LEFT: "ok", RIGHT: "ok"} | (
        {OLD: "late"} if OLD in told.watch.board.entities else {}
    )
    assert told.watch.board.at == BEGIN + 90
    windowed = Told(server, ModelJudge("plant", str(models)), every=10.0)
    with pytest.raises(InvalidSettings, match="4 rows that are 1 s apart, expected this, got 10 s"):
        windowed.at(100)


def test_a_model_that_was_fitted_on_a_file_cannot_be_watched(models: Path) -> None:
    with pytest.raises(InvalidSettings, match="filed holds no expressions"):
        ModelJudge("filed", str(models)).plan()


def test_metrics_are_answered_over_http_until_the_end(told: Told) -> None:
    told.at(100)
    port, end = expose(WatchMetrics("plant", lambda: told.watch.board), "127.0.0.1", 0)
    with pytest.raises(InvalidSettings, match=f"cannot listen on 127.0.0.1 port {port} "):
        expose(WatchMetrics("plant", lambda: told.watch.board), "127.0.0.1", port)
    text = httpx.get(f"http://127.0.0.1:{port}/metrics").text
    assert 'hourglass_watch_severity{model="plant",pump="left"}' in text
    end()
    with pytest.raises(httpx.TransportError):
        httpx.get(f"http://127.0.0.1:{port}/metrics")


def test_it_asks_each_step_until_it_is_told_to_stop(server: real.Prometheus, models: Path) -> None:
    told = Told(server, ModelJudge("plant", str(models)))
    stop = threading.Event()
    thread = threading.Thread(target=told.watch.run, args=(stop,))
    thread.start()
    began, seen = time.time(), set[float]()
    try:
        while len(seen) < 3:
            assert time.time() < began + 120
            if told.watch.board.at:
                seen.add(told.watch.board.at)
            time.sleep(0.02)
    finally:
        stop.set()
        thread.join(60)
    assert not thread.is_alive()
    assert min(seen) > began - 5
