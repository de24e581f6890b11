"""Shadow: what is counted of a challenger and the version in service, and that nobody waits."""

import asyncio
import threading
from pathlib import Path

import httpx
import msgspec
import numpy as np
import pytest

from hourglass.service.errors import ShadowFailed
from hourglass.service.model.detector import Detector, Scores
from hourglass.service.model.served import Served
from hourglass.service.serving.loading import load
from hourglass.service.serving.places import open_store
from hourglass.service.serving.store import ModelFolder, Store, StoredThreshold
from hourglass.service.watch.shadow import MOST_CELLS, Compared, Shadow
from tests.artifacts import (
    MIXED,
    NUMERIC,
    as_json_rows,
    make_artifact,
    make_windowed_artifact,
    publish,
    sample_rows,
)
from tests.buckets import Buckets
from tests.service.watch.test_drift import Models
from tests.serving import Process, serving, wait_until

CODES = {"north": 2, "south": 0, "west": 1}  # of the sites, to a challenger that met them otherwise
OTHERS = tuple(
    msgspec.structs.replace(each, categories=("south", "west", "north"))
    if each.categories
    else each
    for each in MIXED
)


def challenged(folder: Path, champion: bytes, challenger: bytes) -> tuple[Served, str]:
    """The version in service, and the one beside it."""
    version = publish(folder, "pump", challenger)
    publish(folder, "pump", champion)
    model = Store(folder).model("pump")
    model.challenge(version)
    return load(model)[0], version


def shadow_of(folder: Path, served: Served, share: float = 1.0) -> Shadow:
    models = Models(served)
    return Shadow(models, Store(folder), share=share, max_bytes=2**20)  # type: ignore[arg-type]


def told(shadow: Shadow, served: Served) -> Compared:
    found = asyncio.run(shadow.report(served))
    assert found
    return found


def score(shadow: Shadow, served: Served, rows_ND: np.ndarray, *, together: int) -> None:
    """Have rows scored by the version in service, of a windowed one all that have enough before."""
    window, entity = served.detector.window, "pump-1" if served.detector.window > 1 else None
    for start in range(0, len(rows_ND) - window + 1, together):
        part = rows_ND[start : start + together + window - 1].copy()
        shadow.scored(served, part, served.detector.of(entity).score(part), 0.0, entity)
        part[:] = np.nan  # nobody keeps what belongs to a request


def expected(champion: np.ndarray, challenger: np.ndarray) -> dict[str, int]:
    both = champion + 2 * challenger
    names = ("neither", "champion", "challenger", "both")
    return dict(zip(names, np.bincount(both, minlength=4).tolist(), strict=True))


@pytest.mark.parametrize("together", [1, 37, 500])
def test_it_counts_who_would_alarm_by_the_codes_that_each_has(
    tmp_path: Path, together: int
) -> None:
    served, version = challenged(
        tmp_path, make_artifact(MIXED), make_artifact(OTHERS, shift=0.5, alpha=0.1)
    )
    shadow, rows_ND = shadow_of(tmp_path, served), sample_rows(MIXED, 500, seed=4)
    rows_ND[::7, 3] = np.nan
    rows_ND[5, 2] = -1  # a site that neither knows
    assert told(shadow, served).challenger.version == version
    score(shadow, served, rows_ND, together=together)
    found = told(shadow, served)
    other = Detector.from_bytes(make_artifact(OTHERS, shift=0.5, alpha=0.1))
    recoded_ND = rows_ND.copy()
    recoded_ND[:, 2] = [
        -1 if site < 0 else list(CODES.values())[int(site)] for site in rows_ND[:, 2]
    ]
    assert found.counts == {
        **expected(
            served.threshold.is_anomaly(served.detector.score(rows_ND).score),
            other.threshold.is_anomaly(other.score(recoded_ND).score),
        ),
        "unjudged": 0,
        "dropped": 0,
    }
    assert found.counts["champion"] or found.counts["challenger"]
    shadow.close()


@pytest.mark.parametrize("rows", [1, 3, 4])
def test_windows_are_of_one_entity_and_may_be_shorter_to_the_challenger(
    tmp_path: Path, rows: int
) -> None:
    entities = {"pump-1": (0.5, 2.0), "pump-2": (-1.0, 0.5)}
    other = make_artifact(seed=3)
    if rows > 1:
        other = make_windowed_artifact(rows=rows, seed=3, entities=entities)
    served, _ = challenged(tmp_path, make_windowed_artifact(rows=4, entities=entities), other)
    shadow, rows_ND = shadow_of(tmp_path, served), sample_rows(NUMERIC, 203, seed=4)
    told(shadow, served)
    score(shadow, served, rows_ND, together=40)
    both = served.detector.of("pump-1"), Detector.from_bytes(other).of("pump-1")
    alarms = [
        each.threshold.is_anomaly(each.score(rows_ND[4 - each.window :]).score) for each in both
    ]
    counts = told(shadow, served).counts
    assert counts == {**expected(*alarms), "unjudged": 0, "dropped": 0}
    assert counts["both"] < 200
    shadow.close()


def test_a_share_of_the_rows_is_a_fair_one(tmp_path: Path) -> None:
    served, _ = challenged(tmp_path, make_artifact(), make_artifact(shift=0.5))
    shadow, rows_ND = shadow_of(tmp_path, served, 0.2), sample_rows(NUMERIC, 10_000, seed=4)
    rows_ND[5000:] += 9  # alarms of both
    told(shadow, served)
    score(shadow, served, rows_ND, together=5000)
    counts = told(shadow, served).counts
    judged = sum(counts.values())
    assert judged == pytest.approx(2000, abs=200)  # 5 standard deviations
    assert counts["both"] == pytest.approx(1000, abs=160)
    assert counts["dropped"] == 0
    shadow.close()


def test_what_there_is_no_room_for_is_dropped_and_counted(tmp_path: Path) -> None:
    served, _ = challenged(tmp_path, make_artifact(), make_artifact(shift=0.5))
    shadow, rows_ND = shadow_of(tmp_path, served), sample_rows(NUMERIC, 50_000, seed=4)
    told(shadow, served)
    for _ in range(2):
        score(shadow, served, rows_ND, together=50_000)
    counts = told(shadow, served).counts
    assert counts["dropped"] == 100_000 - MOST_CELLS // 4
    assert sum(counts.values()) == 100_000
    shadow.close()


def test_counts_begin_anew_with_another_challenger_and_another_budget(tmp_path: Path) -> None:
    served, version = challenged(tmp_path, make_artifact(), make_artifact(shift=0.5))
    model, shadow = Store(tmp_path).model("pump"), shadow_of(tmp_path, served)
    rows_ND = sample_rows(NUMERIC, 100, seed=4)

    def judged() -> int:
        score(shadow, served, rows_ND, together=50)
        return sum(told(shadow, served).counts.values())

    told(shadow, served)
    assert (judged(), judged()) == (100, 200)
    model.challenge(publish(tmp_path, "other", make_artifact(shift=1)))
    found = told(shadow, served)
    assert found.challenger.problem  # its file is not there
    assert found.challenger.problem.fault == "missing"
    assert shadow.compared().keys() == {"pump"}
    model.challenge(version)
    told(shadow, served)
    assert judged() == 100
    model.change_threshold(lambda _: StoredThreshold(0.2, 0.05))
    told(shadow, served)
    assert judged() == 100
    model.point(version)
    assert model.challenger() is None  # since it is in service
    assert asyncio.run(shadow.report(served)) is None
    assert shadow.compared() == {}
    shadow.close()


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (
            make_artifact(MIXED),
            "other features than the version in service (differing: a, b, c, d,",
        ),
        (make_artifact(NUMERIC[::-1]), "(differing: their order)"),
        (make_windowed_artifact(rows=3), "looks at 3 rows, and the version in service at 1"),
    ],
    ids=["features", "order", "window"],
)
def test_who_cannot_see_what_the_champion_sees_is_not_asked_and_that_is_said(
    tmp_path: Path, other: bytes, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    served, version = challenged(tmp_path, make_artifact(), other)
    shadow = shadow_of(tmp_path, served)
    for _ in range(2):
        problem = told(shadow, served).challenger.problem
    assert problem
    assert said in problem.sentence
    assert caplog.text.count(said) == 1
    score(shadow, served, sample_rows(NUMERIC, 100, seed=4), together=50)
    found = told(shadow, served)
    assert (found.challenger.version, sum(found.counts.values())) == (version, 0)
    shadow.close()


def test_rows_that_the_challenger_alone_cannot_judge_are_counted(tmp_path: Path) -> None:
    served, _ = challenged(
        tmp_path, make_artifact(), make_artifact(shift=0.5, min_observed_fraction=1.0)
    )
    shadow, rows_ND = shadow_of(tmp_path, served), sample_rows(NUMERIC, 100, seed=4)
    rows_ND[:30, 0] = np.nan
    told(shadow, served)
    score(shadow, served, rows_ND, together=50)
    assert told(shadow, served).counts["unjudged"] == 30
    shadow.close()


def metric(client: httpx.Client, name: str) -> float:
    (line,) = [each for each in client.get("/metrics").text.splitlines() if each.startswith(name)]
    return float(line.rpartition(" ")[2])


@pytest.mark.parametrize("fast", [False, True])
def test_a_server_says_how_its_challenger_fares_and_answers_by_the_champion_alone(
    tmp_path: Path, fast: bool
) -> None:
    served, version = challenged(tmp_path, make_artifact(), make_artifact(shift=9))
    rows = {"rows": sample_rows(NUMERIC, 500, seed=4).tolist()}
    with serving(tmp_path, fast=fast, shadow_share=1.0) as client:
        path = "/v1/models/pump/challenger"
        first = client.get(path).json()
        assert (first["state"], first["rows"], first["agreement"]) == ("scored", 0, None)
        answer = client.post("/v1/models/pump/score", json=rows).raise_for_status().json()
        assert answer["version"] == served.detector.version
        told = client.get(path).json()
        assert (told["state"], told["rows"], told["dropped"]) == ("scored", 500, 0)
        alarms = sum(answer["is_anomaly"])
        assert told["champion"]["version"] == served.detector.version
        assert told["champion"]["alarms"] == alarms
        assert told["champion"]["interval"][0] < alarms / 500 < told["champion"]["interval"][1]
        assert (told["challenger"]["version"], told["challenger"]["alarms"]) == (version, 500)
        assert told["agreement"] == alarms / 500
        assert told["both"] == alarms
        assert f"100.00% would with the challenger {version[:12]}" in told["sentence"]
        assert "look at the rows that it was fitted on before it is promoted" in told["advice"]
        series = 'hourglass_shadow_rows_total{alarms="challenger",model="pump"}'
        assert metric(client, series) == 500 - alarms
        assert metric(client, 'hourglass_shadow_dropped_total{model="pump"}') == 0
        assert metric(client, 'hourglass_shadow_error{model="pump"}') == 0
        info = f'hourglass_challenger_info{{model="pump",version="{version}"}}'
        assert metric(client, info) == 1
        client.post("/v1/models/pump/promote", json={"version": version}).raise_for_status()
        gone = client.get(path).json()
        assert (gone["state"], gone["challenger"], gone["rows"]) == ("none", None, 0)
        assert "hourglass-train retrain pump DATA --shadow" in gone["advice"]
        assert "hourglass_challenger_info{" not in client.get("/metrics").text
        assert client.get("/v1/models/nobody/challenger").status_code == 404
        exhibit = client.get("/v1/models/learn.shapes-plain/challenger").json()
        assert exhibit["state"] == "none"


def test_with_a_share_of_0_nothing_is_scored_and_the_route_says_so(tmp_path: Path) -> None:
    challenged(tmp_path, make_artifact(), make_artifact(shift=1))
    rows = {"rows": sample_rows(NUMERIC, 5, seed=4).tolist()}
    with serving(tmp_path, shadow_share=0.0) as client:
        for _ in range(2):
            told = client.get("/v1/models/pump/challenger").json()
            assert (told["state"], told["rows"]) == ("off", 0)
            client.post("/v1/models/pump/score", json=rows).raise_for_status()


def test_rows_of_streams_and_of_the_open_inference_protocol_count_too(tmp_path: Path) -> None:
    challenged(tmp_path, make_windowed_artifact(rows=4), make_windowed_artifact(rows=4, seed=1))
    rows = sample_rows(NUMERIC, 23, seed=4).tolist()
    with serving(tmp_path, shadow_share=1.0) as client:
        path = "/v1/models/pump/challenger"
        client.get(path)
        client.post("/v1/models/pump/streams/pump-1", json={"rows": rows}).raise_for_status()
        assert client.get(path).json()["rows"] == 20
        client.post("/v1/models/pump/score", json={"rows": rows}).raise_for_status()
        assert client.get(path).json()["rows"] == 40


def test_a_challenger_comes_from_a_bucket_too(tmp_path: Path, s3: Buckets) -> None:
    url = s3.make()
    store = open_store(url, cache=tmp_path / "here")
    version = store.model("pump").keep(make_artifact(shift=9), {})
    store.model("pump").publish(make_artifact(), {})
    store.model("pump").challenge(version)
    rows = {"rows": sample_rows(NUMERIC, 50, seed=4).tolist()}
    with serving(url, cache=tmp_path / "there", shadow_share=1.0) as client:
        path = "/v1/models/pump/challenger"
        assert client.get(path).json()["challenger"]["version"] == version
        client.post("/v1/models/pump/score", json=rows).raise_for_status()
        assert client.get(path).json()["rows"] == 50


@pytest.mark.slow
def test_workers_count_together_and_a_challenger_that_appears_is_taken_up(tmp_path: Path) -> None:
    version = publish(tmp_path, "pump", make_artifact(shift=9))
    publish(tmp_path, "pump", make_artifact())
    sent = as_json_rows(NUMERIC, sample_rows(NUMERIC, 50, seed=4))
    with Process(tmp_path, "--workers", "2", "--shadow-share", "1") as process:
        path = f"{process.url}/v1/models/pump/challenger"
        assert httpx.get(path).json()["state"] == "none"
        Store(tmp_path).model("pump").challenge(version)
        wait_until(
            lambda: (
                sum(f"version {version[:12]} is its challenger" in each for each in process.log)
                == 2
            )
        )
        for _ in range(20):  # each on its own connection: of any worker
            httpx.post(f"{process.url}/v1/models/pump/score", json={"rows": sent})
        wait_until(lambda: httpx.get(path).json()["rows"] == 1000)
        scraped = 'hourglass_shadow_rows_total{alarms="unjudged",model="pump"} 0.0'
        assert scraped in httpx.get(f"{process.url}/metrics").text
        assert process.stop() == 0


def test_a_challenger_that_fails_while_it_is_asked_stops_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    served, _ = challenged(tmp_path, make_artifact(), make_artifact(shift=0.5))
    shadow, rows_ND = shadow_of(tmp_path, served), sample_rows(NUMERIC, 100, seed=4)
    told(shadow, served)

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("out of everything")

    with monkeypatch.context() as patched:
        patched.setattr(Detector, "score", fail)
        scores = np.full(100, 0.5, np.float32)
        for _ in range(2):
            shadow.scored(served, rows_ND, Scores(scores, scores, scores), 0.0)
            found = told(shadow, served)
    assert found.is_failing
    assert found.counts["unjudged"] == 200
    assert caplog.text.count("cannot judge") == 1
    score(shadow, served, rows_ND, together=50)
    found = told(shadow, served)
    assert not found.is_failing
    assert sum(found.counts.values()) == 300
    shadow.close()


def test_a_folder_that_hangs_costs_one_thread_and_its_rows_are_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served, _ = challenged(tmp_path, make_artifact(), make_artifact(shift=0.5))
    shadow, rows_ND = shadow_of(tmp_path, served), sample_rows(NUMERIC, 100, seed=4)
    told(shadow, served)
    over, looks = threading.Event(), []

    def hang(_: object) -> object:
        looks.append(threading.current_thread())
        return over.wait() and None

    with monkeypatch.context() as patched:
        patched.setattr("hourglass.service.watch.shadow.LOAD_SECONDS", 0.1)
        patched.setattr("hourglass.service.serving.patience.PATIENCE_SECONDS", 0.05)
        patched.setattr(ModelFolder, "look_at_challenger", hang)
        for _ in range(3):
            score(shadow, served, rows_ND, together=50)
            with pytest.raises(ShadowFailed, match="it takes too long"):
                asyncio.run(shadow.report(served))
    assert len(looks) == 1
    monkeypatch.setattr(ModelFolder, "look_at_challenger", lambda _: (None, None))
    over.set()
    looks[0].join(5)
    assert told(shadow, served).counts["dropped"] == 300


def test_a_folder_that_cannot_be_read_is_said_once_and_its_rows_are_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    served, _ = challenged(tmp_path, make_artifact(), make_artifact(shift=0.5))
    shadow, rows_ND = shadow_of(tmp_path, served), sample_rows(NUMERIC, 100, seed=4)
    told(shadow, served)
    monkeypatch.setattr("hourglass.service.watch.shadow.WORK_SECONDS", 0.01)
    asked = []

    def refuse(_: object) -> None:
        asked.append(True)
        raise PermissionError(13, "Permission denied")

    async def a_while() -> None:
        clock = asyncio.create_task(shadow.clock())
        await asyncio.to_thread(wait_until, lambda: len(asked) >= 3)
        clock.cancel()

    with monkeypatch.context() as patched:
        patched.setattr(Store, "challenged", refuse)
        shadow._rest_seconds = 0.01
        score(shadow, served, rows_ND, together=50)
        asyncio.run(a_while())
    (line,) = [each for each in caplog.messages if "are not scored" in each]
    assert line == "challengers are not scored: [Errno 13] Permission denied"
    assert "Traceback" not in caplog.text
    assert told(shadow, served).counts["dropped"] == 100
