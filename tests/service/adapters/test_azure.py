"""Detections of the retired Azure service's API: how they wait, end and fail."""

import json
import logging
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from hourglass.service.adapters import azure as module
from hourglass.service.adapters.azure import Azure, Judged, shown
from hourglass.service.errors import InvalidTable, Overloaded
from tests.serving import wait_until

SETUP = {"dataSource": "/data/x.csv"}


@pytest.fixture
def azure(tmp_path: Path) -> Iterator[Azure]:
    azure = Azure(tmp_path, ("/data",))
    yield azure
    azure.close()


def status(azure: Azure, identifier: str) -> str:
    return json.loads(azure.detection(identifier))["summary"]["status"]


def refuses(azure: Azure, said: str) -> bool:
    """Whether nothing may begin now, for that reason."""
    try:
        azure.begin(SETUP, lambda: Judged([], ()))
    except Overloaded as error:
        return said in str(error)
    return False


def test_a_detection_that_cannot_begin_takes_no_room(azure: Azure, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "MOST_WAITING", 1)
    for _ in range(3):
        with pytest.raises(TypeError):
            azure.begin({"dataSource": object()}, lambda: Judged([], ()))
    assert not [*azure.detections.path.glob("*.lock")]
    assert not refuses(azure, "wait")


def test_detections_are_made_one_after_the_other_and_so_many_may_wait(
    azure: Azure, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "MOST_WAITING", 2)
    go = threading.Event()

    def judge() -> Judged:
        assert go.wait(120)
        return Judged([{"timestamp": "x"}], ())

    first, answer = azure.begin(SETUP, judge)
    assert json.loads(answer) == {
        "resultId": first,
        "summary": {"status": "CREATED", "errors": [], "variableStates": [], "setupInfo": SETUP},
        "results": [],
    }
    second, _ = azure.begin(SETUP, judge)
    with pytest.raises(Overloaded, match="2 detections wait already"):
        azure.begin(SETUP, judge)
    wait_until(lambda: status(azure, first) == "RUNNING")
    assert status(azure, second) == "CREATED"
    go.set()
    wait_until(lambda: status(azure, second) == "READY")
    assert json.loads(azure.detection(first))["results"] == [{"timestamp": "x"}]
    wait_until(lambda: not refuses(azure, "2 detections wait"))  # there is room again


def test_a_detection_that_runs_into_an_error_says_so_and_a_bug_is_logged(
    azure: Azure, caplog: pytest.LogCaptureFixture
):
    def wrong() -> Judged:
        raise InvalidTable("the rows are none")

    def broken() -> Judged:
        raise ZeroDivisionError("inside")

    for judge, code, message in (
        (wrong, "InvalidData", "the rows are none"),
        (broken, "InternalError", "the service's log says what it was"),
    ):
        with caplog.at_level(logging.ERROR):
            identifier, _ = azure.begin(SETUP, judge)
            wait_until(lambda identifier=identifier: status(azure, identifier) == "FAILED")
        summary = json.loads(azure.detection(identifier))["summary"]
        assert summary["errors"] == [{"code": code, "message": message}]
    assert "ZeroDivisionError: inside" in caplog.text
    assert "the rows are none" not in caplog.text


def test_what_waits_when_the_service_ends_has_failed_in_the_next_one(tmp_path: Path):
    go, begun = threading.Event(), threading.Event()

    def judge() -> Judged:
        begun.set()
        assert go.wait(120)
        return Judged([], ())

    before = Azure(tmp_path, ("/data",))
    running, _ = before.begin(SETUP, judge)
    waiting, _ = before.begin(SETUP, judge)
    assert begun.wait(120)
    ending = threading.Thread(target=before.close)
    ending.start()
    wait_until(partial(refuses, before, "the service is about to end"))
    go.set()
    ending.join()
    del before
    after = Azure(tmp_path, ("/data",))
    assert status(after, running) == "READY"  # it is waited for
    assert status(after, waiting) == "FAILED"
    assert b'"code":"ServiceRestarted"' in after.detection(waiting)
    after.close()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "1970-01-01T00:00:00Z"),
        (1609459200.5, "2021-01-01T00:00:00.5Z"),
        (1609459200.123456, "2021-01-01T00:00:00.123456Z"),
        (1609459210.0, "2021-01-01T00:00:10Z"),
        (-62135596800.0, "0001-01-01T00:00:00Z"),
    ],
)
def test_times_are_written_as_the_api_has_them(seconds: float, text: str):
    assert shown(seconds) == text
