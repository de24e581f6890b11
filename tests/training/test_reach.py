"""A gross value is never lost among many, and values within reach add nothing."""

import numpy as np
import torch

from hourglass.service.model.artifact import Feature
from hourglass.training.core import Core
from hourglass.training.features import Encoding
from hourglass.training.models.member import Assessment, Member
from hourglass.training.reach import GRANTED, UNKNOWN, WEIGHT, Reach

FEATURES = tuple(Feature(name=f"x{i}", kind="numeric") for i in range(4))

ROWS = torch.tensor([[0.0, 5.0, torch.nan], [2.0, 5.0, torch.nan], [4.0, torch.nan, torch.nan]])


def fitted() -> Reach:
    reach = Reach(3)
    reach.fit(ROWS, torch.tensor([True, True, True]))
    return reach


def test_a_value_counts_by_the_ranges_that_it_lies_beyond_those_granted():
    far_ND = fitted()(
        torch.tensor([[2.0 + 4 * (GRANTED + 2), 5.0, torch.nan], [-9.0, 99.0, torch.nan]])
    )
    # of a constant column nothing is said, and a missing value is not far
    torch.testing.assert_close(far_ND, torch.tensor([[2.0, 0.0, 0.0], [0.0, 0.0, 0.0]]))


def test_any_value_is_far_where_no_fit_row_has_one():
    far_ND = fitted()(torch.tensor([[2.0, 5.0, 0.0]]))
    torch.testing.assert_close(far_ND, torch.tensor([[0.0, 0.0, UNKNOWN]]))


def test_what_is_no_number_is_never_far():
    reach = Reach(3)
    reach.fit(ROWS, torch.tensor([False, False, False]))
    assert not reach(torch.tensor([[1e6, 1e6, 1e6]])).any()


@torch.no_grad()
def test_a_score_rises_to_what_is_heard_and_the_far_feature_is_to_blame():
    core = Core(Blind(Encoding(FEATURES, np.float32([[1.0] * 4, [-1.0] * 4]))))
    rows = torch.tensor([[0.5, -1.0, 1e4, 0.0], [0.5, -1.0, 1.0, 0.0], [torch.nan] * 4])
    before = core(rows)
    core.reach.fit(torch.tensor([[1.0] * 4, [-1.0] * 4]), torch.ones(4, dtype=torch.bool))
    after = core(rows)
    heard = WEIGHT * np.log1p(1e4 / 2 - GRANTED)
    np.testing.assert_allclose(after.score_N, [heard, before.score_N[1], np.nan], rtol=1e-6)
    np.testing.assert_allclose(after.contributions_ND[:2].sum(dim=1), after.score_N[:2], rtol=1e-6)
    assert after.contributions_ND[0].argmax() == 2
    np.testing.assert_allclose(after.contributions_ND[1], before.contributions_ND[1], rtol=1e-6)


class Blind(Member):
    """Finds every row as strange as any other."""

    def assess(self, encoded):
        outputs_NE = torch.zeros_like(encoded.values_NE)
        return Assessment(encoded.observed_ND * 1e-3, outputs_NE, outputs_NE[:, :1])
