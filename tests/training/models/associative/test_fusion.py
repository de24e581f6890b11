"""The score where held-out rows tell hardly anything."""

import torch

from hourglass.training.models.associative.fusion import HIGHEST, Fusion
from hourglass.training.models.associative.tail_probabilities import MISSING_RATES


def test_a_row_with_gaps_has_a_finite_score_where_held_out_rows_are_all_alike() -> None:
    rates = torch.tensor(MISSING_RATES)
    fusion = Fusion([1], [1.0])
    fusion.fit(
        torch.zeros(len(rates), 50, 1), rates.reshape(-1, 1, 1).expand(-1, 50, 1).contiguous()
    )
    fusion.gaps.stretch_RH[1:] = -10  # gaps draw the logarithm of the score far apart
    score_N1, _ = fusion(torch.tensor([[30.0], [30.0]]), torch.tensor([[0.0], [0.5]]))
    assert torch.isfinite(score_N1).all()
    assert score_N1[1] == HIGHEST
