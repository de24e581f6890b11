"""What a run can promise of its threshold, and why."""

import numpy as np
import onnx
from numpy.typing import NDArray

from hourglass.service.model.calibration import Threshold, build_table
from hourglass.service.model.guarantee import ON_AVERAGE, Guarantee
from hourglass.training.calibrate import calibration_scores
from hourglass.training.config import RunConfig
from hourglass.training.exchangeability import Exchangeability, examine
from hourglass.training.split import Prepared


def exchangeability_of(prepared: Prepared, alpha: float, config: RunConfig) -> Exchangeability:
    """Test all rows of a run, in the order and the groups that it was told of."""
    return examine(
        prepared.rows_ND,
        prepared.features,
        alpha=alpha,
        seed=config.seed,
        order=config.time,
        group_N=prepared.group_N,
    )


def promise(
    graph: onnx.ModelProto,
    prepared: Prepared,
    threshold: Threshold,
    found: Exchangeability,
    config: RunConfig,
) -> Guarantee:
    """`certified` only for rows drawn singly that passed every test."""
    block_N = prepared.block_N
    if block_N is not None:
        score_N = calibration_scores(graph, prepared.split.calibration_ND)
        rates = left_out_rates(score_N, block_N, threshold.alpha)
        sizes = np.unique(block_N, return_counts=True)[1]
        of = f"groups of {config.group}" if config.group else f"{config.time}"
        reason = (
            f"alpha = {threshold.alpha:g} held in each of {len(sizes)} held-out blocks of {of}"
            f" ({sizes.min()} to {sizes.max()} rows)"
        )
        if len(rates):
            reason += f"; one that had no say in the threshold alarmed at up to {rates.max():.1%}"
        return Guarantee("blocks", reason if found.passed else f"{reason}; {found.text}")
    if not found.passed:
        return Guarantee("none", found.text)
    if not threshold.certified:
        return Guarantee("marginal", f"{ON_AVERAGE}; {found.text}")
    return Guarantee("certified", found.text)


def left_out_rates(
    score_N: NDArray[np.float32], block_N: NDArray[np.integer], alpha: float
) -> NDArray[np.float64]:
    """The alarm rate of each block at the threshold that the others give; of one block none."""
    blocks = np.unique(block_N)
    if len(blocks) < 2:
        return np.empty(0)
    rates = []
    for block in blocks:
        here_N = block_N == block
        others = build_table(score_N[~here_N], block_N=block_N[~here_N])
        limit = max(alpha, others.smallest_p_value)
        threshold = others.threshold(limit, 0.5, certified=False)
        rates.append(float((score_N[here_N] > threshold.score).mean()))
    return np.array(rates)
