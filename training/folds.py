"""Folds: several models of few rows as one, each held against the rows that it was not fitted on.

Few rows are too few to be split: those that calibrate are missed by the fit, and a threshold of
rank 1 of 60 hangs on one of them. So the rows are split into folds, each model is fitted on all
folds but one, and all rows calibrate (CV+: Barber, Candès, Ramdas and Tibshirani, Predictive
inference with the jackknife+, Annals of Statistics 49, 2021; for anomalies: Hennhöfer and Preisach,
Leave-one-out-, bootstrap- and cross-conformal anomaly detectors, arXiv 2402.16388). A new row x is
compared with each row i by the model that i, too, is new to. With s_k the score by the model
without fold k, and c_k(s) the number of rows of fold k that score at least s,

    score(x) = -log(sum of c_k(s_k(x)) over the folds / n),

and (1 + n exp(-score)) / (n + 1) is CV+'s p-value. Scores of two models are never compared with
each other: their tails have another scale in each.

The count is made continuous, so that no two scores are tied and none is the most there is. Its
logarithm falls in straight lines from one score of the fold to the next, where it is the true count
less a half; and beyond the largest by a generalised Pareto law of what all folds have above their
upper fifths.

Shapes: N rows, D features, F folds, K latent dimensions of all models together, L lines of a fold's
count, Q = L - 1 ends of them.
"""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hourglass.service.model.severity import fit_excess
from hourglass.training.conditional import Conditional, fit_conditional
from hourglass.training.core import Core, CoreOutput, blend
from hourglass.training.features import Encoding

UPPER = 5  # one in so many rows of a fold tells of its tail
SPACING = 1e-3  # of a fold's spread; closer scores count as one, or rounding would decide
ROUNDED = 1e-4  # of a score: a hundred times what is rounded of a large one
SMALL = 1e-12
TAIL_STEPS = 2.0 ** np.arange(-2, 40)  # ends of lines beyond the largest score, in scales

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]


class Folds(nn.Module):
    """A core for each fold, and what each scored the rows of its fold [F][n_k]."""

    def __init__(self, cores: Sequence[Core], scores: Sequence[Float32], encoding: Encoding):
        super().__init__()
        self.cores = nn.ModuleList(cores)
        self.encoding = encoding
        self.conditional: Conditional | None = None
        self.rows = sum(map(len, scores))
        tails = _tails([np.sort(each.astype(np.float64)) for each in scores])
        counts = [
            _lines(np.sort(each.astype(np.float64)), *tail)
            for each, tail in zip(scores, tails, strict=True)
        ]
        longest = max(len(lines) for lines in counts)
        ends_FQ = np.full((len(counts), longest - 1), np.inf)
        lines_FL3 = np.zeros((len(counts), longest, 3))
        for fold, lines in enumerate(counts):
            ends_FQ[fold, : len(lines) - 1] = lines[1:, 0]
            lines_FL3[fold, : len(lines)] = lines
        self.register_buffer("ends_FQ", torch.from_numpy(ends_FQ.astype(np.float32)))
        self.register_buffer("lines", torch.from_numpy(lines_FL3.reshape(-1, 3).astype(np.float32)))
        self.register_buffer("first_F", torch.arange(len(counts)) * longest)
        self.scores = [np.maximum(each, np.float32(0)) for each in scores]

    ends_FQ: Tensor  # ascending, then infinite
    lines: Tensor  # [F x L, 3] start, log of the count there, and its change from there on
    first_F: Tensor  # line of each fold

    def forward(self, features: Tensor) -> CoreOutput:
        outputs = [core(features) for core in self.cores]
        score_N = self._join(torch.stack([output.score_N for output in outputs], dim=1))
        encoded = self.encoding.encode(features)
        parts_ND = encoded.observed_ND * 1e-20
        for output in outputs:
            of_one_N1 = output.contributions_ND.sum(dim=1, keepdim=True)
            parts_ND = parts_ND + output.contributions_ND / of_one_N1.clamp_min(1e-30)
        if self.conditional is None:
            parts_ND = parts_ND / parts_ND.sum(dim=1, keepdim=True)
        else:
            observed_ND = encoded.observed_ND
            parts_ND = blend(self.conditional, self.encoding, features, observed_ND, parts_ND)
        return CoreOutput(
            score_N,
            score_N.unsqueeze(1) * parts_ND,
            self._expected(torch.stack([output.reconstruction_ND for output in outputs])),
            torch.cat([output.latent_NK for output in outputs], dim=1),
        )

    def _join(self, scores_NF: Tensor) -> Tensor:
        """[N] the score, of the scores by all models."""
        passed_NFQ = scores_NF.unsqueeze(2) > self.ends_FQ
        line_NF = passed_NFQ.to(scores_NF.dtype).sum(dim=2).to(torch.int64) + self.first_F
        lines_NF3 = self.lines[line_NF]
        start_NF, base_NF, change_NF = lines_NF3.unbind(dim=2)
        counts_NF = base_NF + change_NF * (scores_NF - start_NF)
        return (math.log(self.rows) - torch.logsumexp(counts_NF, dim=1)).clamp_min(0.0)

    def _expected(self, expected_FND: Tensor) -> Tensor:
        """[N, D] the mean of what the models expect; of a category what most of them do."""
        mean_ND = expected_FND.mean(dim=0)
        if not self.encoding.one_hot:
            return mean_ND
        alike_FND = (expected_FND.unsqueeze(0) == expected_FND.unsqueeze(1)).float().sum(dim=1)
        most_1ND = alike_FND.argmax(dim=0, keepdim=True)
        chosen_ND = expected_FND.gather(0, most_1ND).squeeze(0)
        return torch.where(self.encoding.categorical_D, chosen_ND, mean_ND)

    @property
    def stores_rows(self) -> Literal["none", "averages", "rows"]:
        """What of the training rows the file will contain: all models are of one kind."""
        first = self.cores[0]
        assert isinstance(first, Core)
        return first.stores_rows

    def fit_conditional(self, rows_ND: Float32) -> None:
        """Learn of all rows what values let expect of each other; no score depends on it."""
        self.conditional = fit_conditional(
            self.encoding, self.encoding.encode(torch.from_numpy(rows_ND))
        )

    def ranks(self) -> Float32:
        """[n] the score that a row has to be above for fewer than 1, 2, and so on to n rows to be
        as strange.
        """
        count_N = np.arange(1, self.rows + 1)
        ranks: Float32 = (math.log(self.rows) - np.log(count_N)).astype(np.float32)
        return ranks

    def out_of_fold(self) -> Float32:
        """[n] of each row the score that it would have if all models said what the one says that
        it is new to.
        """
        joined = []
        for fold, score_N in enumerate(self.scores):
            ends_Q = self.ends_FQ[fold].numpy()
            line_N = np.searchsorted(ends_Q, score_N, side="left") + int(self.first_F[fold])
            start_N, base_N, change_N = self.lines.numpy()[line_N].T
            count_N = base_N + change_N * (score_N - start_N)
            joined.append(math.log(len(score_N)) - count_N)
        scores: Float32 = np.maximum(np.concatenate(joined), 0).astype(np.float32)
        return scores


def _tails(ascending: Sequence[Float64]) -> list[tuple[float, float]]:
    """Shape and scale of the law beyond the largest of each fold's scores; the folds are alike but
    for their unit, the mean score.
    """
    excesses, units = [], []
    for scores in ascending:
        start = scores[-1 - max(1, len(scores) // UPPER)] if len(scores) > 1 else 0.0
        unit = max(float(np.abs(scores).mean()), SMALL)
        excesses.append((scores[scores > start] - start) / unit)
        units.append(unit)
    together = np.sort(np.concatenate(excesses))
    if not len(together):  # all are alike
        together = np.array([SPACING])
    shape, scale = fit_excess(together)
    largest = [float(excess[-1]) if len(excess) else 0.0 for excess in excesses]
    return [(shape, unit * (scale + shape * far)) for far, unit in zip(largest, units, strict=True)]


def _lines(ascending: Float64, shape: float, scale: float) -> Float64:
    """[L, 3] lines of a fold's count: start, the count's logarithm there, and its change."""
    n = len(ascending)
    spread = float(np.quantile(ascending, 0.9) - np.median(ascending))
    least = max(SPACING * spread, SMALL)
    ends, counts = [min(0.0, float(ascending[0]) - 1.0)], [float(n)]
    for i, score in enumerate(ascending):
        if score - ends[-1] < max(
            least, ROUNDED * abs(score)
        ):  # the larger count stays, which calls fewer rows strange
            ends[-1] = float(score)
        else:
            ends.append(float(score))
            counts.append(n - i - 0.5)
    beyond = TAIL_STEPS * scale
    order = beyond / scale if shape == 0 else np.log1p(shape * beyond / scale) / shape
    starts = np.concatenate([ends, ends[-1] + beyond])
    logs = np.concatenate([np.log(counts), math.log(counts[-1]) - order])
    changes = np.diff(logs) / np.diff(starts)
    return np.stack([starts, logs, np.append(changes, changes[-1])], axis=1)
