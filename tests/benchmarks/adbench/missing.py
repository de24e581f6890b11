"""Missing cells: what hiding a share of the test's cells does to a detector of ours, and what means
in their place would do.

Cells go missing completely at random, those of a smaller share among those of a larger one. Shapes:
N rows, D features.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.benchmarks.adbench.outcome import Fitted, Job, Missing
from tests.benchmarks.adbench.protocol import Float32, Rows, read_set, split
from tests.benchmarks.adbench.quality import Quality, judge, score_rows, share_above

SHARES = (0.1, 0.3)
ALPHA = 0.05
SETS = 8
# of fewer, one hidden cell often is the anomaly; more take long and add nothing
FEATURES = range(10, 65)
OF_TEST_ROWS, OF_FIT_ROWS = 0, 1  # streams of a seed


def hide(rows_ND: Float32, share: float, stream: tuple[int, int]) -> Float32:
    """The rows with that share of cells missing."""
    hidden_ND = np.random.default_rng(stream).random(rows_ND.shape) < share
    return np.where(hidden_ND, np.float32(np.nan), rows_ND)


def measure(fitted: Fitted, rows: Rows, job: Job) -> tuple[Missing, ...]:
    """Each share of missing cells, or after fitting rows with missing cells, the share that they
    had.
    """
    if fitted.threshold_at is None:
        raise ValueError("missing cells are for detectors that take them")
    threshold, certified = fitted.threshold_at(ALPHA)

    def judged(rows_ND: Float32, anomalous_N: NDArray[np.bool_]) -> tuple[Quality, float]:
        score_N = score_rows(fitted, rows_ND)
        return judge(score_N, anomalous_N), share_above(threshold, score_N[~anomalous_N])

    means_D = np.nanmean(rows.fit_ND, axis=0)
    found = []
    for share in (job.hidden_in_training,) if job.hidden_in_training else SHARES:
        hidden_ND = hide(rows.test_ND, share, (job.seed, OF_TEST_ROWS))
        enough_N = (~np.isnan(hidden_ND)).mean(axis=1) >= fitted.min_observed
        scored_N = enough_N & ~np.isnan(score_rows(fitted, hidden_ND))
        hidden_ND, complete_ND, anomalous_N = (
            hidden_ND[scored_N],
            rows.test_ND[scored_N],
            rows.anomalous_N[scored_N],
        )
        quality, false_alarms = judged(hidden_ND, anomalous_N)
        complete, complete_false_alarms = judged(complete_ND, anomalous_N)
        imputed, imputed_false_alarms = judged(
            np.where(np.isnan(hidden_ND), means_D, hidden_ND), anomalous_N
        )
        found.append(
            Missing(
                share=share,
                refused=float((~scored_N).mean()),
                auroc=quality.auroc,
                average_precision=quality.average_precision,
                false_alarm_rate=false_alarms,
                complete_auroc=complete.auroc,
                complete_average_precision=complete.average_precision,
                complete_false_alarm_rate=complete_false_alarms,
                imputed_auroc=imputed.auroc,
                imputed_average_precision=imputed.average_precision,
                imputed_false_alarm_rate=imputed_false_alarms,
                alpha=ALPHA,
                certified=certified,
            )
        )
    return tuple(found)


def choose_sets(paths: Iterable[Path]) -> list[Path]:
    """Those of most fit rows, of equally many the first by name, among those with FEATURES; chosen
    by shape, not by any result.
    """
    shapes = {path: split(*read_set(path), seed=0).fit_ND.shape for path in paths}
    fitting = [path for path, (_, features) in shapes.items() if features in FEATURES]
    return sorted(fitting, key=lambda path: (-shapes[path][0], path.name))[:SETS]
