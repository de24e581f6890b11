"""The metrics: what they count, how they are scraped, and that no client can make new series."""

import asyncio
import os
import platform
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

import httpx
import numpy as np
import onnxruntime as ort
import pytest
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.parser import text_string_to_metric_families

from hourglass.service import VERSION, floats
from hourglass.service.model.detector import Scores
from hourglass.service.serving.registry import Registry
from hourglass.service.serving.store import Store
from hourglass.service.watch import metrics as watched
from hourglass.service.watch.metrics import (
    P_VALUE_BUCKETS,
    RATIO_BUCKETS,
    REASONS,
    Metrics,
    Tally,
)
from tests.artifacts import NUMERIC, make_artifact, point, publish, sample_rows
from tests.service.notify.test_webhook import event
from tests.serving import Process, serving, wait_until

NAMES = {
    "hourglass_drift", "hourglass_drifting_features", "hourglass_drift_psi_ratio",
    "hourglass_drift_window_timestamp_seconds",
    "hourglass_challenger_info", "hourglass_shadow_error", "hourglass_shadow_rows_total",
    "hourglass_shadow_dropped_total",
    "hourglass_recorded_rows_total", "hourglass_record_lost_total",
    "hourglass_record_removed_files_total",
    "hourglass_vectors_total", "hourglass_explained_total", "hourglass_anomalies_total", "hourglass_p_value",
    "hourglass_severity", "hourglass_score_ratio",
    "hourglass_request_duration_seconds", "hourglass_inference_duration_seconds", "hourglass_batch_rows",
    "hourglass_rejections_total", "hourglass_requests_total", "hourglass_model_info", "hourglass_model_calibration_rows",
    "hourglass_model_alpha", "hourglass_model_delta", "hourglass_model_expected_false_alarm_rate",
    "hourglass_model_certified", "hourglass_model_guarantee", "hourglass_model_threshold",
    "hourglass_model_fitted_timestamp_seconds", "hourglass_model_ready", "hourglass_model_error",
    "hourglass_store_reachable", "hourglass_store_look_timestamp_seconds",
    "hourglass_model_reloads_total", "hourglass_build_info", "hourglass_worker_deaths_total",
    "hourglass_journal_alarms_total", "hourglass_journal_lost_total",
    "hourglass_journal_write_failures_total",
    "hourglass_events_total", "hourglass_open_events", "hourglass_notices_total",
    "hourglass_stream_entities", "hourglass_stream_evicted_total", "hourglass_late_rows_total",
    "hourglass_warm_ups_total", "hourglass_stream_write_failures_total",
}  # fmt: skip


def samples(text: str) -> dict[tuple[str, ...], float]:
    """(name, label value, …) in the labels' order -> value."""
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def scrape(client: httpx.Client) -> dict[tuple[str, ...], float]:
    return samples(client.get("/metrics").raise_for_status().text)


def test_every_metric_is_there_from_the_first_scrape_with_a_line_of_help(client):
    text = client.get("/metrics").text
    families = {
        line.split()[2] for line in text.splitlines() if line.startswith("# HELP hourglass_")
    }
    assert families == NAMES
    assert all(
        len(line.split()) > 4 for line in text.splitlines() if line.startswith("# HELP hourglass_")
    )
    values = samples(text)
    for name in ("plain", "mixed"):
        assert values["hourglass_vectors_total", name] == 0
        assert values["hourglass_model_reloads_total", name, "swapped"] == 0
        assert values["hourglass_model_reloads_total", name, "failed"] == 0
        assert values["hourglass_model_calibration_rows", name] == 400
    assert {key[1] for key in values if key[0] == "hourglass_rejections_total"} == set(REASONS)


def test_the_build_says_what_it_is_made_of(client):
    families = text_string_to_metric_families(client.get("/metrics").text)
    (build,) = (
        sample
        for family in families
        for sample in family.samples
        if sample.name == "hourglass_build_info"
    )
    assert build.value == 1
    assert build.labels == {
        "version": VERSION,
        "floats": floats.IMPLEMENTATION,
        "python": platform.python_version(),
        "onnxruntime": ort.__version__,
    }


def test_promtool_has_nothing_to_complain_of(client):
    client.post("/v1/models/plain/score", json={"rows": [[1, 2, 3, 4]]})
    client.get("/nowhere")
    checked = subprocess.run(
        ["promtool", "check", "metrics"],
        input=client.get("/metrics").text,
        text=True,
        capture_output=True,
        check=False,
    )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


@pytest.mark.parametrize(
    "accept", ["", "*/*", "text/plain", "text/html", "application/openmetrics-text; version=1.0.0"]
)
def test_the_exposition_comes_in_the_format_asked_for(client, accept):
    answer = client.get("/metrics", headers={"accept": accept})
    assert answer.status_code == 200
    wanted = "application/openmetrics-text" if "openmetrics" in accept else "text/plain"
    assert answer.headers["content-type"].count("charset") == 1
    assert answer.headers["content-type"].startswith(wanted)
    assert answer.text.endswith("# EOF\n") == ("openmetrics" in accept)


def test_an_accept_header_that_makes_no_sense_gets_the_plain_format(client):
    answer = client.get(
        "/metrics", headers={"accept": "application/openmetrics-text; version=newest; escaping=x"}
    )
    assert (answer.status_code, answer.headers["content-type"][:10]) == (200, "text/plain")


def test_scored_rows_are_counted_and_explained_ones_are_not(models):
    rows = sample_rows(NUMERIC, 300, seed=3)
    with serving(models) as client:
        anomalies = sum(
            client.post("/v1/models/plain/score", json={"rows": rows.tolist()}).json()["is_anomaly"]
        )
        for path in ("explain", "reconstruct", "encode"):
            client.post(f"/v1/models/plain/{path}", json={"rows": rows.tolist()}).raise_for_status()
        values = scrape(client)
    assert values["hourglass_vectors_total", "plain"] == 300
    assert values["hourglass_anomalies_total", "plain"] == anomalies > 0
    assert (
        values["hourglass_p_value_count", "plain"]
        == values["hourglass_score_ratio_count", "plain"]
        == 300
    )
    assert (
        values["hourglass_score_ratio_bucket", "+Inf", "plain"]
        - values["hourglass_score_ratio_bucket", "1.0", "plain"]
        == anomalies
    )
    assert values["hourglass_inference_duration_seconds_count", "plain"] == 1
    assert values["hourglass_batch_rows_bucket", "512.0", "plain"] == 1
    assert values["hourglass_batch_rows_bucket", "256.0", "plain"] == 0
    assert values["hourglass_vectors_total", "mixed"] == 0


def test_a_model_has_histograms_once_it_has_traffic(models):
    with serving(models) as client:
        quiet = scrape(client)
        client.post("/v1/models/plain/score", json={"rows": [[1, 2, 3, 4]]}).raise_for_status()
        busy = scrape(client)
    of_quiet = [key for key in quiet if "plain" in key]
    assert len(of_quiet) <= 16
    assert not [key for key in of_quiet if key[0].endswith(("_bucket", "_sum", "_count"))]
    assert busy["hourglass_p_value_count", "plain"] == 1
    assert not [key for key in busy if "mixed" in key and key[0].endswith("_bucket")]


def test_a_retired_model_has_no_series(models):
    with serving(models, poll_seconds=0.02) as client:
        for path in ("score", "explain"):
            client.post(f"/v1/models/plain/{path}", json={"rows": [[1, 2, 3, 4]]})
        assert [key for key in scrape(client) if "plain" in key]
        shutil.rmtree(models / "plain")
        wait_until(lambda: not [key for key in scrape(client) if "plain" in key])
        assert client.post("/v1/models/plain/score", json={"rows": [[1]]}).status_code == 404
        assert scrape(client)["hourglass_vectors_total", "mixed"] == 0


def test_a_fault_is_a_gauge_while_it_lasts(models):
    with serving(models, poll_seconds=0.02) as client:
        version = client.get("/v1/models/plain").json()["version"]
        assert not [key for key in scrape(client) if key[0] == "hourglass_model_error"]
        point(models, "plain", "0" * 64)
        wait_until(lambda: scrape(client).get(("hourglass_model_error", "plain", "missing")) == 1)
        point(models, "plain", version)
        wait_until(lambda: not [key for key in scrape(client) if key[0] == "hourglass_model_error"])


def test_a_scrape_is_written_beside_the_event_loop(models, monkeypatch):
    """Of a thousand models it takes a tenth of a second."""
    threads = []
    real = watched.encode

    def noted(registry, accept):
        threads.append(threading.current_thread().name)
        return real(registry, accept)

    monkeypatch.setattr(watched, "encode", noted)
    with serving(models) as client:
        scrape(client)
    assert threads == ["metrics_0"]


def test_requests_are_counted_by_template_and_unmatched_paths_are_one(models):
    with serving(models) as client:
        for name in ("plain", "mixed", "nobody"):
            client.get(f"/v1/models/{name}")
        for path in ("/a", "/b", "/v1/models/plain/nothing"):
            client.get(path)
        client.put("/v1/models/plain")
        client.request("PROPFIND", "/health/live")
        client.post(
            "/v1/models/plain/score", content=b"{", headers={"content-type": "application/json"}
        )
        values = scrape(client)
    assert values["hourglass_requests_total", "GET", "/v1/models/{name}", "200"] == 2
    assert values["hourglass_requests_total", "GET", "/v1/models/{name}", "404"] == 1
    assert values["hourglass_requests_total", "GET", "unmatched", "404"] == 3
    assert values["hourglass_requests_total", "PUT", "unmatched", "405"] == 1
    assert values["hourglass_requests_total", "other", "unmatched", "405"] == 1
    assert values["hourglass_requests_total", "POST", "/v1/models/{name}/score", "400"] == 1
    assert values["hourglass_request_duration_seconds_count", "/v1/models/{name}"] == 3
    rejections = {
        key[1]: value
        for key, value in values.items()
        if key[0] == "hourglass_rejections_total" and value
    }
    assert rejections == {"route": 3, "method": 2, "model": 1, "json": 1}


def test_gauges_follow_the_threshold_in_force(models):
    with serving(models) as client:
        client.patch(
            "/v1/models/plain", json={"alpha": 0.1, "delta": 0.2, "uncertified": True}
        ).raise_for_status()
        values = scrape(client)
    assert values["hourglass_model_alpha", "plain"] == 0.1
    assert values["hourglass_model_delta", "plain"] == 0.2
    assert values["hourglass_model_certified", "plain"] == 0
    assert values["hourglass_model_guarantee", "marginal", "plain"] == 1
    assert values["hourglass_model_expected_false_alarm_rate", "plain"] == 40 / 401
    assert values["hourglass_model_certified", "mixed"] == 1


def test_reload_outcomes_are_counted(models):
    with serving(models, poll_seconds=3600) as client:
        publish(models, "plain", make_artifact(shift=1))
        assert client.post("/v1/models/plain/reload").json()["outcome"] == "swapped"
        publish(models, "plain", b"nonsense")
        assert client.post("/v1/models/plain/reload").status_code == 409
        client.post("/v1/models/mixed/reload")
        values = scrape(client)
    assert values["hourglass_model_reloads_total", "plain", "swapped"] == 1
    assert values["hourglass_model_reloads_total", "plain", "failed"] == 1
    assert values["hourglass_model_reloads_total", "mixed", "swapped"] == 0


@pytest.mark.slow
def test_two_workers_answer_with_the_totals_of_both(models):
    rows = sample_rows(NUMERIC, 5).tolist()
    with (
        Process(models, "--workers", "2") as process,
        httpx.Client(base_url=process.url) as client,
    ):
        for _ in range(60):  # each on its own connection, so that both workers get some
            httpx.post(
                f"{process.url}/v1/models/plain/score", json={"rows": rows}
            ).raise_for_status()
        answered = ("hourglass_requests_total", "POST", "/v1/models/{name}/score", "200")
        wait_until(lambda: scrape(client).get(answered) == 60)
        texts = [httpx.get(f"{process.url}/metrics").text for _ in range(6)]
        assert process.stop() == 0
    for text in texts:
        values = samples(text)
        assert values["hourglass_vectors_total", "plain"] == 300
        assert values["hourglass_p_value_count", "plain"] == 300
        assert values["hourglass_requests_total", "POST", "/v1/models/{name}/score", "200"] == 60
        assert values["hourglass_model_calibration_rows", "plain"] == 400
    checked = subprocess.run(
        ["promtool", "check", "metrics"],
        input=texts[-1],
        text=True,
        capture_output=True,
        check=False,
    )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


@pytest.mark.slow
def test_workers_report_their_processes_and_the_death_of_one(models):
    with Process(models, "--workers", "2", HOURGLASS_POLL_SECONDS="0.05") as process:
        wait_until(lambda: len(workers_of(process.url)) == 2)  # the first answers for both
        pids = sorted(workers_of(process.url))
        before = samples(httpx.get(f"{process.url}/metrics").text)
        for name in ("process_resident_memory_bytes", "process_cpu_seconds_total"):
            assert [before[name, pid] > 0 for pid in pids] == [True, True]
        assert before["hourglass_worker_deaths_total",] == 0
        shutil.rmtree(models / "plain")
        os.kill(int(pids[0]), signal.SIGKILL)

        def is_replaced() -> bool:
            try:
                after = samples(httpx.get(f"{process.url}/metrics").text)
            except httpx.TransportError:  # it was the dead one's
                return False
            living = {key[1] for key in after if key[0] == "process_resident_memory_bytes"}
            retired = not [key for key in after if "plain" in key]
            died = after["hourglass_worker_deaths_total",] == 1
            return len(living - {pids[0]}) == 2 and retired and died

        wait_until(is_replaced)
        after = samples(httpx.get(f"{process.url}/metrics").text)
        assert [key for key in after if "mixed" in key]
        assert process.stop() == 0
    died = [line for line in process.log if "died" in line]
    assert len(died) == 1
    assert f"worker {pids[0]} died by signal 9; another one takes its place" in died[0]


@pytest.mark.slow
def test_a_worker_that_is_silent_for_a_while_is_not_killed(models):
    """It may have been given no CPU for so long, above all while it starts."""
    with Process(models, "--workers", "2") as process:
        wait_until(lambda: len(workers_of(process.url)) == 2)
        pids = workers_of(process.url)
        stopped = int(min(pids))
        os.kill(stopped, signal.SIGSTOP)
        time.sleep(7)
        os.kill(stopped, signal.SIGCONT)
        time.sleep(1)
        assert workers_of(process.url) == pids
        assert process.stop() == 0
    assert not [line for line in process.log if "died" in line]


def workers_of(url: str) -> set[str]:
    values = samples(httpx.get(f"{url}/metrics").text)
    return {key[1] for key in values if key[0] == "process_resident_memory_bytes"}


def observed(buckets: tuple[float, ...], observe) -> list[tuple[str, str | None, float]]:
    histogram = Histogram("x", "A histogram.", registry=CollectorRegistry(), buckets=buckets)
    observe(histogram)
    return [
        (sample.name, sample.labels.get("le"), pytest.approx(sample.value))
        for sample in histogram.collect()[0].samples
        if "created" not in sample.name
    ]


@pytest.mark.parametrize("buckets", [P_VALUE_BUCKETS, RATIO_BUCKETS])
def test_a_tally_hands_over_what_the_library_would_have_observed(buckets):
    values_N = np.random.default_rng(0).exponential(0.5, 1000).astype(np.float32)
    singly, together = Tally(buckets), Tally(buckets)
    for value in values_N.tolist():
        singly.add(value)
    for part_N in np.split(values_N, [0, 1, 300]):
        together.add_all(part_N)
    expected = observed(buckets, lambda histogram: [histogram.observe(value) for value in values_N])
    assert (
        observed(buckets, lambda histogram: [singly.flush(histogram), singly.flush(histogram)])
        == expected
    )
    assert (
        observed(buckets, lambda histogram: [together.flush(histogram), together.flush(histogram)])
        == expected
    )


@pytest.mark.parametrize("together", [True, False])
def test_a_p_value_on_a_bound_lies_within_it(together):
    """As float32, 0.05 is a little more than 0.05; a false-alarm rate read off the bucket must
    count it all the same.
    """
    tally, values_N = Tally(P_VALUE_BUCKETS), np.array(P_VALUE_BUCKETS, np.float32)
    if together:
        tally.add_all(values_N)
    else:
        for value in values_N.tolist():
            tally.add(value)
    samples = observed(P_VALUE_BUCKETS, tally.flush)
    assert [value for name, _, value in samples if name == "x_bucket"] == [*range(1, 17), 16]


@pytest.mark.parametrize("extra", [0, 100])
def test_a_row_without_a_finite_score_is_not_counted(tmp_path, extra):
    publish(tmp_path, "pump", make_artifact())
    registry = Registry(Store(Path(tmp_path)), threads=1, max_bytes=2**20)
    asyncio.run(registry.look())
    metrics = Metrics(registry, shared=False)
    score_N, p_value_N = [1, np.nan, np.inf] + [0.0] * extra, [0.5, np.nan, 0.01] + [1.0] * extra
    severity_N = [0.3, np.nan, 2] + [0.0] * extra
    scores = Scores(*np.array([score_N, p_value_N, severity_N], np.float32))
    metrics.scored(registry.find("pump"), np.zeros((3 + extra, 1), np.float32), scores, 0.001)
    values = samples(metrics.expose("")[0].decode())
    assert (
        values["hourglass_vectors_total", "pump"]
        == values["hourglass_p_value_count", "pump"]
        == 1 + extra
    )
    assert values["hourglass_p_value_sum", "pump"] == 0.5 + extra
    assert values["hourglass_severity_sum", "pump"] == pytest.approx(0.3)


def test_events_count_once_and_open_ones_are_asked_for(tmp_path):
    publish(tmp_path, "pump", make_artifact())
    registry = Registry(Store(Path(tmp_path)), threads=1, max_bytes=2**20)
    metrics = Metrics(registry, shared=False)
    registry.tell = metrics.observe_load
    asyncio.run(registry.look())
    assert "hourglass_events_total" not in {
        key[0] for key in samples(metrics.expose("")[0].decode())
    }
    metrics.open_events = lambda: {"pump": 3, "gone": 1}
    assert samples(metrics.expose("")[0].decode())["hourglass_events_total", "pump"] == 0
    for is_open in (True, False, True):
        metrics.observe_event(event("e", is_open=is_open, model="pump"))
    metrics.observe_notice("webhook", "dropped")
    values = samples(metrics.expose("")[0].decode())
    assert values["hourglass_events_total", "pump"] == 2
    assert values["hourglass_open_events", "pump"] == 3
    assert ("hourglass_open_events", "gone") not in values
    assert values["hourglass_notices_total", "dropped", "webhook"] == 1


def test_single_rows_count_as_many_do(models):
    registry = Registry(Store(models), threads=1, max_bytes=2**20)
    asyncio.run(registry.look())
    served = registry.find("plain")
    rows_ND = sample_rows(NUMERIC, 700, seed=2)
    scores = served.detector.score(rows_ND)
    together, alone = Metrics(registry, shared=False), Metrics(registry, shared=False)
    together.scored(served, rows_ND, scores, 0.001)
    for n in range(len(rows_ND)):
        one = Scores(*(each[n : n + 1] for each in scores))
        alone.scored(served, rows_ND[n : n + 1], one, 0.001)
    found = []
    for metrics in (together, alone):
        values = samples(metrics.expose("")[0].decode())
        found.append(
            {
                key: value
                for key, value in values.items()
                if key[0].startswith(
                    (
                        "hourglass_p_value",
                        "hourglass_severity",
                        "hourglass_score_ratio",
                        "hourglass_vectors",
                        "hourglass_anomalies",
                    )
                )
            }
        )
    assert found[0].keys() == found[1].keys()
    assert list(found[0].values()) == pytest.approx(list(found[1].values()), rel=1e-6)
    assert (
        values["hourglass_batch_rows_count", "plain"]
        == values["hourglass_vectors_total", "plain"]
        == 700
    )
