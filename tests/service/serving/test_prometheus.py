"""What is asked of a real Prometheus: ranges in parts, rows of label sets, what is missing or late."""

import time
from collections.abc import Iterator

import numpy as np
import pytest

from hourglass.service.errors import InvalidSettings
from hourglass.service.serving.prometheus import (
    Grid,
    Prometheus,
    PrometheusAway,
    PrometheusRefused,
    grid_until,
    say_several,
)
from tests import prometheus as real
from tests.prometheus import Written
from tests.receivers import receiving
from tests.serving import free_port

LENGTH = 12_000  # more than Prometheus answers at once
GAP = range(9_000, 9_100)
BEGIN = int(time.time()) // 100 * 100 - LENGTH - 1000
ALL = Grid(BEGIN, LENGTH, 1.0)


def load_of(pump: int, second: int) -> float:
    return 100 * pump + second % 60


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[real.Prometheus]:
    """Two pumps, and much of what can be wrong; no more than 15,000 samples are loaded at a time."""
    seconds = [second for second in range(LENGTH) if second not in GAP]
    few = range(LENGTH - 200, LENGTH)
    written = [
        *(
            Written(
                "load",
                {"pump": name, "site": "north"},
                [(BEGIN + second, load_of(pump, second)) for second in seconds],
            )
            for pump, name in enumerate(("left", "right"))
        ),
        Written("flow", {"pump": "right"}, [(BEGIN + second, 2.5) for second in few]),
        Written("air", {}, [(BEGIN + second, 20.0) for second in few]),
        *(
            Written("valve", {"pump": "left", "of": of}, [(BEGIN + second, 1.0) for second in few])
            for of in ("in", "out")
        ),
        Written("odd", {"pump": "left"}, [(BEGIN + second, float("inf")) for second in few]),
    ]
    folder = tmp_path_factory.mktemp("prometheus")
    with real.running(folder, written, options=["--query.max-samples=15000"]) as found:
        yield found


def last(count: int) -> Grid:
    return grid_until(BEGIN + LENGTH - 1, 1.0, count)


def test_a_long_range_is_asked_in_parts_and_what_comes_is_what_was_written(
    server: real.Prometheus,
) -> None:
    with pytest.raises(PrometheusRefused, match="11,000 points"):
        Prometheus(server.url)._ask_part("load", ALL, 0, LENGTH, "load", {})
    # 10,000 points of two series and what is looked back at are too many samples: asked in halves
    asked = Prometheus(server.url).ask({"load": "load"}, ALL, late_seconds=1.0)
    assert asked.labels == ("pump", "site")
    assert asked.joined.entities == (("left", "north"), ("right", "north"))
    expected = [[load_of(pump, second) for second in range(LENGTH)] for pump in (0, 1)]
    gap = slice(GAP.start, GAP.stop)
    values_ET = asked.joined.values_ETD[:, :, 0]
    # for five minutes Prometheus takes the last sample for the present; one step later it is late
    assert np.isnan(values_ET[:, GAP.start + 1 : GAP.stop]).all()
    assert asked.late_ETD[:, GAP.start + 1 : GAP.stop].all()
    assert not asked.joined.is_row_ET[:, GAP.start + 1 : GAP.stop].any()
    np.testing.assert_array_equal(values_ET[:, : gap.start], np.array(expected)[:, : gap.start])
    np.testing.assert_array_equal(values_ET[:, gap.stop :], np.array(expected)[:, gap.stop :])


def test_expressions_are_joined_by_the_labels_that_all_have(server: real.Prometheus) -> None:
    queries = {"load": "load", "flow": "flow * 2", "air": "sum(air)", "odd": "odd"}
    asked = Prometheus(server.url).ask(queries, last(3), late_seconds=5.0)
    assert asked.labels == ("pump",)
    assert asked.joined.entities == (("left",), ("right",))
    nan, ages = float("nan"), [(LENGTH - 3 + place) % 60 for place in range(3)]
    np.testing.assert_array_equal(
        asked.joined.values_ETD,
        # what has no labels is of all, and what is infinite is missing
        [[[age, nan, 20, nan] for age in ages], [[100 + age, 5, 20, nan] for age in ages]],
    )
    assert asked.joined.is_row_ET.all()


def test_where_only_what_is_of_all_has_a_value_there_is_no_row(server: real.Prometheus) -> None:
    queries = {"load": "load", "air": "vector(1)"}
    asked = Prometheus(server.url).ask(queries, ALL, late_seconds=5.0)
    gone = slice(GAP.start + 5, GAP.stop)
    assert not asked.joined.is_row_ET[:, gone].any()
    assert asked.joined.is_row_ET[:, GAP.stop :].all()


def test_several_values_of_one_entity_are_none_and_are_named(server: real.Prometheus) -> None:
    queries = {"load": "load", "valve": "valve"}
    asked = Prometheus(server.url).ask(queries, last(3), late_seconds=5.0)
    assert np.isnan(asked.joined.values_ETD[0, :, 1]).all()
    (found,) = asked.joined.several
    assert say_several(found, list(queries), asked.labels) == (
        "expression 'valve' has several values for {pump=\"left\"}, such as those of"
        ' {of="in", pump="left"} and {of="out", pump="left"}: expected one, as max by (pump) (...)'
        " gives"
    )


def test_samples_are_late_behind_whatever_an_expression_makes_of_them(
    server: real.Prometheus,
) -> None:
    after = Grid(BEGIN + GAP.start + 10, 1, 1.0)  # ten seconds into the gap
    for text in ("load", "sum by (pump) (load)", "max by (pump) (max_over_time(load[1m]))"):
        at_once = Prometheus(server.url).ask({"load": text}, after, late_seconds=12.0)
        assert at_once.joined.is_row_ET.all(), text
        later = Prometheus(server.url).ask({"load": text}, after, late_seconds=9.0)
        assert later.late_ETD.all(), text
        assert not later.joined.is_row_ET.any(), text
    # of series that share no label with the entities the newest counts
    whole = Prometheus(server.url).ask({"load": "sum(load)"}, after, late_seconds=9.0)
    assert whole.late_ETD.all()


def test_a_selector_may_be_of_several_metrics(server: real.Prometheus) -> None:
    text = 'count by (pump) ({__name__=~"load|flow"})'
    asked = Prometheus(server.url).ask({"all": text}, last(1), late_seconds=5.0)
    assert asked.joined.values_ETD[:, 0, 0].tolist() == [1, 2]


def test_an_expression_that_is_refused_is_named_with_prometheus_own_words(
    server: real.Prometheus,
) -> None:
    with pytest.raises(PrometheusRefused, match=r"^expression 'flow': .*parse error"):
        Prometheus(server.url).ask({"load": "load", "flow": "flow +"}, last(1), late_seconds=5.0)
    told: list[str] = []
    asked = Prometheus(server.url).ask(
        {"load": "load", "flow": "flow +"},
        last(1),
        late_seconds=5.0,
        on_refusal=lambda name, _: told.append(name),
    )
    assert told == ["flow"]
    assert np.isnan(asked.joined.values_ETD[:, 0, 1]).all()


@pytest.mark.parametrize(
    "url",
    [
        *("127.0.0.1:9090", "ftp://x", "http://", "http://a:secret@b:1", "http://[::1"),
        *("http://b:x", "http://a:secret@b:x"),
    ],
)
def test_what_is_no_address_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(InvalidSettings) as caught:
        Prometheus(url)
    assert "secret" not in str(caught.value)


def test_who_is_not_there_or_no_prometheus_is_away() -> None:
    with pytest.raises(PrometheusAway, match=r"no answer from .*refused"):
        Prometheus(f"http://127.0.0.1:{free_port()}").series("up", last(1))
    with (
        receiving(200) as other,
        pytest.raises(PrometheusAway, match="answered 200 and not as a Prometheus does"),
    ):
        Prometheus(other.url, token="t0ken").series("up", last(1))
    (request,) = other.received
    assert request.headers["authorization"] == "Bearer t0ken"
    assert request.path == "/hook/api/v1/query_range"


def test_a_token_goes_to_the_address_that_was_given_and_to_no_other() -> None:
    with (
        receiving() as another,
        receiving(302, location=another.url) as known,
        pytest.raises(PrometheusAway, match="answered 302 and not as a Prometheus does"),
    ):
        Prometheus(known.url, token="t0ken").series("up", last(1))


def test_a_token_of_a_file_is_taken_without_its_lines_end_and_never_shown() -> None:
    with receiving(200) as other, pytest.raises(PrometheusAway):
        Prometheus(other.url, token="t0ken\n").series("up", last(1))
    assert other.received[0].headers["authorization"] == "Bearer t0ken"
    for token in ("t0ken\nx: y", "t0kén"):
        with pytest.raises(InvalidSettings, match="PROMETHEUS_TOKEN: expected printable") as caught:
            Prometheus("http://127.0.0.1:9", token=token)
        assert "t0k" not in str(caught.value)
