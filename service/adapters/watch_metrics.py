"""What a watch exposes on /metrics: a board as gauges with the entities' labels."""

import time
from collections.abc import Callable, Iterator, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import start_http_server
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from hourglass.service.adapters.watch import (
    ENTITY_STATES,
    EXPRESSION_STATES,
    Board,
    EntityState,
    Seen,
)
from hourglass.service.errors import InvalidSettings

OWN = ("model", "feature", "rank", "state")  # labels; an entity's of that name has a prefix
STALE_STEPS = 2.5  # after which what was asked last is no news


class WatchMetrics(Collector):
    """Gauges of the board that there is when it is scraped."""

    def __init__(self, model: str, board: Callable[[], Board], every: float | None = None) -> None:
        self._model, self._board, self._every = model, board, every

    def collect(self) -> Iterator[Metric]:
        board = self._board()
        if board.plan is None:
            yield self._one("up", "1 if Prometheus, and who judges, answered last.", 0.0)
            return
        step = self._every or board.plan.queries.step_seconds
        is_stale = time.time() - board.at > STALE_STEPS * step + 1
        info = InfoMetricFamily("hourglass_watch_model", "The model in use.", labels=["model"])
        info.add_metric([self._model], {"version": board.plan.version})
        yield info
        up = board.is_up and not is_stale
        yield self._one("up", "1 if Prometheus, and who judges, answered last.", float(up))
        yield self._one("asked_timestamp_seconds", "The time that was asked last.", board.at)
        yield self._one(
            "own_expressions",
            "1 if the version in use holds the expressions, 0 if the one before did.",
            float(board.plan.is_own),
        )
        yield from self._counters(board)
        expression = GaugeMetricFamily(
            "hourglass_watch_expression_state",
            f"1 for what the expression of a feature is: {', '.join(EXPRESSION_STATES)}.",
            labels=["model", "feature", "state"],
        )
        for feature, now in board.expressions.items():
            for state in EXPRESSION_STATES:
                expression.add_metric([self._model, feature, state], float(state == now))
        yield expression
        yield from self._entities(board, board.plan.queries.labels, is_stale=is_stale)

    def _entities(self, board: Board, labels: Sequence[str], *, is_stale: bool) -> Iterator[Metric]:
        names = ["model", *(f"exported_{each}" if each in OWN else each for each in labels)]

        def gauge(name: str, text: str, *more: str) -> GaugeMetricFamily:
            return GaugeMetricFamily(f"hourglass_watch_{name}", text, labels=[*names, *more])

        severity = gauge("severity", "-log10 of the p-value of the entity's row.")
        p_value = gauge("p_value", "Share of normal rows at least as strange.")
        alarm = gauge("alarm", "1 if the row is over the threshold.")
        event = gauge("event", "1 while an event of the entity is open.")
        blame = gauge(
            "blame", "Share of the score, of the features most to blame.", "feature", "rank"
        )
        missing = gauge("missing_features", "Features without a value.")
        last = gauge("row_timestamp_seconds", "When the entity last had a row.")
        state = gauge("state", f"1 for what the entity is: {', '.join(ENTITY_STATES)}.", "state")
        for entity, seen in board.entities.items():
            own = [self._model, *entity]
            now = _state(seen, is_stale=is_stale)
            for each in ENTITY_STATES:
                state.add_metric([*own, each], float(each == now))
            missing.add_metric(own, seen.missing)
            if seen.asked:
                last.add_metric(own, seen.asked)
            if now != "ok" or seen.verdict is None:
                continue
            severity.add_metric(own, seen.verdict.severity)
            p_value.add_metric(own, seen.verdict.p_value)
            alarm.add_metric(own, float(seen.verdict.is_alarm))
            event.add_metric(own, float(seen.verdict.is_event))
            for rank, (feature, share) in enumerate(seen.verdict.blamed, 1):
                blame.add_metric([*own, feature, str(rank)], share)
        yield from (severity, p_value, alarm, event, blame, missing, last, state)

    def _counters(self, board: Board) -> Iterator[Metric]:
        rows = CounterMetricFamily(
            "hourglass_watch_rows", "Rows that were judged.", labels=["model"]
        )
        rows.add_metric([self._model], board.rows)
        yield rows
        misses = CounterMetricFamily(
            "hourglass_watch_misses",
            "Times at which an entity had no score, by its state.",
            labels=["model", "state"],
        )
        for each in ENTITY_STATES[1:]:
            misses.add_metric([self._model, each], board.misses.get(each, 0))
        yield misses

    def _one(self, name: str, text: str, value: float) -> Metric:
        family = GaugeMetricFamily(f"hourglass_watch_{name}", text, labels=["model"])
        family.add_metric([self._model], value)
        return family


def _state(seen: Seen, *, is_stale: bool) -> EntityState:
    return "away" if is_stale else seen.state


def expose(metrics: WatchMetrics, host: str, port: int) -> tuple[int, Callable[[], None]]:
    """Answer scrapes, in threads of their own; the port, and what ends it. InvalidSettings where
    nothing can listen there.
    """
    registry = CollectorRegistry()
    registry.register(metrics)
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise InvalidSettings(
            f"cannot listen on {host} port {port} ({error.strerror}); --port names another"
        ) from error

    def end() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return int(server.server_port), end
