"""What holds for every member once it is published: a new one is tested by being in the union."""

from collections.abc import Callable
from itertools import product

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import numpy_helper

from hourglass.service.errors import InvalidArtifact
from hourglass.service.model.artifact import UNSEEN
from hourglass.service.model.detector import Detector
from hourglass.service.rows.tables import encode_table
from hourglass.training.features import INPUT_LIMIT, VALUE_LIMIT, Encoding
from hourglass.training.models import VARIANTS
from hourglass.training.trial import absorb_held_out, fit_trial
from tests.training import tables
from tests.training.family import Published

Float32 = NDArray[np.float32]


FAST = {"denoising"}  # in test-fast too


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=[] if name in FAST else [pytest.mark.slow])
        for name in sorted(VARIANTS)
    ],
)
def made(request: pytest.FixtureRequest, publish: Callable[[str], Published]) -> Published:
    return publish(request.param)


@pytest.fixture(scope="module")
def fresh_ND(made: Published) -> Float32:
    """2,000 normal rows of the same world that no part of the run has seen; some cells are
    missing.
    """
    return encode_table(tables.mixed(2000, anomalies=0, seed=11), made.detector.manifest.features)


@torch.no_grad()
def test_the_same_run_fitted_again_in_torch_answers_as_the_published_graph_does(
    made: Published, fresh_ND: Float32
) -> None:
    trial = fit_trial(made.prepared, made.config, made.config.model)
    absorb_held_out(trial, made.prepared.split, made.config.seed)
    again = trial.core
    seen = made.detector.explain(fresh_ND)
    codes = made.detector.encode_with_deviation(fresh_ND)
    theirs = (seen.score, seen.contributions, seen.reconstruction, *codes)
    for ours, exported in zip(again(torch.from_numpy(fresh_ND)), theirs, strict=True):
        if ours is None or exported is None:
            assert ours is exported is None  # only a code that is a distribution has deviations
            continue
        np.testing.assert_allclose(
            exported, ours.numpy(), rtol=1e-4, atol=1e-5 * np.abs(exported).max()
        )


def test_the_hot_path_to_a_score_is_the_whole_graph_on_any_row(made: Published) -> None:
    rows_ND = odd_rows(made)
    scores, whole = made.detector.score(rows_ND), made.detector.explain(rows_ND)
    np.testing.assert_allclose(scores.score, whole.score, rtol=1e-6)
    # where the last digit of the score differs, at the edge of a step
    one_rank = 1.01 / (made.detector.table.n + 1)
    np.testing.assert_allclose(scores.p_value, whole.p_value, atol=one_rank)
    assert np.array_equal(whole.p_value, made.detector.table.p_value(whole.score), equal_nan=True)
    assert np.array_equal(np.isnan(scores.score), np.isnan(rows_ND).all(axis=1))
    alone = np.concatenate([made.detector.score(row[None]).score for row in rows_ND])
    np.testing.assert_allclose(alone, scores.score, rtol=1e-4, atol=1e-5)


def odd_rows(made: Published) -> Float32:
    """Rows with holes and with nothing, unseen categories, and numbers at, just within and beyond
    where the graph clamps them.
    """
    features = made.detector.manifest.features
    rows_ND = encode_table(tables.mixed(120, anomalies=20, seed=5), features)
    rows_ND[:20, ::2] = np.nan
    rows_ND[20] = np.nan
    category = [feature.kind for feature in features].index("categorical")
    rows_ND[21:30, category] = UNSEEN
    number = [feature.kind for feature in features].index("numeric")
    encoding = Encoding(features, made.prepared.split.fit_ND)
    center, scale = (
        encoding.center_E[encoding.slices[number]].item(),
        encoding.scale_E[encoding.slices[number]].item(),
    )
    for row, (limit, sign, step) in enumerate(
        product((INPUT_LIMIT, VALUE_LIMIT), (-1, 1), (0.999, 1, 1.001)), 30
    ):
        rows_ND[row, number] = center + sign * step * limit * scale
    rows_ND[42, number], rows_ND[43, number] = 3e38, -3e38
    return rows_ND


def test_a_code_decodes_to_the_reconstruction_of_its_row(
    made: Published, fresh_ND: Float32
) -> None:
    assert made.detector.can_decode
    codes_NK = made.detector.encode(fresh_ND)
    assert codes_NK.shape == (len(fresh_ND), made.detector.latent_width)
    expected_ND = made.detector.explain(fresh_ND).reconstruction
    np.testing.assert_allclose(made.detector.decode(codes_NK), expected_ND, rtol=1e-4, atol=1e-4)


def test_the_p_values_of_fresh_normal_rows_are_uniform(made: Published, fresh_ND: Float32) -> None:
    p_value = np.sort(made.detector.score(fresh_ND).p_value)
    distance = np.abs(p_value - (np.arange(len(p_value)) + 0.5) / len(p_value)).max()
    # Kolmogorov and Smirnov for two samples, at one in ten thousand
    assert distance < 2.23 * np.sqrt(1 / made.detector.table.n + 1 / len(p_value))


def test_anomalies_score_above_normal_rows(made: Published) -> None:
    assert made.report.quality is not None
    assert made.report.quality.auroc > 0.8


def test_the_artifact_names_its_member_and_loads_from_bytes_alone(made: Published) -> None:
    detector = Detector.from_bytes(made.data)
    assert detector.version == made.report.version
    assert detector.manifest.model.variant == made.config.model.__struct_config__.tag
    assert detector.manifest.model.hyper_parameters["variant"] == detector.manifest.model.variant


def test_a_file_holds_no_table_of_numbers_twice(made: Published) -> None:
    arrays = [
        numpy_helper.to_array(tensor)
        for tensor in onnx.load_from_string(made.data).graph.initializer
    ]
    large = [(array.dtype, array.shape, array.tobytes()) for array in arrays if array.nbytes > 256]
    assert len(set(large)) == len(large) > 0


def test_an_artifact_with_a_changed_weight_is_refused(made: Published) -> None:
    model = onnx.load_from_string(made.data)
    learned = [
        tensor
        for tensor in model.graph.initializer
        if tensor.name.startswith("member.")
        and not tensor.name.startswith("member.encoding.")
        and len(tensor.dims) == 2
    ]
    assert learned
    for tensor in learned:
        tensor.CopyFrom(
            numpy_helper.from_array(numpy_helper.to_array(tensor) + np.float32(0.5), tensor.name)
        )
    with pytest.raises(InvalidArtifact, match="the self-test failed"):
        Detector.from_bytes(model.SerializeToString())
