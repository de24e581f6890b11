"""`python -m tests.benchmarks.drift`: how often the watch for drift is wrong, and what it sees.

Simulated windows go through the service's own judge, each pair of them with fit and calibration
rows of its own. A finding is what one window sees, a drift what two running do.
"""

import argparse
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from hourglass.service.model.artifact import Feature, Manifest
from hourglass.service.model.calibration import build_table
from hourglass.service.watch.drift import DEPENDENT, found_in
from hourglass.service.watch.drift_window import DriftWindow, Sampled, judge
from hourglass.service.watch.reference import encode, references_of
from tests.artifacts import drift_references, make_served

FEATURES = 30
ROWS = 1000
CATEGORIES = tuple(f"c{code}" for code in range(40))

Float64 = NDArray[np.float64]
Change = Callable[["Rows"], None]


class Rows(NamedTuple):
    """Rows with their scores."""

    values_ND: Float64
    score_N: Float64

    @property
    def values(self) -> NDArray[np.float32]:
        return self.values_ND.astype(np.float32)


class Outcome(NamedTuple):
    """Shares of pairs of windows."""

    pairs: int
    findings: float  # of all windows, those with any
    drifts: float  # of pairs, those with any
    seen: float  # of pairs, those with a finding of the changed feature or answers in one of both
    effect: float  # mean design effect of numbers


def simulate(
    pairs: int,
    *,
    fit: int = 5000,
    calibration: int = 1000,
    memory: float = 0.0,  # phi of an AR(1) series
    change: Change = lambda _: None,
    about: tuple[str, ...] = (),
    seed: int = 0,
) -> Outcome:
    """So many pairs of windows. Rows that depend on each other have windows of DEPENDENT times as
    many, as the service gives them.
    """
    draw = np.random.default_rng(seed)
    rows = ROWS * (DEPENDENT if memory else 1)
    features = _features()
    manifest = make_served(features).detector.manifest
    with_findings, drifts, seen, effects = 0, 0, 0, []
    for _ in range(pairs):
        fitted = _draw(draw, fit, memory)
        served, references = _served(manifest, fitted, _draw(draw, calibration, memory), memory)
        both = _draw(draw, 2 * rows, memory)
        change(both)
        scores = both.score_N.astype(np.float32)
        windows: list[DriftWindow] = []
        for part in (slice(rows, None), slice(rows)):  # the last one first
            sampled = Sampled(
                began=0.0,
                ended=1.0,
                seen=rows,
                codes_ND=encode(references, both.values[part]),
                p_value_N=served.detector.table.p_value(scores[part]),
                alarm_N=served.threshold.is_anomaly(scores[part]),
                threshold=served.threshold,
            )
            windows.append(judge(served, references, sampled))
        with_findings += sum(bool(window.findings) for window in windows)
        drifts += any(each.is_drift for each in found_in(windows))
        names = {each.feature or each.what for window in windows for each in window.findings}
        seen += bool(names & set(about))
        effects += [each.design_effect for each in windows[0].features if each.design_effect]
    effect = float(np.mean(effects))
    return Outcome(pairs, with_findings / pairs / 2, drifts / pairs, seen / pairs, effect)


def shift(deviations: float) -> Change:
    """Feature f0 lies higher."""

    def change(rows: Rows) -> None:
        rows.values_ND[:, 0] += deviations

    return change


def lose(share: float) -> Change:
    """Feature f0 is missing in this share of rows more."""

    def change(rows: Rows) -> None:
        rows.values_ND[:: round(1 / share), 0] = np.nan

    return change


def score_times(factor: float) -> Change:
    """The model answers with other scores."""

    def change(rows: Rows) -> None:
        rows.score_N[:] *= factor

    return change


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=300)
    pairs = parser.parse_args().pairs
    print(f"{FEATURES} features, {ROWS} rows a window, {pairs} pairs of windows")
    print("nothing changes:              windows with a finding, pairs with a drift, design effect")
    for fit, calibration in ((300, 100), (1000, 300), (5000, 1000)):
        found = simulate(pairs, fit=fit, calibration=calibration)
        print(f"  {fit:6} fit rows             {_told(found)}", flush=True)
    for memory in (0.5, 0.9, 0.95, 0.98):
        found = simulate(pairs, fit=20000, calibration=5000, memory=memory)
        print(f"  AR(1), phi = {memory:4}          {_told(found)}", flush=True)
    print("something changes:            pairs in which one window finds it, and both do")
    for name, change, about in (
        ("f0 moves by .2 sd", shift(0.2), ("f0",)),
        ("f0 moves by .3 sd", shift(0.3), ("f0",)),
        ("f0 moves by .5 sd", shift(0.5), ("f0",)),
        ("f0 is missing in 1 %", lose(0.01), ("f0",)),
        ("f0 is missing in 2 %", lose(0.02), ("f0",)),
        ("scores are twice as large", score_times(2.0), ("p_values", "alarms_over")),
        ("scores are 0", score_times(1e-9), ("p_values", "alarms_under")),
    ):
        found = simulate(pairs // 3, change=change, about=about)
        print(f"  {name:27} {found.seen:7.1%} {found.drifts:7.1%}", flush=True)
    for memory in (0.9, 0.98):
        found = simulate(
            pairs // 3, fit=20000, calibration=5000, memory=memory, change=shift(1.0), about=("f0",)
        )
        print(f"  f0 moves by 1 sd, phi = {memory:4}{found.seen:7.1%} {found.drifts:7.1%}")


def _told(found: Outcome) -> str:
    return f"{found.findings:7.2%} {found.drifts:7.2%} {found.effect:6.1f}"


def _features() -> tuple[Feature, ...]:
    """Numbers f0 to f23, of which six are skewed and f20 to f23 often the same, three rare
    booleans, three of many categories.
    """
    numbers = [Feature(name=f"f{d}", kind="numeric") for d in range(24)]
    booleans = [Feature(name=f"f{d}", kind="boolean") for d in range(24, 27)]
    kinds = [
        Feature(name=f"f{d}", kind="categorical", categories=CATEGORIES) for d in range(27, 30)
    ]
    return (*numbers, *booleans, *kinds)


def _draw(draw: np.random.Generator, rows: int, memory: float) -> Rows:
    """Every column and the score from a Gaussian series of its own, phi its memory."""
    latent = draw.normal(size=(rows, FEATURES + 1))
    if memory:
        innovation = np.sqrt(1 - memory**2)
        for row in range(1, rows):
            latent[row] = memory * latent[row - 1] + innovation * latent[row]
    values_ND = latent[:, :FEATURES].copy()
    values_ND[:, 14:20] = np.exp(values_ND[:, 14:20])
    values_ND[:, 20:24] = np.round(values_ND[:, 20:24])
    values_ND[:, 24:27] = values_ND[:, 24:27] > np.array([0.0, 1.6, 2.6])  # 50, 5 and .5 %
    rare = np.minimum(np.exp(1.2 * np.abs(values_ND[:, 27:30])).astype(int) - 1, 39)
    values_ND[:, 27:30] = rare
    values_ND[:, 1:6][draw.random((rows, 5)) < 0.005] = np.nan
    return Rows(values_ND, np.exp(latent[:, FEATURES]))


def _served(
    manifest: Manifest, fitted: Rows, calibration: Rows, memory: float
) -> tuple[Any, list[Any]]:
    """What the judge needs of a model in service, and what its file says of the fit rows."""
    table = build_table(calibration.score_N.astype(np.float32))
    features = tuple(
        msgspec.structs.replace(
            feature,
            minimum=float(np.nanmin(fitted.values[:, d])),
            maximum=float(np.nanmax(fitted.values[:, d])),
        )
        if feature.kind == "numeric"
        else feature
        for d, feature in enumerate(manifest.features)
    )
    record = msgspec.structs.replace(
        manifest.calibration, guarantee="none" if memory else "marginal", n=table.n
    )
    described = msgspec.structs.replace(
        manifest,
        features=features,
        calibration=record,
        drift=drift_references(features, fitted.values),
    )
    detector = SimpleNamespace(manifest=described, table=table, window=1)
    threshold = table.threshold(0.05, 0.05, certified=False)
    return SimpleNamespace(detector=detector, threshold=threshold), references_of(described)


if __name__ == "__main__":
    main()
