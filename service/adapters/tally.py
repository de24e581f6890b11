"""What is counted of rows that come from a broker, for Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from hourglass.service.adapters.entities import Outcome
from hourglass.service.errors import InvalidSettings

ROW_BUCKETS = (1, 4, 16, 64, 256, 1024, 4096, 16384)
SECOND_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Tally:
    """Metrics of one process, on a registry of their own."""

    def __init__(self) -> None:
        self.exposed = CollectorRegistry()
        self._messages = self._counter("messages", "Messages that were dealt with.")
        self._answers = self._counter("answers", "Rows that were answered.")
        self._anomalies = self._counter("anomalies", "Answers over the threshold in force.")
        self._repeated = self._counter("repeated", "Rows that had come before: not counted again.")
        self._refused = self._counter("refused", "Messages that were refused, with a reason.")
        self._opened = self._counter("events_opened", "Events that opened.")
        self._closed = self._counter("events_closed", "Events that closed.")
        self._gone = self._counter("gone", "Messages that the broker let go before they were read.")
        self._dropped = self._counter("dropped", "Messages that came faster than they are scored.")
        self._failures = self._counter("broker_failures", "Times that the broker was away.")
        self._together = Histogram(
            "hourglass_stream_batch_rows",
            "Messages that were scored together.",
            registry=self.exposed,
            buckets=ROW_BUCKETS,
        )
        self._seconds = Histogram(
            "hourglass_stream_batch_seconds",
            "From messages that came to their answers at the broker.",
            registry=self.exposed,
            buckets=SECOND_BUCKETS,
        )
        self._lag = Gauge(
            "hourglass_stream_lag_messages",
            "Messages of a partition that wait.",
            ["partition"],
            registry=self.exposed,
        )

    def serve(self, host: str, port: int) -> None:
        """Answer scrapes, from a thread."""
        try:
            start_http_server(port, addr=host, registry=self.exposed)
        except OSError as error:
            raise InvalidSettings(
                f"cannot listen on {host} port {port} ({error.strerror}); --port names another"
            ) from error

    def took(self, outcome: Outcome, messages: int, seconds: float) -> None:
        """Messages were dealt with."""
        self._messages.inc(messages)
        self._answers.inc(len(outcome.answered))
        self._anomalies.inc(sum(each.answer.is_anomaly is True for each in outcome.answered))
        self._repeated.inc(outcome.repeated)
        self._refused.inc(len(outcome.refused))
        opened = sum(change.open for change in outcome.changes)
        self._opened.inc(opened)
        self._closed.inc(len(outcome.changes) - opened)
        self._together.observe(messages)
        self._seconds.observe(seconds)

    def gone(self, messages: int) -> None:
        """They will never be read."""
        self._gone.inc(messages)

    def dropped(self) -> None:
        """One that nobody will send again."""
        self._dropped.inc()

    def failed(self) -> None:
        """The broker was away."""
        self._failures.inc()

    def note_lag(self, partition: int, messages: int) -> None:
        """So many wait."""
        self._lag.labels(str(partition)).set(messages)

    def forget_lag(self) -> None:
        """Partitions may be others' now."""
        self._lag.clear()

    def _counter(self, name: str, text: str) -> Counter:
        return Counter(f"hourglass_stream_{name}", text, registry=self.exposed)
