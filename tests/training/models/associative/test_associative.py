"""The associative denoiser: its evidence, how it is put together, and what it does with rows of
known density.
"""

import msgspec
import pytest
import torch

from hourglass.service.model.artifact import Feature
from hourglass.training.core import Core
from hourglass.training.features import Encoded, Encoding
from hourglass.training.fit import fit
from hourglass.training.models.associative.associative import (
    RESOLUTION,
    Associative,
    AssociativeConfig,
)
from hourglass.training.models.associative.mixture import surprises
from hourglass.training.models.member import FitConfig, Member

SHORT = FitConfig(
    steps=150, batch_size=256, learning_rate=3e-3, schedule="one_cycle", clip_norm=1.0, patience=0
)
FEATURES = tuple(Feature(name=f"x{d}", kind="numeric") for d in range(5))


def rows(count: int, seed: int) -> torch.Tensor:
    """Two correlated clusters in five dimensions."""
    draw = torch.Generator().manual_seed(seed)
    mix = torch.randn(2, 5, generator=torch.Generator().manual_seed(9))
    side = torch.where(torch.rand(count, 1, generator=draw) < 0.5, -3.0, 3.0)
    return (
        torch.randn(count, 2, generator=draw) @ mix
        + 0.3 * torch.randn(count, 5, generator=draw)
        + side
    )


FIT, HELD_OUT, FRESH = rows(800, 0), rows(300, 1), rows(2000, 2)


def fitted(**changes: object) -> Associative:
    torch.manual_seed(0)
    config = AssociativeConfig(
        **{
            "width": 32,
            "blocks": 1,
            "memory": 128,
            "components": 16,
            "joint_components": 16,
            "hidden_components": 16,
            "features": 32,
            "bags": 2,
            "fit": SHORT,
            **changes,
        }
    )
    member = config.build(Encoding(FEATURES, FIT.numpy()))
    fit(member, FIT, HELD_OUT, SHORT, seed=0)
    return member


def absorbed(member: Associative) -> Core:
    core = Core(member)
    core.weigh(HELD_OUT)
    member.absorb_held_out(member.encoding.encode(FIT), member.encoding.encode(HELD_OUT), 0)
    return core


@pytest.fixture(scope="module")
def member() -> Associative:
    return fitted()


@pytest.fixture(scope="module")
def core() -> Core:
    return absorbed(fitted())


def encode(member: Member, rows_ND: torch.Tensor) -> Encoded:
    return member.encoding.encode(rows_ND)


def test_evidence_that_says_the_same_is_one_group(member: Associative) -> None:
    reading = member.read(encode(member, FRESH[:10]))
    assert len(reading.parts) == reading.levels_NH.shape[1] == len(member.fusion.share_HG)
    # two networks; ridge; the memory's two, and bags; the views' mixtures; mixtures of whitened
    # columns and of hidden layers
    assert (member.fusion.share_HG > 0).sum(dim=0).tolist() == [2, 1, 1, 2, 2, 2]
    assert torch.allclose(member.fusion.share_HG.sum(dim=0), torch.ones(6))


def rarities(member: Associative, encoded: Encoded) -> tuple[torch.Tensor, torch.Tensor]:
    """[N, H] of the evidence and [N, G] of its groups, of gapless rows."""
    levels = member.read(encoded).levels_NH
    whole = torch.zeros(len(levels), 1)
    rarity = member.fusion.tail_probabilities(levels, whole)
    return rarity, member.fusion.group_tail_probabilities(rarity @ member.fusion.share_HG, whole)


def test_the_score_of_gapless_rows_is_minus_the_log_of_the_groups_harmonic_mean_share(
    member: Associative,
) -> None:
    encoded = encode(member, FRESH[:50])
    _, rarity = rarities(member, encoded)
    score = member.assess(encoded).score_N
    assert score is not None
    assert torch.allclose(score, torch.log(torch.exp(rarity).mean(dim=1)), rtol=1e-4)


def test_a_group_is_as_rare_as_the_held_out_rows_of_which_it_has_the_mean_rarity(
    member: Associative,
) -> None:
    rarity, groups = rarities(member, encode(member, HELD_OUT))
    for g in range(groups.shape[1]):
        mean = (rarity @ member.fusion.share_HG)[:, g]
        above = (mean >= mean.unsqueeze(1)).float().mean(dim=1)
        middle = (above > 0.15) & (above < 0.85)
        assert torch.allclose(groups[middle, g], -torch.log(above[middle]), atol=0.12)


def test_a_feature_s_share_of_the_score_is_that_of_its_parts_of_every_piece_of_evidence(
    member: Associative,
) -> None:
    encoded = encode(member, FRESH[:50])
    parts = member.assess(encoded).errors_ND
    rarity, groups = rarities(member, encoded)
    share_of_group = torch.softmax(groups, dim=1)
    weighted = rarity.unsqueeze(2) * member.fusion.share_HG
    share_of_piece = (
        weighted / weighted.sum(dim=1, keepdim=True) * share_of_group.unsqueeze(1)
    ).sum(dim=2)
    parts_of = [part_NE + RESOLUTION for part_NE in member.read(encoded).parts]
    expected = sum(
        part / part.sum(dim=1, keepdim=True) * share_of_piece[:, h : h + 1]
        for h, part in enumerate(parts_of)
    )
    assert (parts >= 0).all()
    assert torch.allclose(parts, expected, rtol=1e-4, atol=1e-6)


def test_a_row_of_cells_from_both_clusters_is_stranger_than_nearly_all_rows_of_either(
    core: Core,
) -> None:
    with torch.no_grad():
        normal = core(FRESH).score_N
        mixed = core(torch.tensor([[3.0, -3.0, 3.0, -3.0, 3.0]]))
    assert mixed.score_N > torch.quantile(normal, 0.999)
    assert torch.allclose(mixed.contributions_ND.sum(), mixed.score_N)


def test_a_normal_row_scores_one_on_average(core: Core) -> None:
    with torch.no_grad():
        assert core(FRESH).score_N.mean() == pytest.approx(1.0, abs=0.15)


@pytest.mark.parametrize("hidden", [0.2, 0.4])
def test_rows_that_miss_cells_are_not_alarmed_on_more_often(core: Core, hidden: float) -> None:
    draw = torch.Generator().manual_seed(5)
    gaps = torch.rand(FRESH.shape, generator=draw) < hidden
    gaps[:, 0] &= ~gaps.all(dim=1)
    with torch.no_grad():
        level = torch.quantile(core(FRESH).score_N, 0.95)
        alarms = (core(torch.where(gaps, torch.nan, FRESH)).score_N > level).float().mean()
    assert alarms < 0.08


def test_a_missing_cell_contributes_nothing_and_is_expected_near_what_it_was(core: Core) -> None:
    gaps = torch.zeros(FRESH.shape, dtype=torch.bool)
    gaps[:, 2] = True
    with torch.no_grad():
        answer = core(torch.where(gaps, torch.nan, FRESH))
    assert (answer.contributions_ND[:, 2] == 0).all()
    error = (answer.reconstruction_ND[:, 2] - FRESH[:, 2]).square().mean()
    assert error < 0.25 * FRESH[:, 2].var()


def test_a_fit_row_itself_is_not_infinitely_normal(core: Core) -> None:
    with torch.no_grad():
        known, fresh = core(FIT).score_N, core(FRESH).score_N
    assert known.min() > 0
    assert known.median() > 0.5 * fresh.median()


def test_several_networks_answer_with_their_mean(member: Associative) -> None:
    several = fitted(members=3)
    encoded = encode(several, FRESH[:20])
    values, _ = several.views(encoded)
    residual, hidden = several._look(values, encoded.observed_ND, 0.5)
    layers = hidden.reshape(20, 6, 32).unbind(dim=1)  # of each network its own
    assert all(not torch.allclose(layers[0], other, atol=1e-3) for other in layers[1:])
    assert several.network.enter.weight_VIO.shape[0] == 6
    views = torch.stack(values.split(5, dim=1))
    clean = views.repeat(3, 1, 1)
    alone, _ = several._denoise(
        clean, torch.full_like(clean[:, :, :1], 0.5), 1 - encoded.observed_ND
    )
    assert torch.allclose(views - residual, alone.reshape(3, 2, 20, 5).mean(dim=0), atol=1e-5)
    assert not torch.allclose(alone[:2], alone[2:4], atol=1e-3)


def test_what_is_stored_of_training_rows_is_said() -> None:
    encoding = Encoding(FEATURES, FIT.numpy())

    def stored(**config: object) -> str:
        return AssociativeConfig(**config).build(encoding).stores_rows

    assert stored() == "averages"
    assert stored(components=0) == "averages"
    assert stored(memory=9, memory_rows=True) == "rows"
    assert stored(bags=1, memory_rows=True) == "rows"
    nothing = {"components": 0, "joint_components": 0, "hidden_components": 0}
    for field in ("memory", "components", "joint_components", "hidden_components", "bags"):
        assert stored(**{**nothing, field: 9}) == "averages"
    assert stored(**nothing) == "none"
    without_network = {**nothing, "hidden_components": 9, "levels": ()}
    assert stored(**without_network, features=9) == "none"


def test_no_prototype_of_any_memory_is_a_single_row_unless_rows_are_asked_for() -> None:
    for memory_rows in (False, True):
        member = fitted(memory_rows=memory_rows, levels=())
        member.absorb_held_out(encode(member, FIT), encode(member, HELD_OUT), 0)
        values, _ = member.views(encode(member, torch.cat([FIT, HELD_OUT])))
        known = member.half_whiten(values)
        memories = [
            (member.memory, slice(None)),
            *[(bag.memory, bag.columns_S) for bag in member.bags.bags],
        ]
        for memory, columns in memories:
            there = known[:, columns]
            apart = torch.cdist(
                memory.prototypes_CE, there, compute_mode="donot_use_mm_for_euclid_dist"
            )
            assert ((apart.amin(dim=1) < 1e-3) == memory_rows).all()


def test_the_cell_of_a_single_row_is_in_no_mean() -> None:
    only = FIT.clone()
    only[3:, 4] = torch.nan  # the last feature was seen three times
    torch.manual_seed(0)
    member = AssociativeConfig(
        width=16, blocks=1, components=16, hidden_components=16, memory=16, fit=SHORT
    ).build(Encoding(FEATURES, only.numpy()))
    fit(member, only, HELD_OUT, SHORT, seed=0)
    values, _ = member.views(encode(member, only))
    seen, encoded = values[:3, [4, 9]].T, encode(member, only).values_NE[:3, 4]
    means = [(mixture.mean_CE[:, 4], seen[v]) for v, mixture in enumerate(member.mixtures)]
    means += [
        (member.hidden_layers.rows_CJ[:, 4], seen[0]),
        (member.hidden_layers.rows_CJ[:, 9], seen[1]),
    ]
    for mean, cells in [*means, (member.recalled_CE[:, 4], encoded)]:
        assert (mean.unsqueeze(1) - cells).abs().min() > 1e-3


def test_the_hidden_layers_are_read_as_they_were_when_their_mixture_was_fitted(
    member: Associative,
) -> None:
    encoded = encode(member, FIT)
    values, _ = member.views(encoded)
    _, layers = member._look(values, encoded.observed_ND, member.config.levels[0])
    components = member.hidden_layers.project(layers)
    assert torch.allclose(components.mean(dim=0), torch.zeros(components.shape[1]), atol=1e-3)
    assert torch.isclose(components[:, 0].var(correction=0), torch.tensor(1.0), rtol=1e-3)
    level_N = member.read(encoded).levels_NH[:, -1]
    mixture = member.hidden_layers.mixture(components, torch.ones_like(components))
    assert torch.allclose(level_N, surprises([mixture]).squeeze(1), atol=1e-4)
    # the mean row of a Gaussian is that of the rows that belong to it
    joint = values.clamp(-10, 10)
    weights = mixture.weights_NC
    expected = weights.T @ joint / weights.sum(dim=0).unsqueeze(1)
    assert (
        torch.corrcoef(torch.stack([expected.flatten(), member.hidden_layers.rows_CJ.flatten()]))[
            0, 1
        ]
        > 0.98
    )


def test_without_mixtures_and_memory_no_average_of_rows_is_in_the_state() -> None:
    bare = fitted(memory=0, components=0, joint_components=0, hidden_components=0, bags=0)
    absorbed(bare)
    names = {name.split(".")[0] for name in bare.state_dict()}
    assert not {"mixtures", "joint_mixture", "hidden_layers", "memory", "bags"} & names
    assert len(bare.recalled_CE) == 0


def test_without_a_network_there_is_nothing_to_fit_and_all_the_same_a_score() -> None:
    closed = fitted(levels=(), memory=0)
    assert list(closed.parameters()) == []
    with torch.no_grad():
        scores = absorbed(closed)(
            torch.cat([FRESH, torch.tensor([[3.0, -3.0, 3.0, -3.0, 3.0]])])
        ).score_N
    assert scores[-1] > torch.quantile(scores, 0.99)


@pytest.mark.parametrize("only", ["memory", "joint_components", "bags"])
def test_of_what_only_knows_distances_the_mean_is_expected(only: str) -> None:
    nothing = {
        "levels": (),
        "components": 0,
        "joint_components": 0,
        "hidden_components": 0,
        "features": 0,
        "memory": 0,
        "bags": 0,
    }
    member = fitted(**{**nothing, only: 4})
    expected_NE = member.read(encode(member, FRESH)).expected_NE
    mean_E = member.views.encoded(torch.zeros(1, expected_NE.shape[1]))
    assert torch.allclose(expected_NE, mean_E.expand_as(expected_NE), atol=1e-6)


def test_without_a_network_one_pass_is_all_that_is_planned() -> None:
    config = AssociativeConfig(levels=())
    assert config.resolve(Encoding(FEATURES, FIT.numpy())).fit.epochs == 1
    assert AssociativeConfig().resolve(Encoding(FEATURES, FIT.numpy())).fit.epochs is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"levels": (), "components": 0, "joint_components": 0, "features": 0},
            "there must be a level",
        ),
        ({"min_noise": 2.0}, "min_noise < max_noise"),
        ({"levels": (0.0,)}, "levels must be above 0"),
        ({"views": ("log", "log")}, "views must be"),
        ({"memory": -1}, "must not be negative"),
        ({"bags": -1}, "must not be negative"),
        ({"memory_rows": True}, "memory_rows needs a memory"),
        ({"hidden_components": -1}, "must not be negative"),
    ],
)
def test_a_config_that_makes_no_sense_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        msgspec.structs.replace(AssociativeConfig(), **changes)
