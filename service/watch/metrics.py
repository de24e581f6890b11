"""What is counted; exposition.py says how it is scraped.

Label values come from configuration and closed sets, never from what a client sends.
"""

import asyncio
import math
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from hourglass.service.keys.guard import Keys
from hourglass.service.model.detector import Explanation, Scores
from hourglass.service.model.served import Served
from hourglass.service.notify.posting import OUTCOMES, Outcome
from hourglass.service.serving.registry import Load, Registry
from hourglass.service.streams.events import Event
from hourglass.service.watch.drift import Drift
from hourglass.service.watch.exposition import (
    DriftMetrics,
    KeyMetrics,
    ModelMetrics,
    ProcessMetrics,
    ShadowMetrics,
    SharedMetrics,
    StreamMetrics,
    encode,
)
from hourglass.service.watch.journal import Journal
from hourglass.service.watch.shadow import Shadow
from hourglass.service.watch.traffic import Traffic

Float32 = NDArray[np.float32]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

Reason = Literal[
    "body", "json", "width", "feature", "value", "missing", "too_large", "too_many_rows",
    "content_type", "model", "route", "method", "alpha", "internal", "malformed", "slow",
    "overloaded", "host", "read_only", "late", "key", "scope", "rate",
    "key", "scope", "rate",
]  # fmt: skip
REASONS: tuple[Reason, ...] = Reason.__args__  # type: ignore[attr-defined]
UNDELIVERED = 499  # counted in place of a status where the client has gone before its answer
METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))

P_VALUE_BUCKETS = (
    0.001,
    0.002,
    0.005,
    0.01,
    0.02,
    0.05,
    0.1,
    0.2,
    0.3,
    0.4,
    0.5,
    0.6,
    0.7,
    0.8,
    0.9,
    1,
)
# the budgets' orders: a budget of 5 % is 1.3, one of 1 % is 2
SEVERITY_BUCKETS = (0.3, 0.5, 1, 1.3, 1.7, 2, 2.3, 2.7, 3, 3.3, 3.7, 4, 5, 6)
RATIO_BUCKETS = (0.1, 0.2, 0.35, 0.5, 0.7, 0.85, 1, 1.2, 1.5, 2, 3, 5, 10, 30, 100)
REQUEST_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
INFERENCE_BUCKETS = (
    0.00005,
    0.0001,
    0.00025,
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    1,
)
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096, 16384, 65536)


WORKER_DEATHS = (
    "hourglass_worker_deaths_total",
    "Worker processes that died and were replaced.",
)
KEPT = 512  # runs that are counted at once, which costs a tenth
KEPT_ROWS = 8192


class Metrics:
    """The service's own metrics, on a registry of their own.

    What every request changes is counted in plain numbers, a tenth of the price of the library's
    counters, and handed over to these by `flush`: at each scrape, and by app.py's clock where other
    processes answer scrapes too.

    `shared` is for several worker processes: counters and histograms then live in files of
    PROMETHEUS_MULTIPROC_DIR, and any worker answers for all. What is known of the models is the
    same in each, and read at the scrape; `workers` is the folder by which they know each other.

    Of a thousand models most are quiet: a model has histograms once it has traffic, and no series
    once it is retired.
    """

    def __init__(
        self,
        models: Registry,
        *,
        shared: bool,
        workers: Path | None = None,
        traffic: Traffic | None = None,
        journal: Journal | None = None,
        drift: Drift | None = None,
        shadow: Shadow | None = None,
        keys: Keys | None = None,
    ) -> None:
        self.shared, self._models, self._traffic, self._journal = shared, models, traffic, journal
        self._drift = drift
        self._keys = keys
        if traffic is not None:
            traffic.fetch = self.count_kept
        if journal is not None:
            journal.fetch, journal.tell = self.count_kept, self.observe_journal
        if drift is not None:
            drift.fetch = self.count_kept
        # what is scraped is written beside the event loop
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="metrics")
        disable_created_metrics()  # type: ignore[no-untyped-call]  # they double the number of series, and several workers cannot have them
        self._exposed = CollectorRegistry()
        if shared:
            self._exposed.register(SharedMetrics(models))
            if workers is not None:
                self._exposed.register(ProcessMetrics(workers))
        else:
            ProcessCollector(registry=self._exposed)
            PlatformCollector(registry=self._exposed)
            GCCollector(registry=self._exposed)
        self._exposed.register(ModelMetrics(models))
        if drift is not None:
            self._exposed.register(DriftMetrics(models, lambda: drift.reports))
        if shadow is not None:
            self._exposed.register(ShadowMetrics(models, shadow.compared))

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(
                f"hourglass_{name}", text, labels, registry=None if shared else self._exposed
            )

        def histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(
                f"hourglass_{name}",
                text,
                labels,
                registry=None if shared else self._exposed,
                buckets=buckets,
            )

        self._vectors = counter(
            "vectors_total",
            "Vectors scored; explained or reconstructed ones do not count.",
            "model",
        )
        self._explained = counter(
            "explained_total", "Vectors explained, most of them after they were scored.", "model"
        )
        self._anomalies = counter(
            "anomalies_total", "Vectors scored above the threshold in force.", "model"
        )
        self._p_values = histogram(
            "p_value",
            "P-values of scored vectors; on normal traffic they are uniform.",
            P_VALUE_BUCKETS,
            "model",
        )
        self._severities = histogram(
            "severity",
            "Severity of scored vectors, -log10 of the p-value; comparable between models.",
            SEVERITY_BUCKETS,
            "model",
        )
        self._ratios = histogram(
            "score_ratio",
            "Score over threshold of scored vectors; above 1 is an anomaly.",
            RATIO_BUCKETS,
            "model",
        )
        self._inference = histogram(
            "inference_duration_seconds",
            "Time of one scoring run of the model.",
            INFERENCE_BUCKETS,
            "model",
        )
        self._batches = histogram(
            "batch_rows", "Rows scored together in one run of the model.", BATCH_BUCKETS, "model"
        )
        self._reloads = counter(
            "model_reloads_total",
            "Attempts to replace a model, counted in each worker process.",
            "model",
            "outcome",
        )
        self._rejections = counter("rejections_total", "Requests refused, by reason.", "reason")
        self._requests = counter(
            "requests_total",
            "Requests answered, by route template; unmatched paths are one.",
            "route",
            "method",
            "status",
        )
        self._journal_alarms = counter(
            "journal_alarms_total", "Alarms that were kept in the journal."
        )
        self._journal_lost = counter(
            "journal_lost_total", "Alarms that were lost because the journal could not be written."
        )
        self._journal_failures = counter(
            "journal_write_failures_total",
            "Times that the journal could not be written; alarms wait meanwhile.",
        )
        self._recorded = counter("recorded_rows_total", "Rows that were recorded.")
        self._record_lost = counter(
            "record_lost_total", "Rows that were to be recorded and were lost."
        )
        self._record_removed = counter(
            "record_removed_files_total", "Recorded files that made room for newer ones."
        )
        self._events = counter("events_total", "Events that opened in streams.", "model")
        self._notices = counter(
            "notices_total",
            "Attempts to tell a receiver of events, delivered or failed, and what was dropped.",
            "receiver",
            "outcome",
        )
        self._streamed = {
            "evicted": counter(
                "stream_evicted_total", "Entities that made room for others.", "model"
            ),
            "late": counter("late_rows_total", "Requests refused for a late row.", "model"),
            "warm_ups": counter(
                "warm_ups_total", "Times that an entity had too few rows to be judged.", "model"
            ),
        }
        self._stream_failures = counter(
            "stream_write_failures_total",
            "Times that the streams' file could not be had or written.",
        )
        if keys is not None:
            self._key_requests = counter(
                "key_requests_total",
                "Requests by the name of their key: allowed, forbidden or limited.",
                "key",
                "outcome",
            )
            self._exposed.register(KeyMetrics(keys))
        self._durations = histogram(
            "request_duration_seconds",
            "Time from a request's head to the head of its answer.",
            REQUEST_BUCKETS,
            "route",
        )
        if not shared:  # where there are workers their supervisor counts them
            Counter(*WORKER_DEATHS, registry=self._exposed)
        # set by who has the streams: how many events are open, of each model that has some
        self.open_events: Callable[[], Mapping[str, int]] = dict
        self.entities: Callable[[], Mapping[str, int]] = dict  # the same of entities
        self._exposed.register(
            StreamMetrics(models, lambda: self.open_events(), lambda: self.entities())
        )
        for reason in REASONS:
            self._rejections.labels(reason)
        for receiver, outcome in product(("webhook", "alertmanager"), OUTCOMES):
            self._notices.labels(receiver, outcome)
        self._bound: dict[str, _Bound] = {}  # models with traffic
        self._labelled: set[str] = set()  # models with series
        self._answers: dict[tuple[str, str, int], Tally] = {}  # by route, method, status

    def scored(
        self,
        served: Served,
        rows_ND: Float32,
        scores: Scores,
        seconds: float,
        entity: str | None = None,
    ) -> None:
        """One run of one model: its rows' scores and how long it took."""
        bound = self._bound.get(served.name) or self._bind(served.name)
        bound.inference.add(seconds)
        bound.batches.add(len(scores.score))
        bound.observe(served, rows_ND, scores, entity)

    def explained(
        self, served: Served, rows_ND: Float32, _explanation: Explanation, _seconds: float
    ) -> None:
        """Rows that were explained are counted apart: among the scored ones they would make alarms
        seem more than they are.
        """
        self._labelled.add(served.name)
        self._explained.labels(served.name).inc(len(rows_ND))

    def observe_request(self, route: str, method: str, status: int, seconds: float) -> None:
        """A request that was answered.

        The route is a template, and the method one of METHODS or `other`.
        """
        key = route, method, status
        if (tally := self._answers.get(key)) is None:
            tally = self._answers[key] = Tally(REQUEST_BUCKETS)
        tally.add(seconds)

    def observe_load(self, load: Load) -> None:
        """What came of looking at a model's folder; counters begin at zero when a model first
        appears.
        """
        if load.name not in self._labelled:
            self._labelled.add(load.name)
            for counter in (self._vectors, self._anomalies, self._explained):
                counter.labels(load.name)
            for outcome in ("swapped", "failed"):
                self._reloads.labels(load.name, outcome)
        if load.outcome in ("swapped", "failed"):
            self._reloads.labels(load.name, load.outcome).inc()

    def observe_journal(self, kept: int, lost: int, failures: int) -> None:
        """Alarms that the journal has kept, and lost; and whether it could not be written."""
        self._journal_alarms.inc(kept)
        self._journal_lost.inc(lost)
        self._journal_failures.inc(failures)

    def observe_recorded(self, kept: int, lost: int, removed: int) -> None:
        """Rows that were recorded, and lost; and files that made room."""
        self._recorded.inc(kept)
        self._record_lost.inc(lost)
        self._record_removed.inc(removed)

    def observe_event(self, event: Event) -> None:
        """An event that opened or closed; it counts once."""
        if event.open:
            self._labelled.add(event.model)
            self._events.labels(event.model).inc()

    def observe_stream(
        self, model: str, what: Literal["evicted", "late", "warm_ups"], count: int
    ) -> None:
        """What happened to streams of a model."""
        self._labelled.add(model)
        self._streamed[what].labels(model).inc(count)

    def observe_stream_failure(self) -> None:
        """The streams' file could not be had or written."""
        self._stream_failures.inc()

    def observe_notice(self, receiver: str, outcome: Outcome) -> None:
        """An attempt to tell a receiver, or what was given up."""
        self._notices.labels(receiver, outcome).inc()

    def observe_rejection(self, reason: Reason) -> None:
        """A request that was refused."""
        self._rejections.labels(reason).inc()

    def expose(self, accept: str) -> tuple[bytes, str]:
        """The exposition, and its content type, in the format that the Accept header asks for."""
        self.flush()
        return encode(self._exposed, accept)

    async def scrape(self, accept: str) -> tuple[bytes, str]:
        """The same, written beside the event loop."""
        self.flush()
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, encode, self._exposed, accept)

    def flush(self) -> None:
        """Hand what was counted over to the library's metrics."""
        for name in self.open_events().keys() & self._models.names:
            self._labelled.add(name)
            for counter in (self._events, *self._streamed.values()):
                counter.labels(name)  # 0 before the first, so that its increase is seen
        self._forget(self._labelled - self._models.names)
        if self._traffic is not None:
            self._traffic.forget()
        for bound in self._bound.values():
            bound.flush()
        if self._keys is not None:
            for (name, outcome), count in self._keys.take_counts().items():
                self._key_requests.labels(name, outcome).inc(count)
        for (route, method, status), tally in self._answers.items():
            if count := tally.flush(self._durations.labels(route)):
                self._requests.labels(route, method, status).inc(count)

    def count_kept(self) -> None:
        """Have counted what was scored."""
        for bound in self._bound.values():
            bound.count_kept()

    def _forget(self, names: set[str]) -> None:
        """Have no series of models that are no more. Those of several workers lie in files, where
        they cannot be taken away, and are left out of what is exposed.
        """
        of_models = (
            self._vectors, self._explained, self._anomalies, self._p_values, self._severities,
            self._ratios, self._inference, self._batches, self._reloads, self._events,
            *self._streamed.values(),
        )  # fmt: skip
        for name in names:
            self._bound.pop(name, None)
            for metric in () if self.shared else of_models:
                metric.remove_by_labels({"model": name})
        self._labelled -= names

    def _bind(self, name: str) -> "_Bound":
        self._labelled.add(name)
        if (bound := self._bound.get(name)) is None:
            bound = self._bound[name] = _Bound(
                self._vectors.labels(name),
                self._anomalies.labels(name),
                {
                    Tally(P_VALUE_BUCKETS): self._p_values.labels(name),
                    Tally(SEVERITY_BUCKETS): self._severities.labels(name),
                    Tally(RATIO_BUCKETS): self._ratios.labels(name),
                    Tally(INFERENCE_BUCKETS): self._inference.labels(name),
                    Tally(BATCH_BUCKETS): self._batches.labels(name),
                },
                self._traffic,
                self._journal,
                self._drift,
            )
        return bound


class Tally:
    """A histogram's counts since the last flush.

    The bounds are compared as float32, since a p-value of 0.05 is one.
    """

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, buckets: tuple[float, ...]) -> None:
        self._bounds: list[float] = np.array(buckets, dtype=np.float32).tolist()
        self._counts = [0] * (len(buckets) + 1)  # the last is of what lies above all bounds
        self._sum = 0.0

    def add(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def add_all(self, values_N: Float32) -> None:
        """Many at once: sorted, since the bounds are fewer than they are."""
        places: list[int] = np.sort(values_N).searchsorted(self._bounds, side="right").tolist()
        last = 0
        for place, below in enumerate((*places, len(values_N))):
            self._counts[place] += below - last
            last = below
        self._sum += float(values_N.sum(dtype=np.float64))

    def flush(self, histogram: Histogram) -> int:
        """Histogram.observe for many values at once, which the library has no call for; how many
        they were.
        """
        counts, total = self._counts, self._sum
        self._counts, self._sum = [0] * len(counts), 0.0
        for place, count in enumerate(counts):
            if count:
                histogram._buckets[place].inc(count)
        histogram._sum.inc(total)
        return sum(counts)


class _Bound:
    """One model's numbers, and the library's metrics that they go to."""

    __slots__ = (
        "_anomalies",
        "_drift",
        "_journal",
        "_kept",
        "_limit",
        "_look_at",
        "_p_values",
        "_ratios",
        "_rows",
        "_sample_at",
        "_served",
        "_severities",
        "_tallies",
        "_traffic",
        "_vectors",
        "batches",
        "inference",
    )

    def __init__(
        self,
        vectors: Counter,
        anomalies: Counter,
        tallies: "dict[Tally, Histogram]",
        traffic: Traffic | None,
        journal: Journal | None,
        drift: Drift | None,
    ) -> None:
        self._traffic, self._journal, self._drift = traffic, journal, drift
        self._limit = self._sample_at = math.inf  # a score, and a number of rows that are kept
        self._look_at = math.inf  # the same number, for drift
        self._vectors, self._anomalies, self._tallies = vectors, anomalies, tallies
        self._p_values, self._severities, self._ratios, self.inference, self.batches = tallies
        self._kept: list[Scores] = []  # not yet counted, all of this model and threshold
        self._served: Served | None = None
        self._rows = 0

    def observe(self, served: Served, rows_ND: Float32, scores: Scores, entity: str | None) -> None:
        if served is not self._served:
            self._begin(served)
        score_N = scores.score
        self._kept.append(scores)
        self._rows += (count := len(score_N))
        if self._journal is not None:
            if count == 1:
                if score_N.item() > self._limit:
                    self._journal.raised(served, rows_ND, scores, entity)
            elif not np.maximum.reduce(score_N) <= self._limit:  # which NaN is not
                self._journal.raised(served, rows_ND, scores, entity)
            while self._rows >= self._sample_at:
                place = int(self._sample_at) - 1 - (self._rows - count)
                self._sample_at += self._journal.sample(served, rows_ND, scores, place)
        if self._rows >= self._look_at and self._drift is not None:
            first = int(self._look_at) - 1 - (self._rows - count)
            self._look_at = self._rows + self._drift.sample(served, rows_ND, scores, first)
        if len(self._kept) == KEPT or self._rows >= KEPT_ROWS:
            self.count_kept()

    def _begin(self, served: Served) -> None:
        self.count_kept()
        self._served, self._limit = served, served.threshold.score
        if self._journal is not None:
            self._sample_at = self._journal.until_next(served)
        if self._drift is not None:
            self._look_at = self._drift.until_next(served)

    def flush(self) -> None:
        self.count_kept()
        for tally, histogram in self._tallies.items():
            tally.flush(histogram)

    def count_kept(self) -> None:
        if not self._kept or self._served is None:
            return
        threshold = self._served.threshold
        score_N, p_value_N, severity_N = (
            np.concatenate(arrays) for arrays in zip(*self._kept, strict=True)
        )
        if self._journal is not None:
            self._journal.count(self._served, self._rows)
            self._sample_at = self._journal.until_next(self._served)
        if self._drift is not None:
            self._drift.count(self._served, self._rows)
            self._look_at = self._drift.until_next(self._served)
        self._kept, self._rows = [], 0
        if not (finite := np.isfinite(score_N)).all():  # such rows are refused, not answered
            score_N, p_value_N, severity_N = score_N[finite], p_value_N[finite], severity_N[finite]
        self._vectors.inc(len(score_N))
        self._anomalies.inc(int(np.count_nonzero(threshold.is_anomaly(score_N))))
        self._p_values.add_all(p_value_N)
        self._severities.add_all(severity_N)
        self._ratios.add_all(threshold.ratio(score_N))
        if self._traffic is not None:
            self._traffic.count(self._served, score_N, severity_N)
