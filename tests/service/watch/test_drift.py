"""Drift, from what is counted beside the loop to what the route says of it."""

import asyncio
import logging
import sqlite3
import time
from dataclasses import replace
from pathlib import Path

import httpx
import msgspec
import numpy as np
import pytest

from hourglass.service.model.artifact import DriftReference, Feature
from hourglass.service.model.detector import Detector, Scores
from hourglass.service.model.served import Served
from hourglass.service.watch.drift import MOST_CELLS, Drift, found_in
from hourglass.service.watch.drift_store import DriftStore
from hourglass.service.watch.drift_window import DriftWindow, Sampled, judge
from hourglass.service.watch.metrics import Metrics
from hourglass.service.watch.reference import (
    ABOVE,
    BELOW,
    MISSING,
    MOST_BINS,
    UNKNOWN,
    UNSEEN,
    encode,
    references_of,
)
from tests.artifacts import (
    MIXED,
    NUMERIC,
    as_json_rows,
    make_artifact,
    make_served,
    make_windowed_served,
    publish,
    sample_rows,
)
from tests.benchmarks.drift import lose, score_times, shift, simulate
from tests.serving import Process, serving

# that of 400 windows hold at most 1 % of findings is a fixed outcome of these seeds; the limit is
# where 1 in 100 would be met in 95 of 100 such simulations
MOST = 0.0175


GOLDEN = Path(__file__).parents[2] / "contract/golden"


class Models:
    """A registry that serves one model."""

    def __init__(self, served: Served) -> None:
        self.served, self.names = {served.name: served}, frozenset((served.name,))


@pytest.fixture(scope="module")
def served() -> Served:
    return make_served(MIXED)


def watch(served: Served, path: Path | None = None, **options: float) -> Drift:
    store = DriftStore(path, time.time())
    return Drift(Models(served), store, **{"rows": 200, "seconds": 0.0, **options})  # type: ignore[arg-type]


def score(metrics: Metrics, served: Served, rows_ND: np.ndarray, *, together: int) -> None:
    for start in range(0, len(rows_ND), together):
        part = np.ascontiguousarray(rows_ND[start : start + together])
        metrics.scored(served, part, served.detector.score(part), 0.0)


def test_cells_are_in_the_bins_that_the_manifest_counts(served: Served) -> None:
    rows_ND = sample_rows(MIXED, 1000, seed=3)  # as make_artifact draws the fit rows
    codes_ND = encode(references_of(served.detector.manifest), rows_ND)
    for drift, code_N in zip(served.detector.manifest.drift, codes_ND.T, strict=True):
        beyond = np.where(code_N == BELOW, 0, np.where(code_N == ABOVE, 9, code_N))
        assert tuple(np.bincount(beyond, minlength=len(drift.counts))) == drift.counts
    odd_ND = np.array([[np.nan, np.nan, np.nan, 4], [-4, 1, -1, np.nan]], np.float32)
    codes_ND = encode(references_of(served.detector.manifest), odd_ND)
    assert codes_ND.tolist() == [[MISSING] * 3 + [ABOVE], [BELOW, 1, UNSEEN, MISSING]]


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.onnx")), ids=lambda path: path.stem)
def test_every_published_file_holds_a_reference(path: Path) -> None:
    manifest = Detector.from_bytes(path.read_bytes()).manifest
    for reference in references_of(manifest):
        assert reference.seen + reference.missing >= manifest.rows.fit  # of windows those before
        assert len(reference.counts_B) >= 2 or reference.seen == 0


def test_rare_categories_share_a_bin_and_an_older_file_has_none() -> None:
    feature = Feature(
        name="kind", kind="categorical", categories=tuple("abcdefghijklmnopqrstuvwxyz")
    )
    counts = tuple(range(26))
    manifest = msgspec.structs.replace(
        make_served(NUMERIC).detector.manifest,
        features=(feature, feature),
        drift=(DriftReference(counts=counts), DriftReference()),
    )
    known, without = references_of(manifest)
    assert known.counts_B.tolist() == [*range(25, 25 - MOST_BINS, -1), sum(range(6))]
    assert known.labels[0] == "z"
    assert known.labels[-1] == "other values"
    cells = np.array([25, 0, -1, np.nan], np.float32)
    assert known.encode(cells).tolist() == [0, MOST_BINS, UNSEEN, MISSING]
    assert without.encode(cells).tolist() == [UNKNOWN] * 3 + [MISSING]


@pytest.mark.parametrize(
    ("change", "what", "said"),
    [
        (lambda rows: rows.__setitem__((slice(None), 0), rows[:, 0] + 0.5), "distribution", "load"),
        (
            lambda rows: rows.__setitem__((slice(0, 1000, 20), 3), np.nan),
            "missing",
            "heat is missing in",
        ),
        (
            lambda rows: rows.__setitem__((slice(0, 1000, 25), 0), 5.0),
            "outside",
            "load lies outside -3",
        ),
        (
            lambda rows: rows.__setitem__((slice(0, 1000, 25), 2), -1.0),
            "outside",
            "site has a category",
        ),
        (
            lambda rows: rows.__setitem__((slice(0, 1000, 2), 1), 1.0),
            "distribution",
            "open is false",
        ),
    ],
)
def test_what_changed_is_found_and_named(served: Served, change, what: str, said: str) -> None:
    rows_ND = sample_rows(MIXED, 1000, seed=11)
    assert judged(served, rows_ND).findings == []
    change(rows_ND)
    findings = [each for each in judged(served, rows_ND).findings if each.what == what]
    assert [each.sentence.startswith(said) for each in findings] == [True]


def write(drift: Drift) -> None:
    """As the clock does once a second."""
    drift._thread.submit(drift._work, drift._take()).result()


def judged(served: Served, rows_ND: np.ndarray) -> DriftWindow:
    references = references_of(served.detector.manifest)
    scores = served.detector.score(rows_ND)
    sampled = Sampled(
        began=0.0,
        ended=1.0,
        seen=len(rows_ND),
        codes_ND=encode(references, rows_ND),
        p_value_N=scores.p_value,
        alarm_N=served.threshold.is_anomaly(scores.score),
        threshold=served.threshold,
    )
    return judge(served, references, sampled)


@pytest.mark.slow
def test_where_nothing_changes_at_most_one_window_in_a_hundred_finds_something() -> None:
    """Thirty features of several kinds, 92 tests a window, fit and calibration rows drawn anew."""
    found = simulate(200, fit=2000, calibration=500)
    assert found.findings <= MOST
    assert found.drifts == 0


@pytest.mark.slow
def test_rows_that_depend_on_each_other_alarm_no_more() -> None:
    found = simulate(60, fit=10_000, calibration=3000, memory=0.9)
    assert found.effect > 3
    assert found.drifts <= MOST


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "about"),
    [
        (shift(0.5), ("f0",)),
        (lose(0.02), ("f0",)),
        (score_times(1e-9), ("alarms_under",)),
        (score_times(2.0), ("alarms_over",)),
    ],
    ids=["half a deviation", "missing", "blind", "twice as strange"],
)
def test_what_changes_is_a_drift_within_two_windows(change, about: tuple[str, ...]) -> None:
    found = simulate(15, change=change, about=about)
    assert (found.seen, found.drifts) == (1.0, 1.0)


def test_two_windows_running_make_a_drift_and_say_since_when(served: Served) -> None:
    ordinary, moved = sample_rows(MIXED, 1000, seed=5), sample_rows(MIXED, 1000, seed=6)
    moved[:, 0] += 0.5
    quiet, loud = (judged(served, rows_ND) for rows_ND in (ordinary, moved))
    at = [msgspec.structs.replace(loud, began=float(k)) for k in range(4)]
    assert found_in([]) == found_in([quiet]) == found_in([quiet, loud]) == []
    (once,) = found_in([at[3], quiet, at[1]])
    assert (once.is_drift, once.windows, once.since) == (False, 1, 3)
    (often,) = found_in([at[3], at[2], at[1], quiet, at[0]])
    assert (often.is_drift, often.windows, often.since) == (True, 3, 1)


@pytest.mark.parametrize("together", [1, 37, 2000])
def test_single_rows_and_bulk_are_looked_at_alike(served: Served, together: int) -> None:
    drift = watch(served, rows=100_000)
    metrics = Metrics(Models(served), shared=False, drift=drift)  # type: ignore[arg-type]
    rows_ND = sample_rows(MIXED, 2000, seed=1)
    score(metrics, served, rows_ND, together=together)
    report = asyncio.run(drift.report(served))
    assert report.so_far is not None
    assert (report.so_far.rows, report.so_far.seen) == (2000, 2000)
    expected = judged(served, rows_ND)
    assert report.so_far.features == expected.features
    assert report.so_far.answers == expected.answers
    drift.close()


def test_of_a_large_request_a_fair_share_is_looked_at(served: Served) -> None:
    drift = watch(served, rows=100_000)
    metrics = Metrics(Models(served), shared=False, drift=drift)  # type: ignore[arg-type]
    rows_ND = np.zeros((60_000, 4), np.float32)
    rows_ND[:, 0] = np.linspace(-2.9, 2.9, 60_000)  # of which a first part would be lower
    zeros = Scores(*(np.full(60_000, 0.5, np.float32) for _ in range(3)))
    for _ in range(2):  # of the second there is no room left
        metrics.scored(served, rows_ND, zeros, 0.0)
    report = asyncio.run(drift.report(served))
    assert report.so_far is not None
    room = MOST_CELLS // 4
    assert 0.9 * room < report.so_far.rows <= 1.1 * room
    assert report.so_far.seen == pytest.approx(120_000)
    load = next(each for each in report.so_far.features if each.feature == "load")
    expected = np.bincount(
        np.searchsorted(
            np.array(served.detector.manifest.drift[0].edges, np.float32), rows_ND[:, 0], "right"
        )
    )
    assert load.observed == pytest.approx(expected / 60_000, abs=0.01)
    drift.close()


def test_at_a_high_pace_a_window_holds_a_few_thousand_rows_of_all_it_spans(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    drift = watch(served, rows=1000, seconds=600.0)
    metrics = Metrics(Models(served), shared=False, drift=drift)  # type: ignore[arg-type]
    scores = Scores(*(np.full(500, 0.5, np.float32) for _ in range(3)))
    rows_ND = sample_rows(MIXED, 500, seed=2)
    for _ in range(620):
        for _ in range(4):
            metrics.scored(served, rows_ND, scores, 0.0)
        now += 1.0
        write(drift)
    report = asyncio.run(drift.report(served))
    (window,) = report.windows
    assert window.seen == pytest.approx(2000 * 600, rel=0.1)
    assert 1000 <= window.rows <= 5000
    drift.close()


def test_a_new_version_begins_anew_and_a_new_budget_leaves_features_alone(
    served: Served,
) -> None:
    models = Models(served)
    drift = Drift(models, DriftStore(None, 0.0), rows=500, seconds=0.0)  # type: ignore[arg-type]
    metrics = Metrics(models, shared=False, drift=drift)  # type: ignore[arg-type]
    rows_ND = sample_rows(MIXED, 300, seed=1)
    score(metrics, served, rows_ND, together=50)
    write(drift)
    other = replace(served, threshold=served.detector.table.threshold(0.1, 0.05))
    models.served["tiny"] = other
    score(metrics, other, sample_rows(MIXED, 300, seed=2), together=50)
    report = asyncio.run(drift.report(other))
    (window,) = report.windows
    assert window.rows == 600
    assert window.answers.promised is None
    newer = make_served(MIXED, seed=4)
    models.served["tiny"] = newer
    score(metrics, other, rows_ND, together=50)  # its answers were under way
    score(metrics, newer, rows_ND, together=300)
    report = asyncio.run(drift.report(newer))
    assert report.windows == []
    assert report.so_far is not None
    assert report.so_far.rows == 300
    drift.close()


def test_the_rows_that_a_window_looks_back_at_do_not_count_again() -> None:
    served = make_windowed_served(NUMERIC, rows=4)
    drift = watch(served, rows=1000)
    metrics = Metrics(Models(served), shared=False, drift=drift)  # type: ignore[arg-type]
    series_TD = sample_rows(NUMERIC, 103, seed=1)
    scores = Scores(*(np.full(100, 0.5, np.float32) for _ in range(3)))
    metrics.scored(served, series_TD, scores, 0.0, "pump")
    for row in range(3, 103):
        one = Scores(*(np.full(1, 0.5, np.float32) for _ in range(3)))
        metrics.scored(served, series_TD[row - 3 : row + 1], one, 0.0, "pump")
    report = asyncio.run(drift.report(served))
    assert report.so_far is not None
    assert report.so_far.rows == 200
    twice = np.concatenate([series_TD[3:], series_TD[3:]])
    codes = encode(references_of(served.detector.manifest), twice)
    observed = np.bincount(codes[:, 0][codes[:, 0] < BELOW], minlength=10)
    a = next(each for each in report.so_far.features if each.feature == "a")
    assert np.abs(np.array(a.observed) * 200 - observed).max() <= 2  # those beyond the range
    assert drift.rows_of(served) == 4 * 1000  # they depend on each other
    drift.close()


def test_what_cannot_be_written_is_said_once_and_scores_go_on(
    served: Served, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    drift = watch(served)
    metrics = Metrics(Models(served), shared=False, drift=drift)  # type: ignore[arg-type]

    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patched, caplog.at_level(logging.WARNING):
        patched.setattr(DriftStore, "add", full)
        for seed in range(3):
            score(metrics, served, sample_rows(MIXED, 50, seed=seed), together=1)
            write(drift)
    assert caplog.text.count("drift is not watched: database or disk is full") == 1
    score(metrics, served, sample_rows(MIXED, 250, seed=9), together=250)
    report = asyncio.run(drift.report(served))
    assert [window.rows for window in report.windows] == [250]
    assert "drift is watched again" in caplog.text
    drift.close()


def drifting_model(models: Path) -> None:
    publish(models, "pumps", make_artifact(MIXED, calibration_rows=1000))


def send(url: str, rows: int, *, seed: int, moved: float = 0.0) -> None:
    rows_ND = sample_rows(MIXED, rows, seed=seed)
    rows_ND[:, 0] += moved
    sent = as_json_rows(MIXED, rows_ND)
    for start in range(0, rows, 100):  # each on its own connection: of any worker
        body = {"rows": sent[start : start + 100]}
        httpx.post(f"{url}/v1/models/pumps/score", json=body).raise_for_status()


def test_a_server_says_what_moved_since_when_and_what_to_do(tmp_path: Path) -> None:
    drifting_model(tmp_path)
    with serving(tmp_path, drift_seconds=0.0) as client:
        url, ask = str(client.base_url), lambda: client.get("/v1/models/pumps/drift").json()
        assert ask()["state"] == "unknown"
        send(url, 1000, seed=1)
        first = ask()
        assert (first["state"], first["advice"]) == ("stable", "Nothing.")
        assert first["sentence"].startswith("Nothing has moved: 1,000 rows up to 20")
        send(url, 1000, seed=2, moved=0.5)
        assert ask()["state"] == "suspected"
        assert metric(client, 'hourglass_drift{model="pumps",what="distribution"}') == 0
        send(url, 1000, seed=3, moved=0.5)
        second = ask()
        assert second["state"] == "drifting"
        assert "load is at or above" in second["sentence"]
        assert "what sends load" in second["advice"]
        load = next(each for each in second["findings"] if each["what"] == "distribution")
        assert (load["feature"], load["windows"], load["drifting"]) == ("load", 2, True)
        assert load["since"] == second["history"][1]["began"]
        assert metric(client, 'hourglass_drift{model="pumps",what="distribution"}') == 1
        assert metric(client, 'hourglass_drift{model="pumps",what="missing"}') == 0
        assert metric(client, 'hourglass_drifting_features{model="pumps"}') == 1
        assert metric(client, 'hourglass_drift_psi_ratio{feature="load",model="pumps"}') > 2
        send(url, 1000, seed=4)
        assert ask()["state"] == "stable"
        assert client.get("/v1/models/nobody/drift").status_code == 404


def metric(client: httpx.Client, name: str) -> float:
    (line,) = [each for each in client.get("/metrics").text.splitlines() if each.startswith(name)]
    return float(line.rpartition(" ")[2])


@pytest.mark.slow
def test_workers_fill_one_window_and_a_restart_goes_on(tmp_path: Path) -> None:
    models, journal = tmp_path / "models", tmp_path / "journal.sqlite"
    models.mkdir()
    drifting_model(models)
    flags = ("--workers", "2", "--drift-seconds", "0", "--journal", str(journal))

    def told(process: Process, rows: int) -> dict[str, object]:
        deadline = time.monotonic() + 20
        while True:  # each worker writes once a second
            answer = httpx.get(f"{process.url}/v1/models/pumps/drift").json()
            so_far = answer["so_far"]["rows"] if answer["so_far"] else 0
            if sum(each["rows"] for each in answer["history"]) + so_far >= rows:
                return answer
            assert time.monotonic() < deadline
            time.sleep(0.2)

    with Process(models, *flags) as process:
        send(process.url, 600, seed=1, moved=0.5)
        assert told(process, 600)["history"] == []
        send(process.url, 400, seed=2, moved=0.5)
        assert told(process, 1000)["state"] == "suspected"
        assert process.stop() == 0
    with Process(models, *flags) as process:
        send(process.url, 1000, seed=3, moved=0.5)
        assert told(process, 2000)["state"] == "drifting"
        deadline = time.monotonic() + 20
        while 'hourglass_drift{model="pumps",what="distribution"} 1.0' not in (
            httpx.get(f"{process.url}/metrics").text
        ):
            assert time.monotonic() < deadline
            time.sleep(0.2)
        assert process.stop() == 0
