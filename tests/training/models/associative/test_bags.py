"""Bags of features, beside memories of what they hold."""

import torch

from hourglass.training.models.associative.bags import SHARE, Bags
from hourglass.training.models.associative.memory import RESOLUTION

# of each column, in two views; one has two columns
FEATURE = torch.tensor([0, 1, 2, 2, 3, 4, 5, 0, 1, 2, 2, 3, 4, 5])


def rows(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, len(FEATURE), generator=torch.Generator().manual_seed(seed))


def fitted(count: int) -> Bags:
    torch.manual_seed(0)
    bags = Bags(FEATURE, torch.arange(6), count)
    bags.fit(rows(500), torch.Generator().manual_seed(0), members=4)
    return bags


def test_a_bag_has_two_thirds_of_the_features_with_all_their_columns() -> None:
    bags = fitted(6)
    held = [set(FEATURE[bag.columns_S].tolist()) for bag in bags.bags]
    assert {len(features) for features in held} == {round(SHARE * 6)}
    assert len({*map(frozenset, held)}) > 1
    for bag, features in zip(bags.bags, held, strict=True):
        assert len(bag.columns_S) == sum(feature in features for feature in FEATURE.tolist())


def test_features_that_were_never_seen_are_in_no_bag() -> None:
    torch.manual_seed(0)
    for bag in Bags(FEATURE, torch.tensor([0, 2, 5]), 8).bags:
        held = set(FEATURE[bag.columns_S].tolist())
        assert len(held) == 2
        assert held < {0, 2, 5}


def test_what_bags_find_is_the_mean_of_what_their_memories_do() -> None:
    bags, asked = fitted(3), rows(7, seed=1)
    found = bags(asked, torch.ones_like(asked))
    alone = [
        bag.memory(asked[:, bag.columns_S], torch.ones(7, len(bag.columns_S))) for bag in bags.bags
    ]
    expected = torch.stack([torch.log(recall.ratio_N1 + RESOLUTION) for recall in alone]).mean(
        dim=0
    )
    assert torch.allclose(found.log_ratio_N1, expected, rtol=1e-5)
    parts, having = torch.zeros_like(asked), torch.zeros(len(FEATURE))
    for bag, recall in zip(bags.bags, alone, strict=True):
        parts[:, bag.columns_S] += recall.parts_NE
        having[bag.columns_S] += 1
    assert len({*having.tolist()}) > 1  # however many bags a feature is in
    assert torch.allclose(found.parts_NJ, parts / having.clamp_min(1), rtol=1e-5)


def test_a_bag_of_which_a_row_has_nothing_has_no_say() -> None:
    bags, asked = fitted(2), rows(5, seed=1)
    first, other = bags.bags
    only = torch.ones_like(asked)
    only[:, other.columns_S] = 0  # leaves the first what the other has not
    assert only[:, first.columns_S].any()
    found = bags(asked, only)
    recall = first.memory(asked[:, first.columns_S], only[:, first.columns_S])
    assert torch.allclose(found.log_ratio_N1, torch.log(recall.ratio_N1 + RESOLUTION), rtol=1e-5)
    assert (found.parts_NJ[:, other.columns_S] == 0).all()


def test_a_bag_that_a_row_has_half_of_has_half_a_say() -> None:
    bags, asked = fitted(2), rows(5, seed=1)
    first, other = bags.bags
    half = torch.ones_like(asked)
    half[:, first.columns_S[::2]] = 0
    shares = [half[0, bag.columns_S].mean() for bag in bags.bags]
    assert shares[0] != shares[1]
    recalls = [
        bag.memory(asked[:, bag.columns_S], half[:, bag.columns_S]) for bag in (first, other)
    ]
    logs = [torch.log(recall.ratio_N1 + RESOLUTION) for recall in recalls]
    found = bags(asked, half)
    expected = (shares[0] * logs[0] + shares[1] * logs[1]) / (shares[0] + shares[1])
    assert torch.allclose(found.log_ratio_N1, expected, rtol=1e-5)


def test_a_bag_s_prototypes_are_averages_unless_single_rows_are_asked_for() -> None:
    known = rows(500)
    for members, alike in ((4, False), (1, True)):
        bags = Bags(FEATURE, torch.arange(6), 2)
        bags.fit(known, torch.Generator().manual_seed(0), members=members)
        for bag in bags.bags:
            known_there = known[:, bag.columns_S]
            apart = torch.cdist(
                bag.memory.prototypes_CE, known_there, compute_mode="donot_use_mm_for_euclid_dist"
            )
            assert ((apart.amin(dim=1) < 1e-3) == alike).all()
