"""The sketch of live traffic: exact alarms for any budget, over thresholds, swaps and workers."""

import time
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest

from hourglass.service.model.detector import Scores
from hourglass.service.model.served import Served
from hourglass.service.watch.metrics import KEPT, Metrics
from hourglass.service.watch.traffic import Traffic
from tests.artifacts import NUMERIC, make_artifact, make_served, publish, sample_rows
from tests.serving import Process, serving

ALPHAS = [0.1, 0.05, 0.03, 0.02, 0.01]


class Models:
    """A registry that serves one model."""

    def __init__(self, served: Served) -> None:
        self.served, self.names = {served.name: served}, frozenset((served.name,))


def run(traffic: Traffic, served: Served, rows: int, *, seed: int = 0) -> Scores:
    rows_ND = sample_rows(NUMERIC, rows, seed=seed)
    scores = served.detector.score(rows_ND)
    traffic.count(served, scores.score, scores.severity)
    return scores


@pytest.fixture(scope="module")
def served() -> Served:
    return make_served(NUMERIC)


def alarms(traffic: Traffic, served: Served) -> list[int]:
    counted, table = traffic.counted(served), served.detector.table
    return [
        counted.alarms(served, table.threshold(alpha, 0.05, certified=False)) for alpha in ALPHAS
    ]


def test_the_alarms_of_any_budget_are_counted_exactly(served: Served) -> None:
    traffic = Traffic(Models(served))  # type: ignore[arg-type]
    runs = [
        run(traffic, served, rows, seed=seed) for seed, rows in enumerate((1, 700, 1, 9000, 40))
    ]
    score_N = np.concatenate([scores.score for scores in runs])
    expected = [
        int(served.detector.table.threshold(alpha, 0.05, certified=False).is_anomaly(score_N).sum())
        for alpha in ALPHAS
    ]
    assert alarms(traffic, served) == expected
    assert expected == sorted(expected, reverse=True)
    counted = traffic.counted(served)
    assert counted.rows == len(score_N)
    severity_N = np.concatenate([scores.severity for scores in runs])
    edges, counts = counted.severities().edges, counted.severities().counts
    assert counts == np.histogram(severity_N, np.array(edges, np.float32))[0].tolist()
    p_value_N = np.concatenate([scores.p_value for scores in runs])
    assert (
        counted.p_values(served).counts
        == np.histogram(20 - 20 * p_value_N + 1e-5, 20, (0, 20))[0][::-1].tolist()
    )


def test_runs_reach_it_by_the_metrics_and_what_is_not_finite_does_not_count(
    served: Served,
) -> None:
    models = Models(served)
    traffic = Traffic(models)  # type: ignore[arg-type]
    metrics = Metrics(models, shared=False, traffic=traffic)  # type: ignore[arg-type]
    bad = Scores(*(np.array([np.nan, np.inf, 0.1], np.float32) for _ in range(3)))
    for _ in range(KEPT + 5):
        metrics.scored(served, sample_rows(NUMERIC, 3), bad, 0.0)
    (counting,) = (each.shared for each in traffic._counting.values())
    assert int(counting.counts.sum()) == 2 * KEPT  # by step and by severity; the rest is kept
    assert counting.counts.nbytes < 16_384
    assert traffic.counted(served).rows == KEPT + 5


def test_it_begins_anew_with_a_threshold_or_a_version_and_what_is_late_does_not_count(
    served: Served,
) -> None:
    models = Models(served)
    traffic = Traffic(models)  # type: ignore[arg-type]
    run(traffic, served, 50)
    other = replace(served, threshold=served.detector.table.threshold(0.1, 0.05))
    models.served["tiny"] = other
    traffic.follow(other)
    run(traffic, served, 30)  # its answer was under way
    run(traffic, other, 7)
    assert traffic.counted(other).rows == 7
    again = replace(served)  # the first threshold, once more
    models.served["tiny"] = again
    assert traffic.follow(again) is not None
    assert traffic.counted(again).rows == 0


def test_a_reload_without_a_change_goes_on(served: Served) -> None:
    models = Models(served)
    traffic = Traffic(models)  # type: ignore[arg-type]
    run(traffic, served, 50)
    models.served["tiny"] = again = replace(served, threshold=replace(served.threshold))
    traffic.follow(again)
    run(traffic, again, 8)
    assert traffic.counted(again).rows == 58


def test_workers_add_up_and_what_one_counted_outlives_it(served: Served, tmp_path: Path) -> None:
    workers = [Traffic(Models(served), tmp_path, pid) for pid in (1, 2, 3)]  # type: ignore[arg-type]
    alone = Traffic(Models(served))  # type: ignore[arg-type]
    for seed, worker in enumerate(workers * 3):
        for each in (worker, alone):
            run(each, served, 400, seed=seed)
    expected = alarms(alone, served)
    del workers[0]  # killed, as it were
    assert [alarms(worker, served) for worker in workers] == [expected, expected]
    assert workers[0].counted(served).rows == 3600


def test_a_full_disk_leaves_a_worker_with_its_own_counts(
    served: Served,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    traffic = Traffic(Models(served), tmp_path, 1)  # type: ignore[arg-type]
    for _ in range(3):
        run(traffic, served, 20)
    assert traffic.counted(served).rows == 60
    assert caplog.text.count("are not shared: [Errno 28] No space left on device") == 1


def test_p_values_of_normal_rows_are_uniform_as_often_as_the_test_says() -> None:
    """By simulation, each time with other calibration rows, which are a sample too."""
    normal, wider = [], []
    for seed in range(30):
        served = make_served(NUMERIC, seed=seed, calibration_rows=200)
        for found, scale in ((normal, 1.0), (wider, 1.3)):
            traffic = Traffic(Models(served))  # type: ignore[arg-type]
            rows_ND = np.float32(scale) * sample_rows(NUMERIC, 2000, seed=1000 + seed)
            scores = served.detector.score(rows_ND)
            traffic.count(served, scores.score, scores.severity)
            uniform = traffic.counted(served).uniformity(served)
            assert uniform is not None
            found.append(uniform.p_value)
    assert np.mean(np.array(normal) < 0.05) <= 0.05 + 3 * (0.05 * 0.95 / 30) ** 0.5
    assert np.median(normal) > 0.2
    assert np.median(wider) < 0.001


def test_live_rows_show_what_each_budget_would_have_done(models: Path) -> None:
    rows = sample_rows(NUMERIC, 600, seed=3).tolist()
    with serving(models, poll_seconds=3600) as client:
        empty = client.get("/v1/models/plain/replay").json()
        assert (empty["rows"], empty["uniform"]) == (0, None)
        for start in range(0, 600, 50):
            client.post("/v1/models/plain/score", json={"rows": rows[start : start + 50]})
        client.post("/v1/models/plain/explain", json={"rows": rows[:50]})
        sent = client.post("/v1/models/plain/replay", json={"rows": rows}).json()
        live = client.get("/v1/models/plain/replay").json()
        named = client.get("/v1/models/plain/replay", params={"alpha": [0.02, 0.1]}).json()
        assert live["rows"] == 600  # explained and replayed rows are none
        names = ("alpha", "threshold", "alarms", "alarm_rate", "interval", "promised", "in_force")
        for mine, theirs in zip(live["alphas"], sent["alphas"], strict=True):
            assert {name: mine[name] for name in names} == {name: theirs[name] for name in names}
        assert [each["alpha"] for each in named["alphas"]] == [0.02, 0.1]
        assert sum(live["p_values"]["counts"]) == sum(live["severity"]["counts"]) == 600
        client.patch("/v1/models/plain", json={"alpha": 0.1}).raise_for_status()
        assert client.get("/v1/models/plain/replay").json()["rows"] == 0
        client.post("/v1/models/plain/score", json={"rows": rows[:5]})
        publish(models, "plain", make_artifact(shift=1))
        client.post("/v1/models/plain/reload").raise_for_status()
        assert client.get("/v1/models/plain/replay").json()["rows"] == 0
        too_many = client.get("/v1/models/plain/replay", params={"alpha": [0.1] * 65})
        assert too_many.status_code == 400


@pytest.mark.slow
def test_two_workers_count_together_and_begin_anew_together(models: Path) -> None:
    rows = sample_rows(NUMERIC, 40, seed=3).tolist()
    with Process(models, "--workers", "2") as process:
        url = f"{process.url}/v1/models/plain"
        for _ in range(40):  # each on its own connection, so that both workers get some
            httpx.post(f"{url}/score", json={"rows": rows}).raise_for_status()
        (sent,) = httpx.post(f"{url}/replay", json={"rows": rows, "alphas": [0.05]}).json()[
            "alphas"
        ]
        time.sleep(2 * 0.1)  # app.FLUSH_SECONDS
        for _ in range(6):
            live = httpx.get(f"{url}/replay", params={"alpha": 0.05}).json()
            assert (live["rows"], live["alphas"][0]["alarms"]) == (1600, 40 * sent["alarms"])
        httpx.patch(url, json={"alpha": 0.1}).raise_for_status()
        assert {httpx.get(f"{url}/replay").json()["rows"] for _ in range(6)} == {0}
        assert process.stop() == 0
