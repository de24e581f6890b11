import math

import numpy as np
import pytest
import torch

from hourglass.service.model.artifact import Feature
from hourglass.training.core import RESIDUAL_FLOOR, Core
from hourglass.training.features import Encoding
from hourglass.training.fit import fit
from hourglass.training.models.linear import LinearConfig
from hourglass.training.models.member import Assessment, Member
from tests.training import tables

FEATURES = tuple(Feature(name=f"x{i}", kind="numeric") for i in range(4))


@pytest.fixture(scope="module")
def core() -> Core:
    """A linear member fitted on 2,000 correlated rows, weighed on 1,000 others."""
    rows_ND = tables.correlated(2000)
    member = LinearConfig(latent=2).build(Encoding(FEATURES, rows_ND))
    held_out_ND = torch.from_numpy(tables.correlated(1000, seed=1))
    torch.manual_seed(0)
    fit(member, torch.from_numpy(rows_ND), held_out_ND, LinearConfig().fit, seed=0)
    core = Core(member).eval()
    core.weigh(held_out_ND)
    return core


class Stub(Member):
    """Expects zero everywhere."""

    def assess(self, encoded):  # type: ignore[no-untyped-def]
        outputs_NE = torch.zeros_like(encoded.values_NE)
        return Assessment(self.encoding.errors(outputs_NE, encoded), outputs_NE, outputs_NE[:, :1])


class Scored(Stub):
    """Has a score of its own, 5 for every cell that is observed, and blames features by the cube of
    their error.
    """

    def assess(self, encoded):  # type: ignore[no-untyped-def]
        seen = super().assess(encoded)
        return seen._replace(
            errors_ND=seen.errors_ND**3, score_N=5 * encoded.observed_ND.sum(dim=1)
        )


def standard(width: int) -> Encoding:
    """Of features with mean 0 and deviation 1."""
    return Encoding(FEATURES[:width], np.repeat(np.float32([[1.0], [-1.0]]), width, axis=1))


@torch.no_grad()
def test_contributions_are_the_weighed_errors_shared_over_the_observed_cells() -> None:
    core = Core(Stub(standard(3)))
    core.weight_D.copy_(torch.tensor([1.0, 2.0, 4.0]))
    score_N, contributions_ND, *_ = core(torch.tensor([[3.0, 1.0, 2.0], [3.0, math.nan, 2.0]]))
    assert contributions_ND[0].tolist() == pytest.approx([9 / 3, 2 / 3, 16 / 3])
    assert contributions_ND[1].tolist() == pytest.approx([9 / 2, 0.0, 16 / 2])
    assert score_N.tolist() == pytest.approx([9.0, 12.5])


@torch.no_grad()
def test_the_weight_is_one_over_the_mean_held_out_error_of_the_observed_cells() -> None:
    core = Core(Stub(standard(2)))
    residual_D = core.weigh(torch.tensor([[2.0, 1.0], [4.0, math.nan], [math.nan, 3.0]]))
    assert residual_D.tolist() == pytest.approx([(4 + 16) / 2, (1 + 9) / 2])
    assert core.weight_D.tolist() == pytest.approx([1 / 10, 1 / 5])


@torch.no_grad()
def test_a_member_with_its_own_score_reports_the_mean_error_of_its_expected_values() -> None:
    core = Core(Scored(standard(2)))
    rows_ND = torch.tensor([[2.0, 1.0], [4.0, math.nan], [math.nan, 3.0], [math.nan, math.nan]])
    residual_D = core.weigh(rows_ND)
    # it expects zero, and what it blames the features by plays no part
    assert residual_D.tolist() == pytest.approx([(4 + 16) / 2, (1 + 9) / 2])


@torch.no_grad()
def test_a_score_of_its_own_is_one_on_average_over_held_out_rows_and_shared_in_proportion_to_the_errors() -> (
    None
):
    core = Core(Scored(standard(2)))
    rows_ND = torch.tensor([[2.0, 1.0], [4.0, math.nan], [math.nan, 3.0], [math.nan, math.nan]])
    core.weigh(rows_ND)
    score_N, contributions_ND, *_ = core(rows_ND)
    assert score_N[:3].tolist() == pytest.approx([1.5, 0.75, 0.75])  # 10, 5 and 5 over their mean
    assert score_N[3].isnan()  # and without a part in that mean
    assert contributions_ND[:3].flatten().tolist() == pytest.approx(
        [1.5 * 64 / 65, 1.5 / 65, 0.75, 0.0, 0.0, 0.75]
    )


@torch.no_grad()
def test_a_row_without_any_error_has_its_own_score_shared_equally_over_what_is_observed() -> None:
    core = Core(Scored(standard(3)))
    _, contributions_ND, *_ = core(torch.tensor([[0.0, 0.0, math.nan]]))
    assert contributions_ND[0].tolist() == pytest.approx([5.0, 5.0, 0.0])


@torch.no_grad()
def test_a_feature_reproduced_exactly_gets_no_infinite_weight() -> None:
    core = Core(Stub(standard(2)))
    core.weigh(torch.tensor([[0.0, 1.0], [0.0, -1.0]]))
    assert core.weight_D.tolist() == pytest.approx([1 / RESIDUAL_FLOOR, 1.0])


@torch.no_grad()
def test_contributions_are_non_negative_and_sum_to_the_score(core: Core) -> None:
    rows_ND = torch.from_numpy(tables.correlated(500, seed=2))
    rows_ND[::3, 1] = math.nan
    score_N, contributions_ND, *_ = core(rows_ND)
    assert (contributions_ND >= 0).all()
    assert torch.allclose(contributions_ND.sum(dim=1), score_N, rtol=1e-5)


@torch.no_grad()
def test_fresh_normal_rows_score_about_one(core: Core) -> None:
    score_N = core(torch.from_numpy(tables.correlated(5000, seed=3))).score_N
    assert float(score_N.mean()) == pytest.approx(1.0, abs=0.1)


@torch.no_grad()
def test_a_missing_cell_contributes_nothing(core: Core) -> None:
    rows_ND = torch.from_numpy(tables.correlated(50, seed=4))
    rows_ND[:, 2] = math.nan
    assert not core(rows_ND).contributions_ND[:, 2].any()


@torch.no_grad()
def test_a_row_with_nothing_observed_has_no_score(core: Core) -> None:
    score_N, contributions_ND, reconstruction_ND, latent_NK, _ = core(torch.full((1, 4), math.nan))
    assert score_N.isnan().all()
    assert contributions_ND.isnan().all()
    assert reconstruction_ND.isfinite().all()
    assert latent_NK.isfinite().all()


@torch.no_grad()
@pytest.mark.parametrize("value", [1e38, -1e38, math.inf, -math.inf])
def test_extreme_values_score_high_and_finite(core: Core, value: float) -> None:
    rows_ND = torch.from_numpy(tables.correlated(4, seed=5))
    rows_ND[range(4), range(4)] = value
    output = core(rows_ND)
    assert all(tensor.isfinite().all() for tensor in output[:4])
    assert (output.score_N > 1e9).all()
