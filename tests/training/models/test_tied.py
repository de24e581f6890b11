from collections.abc import Callable

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from hourglass.training.core import Core
from hourglass.training.export import export_core
from hourglass.training.models.linear import LinearConfig
from hourglass.training.models.member import FitConfig, Member
from hourglass.training.models.plain import PlainConfig
from hourglass.training.models.tied import TiedConfig
from hourglass.training.trial import fit_trial
from tests.training.family import Published
from tests.training.models.gaussian import WIDTH, draw, encode, fitted

SHORT = FitConfig(epochs=3)


def weights(member: Member) -> list[torch.Tensor]:
    return [parameter for parameter in member.parameters() if parameter.ndim == 2]


@pytest.mark.parametrize("hidden", [(), (24,), (24, 12)], ids=str)
def test_the_weights_are_half_of_the_plain_members_biases_and_mask_columns_apart(
    hidden: tuple[int, ...],
) -> None:
    tied = fitted(TiedConfig(hidden=hidden, latent=5, fit=SHORT))
    plain = fitted(PlainConfig(hidden=hidden, latent=5, fit=SHORT))
    # only an encoder reads the mask, so these have no counterpart to share
    of_the_mask = WIDTH * (*hidden, 5)[0]
    halves = sum(map(torch.numel, weights(tied))) - of_the_mask
    assert sum(map(torch.numel, weights(plain))) - of_the_mask == 2 * halves


def test_after_fitting_the_decoder_is_the_transposed_encoder() -> None:
    member = fitted(TiedConfig(hidden=(), latent=5, fit=SHORT))
    row_I = member.encoding.inputs(encode(member, draw(1, seed=2)))
    derivative_EI = torch.autograd.functional.jacobian(
        lambda inputs_NI: member(inputs_NI)[0], row_I
    ).squeeze()
    weight_KE = member.weights[0][:, :WIDTH].detach()
    # one matrix in and out: the derivative is W^T W
    assert torch.allclose(derivative_EI[:, :WIDTH], weight_KE.T @ weight_KE, atol=1e-6)
    assert len(weights(member)) == 1


def stored_once(graph: onnx.GraphProto, member: Member) -> bool:
    """Whether every weight of the member is one initializer of the graph, and none is there a
    second time, transposed or not.
    """
    stored = [numpy_helper.to_array(tensor) for tensor in graph.initializer]
    copies = [
        sum(any(np.array_equal(weight, each) for each in (tensor, tensor.T)) for tensor in stored)
        for weight in (parameter.detach().numpy() for parameter in weights(member))
    ]
    return copies == [1] * len(weights(member))


@pytest.mark.slow
def test_the_exported_graph_holds_each_weight_once(publish: Callable[[str], Published]) -> None:
    run = publish("tied")
    member = fit_trial(run.prepared, run.config, run.config.model).core.member
    assert len(weights(member)) == 2
    assert stored_once(onnx.load_from_string(run.data).graph, member)


@pytest.mark.slow
def test_the_tied_linear_member_is_exported_with_one_matrix_too() -> None:
    rows_ND = draw(100, seed=3)
    tied = fitted(LinearConfig(latent=4, tied=True, fit=SHORT), rows_ND)
    assert len(weights(tied)) == 1
    assert stored_once(export_core(Core(tied)).graph, tied)
