"""From rows to a person: an event opens and closes in a stream, and others are told of it."""

import msgspec
import pytest

from tests.artifacts import make_artifact, publish
from tests.receivers import receiving
from tests.service.api.test_streams import rows_of, send, strange, times
from tests.serving import serving, wait_until

SECRET = "0123456789abcdef"


@pytest.fixture
def models(tmp_path):
    publish(tmp_path / "models", "rows", make_artifact(conditional=True))
    return tmp_path / "models"


def bodies(receiver):
    return [msgspec.json.decode(each.body) for each in receiver.received]


def test_a_webhook_and_an_alertmanager_are_told_of_an_event_once_when_it_opens_and_when_it_closes(
    models,
):
    with (
        receiving(500) as hook,
        receiving() as manager,
        serving(
            models, webhook=hook.url, webhook_secret=SECRET, alertmanager=manager.url
        ) as client,
    ):
        send(client, "rows", "a", rows_of(20), times(0, 20))
        opened = send(client, "rows", "a", strange(10), times(20, 10))["changes"]
        wait_until(lambda: len(hook.received) == 2 and manager.received)
        closed = send(client, "rows", "a", rows_of(40), times(30, 40))["changes"]
        wait_until(lambda: len(hook.received) == 3 and len(manager.received) == 2)
        metrics = client.get("/metrics").text
    assert [each["type"] for each in bodies(hook)] == ["event.opened"] * 2 + ["event.closed"]
    assert [each["data"] for each in bodies(hook)] == [*opened, *opened, *closed]
    (first,), (last,) = bodies(manager)
    assert (
        first["labels"]
        == last["labels"]
        == {
            "alertname": "HourglassEvent",
            "model": "rows",
            "entity": "a",
        }
    )
    assert last["startsAt"] == opened[0]["start"]
    assert last["endsAt"] == closed[0]["end"]
    for outcome, count in (("delivered", 2), ("failed", 1), ("dropped", 0)):
        wanted = f'hourglass_notices_total{{outcome="{outcome}",receiver="webhook"}} {count}.0'
        assert wanted in metrics


def test_after_a_restart_alertmanager_is_told_again_of_what_is_open_and_a_webhook_is_not(models):
    with serving(models) as client:
        send(client, "rows", "a", rows_of(20), times(0, 20))
        (opened,) = send(client, "rows", "a", strange(10), times(20, 10))["changes"]
    with (
        receiving() as hook,
        receiving() as manager,
        serving(models, webhook=hook.url, webhook_secret=SECRET, alertmanager=manager.url),
    ):
        wait_until(lambda: manager.received)
    assert bodies(manager)[0][0]["annotations"]["event"] == opened["id"]
    assert hook.received == []
