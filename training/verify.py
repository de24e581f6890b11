"""Whether the file answers as the network does that was fitted: asked before it is published."""

import numpy as np
import torch
from numpy.typing import NDArray

from hourglass.service.model.artifact import CONTRIBUTIONS, LATENT, RECONSTRUCTION, SCORE
from hourglass.service.model.detector import Detector
from hourglass.training.core import Core
from hourglass.training.errors import RunError
from hourglass.training.folds import Folds

ROWS = 256
TOLERANCE = 1e-4


@torch.no_grad()
def verify(detector: Detector, core: Core | Folds, rows_ND: NDArray[np.float32]) -> None:
    """Compare torch and the service on the first of these rows [N, D]; RunError names the output
    that is another.
    """
    rows_ND = rows_ND[:ROWS]
    explained = detector.explain(rows_ND)
    served = {
        SCORE: explained.score,
        CONTRIBUTIONS: explained.contributions,
        RECONSTRUCTION: explained.reconstruction,
        LATENT: detector.encode(rows_ND),
    }
    fitted = core(torch.from_numpy(rows_ND))
    for (name, theirs), ours in zip(served.items(), fitted, strict=True):
        scale = float(np.nanmax(np.abs(theirs), initial=1.0))  # one is what a normal score is about
        if not np.allclose(
            ours.numpy(), theirs, rtol=TOLERANCE, atol=0.1 * TOLERANCE * scale, equal_nan=True
        ):
            raise RunError(
                f"the exported graph computes another {name} than the fitted network; nothing was"
                " published"
            )
