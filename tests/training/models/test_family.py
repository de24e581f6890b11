"""What holds for every member: a new one is tested by being in the union."""

import math
from typing import get_args

import msgspec
import pytest
import torch

from hourglass.service.model.artifact import Feature
from hourglass.training.core import Core
from hourglass.training.data import describe, prepare
from hourglass.training.features import Encoding
from hourglass.training.fit import Fitted, fit
from hourglass.training.models import ModelConfig
from hourglass.training.models.member import FitConfig, Member
from hourglass.training.progress import Progress
from tests.training import tables
from tests.training.conftest import DEVICES

VARIANTS = sorted(config.__struct_config__.tag for config in get_args(ModelConfig))
DATA = prepare(tables.mixed(200), label="fault")
ROWS = torch.from_numpy(DATA.normal_ND)


def fitted(variant: str, seed: int = 0) -> tuple[Member, Fitted]:
    encoding = Encoding(describe(DATA.features, DATA.normal_ND[:150]), DATA.normal_ND[:150])
    config = msgspec.convert({"variant": variant}, ModelConfig)
    torch.manual_seed(seed)
    member = config.resolve(encoding).build(encoding)
    short: FitConfig = msgspec.structs.replace(config.fit, epochs=2)
    return member, fit(member, ROWS[:150], ROWS[150:], short, seed=seed)


@pytest.fixture(scope="module", params=VARIANTS)
def variant(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def member(variant: str) -> Member:
    return fitted(variant)[0]


def test_a_config_says_its_variant_and_survives_being_written_and_read(variant: str) -> None:
    config = msgspec.convert({"variant": variant}, ModelConfig)
    written = msgspec.to_builtins(config)
    assert written["variant"] == variant
    assert msgspec.convert(written, ModelConfig) == config


def test_a_resolved_config_names_every_size_and_stays_as_it_is(variant: str) -> None:
    encoding = Encoding(DATA.features, DATA.normal_ND)
    resolved = msgspec.convert({"variant": variant}, ModelConfig).resolve(encoding)
    sizes = {"hidden", "latent"} & set(msgspec.to_builtins(resolved))
    assert all(getattr(resolved, size) is not None for size in sizes)
    assert resolved.resolve(encoding) == resolved


def test_the_seed_determines_the_weights(variant: str, member: Member) -> None:
    again, other = fitted(variant)[0].state_dict(), fitted(variant, seed=1)[0].state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in member.state_dict().items())
    assert any(not torch.equal(tensor, other[name]) for name, tensor in member.state_dict().items())


def test_held_out_rows_leave_no_trace_in_the_weights(variant: str) -> None:
    def weights(held_out_ND: torch.Tensor) -> dict[str, torch.Tensor]:
        encoding = Encoding(DATA.features, DATA.normal_ND)
        config = msgspec.convert({"variant": variant}, ModelConfig)
        torch.manual_seed(0)
        member = config.resolve(encoding).build(encoding)
        fit(
            member,
            ROWS,
            held_out_ND,
            msgspec.structs.replace(config.fit, epochs=2, patience=0),
            seed=0,
        )
        # but for `fusion`, since what says how rare a value is among held-out rows has to know them
        return {
            name: tensor
            for name, tensor in member.state_dict().items()
            if not name.startswith("fusion.")
        }

    some, others = weights(ROWS[:40]), weights(ROWS[40:120])
    assert all(torch.equal(tensor, others[name]) for name, tensor in some.items())


@pytest.mark.parametrize("name", [name for name in VARIANTS if name != "quantized"])
def test_a_batch_stays_on_the_device_of_the_network(name: str) -> None:
    """The device `meta` stands in for a GPU: it adds nothing to a tensor of another device.

    It computes shapes only, and so cannot do for `quantized`, which looks at its codes' use.
    """
    encoding = Encoding(DATA.features, DATA.normal_ND)
    torch.manual_seed(0)
    member = msgspec.convert({"variant": name}, ModelConfig).resolve(encoding).build(encoding)
    member.begin(encoding.encode(ROWS))
    member.to("meta")
    with torch.device("meta"):
        loss = member.loss(encoding.encode(ROWS.to("meta")), None)  # type: ignore[arg-type]  # it has no generator
        torch.autograd.backward(loss)
    assert loss.device.type == "meta"
    assert {
        parameter.grad.device.type
        for parameter in member.parameters()
        if parameter.grad is not None
    } == {"meta"}


@pytest.mark.parametrize("device", DEVICES)
def test_fitting_lowers_the_loss(variant: str, device: str) -> None:
    encoding = Encoding(DATA.features, DATA.normal_ND)
    config = msgspec.convert({"variant": variant}, ModelConfig)
    torch.manual_seed(0)
    member = config.resolve(encoding).build(encoding)
    losses: list[float] = []
    short = msgspec.structs.replace(config.fit, epochs=15)
    fit(
        member,
        ROWS,
        ROWS,
        short,
        seed=0,
        device=device,
        progress=Progress(epoch=lambda epoch: losses.append(epoch.loss)),
    )
    assert losses[-1] < losses[0]
    assert {tensor.device.type for tensor in member.state_dict().values()} == {"cpu"}


def test_numbers_taken_as_probabilities_are_made_up_without_gaussian_noise(variant: str) -> None:
    rows_ND = torch.rand((100, 3), generator=torch.Generator().manual_seed(0))
    encoding = Encoding(
        [Feature(name=name, kind="numeric") for name in "abc"], rows_ND.numpy(), "bce"
    )
    config = msgspec.convert({"variant": variant}, ModelConfig)
    member = config.resolve(encoding).build(encoding)
    fit(member, rows_ND[:80], rows_ND[80:], msgspec.structs.replace(config.fit, epochs=1), seed=0)
    sampling = member.sampling(encoding.encode(rows_ND))
    assert sampling is None or sampling.noise == (0.0, 0.0, 0.0)


@torch.no_grad()
def test_errors_are_non_negative_finite_and_zero_where_missing(member: Member) -> None:
    encoded = member.encoding.encode(ROWS)
    errors_ND, outputs_NE, latent_NK, score_N, _ = member.assess(encoded)
    assert score_N is None or (score_N > 0).all()
    assert (errors_ND >= 0).all()
    assert errors_ND.isfinite().all()
    assert not errors_ND[encoded.observed_ND == 0].any()
    assert outputs_NE.shape == (len(ROWS), member.encoding.encoded_width)
    assert latent_NK.shape[0] == len(ROWS)


@torch.no_grad()
def test_assessing_is_not_random_and_does_not_depend_on_the_other_rows(member: Member) -> None:
    together = member.assess(member.encoding.encode(ROWS)).errors_ND
    assert torch.equal(together, member.assess(member.encoding.encode(ROWS)).errors_ND)
    alone = torch.cat(
        [member.assess(member.encoding.encode(row)).errors_ND for row in ROWS[:20].split(1)]
    )
    assert torch.allclose(together[:20], alone, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_extreme_and_empty_rows_are_scored_as_the_contract_says(member: Member) -> None:
    core = Core(member).eval()
    core.weigh(ROWS)
    rows_ND = ROWS[:6].clone()
    rows_ND[0, 0], rows_ND[1, 0], rows_ND[2, 0] = 1e38, math.inf, -math.inf
    rows_ND[3] = math.nan
    score_N, contributions_ND, reconstruction_ND, latent_NK, _ = core(rows_ND)
    assert score_N.isnan().tolist() == [False, False, False, True, False, False]
    assert score_N[[0, 1, 2, 4, 5]].isfinite().all()
    assert torch.allclose(contributions_ND.sum(dim=1), score_N, equal_nan=True)
    assert reconstruction_ND.isfinite().all()
    assert latent_NK.isfinite().all()
