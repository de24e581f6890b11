"""Peers: the same rows by PCA, Mahalanobis' distance, nearest neighbours and an isolation forest,
and whether the network is worth its while.

Only anomalies that somebody has labelled can tell. Injected faults cannot: the method that finds
more of them was the better one on real anomalies in 2 of 11 sets.

Where a model is of windows each method is asked twice: with the judged row alone, and with the last
rows of the window side by side.

Shapes: N held-out normal rows, A anomalies, R reference rows, W rows of a window, D features, E
encoded columns.
"""

from collections.abc import Callable

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.covariance import LedoitWolf
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.metrics import average_precision_score
from sklearn.neighbors import NearestNeighbors

from hourglass.training.features import INPUT_LIMIT, Encoding
from hourglass.training.report.estimates import (
    Difference,
    Estimate,
    Placements,
    Worth,
    auroc,
    auroc_difference,
    share,
)
from hourglass.training.report.material import Material
from hourglass.training.report.sample import Sample

FEWEST_ANOMALIES = 5
MOST_ROWS = 4000  # that a method is fitted on
MOST_JUDGED = 2000  # normal rows, and anomalies
MOST_COLUMNS = 1000  # encoded; a covariance of more takes minutes
NEIGHBOURS = 5
EXPLAINED = 0.9  # of the variance, by PCA
TREES = 100
LAST_ROWS = 10  # of a window

Floats = NDArray[np.float64]
Method = Callable[[Floats, int], Callable[[Floats], Floats]]


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """One method on the same rows."""

    name: str
    auroc: Estimate
    average_precision: float
    detection: Estimate  # share of the anomalies above the level that as many normal rows exceed
    behind: Difference | None  # the model's AUROC minus this one; None of the model itself


class Peers(msgspec.Struct, frozen=True, kw_only=True):
    """The model beside simpler methods."""

    answer: str  # yes, no, not told apart, or unknown without labels
    text: str
    false_alarm_rate: float | None  # at which detection is read
    normal_rows: int
    anomalies: int
    ranges: int | None = None  # of rows in order, that these anomalies make
    methods: tuple[Peer, ...]


def peers_of(material: Material) -> Peers:
    """Fit the others on rows that fitted the model, and judge rows that are new to all."""
    detector = material.detector
    anomalies, ranges_A = material.anomalies, material.ranges_A
    if len(anomalies) < FEWEST_ANOMALIES:
        return _unknown(
            "unknown without labels: no test without real anomalies can tell, and injected faults"
            " were right on 2 of 11 sets only"
            if not len(anomalies)
            else f"unknown: {len(anomalies)} labelled anomalies are too few to tell"
        )
    rng = np.random.default_rng(material.seed)
    chosen = rng.permutation(len(anomalies))[:MOST_JUDGED]
    anomalies, ranges = anomalies.take(chosen), len(np.unique(ranges_A[chosen]))
    judged = np.sort(rng.permutation(np.flatnonzero(material.new_N))[:MOST_JUDGED])
    worth = Worth(ranges / len(anomalies), material.worth_of(len(judged)))
    reference = material.reference.take(rng.permutation(len(material.reference))[:MOST_ROWS])
    encoding = Encoding(detector.manifest.features, reference.rows_ND)
    if encoding.encoded_width > MOST_COLUMNS:
        return _unknown(
            f"not tried: {encoding.encoded_width} encoded columns are more than {MOST_COLUMNS}"
        )

    def encode(sample: Sample, last: int) -> Floats:
        windows_NWD = sample.windows_NWD[:, -last:]
        rows_ND = np.ascontiguousarray(windows_NWD).reshape(-1, windows_NWD.shape[2])
        with torch.no_grad():
            values = encoding.encode(torch.from_numpy(rows_ND)).values_NE
        values_NE = values.double().clamp(-INPUT_LIMIT, INPUT_LIMIT).numpy()
        return values_NE.reshape(len(sample), -1)

    if not encode(reference, 1).var(axis=0).any():
        return _unknown("not tried: all rows that the other methods could be fitted on are alike")
    model_N = material.score_N[judged].astype(np.float64)
    model_A = material.anomaly_score_A[chosen].astype(np.float64)
    rate = material.threshold.expected_false_alarm_rate
    model = Placements.of(model_N, model_A)
    rows = [_peer("this model", model_N, model_A, rate, None, worth)]
    for last in (1,) if detector.window == 1 else (1, min(detector.window, LAST_ROWS)):
        if last * encoding.encoded_width > MOST_COLUMNS:
            break
        reference_RE = encode(reference, last)
        normal_NE = encode(material.held_out.take(judged), last)
        anomalies_AE = encode(anomalies, last)
        for name, method in METHODS.items():
            if detector.window > 1:
                name += ", the row alone" if last == 1 else f", last {last} rows"
            score = method(reference_RE, material.seed)
            rows.append(_peer(name, score(normal_NE), score(anomalies_AE), rate, model, worth))
    best = max(rows[1:], key=lambda peer: peer.auroc.value or 0.0)
    answer, text = _answer(rows[0], best)
    return Peers(
        answer=answer,
        text=text,
        false_alarm_rate=rate,
        normal_rows=len(judged),
        anomalies=len(anomalies),
        ranges=None if material.series is None else ranges,
        methods=tuple(rows),
    )


def _unknown(text: str) -> Peers:
    return Peers(
        answer="unknown without labels" if text.startswith("unknown without") else "unknown",
        text=text,
        false_alarm_rate=None,
        normal_rows=0,
        anomalies=0,
        methods=(),
    )


def _answer(model: Peer, best: Peer) -> tuple[str, str]:
    assert best.behind is not None
    (low, high), by = best.behind.interval, best.behind.value
    span = f"AUROC {by:+.3f} (95 %: {low:+.3f} to {high:+.3f}) against {best.name}, the best of"
    span += f" the others; {model.auroc.told_by}"
    if low > 0:
        return "yes", f"yes, the network is worth it on the labelled anomalies: {span}"
    if high < 0:
        return "no", f"no, on the labelled anomalies {best.name} is the better one: {span}"
    return "not told apart", f"the labelled anomalies do not tell them apart: {span}"


def _peer(
    name: str,
    normal_N: Floats,
    anomaly_A: Floats,
    rate: float,
    model: Placements | None,
    worth: Worth,
) -> Peer:
    placements = Placements.of(normal_N, anomaly_A)
    labels = np.concatenate([np.zeros(len(normal_N)), np.ones(len(anomaly_A))])
    rank = max(1, round(rate * (len(normal_N) + 1)))
    level = np.sort(normal_N)[-min(rank, len(normal_N))]
    return Peer(
        name=name,
        auroc=auroc(placements, worth),
        average_precision=float(
            average_precision_score(labels, np.concatenate([normal_N, anomaly_A]))
        ),
        detection=share(int((anomaly_A > level).sum()), len(anomaly_A), worth.anomaly),
        behind=None if model is None else auroc_difference(model, placements, worth),
    )


def _pca(reference_RE: Floats, seed: int) -> Callable[[Floats], Floats]:
    """Squared error of the principal components that explain most of the variance."""
    fitted = PCA(n_components=EXPLAINED, svd_solver="full", random_state=seed).fit(reference_RE)

    def score(rows_NE: Floats) -> Floats:
        rebuilt_NE = fitted.inverse_transform(fitted.transform(rows_NE))
        return np.asarray(np.square(rows_NE - rebuilt_NE).sum(axis=1))

    return score


def _mahalanobis(reference_RE: Floats, _: int) -> Callable[[Floats], Floats]:
    fitted = LedoitWolf().fit(reference_RE)
    return lambda rows_NE: np.asarray(fitted.mahalanobis(rows_NE))


def _neighbours(reference_RE: Floats, _: int) -> Callable[[Floats], Floats]:
    """Mean distance to the nearest."""
    count = min(NEIGHBOURS, len(reference_RE))
    fitted = NearestNeighbors(n_neighbors=count, algorithm="brute").fit(reference_RE)
    return lambda rows_NE: np.asarray(fitted.kneighbors(rows_NE)[0].mean(axis=1))


def _forest(reference_RE: Floats, seed: int) -> Callable[[Floats], Floats]:
    fitted = IsolationForest(n_estimators=TREES, random_state=seed).fit(reference_RE)
    return lambda rows_NE: np.asarray(-fitted.score_samples(rows_NE))


METHODS: dict[str, Method] = {
    "PCA": _pca,
    "Mahalanobis": _mahalanobis,
    "kNN": _neighbours,
    "isolation forest": _forest,
}
