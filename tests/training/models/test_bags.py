"""Bags of features, beside memories of what they hold."""

import torch

from training.models.bags import SHARE, Bags
from training.models.memory import RESOLUTION

FEATURE = torch.tensor([0, 1, 2, 2, 3, 4, 5, 0, 1, 2, 2, 3, 4, 5])  # of each column, in two views; one has two columns


def rows(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, len(FEATURE), generator=torch.Generator().manual_seed(seed))


def fitted(count: int) -> Bags:
    torch.manual_seed(0)
    bags = Bags(FEATURE, count)
    bags.fit(rows(500), torch.Generator().manual_seed(0), members=4)
    return bags


def test_a_bag_has_two_thirds_of_the_features_with_all_their_columns() -> None:
    bags = fitted(6)
    held = [set(FEATURE[bag.columns_S].tolist()) for bag in bags.bags]
    assert {len(features) for features in held} == {round(SHARE * 6)}
    assert len({*map(frozenset, held)}) > 1
    for bag, features in zip(bags.bags, held, strict=True):
        assert len(bag.columns_S) == sum(feature in features for feature in FEATURE.tolist())


def test_what_bags_find_is_the_mean_of_what_their_memories_do() -> None:
    bags, asked = fitted(3), rows(7, seed=1)
    found = bags(asked, torch.ones_like(asked))
    alone = [bag.memory(asked[:, bag.columns_S], torch.ones(7, len(bag.columns_S))) for bag in bags.bags]
    expected = torch.stack([torch.log(recall.ratio_N + RESOLUTION) for recall in alone]).mean(dim=0)
    assert torch.allclose(found.log_ratio_N, expected, rtol=1e-5)
    parts = torch.zeros_like(asked)
    for bag, recall in zip(bags.bags, alone, strict=True):
        parts[:, bag.columns_S] += recall.parts_NE / 3
    assert torch.allclose(found.parts_NJ, parts, rtol=1e-5)


def test_a_bag_of_which_a_row_has_nothing_has_no_say() -> None:
    bags, asked = fitted(2), rows(5, seed=1)
    first, other = bags.bags
    only = torch.ones_like(asked)
    only[:, other.columns_S] = 0  # leaves the first what the other has not
    assert only[:, first.columns_S].any()
    found = bags(asked, only)
    recall = first.memory(asked[:, first.columns_S], only[:, first.columns_S])
    assert torch.allclose(found.log_ratio_N, torch.log(recall.ratio_N + RESOLUTION), rtol=1e-5)
    assert (found.parts_NJ[:, other.columns_S] == 0).all()
