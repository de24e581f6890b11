"""How metrics are exposed: what the registry knows of the models, what all workers have counted,
and in which format a scrape is answered.
"""

import platform
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path

import onnxruntime as ort
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from hourglass.service import VERSION, floats
from hourglass.service.errors import FAULTS
from hourglass.service.keys.guard import Keys
from hourglass.service.model.served import Summary
from hourglass.service.serving.peers import pids
from hourglass.service.serving.registry import Registry
from hourglass.service.watch.drift import Report
from hourglass.service.watch.drift_window import WHATS
from hourglass.service.watch.shadow import JUDGED, Compared

MOST_FEATURES = 3  # of a model, the worst, that have a series


def encode(registry: CollectorRegistry, accept: str) -> tuple[bytes, str]:
    """The exposition, and its content type, in the format that the Accept header asks for."""
    try:
        write, content_type = choose_encoder(accept)
        return write(registry), content_type
    except (ValueError, TypeError):  # the header asks for a version that is none
        return generate_latest(registry), CONTENT_TYPE_PLAIN_0_0_4


class ModelMetrics(Collector):
    """Gauges about the models in service, read from the registry when scraped."""

    def __init__(self, models: Registry) -> None:
        self._models = models

    def collect(self) -> Iterator[Metric]:
        summaries, loaded = self._models.summaries, self._models.served
        info = InfoMetricFamily("hourglass_model", "The models in service.", labels=["model"])
        for each in summaries:
            info.add_metric([each.name], {"version": each.version, "variant": each.variant})
        yield info
        build = InfoMetricFamily("hourglass_build", "The service itself, and what it runs on.")
        build.add_metric(
            [],
            {
                "version": VERSION,
                "floats": floats.IMPLEMENTATION,
                "python": platform.python_version(),
                "onnxruntime": ort.__version__,
            },
        )
        yield build
        yield _gauge(
            "ready",
            "1 if the model is in memory; 0 if the first request for it has it loaded.",
            ((each, each.name in loaded) for each in summaries),
        )
        yield _gauge(
            "calibration_rows",
            "Rows behind the threshold.",
            ((each, each.calibration_rows) for each in summaries),
        )
        yield _gauge(
            "alpha", "False-alarm rate asked for.", ((each, each.alpha) for each in summaries)
        )
        yield _gauge(
            "delta",
            "Risk that alpha is exceeded all the same.",
            ((each, each.delta) for each in summaries),
        )
        yield _gauge(
            "expected_false_alarm_rate",
            "Share of normal vectors expected above the threshold.",
            ((each, each.expected_false_alarm_rate) for each in summaries),
        )
        yield _gauge(
            "certified",
            "1 if alpha holds with confidence 1 - delta.",
            ((each, each.guarantee.kind == "certified") for each in summaries),
        )
        guarantee = GaugeMetricFamily(
            "hourglass_model_guarantee",
            "1 for what is promised of alpha: certified, marginal, blocks or none.",
            labels=["model", "guarantee"],
        )
        for each in summaries:
            guarantee.add_metric([each.name, each.guarantee.kind], 1.0)
        yield guarantee
        yield _gauge(
            "threshold",
            "Score above which a vector is an anomaly.",
            ((each, each.threshold) for each in summaries),
        )
        yield _gauge(
            "fitted_timestamp_seconds",
            "Time of the newest row that the model was fitted to, or of the file of rows.",
            ((each, each.fitted_at) for each in summaries),
        )
        error = GaugeMetricFamily(
            "hourglass_model_error",
            "1 while the newest state of a model's folder is not, or not wholly, in service:"
            f" {', '.join(FAULTS)}.",
            labels=["model", "reason"],
        )
        for name, problem in self._models.problems.items():
            error.add_metric([name, problem.fault], 1.0)
        yield error
        yield GaugeMetricFamily(
            "hourglass_store_reachable",
            "1 if the folder or bucket of models could be looked into the last time.",
            float(self._models.away is None),
        )
        if (at := self._models.looked_at) is not None:
            yield GaugeMetricFamily(
                "hourglass_store_look_timestamp_seconds",
                "When it was looked into the last time without failing.",
                at,
            )


class DriftMetrics(Collector):
    """What the last windows found, of models that have some: a series of each kind of drift, and
    of the worst features.
    """

    def __init__(self, models: Registry, reports: Callable[[], Mapping[str, Report]]) -> None:
        self._models, self._reports = models, reports

    def collect(self) -> Iterator[Metric]:
        drift = GaugeMetricFamily(
            "hourglass_drift",
            f"1 while two windows running found the same: {', '.join(WHATS)}.",
            labels=["model", "what"],
        )
        features = GaugeMetricFamily(
            "hourglass_drifting_features", "Features that drift.", labels=["model"]
        )
        ratio = GaugeMetricFamily(
            "hourglass_drift_psi_ratio",
            "Population stability index over what chance brings it to, of the worst features.",
            labels=["model", "feature"],
        )
        ended = GaugeMetricFamily(
            "hourglass_drift_window_timestamp_seconds",
            "Time of the last row of the last window.",
            labels=["model"],
        )
        reports = self._reports()
        for name in sorted(reports.keys() & self._models.names):
            if not (windows := reports[name].windows):
                continue
            for what in WHATS:
                drift.add_metric([name, what], float(bool(reports[name].drifting(what))))
            of_features = reports[name].drifting("distribution", "missing", "outside")
            features.add_metric([name], len({each.finding.feature for each in of_features}))
            for one in windows[0].features[:MOST_FEATURES]:
                if one.psi is not None and one.critical:
                    ratio.add_metric([name, one.feature], one.psi / one.critical)
            ended.add_metric([name], windows[0].ended)
        yield from (drift, features, ratio, ended)


class ShadowMetrics(Collector):
    """What was counted of challengers and the versions in service, of models that have one."""

    def __init__(self, models: Registry, compared: Callable[[], Mapping[str, Compared]]) -> None:
        self._models, self._compared = models, compared

    def collect(self) -> Iterator[Metric]:
        challenger = InfoMetricFamily(
            "hourglass_challenger",
            "The versions that are scored beside those in service.",
            labels=["model"],
        )
        error = GaugeMetricFamily(
            "hourglass_shadow_error", "1 while the challenger cannot be scored.", labels=["model"]
        )
        rows = CounterMetricFamily(
            "hourglass_shadow_rows",
            "Rows that the version in service and its challenger were both asked about, by which of"
            " them would alarm: neither, champion, challenger or both; unjudged by the challenger.",
            labels=["model", "alarms"],
        )
        dropped = CounterMetricFamily(
            "hourglass_shadow_dropped",
            "Rows that the challenger was not asked about, since there was no time.",
            labels=["model"],
        )
        compared = self._compared()
        for name in sorted(compared.keys() & self._models.names):
            each = compared[name]
            challenger.add_metric([name], {"version": each.challenger.version})
            error.add_metric([name], float(each.challenger.served is None or each.is_failing))
            for outcome in (*JUDGED, "unjudged"):
                rows.add_metric([name, outcome], each.counts[outcome])
            dropped.add_metric([name], each.counts["dropped"])
        yield from (challenger, error, rows, dropped)


class StreamMetrics(Collector):
    """Entities and open events, of the models in service that have streams."""

    def __init__(
        self,
        models: Registry,
        open_events: Callable[[], Mapping[str, int]],
        entities: Callable[[], Mapping[str, int]],
    ) -> None:
        self._models, self._open_events, self._entities = models, open_events, entities

    def collect(self) -> Iterator[Metric]:
        for name, text, counts in (
            ("open_events", "Events that are open in streams.", self._open_events()),
            ("stream_entities", "Entities whose state is kept.", self._entities()),
        ):
            family = GaugeMetricFamily(f"hourglass_{name}", text, labels=["model"])
            for model in sorted(counts.keys() & self._models.names):
                family.add_metric([model], counts[model])
            yield family


class KeyMetrics(Collector):
    """What is known of the keys, of which the ids are no secrets."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily(
            "hourglass_keys_error",
            "1 while the newest state of the file of keys cannot be read, and older keys are in"
            " force.",
            float(self._keys.problem is not None),
        )
        expiry = GaugeMetricFamily(
            "hourglass_key_expiry_timestamp_seconds",
            "When a key expires, of those that do.",
            labels=["key", "id"],
        )
        for key in self._keys.keys:
            if key.expires is not None:
                expiry.add_metric([key.name, key.id], key.expires.timestamp())
        yield expiry


class SharedMetrics(Collector):
    """What all workers have counted of the models that are there."""

    def __init__(self, models: Registry) -> None:
        self._models = models
        self._all = MultiProcessCollector(None)  # type: ignore[no-untyped-call]

    def collect(self) -> Iterator[Metric]:
        names = self._models.names
        for metric in self._all.collect():  # type: ignore[no-untyped-call]
            metric.samples = [
                sample
                for sample in metric.samples
                if sample.labels.get("model") in names or "model" not in sample.labels
            ]
            yield metric


class ProcessMetrics(Collector):
    """process_* of each worker, with its number."""

    def __init__(self, workers: Path) -> None:
        self._workers = workers

    def collect(self) -> Iterator[Metric]:
        families: dict[str, Metric] = {}
        for pid in pids(self._workers):
            collector = ProcessCollector(pid=partial(int, pid), registry=CollectorRegistry())
            for metric in collector.collect():
                samples, metric.samples = metric.samples, []
                family = families.setdefault(metric.name, metric)
                family.samples += [sample._replace(labels={"pid": str(pid)}) for sample in samples]
        yield from families.values()


def _gauge(name: str, text: str, values: Iterable[tuple[Summary, float]]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"hourglass_model_{name}", text, labels=["model"])
    for each, value in values:
        family.add_metric([each.name], float(value))
    return family
