"""Recorder: scored rows as Parquet, whole files or none, and what happens where they cannot be
written.
"""

import errno
import os
import time
from pathlib import Path

import httpx
import numpy as np
import polars as pl
import pytest

from hourglass.service.errors import InvalidSettings
from hourglass.service.model.artifact import Feature
from hourglass.service.watch import record_place
from hourglass.service.watch import recording as recordings
from hourglass.service.watch.record_place import Folder
from hourglass.service.watch.recording import ALARM, ANSWERS, ENTITY, TIME, UNKNOWN, Recording
from hourglass.training.recorded import read_recording
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
from tests.service.watch.test_metrics import samples
from tests.serving import Process, serving, wait_until


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/*/*.parquet"))


def table(folder: Path, model: str = "pump") -> pl.DataFrame:
    return pl.concat([pl.read_parquet(path) for path in files(folder) if path.parts[-3] == model])


def recorded(rows_ND: np.ndarray, at: float = 1.7e9) -> recordings.Recorded:
    zeros_N = np.zeros(len(rows_ND), np.float32)
    return recordings.Recorded(
        rows_ND, np.full(len(rows_ND), at), zeros_N, zeros_N, zeros_N > 0, [None] * len(rows_ND)
    )


@pytest.mark.parametrize("fast", [False, True])
def test_what_was_sent_and_answered_is_in_the_file(tmp_path: Path, fast: bool) -> None:
    version = publish(tmp_path / "models", "pump", make_artifact(MIXED))
    rows_ND = sample_rows(MIXED, 40, seed=4)
    rows_ND[3, 0] = rows_ND[4, 1] = rows_ND[5, 2] = np.nan
    rows_ND[6] = 9  # an alarm
    rows_ND[6, 1:3] = 1
    sent = as_json_rows(MIXED, rows_ND)
    sent[7][2] = "nowhere"
    began = time.time()
    folder = tmp_path / "recorded"
    options = {"record": f"file://{folder}", "record_share": 1.0}
    with serving(tmp_path / "models", fast=fast, **options) as client:
        answers = []
        for part in (sent[:1], sent[1:2], sent[2:]):
            answer = client.post("/v1/models/pump/score", json={"rows": part})
            answers.append(answer.raise_for_status().json())
        for odd in ([None] * 4, [3e38, True, "west", 3e38]):  # whose score is not finite
            refused = {"rows": [odd]}
            assert client.post("/v1/models/pump/score", json=refused).status_code == 422
        client.post("/v1/models/pump/explain", json={"rows": sent[:5]}).raise_for_status()
        assert files(folder) == []  # none is closed
    (path,) = files(folder)
    assert path.parent.name == time.strftime("%Y-%m-%d", time.gmtime(path.stat().st_mtime))
    assert [each.stat().st_mode & 0o777 for each in (folder, path)] == [0o700, 0o600]
    frame = pl.read_parquet(path)
    assert frame.columns == [*(feature.name for feature in MIXED), *ANSWERS]
    assert frame.schema["load"] == pl.Float32
    sent[7][2] = None  # it is not known what it was
    for row, values in zip(frame.select("load", "open", "site", "heat").rows(), sent, strict=True):
        assert row == tuple(
            np.float32(each) if isinstance(each, float) else each for each in values
        )
    for name, field in (("score", "score"), ("p_value", "p_value"), ("alarm", "is_anomaly")):
        told = [value for answer in answers for value in answer[field]]
        assert frame[f"hourglass_{name}"].to_list() == pytest.approx(told, rel=1e-6)
    assert frame[ALARM][6]
    assert frame["hourglass_version"].unique().to_list() == [version]
    assert frame[UNKNOWN].to_list() == [None] * 7 + ["site"] + [None] * 32
    assert frame[ENTITY].null_count() == 40
    assert frame[TIME].is_between(began, time.time()).all()


def test_files_end_by_rows_or_by_age_and_the_oldest_make_room(tmp_path: Path) -> None:
    publish(tmp_path / "models", "pump", make_artifact())
    rows = {"rows": sample_rows(NUMERIC, 50, seed=4).tolist()}
    folder = tmp_path / "recorded"
    options = {
        "record": str(folder),
        "record_share": 1.0,
        "record_seconds": 1.0,
        "record_rows": 100,
    }
    with serving(tmp_path / "models", **options) as client:
        client.post("/v1/models/pump/score", json=rows).raise_for_status()
        wait_until(lambda: len(files(folder)) == 1)  # by its age
        for _ in range(2):
            client.post("/v1/models/pump/score", json=rows).raise_for_status()
        wait_until(lambda: table(folder).height == 150)
        wait_until(lambda: recorded_rows(client) == (150, 0, 0))
    size = files(folder)[0].stat().st_size
    name, own = "000000-a-1-0123abcd.parquet", folder / "mine/rows/2020.parquet"
    old, half = folder / "fan/2020-01-01" / name, folder / f"fan/2020-01-01/.{name}-x"
    old.parent.mkdir(parents=True)
    own.parent.mkdir(parents=True)
    for path in (old, half, own):
        path.write_bytes(b"x" * size)
        os.utime(path, (1.5e9, 1.5e9))
    with serving(tmp_path / "models", **options, record_bytes=3 * size) as client:
        client.post("/v1/models/pump/score", json=rows).raise_for_status()
        wait_until(lambda: recorded_rows(client)[0] == 50)
        gone = recorded_rows(client)[2]
    assert gone >= 1
    assert not old.parent.exists()  # what a killed process left went, too
    assert own.read_bytes() == b"x" * size  # nobody wrote it here
    own.unlink()
    assert sum(path.stat().st_size for path in files(folder)) <= 3 * size


def recorded_rows(client: httpx.Client) -> tuple[float, float, float]:
    values = samples(client.get("/metrics").text)
    names = ("recorded_rows_total", "record_lost_total", "record_removed_files_total")
    kept, lost, gone = (values[f"hourglass_{name}",] for name in names)
    return kept, lost, gone


def test_of_a_large_request_a_fair_share_is_recorded(tmp_path: Path) -> None:
    publish(tmp_path / "models", "pump", make_artifact())
    rows_ND = sample_rows(NUMERIC, 4000, seed=4)
    rows_ND[:, 0] = np.arange(4000) / 4000
    options = {"record": str(tmp_path / "recorded"), "record_share": 0.25}
    with serving(tmp_path / "models", **options) as client:
        body = {"rows": rows_ND.tolist()}
        client.post("/v1/models/pump/score", json=body).raise_for_status()
    frame = table(tmp_path / "recorded")
    assert frame.height == pytest.approx(1000, abs=140)  # 5 standard deviations
    assert frame["a"].mean() == pytest.approx(0.5, abs=0.05)


def test_of_streams_whole_entities_are_recorded_with_the_times_of_their_rows(
    tmp_path: Path,
) -> None:
    publish(tmp_path / "models", "pump", make_windowed_artifact(rows=4))
    rows = sample_rows(NUMERIC, 10, seed=4)
    rows[5] = np.nan  # cannot be judged, and is part of the windows of others
    sent = as_json_rows(NUMERIC, rows)
    at = [1.7e9 + 60 * row for row in range(10)]
    options = {"record": str(tmp_path / "recorded"), "record_share": 0.5}
    with serving(tmp_path / "models", **options) as client:
        for entity in range(40):
            path = f"/v1/models/pump/streams/pump-{entity}"
            for start, end in ((0, 1), (0, 6), (6, 10)):  # the first row is sent twice
                body = {"rows": sent[start:end], "time": at[start:end]}
                client.post(path, json=body).raise_for_status()
        client.post("/v1/models/pump/score", json={"rows": sent}).raise_for_status()
    frame = table(tmp_path / "recorded")
    entities = frame[ENTITY].unique()
    assert 8 <= len(entities) <= 32
    assert frame.height == 10 * len(entities)
    for _, own in frame.group_by(ENTITY):
        assert own[TIME].to_list() == at
        columns = own.select(feature.name for feature in NUMERIC).fill_null(np.nan).to_numpy()
        assert np.array_equal(columns, rows, equal_nan=True)
        assert (
            own["hourglass_score"].is_null().to_list()
            == [True] * 3 + [False] * 2 + [True] + [False] * 4
        )


def test_a_full_disk_is_counted_and_said_once_and_scores_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    publish(tmp_path / "models", "pump", make_artifact())
    rows = {"rows": sample_rows(NUMERIC, 50, seed=4).tolist()}
    folder = tmp_path / "recorded"
    options = {"record": str(folder), "record_share": 1.0, "record_rows": 1}

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def score() -> None:
        client.post("/v1/models/pump/score", json=rows).raise_for_status()

    with serving(tmp_path / "models", **options) as client:
        with monkeypatch.context() as patched:
            patched.setattr(record_place.os, "fsync", full)
            for lost in (50, 100):
                score()
                wait_until(lambda lost=lost: recorded_rows(client) == (0, lost, 0))
        assert list(folder.glob("pump/*/*")) == list(folder.glob("pump/*/.*")) == []
        score()
        wait_until(lambda: recorded_rows(client) == (50, 100, 0))
    assert caplog.text.count("rows are lost, and not recorded: [Errno 28] No space left") == 1
    assert caplog.text.count("rows are recorded again") == 1
    assert table(folder).height == 50


def test_what_memory_does_not_hold_is_lost_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(tmp_path / "models", "pump", make_artifact())
    monkeypatch.setattr("hourglass.service.watch.recorder.MOST_HELD", 100 * 12)
    rows = {"rows": sample_rows(NUMERIC, 80, seed=4).tolist()}
    with serving(
        tmp_path / "models", record=str(tmp_path / "recorded"), record_share=1.0
    ) as client:
        for _ in range(2):
            client.post("/v1/models/pump/score", json=rows).raise_for_status()
        wait_until(lambda: recorded_rows(client)[1] >= 80)
    assert table(tmp_path / "recorded").height == 80


def test_a_feature_of_a_columns_name_is_said(tmp_path: Path) -> None:
    feature = Feature(name="hourglass_score", kind="numeric")
    with pytest.raises(
        ValueError, match="has the name of what is recorded beside it: hourglass_sc"
    ):
        Recording(Folder(tmp_path), most_bytes=1).write(
            "pump", "v", [feature], [recorded(np.zeros((1, 1), np.float32))]
        )


@pytest.mark.slow
def test_a_killed_worker_loses_its_open_rows_alone_and_leaves_whole_files(tmp_path: Path) -> None:
    publish(tmp_path / "models", "pump", make_artifact())
    rows = {"rows": sample_rows(NUMERIC, 50, seed=4).tolist()}
    folder = tmp_path / "recorded"
    flags = ("--workers", "2", "--record", str(folder), "--record-share", "1")
    with Process(tmp_path / "models", *flags, HOURGLASS_RECORD_ROWS="50") as process:
        for _ in range(8):  # each on its own connection: of any worker
            httpx.post(f"{process.url}/v1/models/pump/score", json=rows).raise_for_status()
        wait_until(lambda: sum(map(len, map(pl.read_parquet, files(folder)))) == 400)
        httpx.post(f"{process.url}/v1/models/pump/score", json={"rows": rows["rows"][:7]})
        os.killpg(process.popen.pid, 9)
    assert table(folder).height == 400
    assert len({path.name.split("-")[2] for path in files(folder)}) <= 2


def test_a_bucket_takes_files_makes_room_and_is_read_by_a_retraining(
    tmp_path: Path, s3: Buckets, caplog: pytest.LogCaptureFixture
) -> None:
    publish(tmp_path, "pump", make_artifact())
    url, rows_ND = s3.make(), sample_rows(NUMERIC, 50, seed=4)
    recordings.prepare(url)
    s3.put(url, "mine/rows/2020.parquet", b"x")
    options = {"record": url, "record_share": 1.0, "record_rows": 1}
    with serving(tmp_path, **options) as client:
        for lost in (0, 50):
            client.post("/v1/models/pump/score", json={"rows": rows_ND.tolist()}).raise_for_status()
            wait_until(lambda lost=lost: recorded_rows(client) == (50, lost, 0))
            s3.stop()
        s3.start()
    assert (
        caplog.text.count(f"rows are lost, and not recorded: [Errno 5] {url} does not answer") == 1
    )
    frame = read_recording(url, "pump")
    assert np.array_equal(frame.select(each.name for each in NUMERIC).to_numpy(), rows_ND)
    with serving(tmp_path, **options, record_bytes=1) as client:
        client.post("/v1/models/pump/score", json={"rows": rows_ND.tolist()}).raise_for_status()
        wait_until(lambda: recorded_rows(client)[2] == 2)
    assert s3.keys(url) == {"mine/rows/2020.parquet"}


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("ftp://elsewhere/rows", "expected a folder, s3://BUCKET/PREFIX,"),
        ("file://elsewhere/rows", "or file:///FOLDER"),
        ("/dev/null/rows", "nothing can be written there"),
    ],
)
def test_where_nothing_can_be_recorded_is_said_before_the_start(url: str, said: str) -> None:
    with pytest.raises(InvalidSettings, match=said):
        recordings.prepare(url)


def test_without_polars_one_sentence_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recordings.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(InvalidSettings, match=r"--record needs polars: pip install 'hourglass"):
        recordings.prepare(str(tmp_path))
