"""The associative denoiser: its memory, its tails, and what it does with rows of known density."""

import math

import pytest
import torch

from service.artifact import Feature
from training.core import Core
from training.features import Encoding
from training.fit import fit
from training.models.associative import Associative, AssociativeConfig
from training.models.member import FitConfig
from training.models.memory import MEMBERS, Memory, assign_prototypes, cluster_means
from training.models.tails import SHARES, Tails

SHORT = FitConfig(steps=150, batch_size=256, learning_rate=3e-3, schedule="one_cycle", clip_norm=1.0, patience=0)


def rows(count: int, seed: int) -> torch.Tensor:
    """Two correlated clusters in five dimensions."""
    draw = torch.Generator().manual_seed(seed)
    mix = torch.randn(2, 5, generator=torch.Generator().manual_seed(9))
    side = torch.where(torch.rand(count, 1, generator=draw) < 0.5, -3.0, 3.0)
    return torch.randn(count, 2, generator=draw) @ mix + 0.3 * torch.randn(count, 5, generator=draw) + side


def fitted(**changes: object) -> Associative:
    fit_rows = rows(800, 0)
    features = tuple(Feature(name=f"x{d}", kind="numeric") for d in range(5))
    torch.manual_seed(0)
    encoding = Encoding(features, fit_rows.numpy())
    member = AssociativeConfig(width=32, blocks=1, memory=32, fit=SHORT, **changes).build(encoding)
    fit(member, fit_rows, rows(300, 1), SHORT, seed=0)
    return member


@pytest.fixture(scope="module")
def member() -> Associative:
    return fitted()


def test_a_tail_is_minus_the_log_of_the_share_above() -> None:
    # of exp(Exponential(1)) the share above v is 1 / v: minus its log is log v, and Hill's index is 1
    draw = torch.rand(200_000, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    tails = Tails(1)
    tails.fit((1 / (1 - draw)).float())
    values = torch.tensor([[1.5], [2.0], [5.0], [10.0], [100.0], [1e4]])
    assert torch.allclose(tails(values), torch.log(values), rtol=0.03)


def test_a_tail_rises_without_end_and_is_never_negative() -> None:
    tails = Tails(1)
    tails.fit(torch.rand(50, 1, generator=torch.Generator().manual_seed(0)))
    rarity = tails(torch.logspace(-9, 9, 200).unsqueeze(1))[:, 0]
    assert rarity[0] == pytest.approx(-math.log(SHARES[0]))
    assert (rarity.diff() >= 0).all()
    assert rarity[-1] > 10


def test_held_out_values_that_are_all_equal_make_a_finite_tail() -> None:
    tails = Tails(1)
    tails.fit(torch.ones(20, 1))
    assert torch.isfinite(tails(torch.tensor([[0.0], [1.0], [1e30]]))).all()


def test_a_memory_recalls_the_softmax_weighted_mean_of_its_prototypes() -> None:
    prototypes = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 4.0]])
    memory = Memory(prototypes)
    row = torch.tensor([[0.5, 1.0]])
    recall = memory(row, torch.ones(1, 2))
    weights = torch.softmax(-(row - prototypes).square().sum(dim=1) / memory.bandwidth, dim=0)
    assert torch.allclose(recall.weights_NC[0], weights)
    assert torch.allclose(recall.parts_NE[0], (row[0] - weights @ prototypes).square())


def test_a_missing_cell_counts_in_no_distance_and_no_error() -> None:
    memory = Memory(torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 4.0]]))
    alone = Memory(torch.tensor([[0.0], [2.0], [0.0]]))
    alone.bandwidth = memory.bandwidth / 2  # half of the columns are seen, and distances are scaled up to all
    seen = memory(torch.tensor([[1.5, 0.0]]), torch.tensor([[1.0, 0.0]]))
    assert torch.allclose(seen.weights_NC, alone(torch.tensor([[1.5]]), torch.ones(1, 1)).weights_NC)
    assert seen.parts_NE[0, 1] == 0


def test_every_prototype_is_the_mean_of_at_least_four_rows() -> None:
    data = torch.cat([rows(200, 0), 50 + torch.arange(3.0).unsqueeze(1) * torch.ones(1, 5)])  # three far rows
    cluster = assign_prototypes(data, 64, torch.Generator().manual_seed(0))
    sizes = torch.bincount(cluster)
    assert (sizes >= MEMBERS).all()
    assert sizes.sum() == len(data)
    means = cluster_means(data, cluster, len(sizes))
    assert torch.allclose(means[0], data[cluster == 0].mean(dim=0), atol=1e-4)


def test_a_row_of_cells_from_both_clusters_is_stranger_than_the_rows_of_either(member: Associative) -> None:
    core = Core(member)
    core.weigh(rows(300, 1))
    normal = core(rows(300, 2)).score_N
    mixed = core(torch.tensor([[3.0, -3.0, 3.0, -3.0, 3.0]])).score_N
    assert mixed > normal.max()


def test_the_score_is_the_mean_rarity_of_the_heads(member: Associative) -> None:
    encoded = member.encoding.encode(rows(50, 4))
    rarity = member.tails(torch.stack([head.value_N for head in member.heads(encoded)], dim=1)).mean(dim=1)
    assessed = member.assess(encoded).errors_ND
    assert torch.allclose(assessed.sum(dim=1) / 5, rarity, rtol=1e-4)
    assert (assessed >= 0).all()


def test_the_whitened_residual_of_fit_rows_has_unit_covariance_up_to_shrinkage(member: Associative) -> None:
    encoded = member.encoding.encode(rows(800, 0))
    values, observed = member.look(encoded)
    residual = member._residual(values, observed, encoded.observed_ND, member.config.levels[-1])[0]
    white = residual @ member.whitening[0, -1]
    covariance = white.T @ white / len(white)
    assert torch.allclose(covariance.diagonal().mean(), torch.tensor(1.0), atol=0.1)
    assert (covariance - torch.diag(covariance.diagonal())).abs().max() < 0.25


def test_without_a_memory_nothing_of_single_rows_is_stored() -> None:
    bare = fitted(views=("log",)).stores_rows, fitted(memory_rows=True).stores_rows
    assert bare == ("averages", "rows")
    features = tuple(Feature(name=f"x{d}", kind="numeric") for d in range(5))
    without = AssociativeConfig(memory=0, fit=SHORT).build(Encoding(features, rows(50, 0).numpy()))
    assert without.stores_rows == "none"
    fit(without, rows(300, 0), rows(100, 1), SHORT, seed=0)
    assert len(without.memories) == 0
    assert len(without.recalled_CE) == 0


def test_a_config_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="there must be a memory or a level"):
        AssociativeConfig(memory=0, levels=())
    with pytest.raises(ValueError, match="min_noise < max_noise"):
        AssociativeConfig(min_noise=2.0)
