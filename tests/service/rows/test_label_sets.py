"""Which series an expression of PromQL reads."""

import pytest

from hourglass.service.rows.label_sets import selectors
from hourglass.service.rows.times import span_seconds


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("up", ["up"]),
        ('rate(x_total{a="}(",b=~"c"}[5m])', ['x_total{a="}(",b=~"c"}']),
        (
            "sum by (instance) (rate(http_total[5m] offset 1h)) / on(instance) group_left(job)"
            " load1 > bool 5",
            ["http_total", "load1"],
        ),
        ('{__name__=~"a.*"}', ['{__name__=~"a.*"}']),
        ('{"a.b", c="d"}', ['{"a.b", c="d"}']),
        ("histogram_quantile(0.9, sum by (le) (rate(b_bucket[1m])))", ["b_bucket"]),
        ("max_over_time(max by(i)(q)[5m:1m])", ["q"]),
        ("time() - a # of b\n + c", ["a", "c"]),
        ("a and b or a unless on (x) d", ["a", "b", "d"]),
        ("sum without (x) (y) + count(z @ start())", ["y", "z"]),
        ("topk(3, foo:bar{a='b\\'}'})", ["foo:bar{a='b\\'}'}"]),
        ("1e9 * x + 0x1f - inf", ["x"]),
        ("vector(1)", []),
    ],
)
def test_the_series_that_an_expression_reads_are_found(
    expression: str, expected: list[str]
) -> None:
    assert selectors(expression) == expected


@pytest.mark.parametrize(
    ("text", "seconds"), [("30s", 30), ("1h30m", 5400), ("14d", 1_209_600), ("500ms", 0.5)]
)
def test_a_span_is_read_as_prometheus_writes_it(text: str, seconds: float) -> None:
    assert span_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "30", "s", "-5m", "5 m", "0s", "1h5", "999999y"])
def test_what_is_no_span_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected a span such as 30s"):
        span_seconds(text)
