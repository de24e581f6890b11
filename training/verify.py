"""Whether the file answers as the network does that was fitted: asked before it is published.

The two round in other ways, and a row far out, or one at which the network bends, makes more of
that than others do. So what they may differ by is measured by what an answer is used for:

- the score in units of the calibration scores' spread. By TOLERANCE of it one row in several
  thousand changes places with its neighbour, and a p-value out of 1,000 calibration rows is itself
  off by a hundred times as much;
- the contributions in units of the row's score, whose shares they are, or in the score's own unit
  where that is larger, since they sum to the score;
- the reconstruction in units of the feature's standard deviation;
- the code in units of its largest number.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from hourglass.service.model.artifact import (
    CONTRIBUTIONS,
    LATENT,
    LATENT_DEVIATION,
    NOBODY,
    RECONSTRUCTION,
    SCORE,
)
from hourglass.service.model.calibration import Table
from hourglass.service.model.detector import Detector
from hourglass.training.core import Core
from hourglass.training.errors import RunError
from hourglass.training.folds import Folds
from hourglass.training.windows import Windowed

ROWS = 256
TOLERANCE = 1e-3
# of the median score: of calibration scores that are alike the spread is rounding, which among rows
# that are nearly all copies was seen to move a score by a ten-thousandth
LEAST_SPREAD = 0.5

Float32 = NDArray[np.float32]


class Difference(NamedTuple):
    """The largest difference of one output, in units of what it may be."""

    output: str
    row: int  # from 0
    served: float
    fitted: float
    size: float  # above 1: too large; infinite where only one of them is a number


def verify(
    detector: Detector, core: Core | Folds | Windowed, rows_ND: Float32, code: int = NOBODY
) -> tuple[Difference, ...]:
    """Compare torch and the service on the first of these rows [N, D], of a windowed core a series
    of the entity with this code; RunError names the output that is another.
    """
    before = core.rows - 1 if isinstance(core, Windowed) else 0
    found = tuple(differences(detector, core, rows_ND[: before + ROWS], code))
    for output, row, served, fitted, size in found:
        if size > 1:
            raise RunError(
                f"the exported graph computes another {output} than the fitted network:"
                f" {served:.7g} where that computes {fitted:.7g} (row {before + row + 1} of those"
                " held out),"
                f" {size:.3g} times what rounding explains; nothing was published"
            )
    return found


@torch.no_grad()
def differences(
    detector: Detector, core: Core | Folds | Windowed, rows_ND: Float32, code: int = NOBODY
) -> Iterator[Difference]:
    """The largest difference of each output between torch and the service on rows [N, D]; of a
    windowed core on a series of the entity with this code.
    """
    if detector.manifest.baseline is not None and code != NOBODY:
        detector = detector.of(detector.manifest.baseline.entities[code])
    explained, code_NK = detector.explain(rows_ND), detector.encode(rows_ND)
    rows = torch.from_numpy(rows_ND)
    if isinstance(core, Windowed):
        output = core(rows.unsqueeze(0), torch.tensor([code]))
    else:
        output = core(rows)
    fitted = [tensor.numpy() for tensor in output if tensor is not None]
    score_N1 = explained.score[:, None]
    median, spread = _spread(detector.table)
    unit_N1 = np.maximum(spread, np.abs(score_N1 - median))
    # whatever is no number of its own unit is a probability or the place of a category
    unit_D = core.encoding.scale_D.numpy()[: explained.reconstruction.shape[1]]
    unit_D = np.where(unit_D > 0, unit_D, 1.0)
    compared = [
        (SCORE, score_N1, fitted[0][:, None], unit_N1),
        (CONTRIBUTIONS, explained.contributions, fitted[1], np.maximum(score_N1, unit_N1)),
        (
            RECONSTRUCTION,
            explained.reconstruction,
            fitted[2],
            np.maximum(unit_D, np.abs(explained.reconstruction)),
        ),
        (LATENT, code_NK, fitted[3], np.nanmax(np.abs(code_NK), initial=1.0)),
    ]
    if (deviation_NK := detector.encode_with_deviation(rows_ND).deviation) is not None:
        compared.append((LATENT_DEVIATION, deviation_NK, fitted[4], np.nanmax(deviation_NK)))
    for output, served, ours, unit in compared:
        with np.errstate(invalid="ignore", over="ignore"):
            size = np.abs(served.astype(np.float64) - ours) / (TOLERANCE * unit)
        size = np.where(np.isnan(served) & np.isnan(ours) | (served == ours), 0.0, size)
        size = np.nan_to_num(size, nan=np.inf)
        row, column = np.unravel_index(size.argmax(), size.shape)
        yield Difference(
            output,
            int(row),
            float(served[row, column]),
            float(ours[row, column]),
            float(size[row, column]),
        )


def _spread(table: Table) -> tuple[float, float]:
    """The median calibration score, and how far above it the highest tenth begins."""
    median, high = (
        float(table.scores[np.flatnonzero(table.p_values[:-1] >= share)[-1]])
        for share in (0.5, 0.1)
    )
    return median, max(high - median, LEAST_SPREAD * median)
