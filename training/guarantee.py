"""What a run can promise of its threshold, and why."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from hourglass.service.model.calibration import Threshold, build_table
from hourglass.service.model.guarantee import ON_AVERAGE, Guarantee
from hourglass.training.config import RunConfig
from hourglass.training.exchangeability import Exchangeability, examine
from hourglass.training.split import Prepared


def exchangeability_of(prepared: Prepared, alpha: float, config: RunConfig) -> Exchangeability:
    """Test all rows of a run, in the order and the groups that it was told of."""
    return examine(
        prepared.rows_ND,
        prepared.row_features,
        alpha=alpha,
        seed=config.seed,
        order=config.time,
        group_N=prepared.group_N,
    )


def promise(
    prepared: Prepared,
    threshold: Threshold,
    found: Exchangeability,
    config: RunConfig,
    rates: Sequence[float] = (),
    bias: str | None = None,
    effective: float | None = None,
) -> Guarantee:
    """`certified` only for rows drawn singly that passed every test. The rates are those of
    held-out blocks at a threshold that they had no say in; a bias is what rows left out for their
    strangeness do to the promise. The windows that calibrate a windowed model tell as much as
    `effective` rows drawn singly.
    """
    if bias:
        return Guarantee("none", bias if found.passed else f"{bias}; {found.text}")
    if prepared.ordered is not None:
        return Guarantee("blocks", _of_windows(prepared, threshold, config, rates, effective))
    if prepared.block_N is not None:
        sizes = np.unique(prepared.block_N, return_counts=True)[1]
        of = f"groups of {config.group}" if config.group else f"{config.time}"
        reason = (
            f"alpha = {threshold.alpha:g} held in each of {len(sizes)} held-out blocks of {of}"
            f" ({sizes.min()} to {sizes.max()} rows)"
        )
        if rates:
            reason += f"; one that had no say in the threshold alarmed at up to {max(rates):.1%}"
        return Guarantee("blocks", reason if found.passed else f"{reason}; {found.text}")
    if not found.passed:
        return Guarantee("none", found.text)
    if prepared.folds:
        n, folds = prepared.calibration_rows, len(prepared.folds)
        return Guarantee("marginal", f"{cross_conformal(n, folds)}; {found.text}")
    if not threshold.certified:
        return Guarantee("marginal", f"{ON_AVERAGE}; {found.text}")
    return Guarantee("certified", found.text)


def _of_windows(
    prepared: Prepared,
    threshold: Threshold,
    config: RunConfig,
    rates: Sequence[float],
    effective: float | None,
) -> str:
    assert prepared.block_N is not None
    blocks, n = len(np.unique(prepared.block_N)), len(prepared.block_N)
    reason = (
        f"alpha = {threshold.alpha:g} is that of {n:,} windows in"
        f" {'a held-out block' if blocks == 1 else f'{blocks} held-out blocks'} of {config.time}"
        " together"
    )
    if effective is not None:
        reason += f", which tell as much as {effective:.0f} rows that come in no order"
    if rates:
        reason += (
            f"; a block that had no say in the threshold alarmed at {min(rates):.1%} to"
            f" {max(rates):.1%}"
        )
    return f"{reason}; it holds on while what is normal stays as it was"


def effective_rows(score_N: NDArray[np.floating], run_N: NDArray[np.integer]) -> float:
    """How many independent scores tell as much of their quantiles as these, which follow each other
    in runs: n / (1 + 2 times the sum of the autocorrelations), of ranks, as far as sums of two
    neighbouring ones are positive (Geyer, Practical Markov chain Monte Carlo, Statistical Science
    7, 1992, section 3.3).
    """
    n, order_N = len(score_N), np.argsort(run_N, kind="stable")
    run_N = run_N[order_N]
    rank_N = rankdata(score_N)[order_N]
    rank_N -= rank_N.mean()
    variance = float(np.square(rank_N).sum())
    total = 0.0
    for lag in range(0, n, 2):
        pair = 0.0
        for k in (lag, lag + 1):
            first, second = slice(None, max(n - k, 0)), slice(k, None)
            product_N = rank_N[first] * rank_N[second]
            pair += float(product_N[run_N[first] == run_N[second]].sum())
        if pair <= 0 or variance == 0:
            break
        total += pair / variance
    return n / max(1.0, 2 * total - 1)


def cross_conformal(n: int, folds: int) -> str:
    """What holds of the threshold of models that calibrate on each other's rows: theorem 4 of the
    paper that folds.py names, for a count that is less by a half in every fold.
    """
    more = min(2 * (1 - 1 / folds) / (n / folds + 1), (1 - folds / n) / (folds + 1))
    more += 2 * (1 + folds / 2) / (n + 1)
    return (
        f"on average, not certified: {folds} models calibrate each other's {n} rows (CV+); by"
        f" theorem at most 2 alpha + {more:.1%} of normal rows alarm on average over draws, and"
        " below alpha where it was tried"
    )


def left_out_rates(
    prepared: Prepared, score_N: NDArray[np.float32], alpha: float
) -> Sequence[float]:
    """The alarm rate of each block of calibration rows, which score so, at the threshold that the
    others give; none of one block, or of rows drawn singly.
    """
    block_N = prepared.block_N
    blocks = () if block_N is None else np.unique(block_N)
    if block_N is None or len(blocks) < 2:
        return ()
    # of windows the blocks calibrate together, of single rows the strictest of them does
    strictest_N = None if prepared.ordered else block_N
    return [left_out_rate(score_N, block_N == block, alpha, strictest_N) for block in blocks]


def left_out_rate(
    score_N: NDArray[np.float32],
    here_N: NDArray[np.bool_],
    alpha: float,
    block_N: NDArray[np.integer] | None = None,
) -> float:
    """How many of these rows alarm at the threshold that the others give, together or in blocks."""
    others = build_table(score_N[~here_N], block_N=None if block_N is None else block_N[~here_N])
    limit = max(alpha, others.smallest_p_value)
    threshold = others.threshold(limit, 0.5, certified=False)
    return float((score_N[here_N] > threshold.score).mean())
