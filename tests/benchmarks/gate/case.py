"""One case: a champion of some of a set's normal rows, refits on others, honest and spoilt, each
through the gate; and what each model finds, on rows that no model has seen.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
from sklearn.metrics import average_precision_score
from threadpoolctl import threadpool_limits

from hourglass.service.errors import HourglassError
from hourglass.training.errors import RunError
from hourglass.training.gate import GateCheck
from tests.benchmarks.adbench.protocol import Float32, read_set
from tests.benchmarks.gate.model import Fitted, Model, fit
from tests.benchmarks.gate.spoiling import WAYS, Honest

PRESET = "fast"
MOST = 1500  # rows of a fit, and of the test
SHARE = 0.4  # of the normal rows fit the champion, as many a refit, the rest is the test


class Quality(msgspec.Struct, frozen=True, kw_only=True):
    """Of a model, on rows that no model has seen, at its own threshold."""

    average_precision: float
    detection: float
    false_alarms: float
    alpha: float


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one refit."""

    set: str
    seed: int
    way: str
    published: bool
    reason: str
    checks: tuple[GateCheck, ...] = ()
    champion: Quality
    challenger: Quality | None = None  # None where nothing was fitted
    screened: int | None = None  # rows that the champion left out
    rows: int


class Test(NamedTuple):
    normal_ND: Float32
    anomalies_AD: Float32


def measure(path: Path, seed: int, ways: Sequence[str], *, force: bool) -> list[Outcome]:
    """Every way of one set; by force a model is made of rows that the gate refuses, too."""
    x_ND, y_N = read_set(path)
    random = np.random.default_rng(seed)
    normal_ND, anomalies_AD = random.permutation(x_ND[y_N == 0]), random.permutation(x_ND[y_N != 0])
    size = min(MOST, int(SHARE * len(normal_ND)))
    old_ND, fresh_ND, rest_ND = np.split(normal_ND[: 2 * size + MOST], [size, 2 * size])
    spoiling_AD, tested_AD = np.array_split(anomalies_AD, 2)
    test = Test(rest_ND, tested_AD)
    with threadpool_limits(1):
        champion = fit(old_ND, preset=PRESET, seed=seed, champion=None, force=False)
        assert champion.model
        quality, outcomes = _judge(champion.model, test), []
        for way in ways:
            rows = Honest(old_ND, fresh_ND, spoiling_AD, np.random.default_rng(seed))
            outcomes.append(
                _refit(path.stem, seed, way, WAYS[way](rows), champion, quality, test, force)
            )
    return outcomes


def _refit(
    name: str,
    seed: int,
    way: str,
    rows_ND: Float32,
    champion: Fitted,
    quality: Quality,
    test: Test,
    force: bool,
) -> Outcome:
    outcome = Outcome(
        set=name,
        seed=seed,
        way=way,
        published=False,
        reason="",
        champion=quality,
        rows=len(rows_ND),
    )
    try:
        made = fit(rows_ND, preset=PRESET, seed=seed, champion=champion, force=force)
    except (RunError, HourglassError) as error:
        return msgspec.structs.replace(outcome, reason=f"unusable: {error}")
    assert made.decision
    return msgspec.structs.replace(
        outcome,
        published=made.decision.published and not made.decision.forced,
        reason=made.decision.reason,
        checks=made.decision.checks,
        challenger=_judge(made.model, test) if made.model else None,
        screened=made.screened.left_out if made.screened else None,
    )


def _judge(model: Model, test: Test) -> Quality:
    normal_N, anomalous_A = (model.score(rows_ND).score for rows_ND in test)
    labels_N = np.repeat([False, True], [len(normal_N), len(anomalous_A)])
    scores_N = np.concatenate([normal_N, anomalous_A])
    return Quality(
        average_precision=float(average_precision_score(labels_N, scores_N)),
        detection=float(model.threshold.is_anomaly(anomalous_A).mean()),
        false_alarms=float(model.threshold.is_anomaly(normal_N).mean()),
        alpha=model.threshold.alpha,
    )
