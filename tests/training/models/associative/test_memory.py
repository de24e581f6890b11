"""The memory by hand, and its distances between rows that are nearly the same."""

import torch

from hourglass.training.models.associative.memory import (
    CLOSEST,
    NEAREST,
    RESOLUTION,
    ROWS_PER_PROTOTYPE,
    Memory,
    averages,
    neighbourhoods,
)

THREE = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 4.0]])


def test_a_memory_recalls_the_softmax_weighted_mean_of_its_prototypes() -> None:
    memory = Memory(THREE)
    row = torch.tensor([[0.5, 1.0]])
    recall = memory(row, torch.ones(1, 2))
    prototypes = memory.prototypes_CE
    weights = torch.softmax(-(row - prototypes).square().sum(dim=1) / memory.bandwidth, dim=0)
    assert torch.allclose(recall.weights_NK[0], weights[recall.index_NK[0]])
    assert torch.allclose(recall.parts_NE[0], (row[0] - weights @ prototypes).square())


def test_a_missing_cell_counts_in_no_distance_and_no_error() -> None:
    memory = Memory(THREE)
    observed = torch.tensor([[1.0, 0.0]])
    one, other = (
        memory(torch.tensor([[1.5, 0.0]]), observed),
        memory(torch.tensor([[1.5, 0.9]]), observed),
    )
    assert torch.allclose(one.error_N1, other.error_N1)
    assert one.parts_NE[0, 1] == 0
    # along the first axis the prototypes are at 0, 2 and 0; what is seen counts for both columns
    squared = torch.tensor([2 * 1.5**2, 2 * 0.5**2, 2 * 1.5**2])
    assert torch.allclose(
        one.weights_NK[0].sort().values,
        torch.softmax(-squared / memory.bandwidth, dim=0).sort().values,
    )


def test_the_density_ratio_of_a_grid_is_one_inside_and_large_outside() -> None:
    axis = torch.arange(20.0)
    grid = torch.cartesian_prod(axis, axis)
    memory = Memory(grid)
    inside, outside = memory(torch.tensor([[9.5, 9.5], [60.0, 60.0]]), torch.ones(2, 2)).ratio_N1
    # between four points .71 away, and two at 1.58; a point has four others at 1 and one at 1.41
    expected = ((4 * 0.5**0.5 + 2.5**0.5) / CLOSEST) / ((4 + 2**0.5) / CLOSEST)
    assert torch.isclose(inside, torch.tensor(expected**2), rtol=1e-3)
    assert outside > 1000


def test_nearly_equal_rows_far_from_the_origin_keep_their_distance() -> None:
    memory = Memory(3000 + THREE)
    row = 3000 + torch.tensor([[0.0, 0.25]])
    assert torch.allclose(
        memory(row, torch.ones(1, 2)).error_N1,
        Memory(THREE)(row - 3000, torch.ones(1, 2)).error_N1,
        rtol=2e-3,
    )


def test_a_row_that_is_remembered_is_as_near_as_the_resolution_and_no_nearer() -> None:
    many = torch.randn(100, 4, generator=torch.Generator().manual_seed(0))
    twice = torch.cat([many, many])  # so that every closest other prototype is the row itself
    recall = Memory(twice)(many, torch.ones(100, 4))
    assert torch.isfinite(recall.ratio_N1).all()
    assert (recall.ratio_N1 > 0).all()
    assert Memory(twice).bandwidth >= RESOLUTION


def test_a_prototype_is_a_row_with_its_three_nearest() -> None:
    line = torch.arange(40.0).unsqueeze(1) ** 1.5
    members = neighbourhoods(line, 10, torch.Generator().manual_seed(0))
    assert members.shape == (10, ROWS_PER_PROTOTYPE)
    for row in members:
        distances = (line[:, 0] - line[row[0], 0]).abs()
        assert set(row.tolist()) == set(distances.argsort()[:ROWS_PER_PROTOTYPE].tolist())


def test_which_of_two_equally_far_prototypes_is_the_last_to_be_looked_at_does_not_matter() -> None:
    turns = torch.arange(NEAREST - 1) / (NEAREST - 1) * 2 * torch.pi
    ring = torch.stack([turns.cos(), turns.sin()], dim=1)
    memory = Memory(torch.cat([ring, torch.tensor([[1.1, 0.0], [0.0, 1.1]])]))
    assert memory.bandwidth > 0.1  # so that one of twelve at that distance would have a say
    nearly_the_same = torch.tensor([[1e-5, -1e-5], [-1e-5, 1e-5]])
    one, other = memory(nearly_the_same, torch.ones(2, 2)).parts_NE
    assert torch.allclose(one, other, atol=1e-6)


def corners(width: int) -> torch.Tensor:
    return torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * width)


def test_which_of_many_equally_far_prototypes_are_looked_at_does_not_matter() -> None:
    """Of the 16 nearest, all as far, 12 are looked at: which ones a push of rounding decides."""
    memory = Memory(torch.cat([corners(4), 3 * corners(4)]))
    assert len(corners(4)) > NEAREST
    pushes = 1e-6 * corners(4)
    found = memory(pushes, torch.ones_like(pushes))
    assert len({frozenset(index) for index in found.index_NK.tolist()}) > 1
    assert torch.allclose(found.error_N1, found.error_N1[:1], atol=1e-2)
    assert torch.allclose(found.ratio_N1, found.ratio_N1[:1], rtol=1e-2)


def test_copies_of_a_prototype_are_one_that_counts_as_many_times() -> None:
    many = torch.randn(100, 4, generator=torch.Generator().manual_seed(0))
    shaken = many + 1e-4 * torch.randn(100, 4, generator=torch.Generator().manual_seed(1))
    once, thrice = Memory(many), Memory(torch.cat([many, shaken, many]))
    assert len(thrice.prototypes_CE) == len(once.prototypes_CE) == 100
    assert thrice.told_C2[:, 1].tolist() == [3.0] * 100
    row = torch.zeros(1, 4)
    nearest = (many.square().sum(dim=1) + 4 * RESOLUTION).sqrt().sort().values
    # of the closest five three are the nearest, and two the next
    distance = (3 * nearest[0] + 2 * nearest[1]) / CLOSEST
    thrice.told_C2[:, 0] = 0  # as if all had the usual scale
    found = thrice(row, torch.ones(1, 4)).ratio_N1.sqrt() * torch.exp(thrice.usual_scale)
    assert torch.allclose(found, distance, rtol=1e-2)


def test_the_order_of_the_rows_behind_it_changes_no_bit_of_a_prototype() -> None:
    rows = torch.randn(50, 7, generator=torch.Generator().manual_seed(0))
    members = torch.tensor([[3, 14, 15, 9], [9, 3, 15, 14], [14, 15, 9, 3]])
    means = averages(rows, members)
    assert (means == means[0]).all()
    assert torch.allclose(means[0], rows[members[0]].mean(dim=0))
