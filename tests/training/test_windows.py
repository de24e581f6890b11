import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray
from onnx.utils import Extractor

from hourglass.service.model.artifact import (
    CONDITIONAL,
    CONTRIBUTIONS,
    DERIVED,
    LATENT,
    RECONSTRUCTION,
    SCORE,
    Feature,
)
from hourglass.service.model.calibration import build_table
from hourglass.training.calibrate import attach_table
from hourglass.training.core import Core
from hourglass.training.export import export_core, make_self_test, run_windows
from hourglass.training.features import Encoding
from hourglass.training.models.denoising import DenoisingConfig
from hourglass.training.windows import (
    LIMIT,
    Representation,
    Windowed,
    Windowing,
    derive,
    expected_deviations,
    fit_windowing,
    shares,
    stretches,
)

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

W = 12
NUMBERS = tuple(Feature(name=name, kind="numeric") for name in ("load", "flow", "heat"))
MIXED = (
    *NUMBERS,
    Feature(name="open", kind="boolean"),
    Feature(name="site", kind="categorical", categories=("north", "south")),
)
BOTH: tuple[Representation, ...] = ("residual", "multi")


def series(rows: int, features: tuple[Feature, ...] = NUMBERS, *, seed: int = 0) -> Float32:
    """Numbers that remember the row before, and cells that are missing here and there."""
    rng = np.random.default_rng(seed)
    rows_TF = rng.normal(size=(rows, len(features)))
    for t in range(1, rows):
        rows_TF[t] += 0.8 * rows_TF[t - 1]
    for f, feature in enumerate(features):
        if feature.kind != "numeric":
            rows_TF[:, f] = rows_TF[:, f] > 0
    rows_TF[rng.random(rows_TF.shape) < 0.1] = np.nan
    return rows_TF.astype(np.float32)


def fitted(
    rows_TF: Float32, features: tuple[Feature, ...], representation: Representation
) -> Windowing:
    ones_T = np.ones(len(rows_TF), dtype=bool)
    segment_T = np.zeros(len(rows_TF), dtype=np.int64)
    return fit_windowing(
        rows_TF, segment_T, features, ones_T, window=W, representation=representation
    )


def windows_of(rows_TF: Float32) -> Float32:
    """[T - W + 1, W, F]"""
    return np.stack([rows_TF[t : t + W] for t in range(len(rows_TF) - W + 1)])


def one_column(windowing: Windowing, window_W: Float64, c: int) -> dict[str, float]:
    """What is said of one number by its W cells, by the definitions."""
    z_W = (window_W - float(windowing.center_C[c])) / float(windowing.scale_C[c])
    z_W = np.clip(z_W, -LIMIT, LIMIT)
    weights = windowing.forecast_LC[:, c].double().numpy()
    history, span = shares(W)
    residuals = []
    for t in range(W - span, W):
        before = z_W[t - history : t]
        mean = before[~np.isnan(before)].mean() if (~np.isnan(before)).any() else 0.0
        filled = np.where(np.isnan(before), mean, before)
        lags = filled[::-1][: len(weights) - 1]
        residuals.append(z_W[t] - weights[:-1] @ lags - weights[-1] * mean)
    seen = np.array(residuals)[~np.isnan(residuals)]
    all_seen = z_W[~np.isnan(z_W)]
    said = {
        "residual": residuals[-1],
        "residual mean": seen.mean() if len(seen) else np.nan,
        "residual deviation": seen.std() if len(seen) > 1 else np.nan,
        "mean": all_seen.mean() if len(all_seen) else np.nan,
        "difference": z_W[-1] - z_W[-2],
    }
    for rows in (5, 10):
        part = z_W[-rows:][~np.isnan(z_W[-rows:])]
        said[f"mean {rows}"] = part.mean() if len(part) else np.nan
        said[f"deviation {rows}"] = part.std() if len(part) > 1 else np.nan
    return said


@pytest.mark.parametrize("representation", BOTH)
def test_derived_columns_are_what_their_names_say(representation: Representation) -> None:
    rows_TF = series(60, MIXED)
    windowing = fitted(rows_TF, MIXED, representation)
    derived_MD, row_M = derive(windowing, rows_TF, np.zeros(60, dtype=np.int64))
    names = [feature.name for feature in windowing.derived_features(derived_MD)]
    assert row_M.tolist() == list(range(W - 1, 60))
    for m, t in enumerate(row_M):
        assert derived_MD[m, : len(MIXED)] == pytest.approx(rows_TF[t], nan_ok=True)
        for c, name in enumerate(("load", "flow", "heat", "open")):
            window_W = rows_TF[t - W + 1 : t + 1, c].astype(np.float64)
            said = one_column(windowing, window_W, c)
            for statistic in windowing.statistics:
                found = derived_MD[m, names.index(f"{name} {statistic}")]
                assert found == pytest.approx(said[statistic], abs=1e-5, nan_ok=True), statistic
    assert [name for name in names if name.startswith("site")] == ["site"]


def awkward(rows: int) -> Float32:
    """A number of no digits to spare, a constant, one with heavy tails, a tiny one."""
    rng = np.random.default_rng(5)
    columns = [
        1e9 + 300 * rng.normal(size=rows),
        np.full(rows, 7.25),
        rng.standard_cauchy(rows) ** 3,
        1e-30 * rng.normal(size=rows),
        np.where(rng.random(rows) < 0.02, 1e38, rng.normal(size=rows)),
    ]
    return np.stack(columns, axis=1).astype(np.float32)


@torch.no_grad()
@pytest.mark.parametrize("representation", BOTH)
def test_a_series_and_its_windows_say_the_same_at_any_scale(
    representation: Representation,
) -> None:
    features = tuple(Feature(name=f"x{i}", kind="numeric") for i in range(5))
    rows_TF = awkward(400)
    rows_TF[50:55, 2] = np.nan
    windowing = fitted(rows_TF, features, representation)
    derived_MD, forecast_MF = windowing.look(torch.from_numpy(rows_TF[np.newaxis]))
    by_windows_MD, by_windows_MF = windowing.look(torch.from_numpy(windows_of(rows_TF)))
    torch.testing.assert_close(derived_MD, by_windows_MD, rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(forecast_MF, by_windows_MF, rtol=0, atol=0, equal_nan=True)
    names = [feature.name for feature in windowing.derived_features(derived_MD.numpy())]
    deviations = [i for i, name in enumerate(names) if "deviation" in name]
    assert (np.nan_to_num(derived_MD[:, deviations].numpy()) >= 0).all()
    assert not torch.isinf(derived_MD[:, 5:]).any()
    assert torch.isfinite(forecast_MF).all()
    # of a constant nothing is off, and nothing deviates
    constant = [i for i, name in enumerate(names) if name.startswith("x1 ")]
    assert (derived_MD[:, constant] == 0).all()


def test_a_forecast_is_as_far_off_as_what_is_new_in_a_row() -> None:
    rng = np.random.default_rng(0)
    new_T = rng.normal(size=20_000)
    rows_TF = np.zeros((20_000, 1))
    for t in range(2, 20_000):
        rows_TF[t] = 1.2 * rows_TF[t - 1] - 0.5 * rows_TF[t - 2] + new_T[t]
    rows_TF = (100 + 3 * rows_TF).astype(np.float32)
    held_out_N = np.arange(20_000) >= 10_000
    segment_N = np.zeros(20_000, dtype=np.int64)
    windowing = fit_windowing(
        rows_TF, segment_N, NUMBERS[:1], ~held_out_N, window=30, representation="residual"
    )
    (deviation,) = expected_deviations(windowing, rows_TF, segment_N, held_out_N)
    assert deviation == pytest.approx(3.0, rel=0.02)


def test_what_is_no_number_or_was_never_seen_has_no_deviation() -> None:
    rows_TF = series(80, MIXED)
    rows_TF[:, 2] = np.nan
    windowing = fitted(rows_TF, MIXED, "residual")
    segment_N, all_N = np.zeros(80, dtype=np.int64), np.ones(80, dtype=bool)
    deviations = expected_deviations(windowing, rows_TF, segment_N, all_N)
    assert [deviation is None for deviation in deviations] == [False, False, True, True, True]


def test_windows_lie_within_one_segment() -> None:
    segment_N = np.repeat([4, 9, 4], [W + 3, W - 1, 2000])
    answered = [t for part in stretches(segment_N, W) for t in range(part.start + W - 1, part.stop)]
    expected = [*range(W - 1, W + 3), *range(2 * W + 2 + W - 1, 2 * W + 2 + 2000)]
    assert answered == expected
    assert all(len(set(segment_N[part])) == 1 for part in stretches(segment_N, W))
    rows_NF = series(len(segment_N))
    windowing = fitted(rows_NF, NUMBERS, "residual")
    derived_MD, row_M = derive(windowing, rows_NF, segment_N)
    assert row_M.tolist() == expected
    assert len(derived_MD) == len(expected)


def test_nothing_is_learnt_from_other_rows_than_those_that_may_be() -> None:
    rows_NF = series(300)
    fit_N, segment_N = np.arange(300) < 200, np.zeros(300, dtype=np.int64)
    others_NF = rows_NF.copy()
    others_NF[200:] = 1e6
    first, second = (
        fit_windowing(rows, segment_N, NUMBERS, fit_N, window=W, representation="residual")
        for rows in (rows_NF, others_NF)
    )
    for name, value in first.state_dict().items():
        torch.testing.assert_close(value, second.state_dict()[name], rtol=0, atol=0)
    # nor across the end of a segment: each of these rows is the first of its own
    alone = fit_windowing(
        rows_NF, np.arange(300), NUMBERS, fit_N, window=W, representation="residual"
    )
    assert (alone.forecast_LC == 0).all()


def windowed(
    features: tuple[Feature, ...] = MIXED, representation: Representation = "residual"
) -> Windowed:
    """Unfitted and weighed: the graph has to say whatever the network says."""
    torch.manual_seed(0)
    rows_TF = series(200, features)
    windowing = fitted(rows_TF, features, representation)
    derived_MD, _ = derive(windowing, rows_TF, np.zeros(200, dtype=np.int64))
    encoding = Encoding(windowing.derived_features(derived_MD), derived_MD)
    core = Core(DenoisingConfig(hidden=(8,), latent=3).resolve(encoding).build(encoding))
    core.weigh(torch.from_numpy(derived_MD))
    return Windowed(windowing, core).eval()


@torch.no_grad()
@pytest.mark.parametrize("features", [MIXED, NUMBERS], ids=["mixed", "numbers"])
@pytest.mark.parametrize("representation", BOTH)
def test_contributions_of_the_features_sum_to_the_score(
    features: tuple[Feature, ...], representation: Representation
) -> None:
    core = windowed(features, representation)
    rows_TF = series(100, features, seed=1)
    rows_TF[:, 0] = np.nan_to_num(rows_TF[:, 0])  # no row without a cell
    output = core(torch.from_numpy(rows_TF[np.newaxis]))
    assert output.contributions_ND.shape == (100 - W + 1, len(features))
    assert (output.contributions_ND >= 0).all()
    torch.testing.assert_close(output.contributions_ND.sum(dim=1), output.score_N)
    # a feature's part is that of its columns
    derived_ND, _ = core.windowing.look(torch.from_numpy(rows_TF[np.newaxis]))
    names = [feature.name for feature in core.encoding.features]
    of_columns_ND = core.core(derived_ND).contributions_ND
    for f, feature in enumerate(features):
        own = [i for i, name in enumerate(names) if name.split(" ")[0] == feature.name]
        torch.testing.assert_close(output.contributions_ND[:, f], of_columns_ND[:, own].sum(dim=1))


@torch.no_grad()
def test_a_row_without_a_cell_has_no_score_whatever_was_before() -> None:
    rows_TF = series(60, MIXED)
    rows_TF[40] = np.nan
    output = windowed()(torch.from_numpy(rows_TF[np.newaxis]))
    judged = 40 - W + 1
    assert torch.isnan(output.score_N).nonzero().flatten().tolist() == [judged]
    assert torch.isnan(output.contributions_ND[judged]).all()


@torch.no_grad()
def test_expected_is_what_the_rows_before_say_and_not_the_row_itself() -> None:
    core, rows_TF = windowed(), series(W, MIXED)
    other_TF = rows_TF.copy()
    other_TF[-1, :4] += 5
    first, second = (core(torch.from_numpy(rows[np.newaxis])) for rows in (rows_TF, other_TF))
    torch.testing.assert_close(
        first.reconstruction_ND[:, :4], second.reconstruction_ND[:, :4], rtol=0, atol=0
    )
    assert 0 <= float(first.reconstruction_ND[0, 3]) <= 1
    assert float(first.reconstruction_ND[0, 4]) in (0.0, 1.0)


def test_a_window_of_two_rows_is_the_least() -> None:
    rows_TF = series(50)
    segment_T, all_T = np.zeros(50, dtype=np.int64), np.ones(50, dtype=bool)
    for representation in BOTH:
        windowing = fit_windowing(
            rows_TF, segment_T, NUMBERS, all_T, window=2, representation=representation
        )
        assert len(derive(windowing, rows_TF, segment_T)[0]) == 49
    with pytest.raises(ValueError, match="a window has at least 2 rows, got 1"):
        fit_windowing(rows_TF, segment_T, NUMBERS, all_T, window=1, representation="residual")


@pytest.fixture(scope="module", params=BOTH)
def exported(request: pytest.FixtureRequest) -> tuple[Windowed, onnx.ModelProto]:
    core = windowed(MIXED, request.param)
    return core, export_core(core)


def run(model: onnx.ModelProto, outputs: list[str], given: dict[str, Float32]) -> list[Float32]:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    answers: list[Float32] = session.run(outputs, given)
    return answers


NAMES = [SCORE, CONTRIBUTIONS, RECONSTRUCTION, LATENT]


def test_the_graph_answers_as_torch_does_of_a_series_and_of_windows_alike(
    exported: tuple[Windowed, onnx.ModelProto],
) -> None:
    core, graph = exported
    rows_TF = series(90, MIXED, seed=2)
    rows_TF[50] = np.nan
    rows_TF[60, 0], rows_TF[70, 1], rows_TF[80, 2] = 1e38, np.inf, -1e38
    with torch.no_grad():
        fitted = [each.numpy() for each in core(torch.from_numpy(rows_TF[np.newaxis]))[:4]]
    of_series = run(graph, NAMES, {"features": rows_TF[np.newaxis]})
    of_windows = run(graph, NAMES, {"features": windows_of(rows_TF)})
    for ours, theirs, windows in zip(fitted, of_series, of_windows, strict=True):
        np.testing.assert_array_equal(theirs, windows)
        np.testing.assert_allclose(theirs, ours, rtol=1e-4, atol=1e-5)
    two = run(graph, [SCORE], {"features": np.stack([rows_TF[:40], rows_TF[40:80]])})[0]
    np.testing.assert_array_equal(two[: 40 - W + 1], of_series[0][: 40 - W + 1])


def test_many_segments_are_answered_as_each_window_is(
    exported: tuple[Windowed, onnx.ModelProto],
) -> None:
    _, graph = exported
    rows_NF, segment_N = series(70, MIXED, seed=3), np.repeat([0, 1, 2], [30, 8, 32])
    (score_M,), row_M = run_windows(graph, [SCORE], rows_NF, segment_N, W)
    assert row_M.tolist() == [*range(W - 1, 30), *range(38 + W - 1, 70)]
    windows = np.stack([rows_NF[t - W + 1 : t + 1] for t in row_M])
    np.testing.assert_array_equal(score_M, run(graph, [SCORE], {"features": windows})[0])
    with pytest.raises(ValueError, match="no segment has the 12 rows of a window"):
        run_windows(graph, [SCORE], rows_NF, np.arange(70), W)


def test_the_graph_can_be_cut_at_what_it_derives(
    exported: tuple[Windowed, onnx.ModelProto],
) -> None:
    _, graph = exported
    rows_TF = series(60, MIXED, seed=4)
    extractor = Extractor(graph)
    (derived_ND,) = run(
        extractor.extract_model(["features"], [DERIVED]), [DERIVED], {"features": rows_TF[None]}
    )
    rest = extractor.extract_model([DERIVED], [SCORE, LATENT])
    whole = run(graph, [SCORE, LATENT], {"features": rows_TF[None]})
    for cut, uncut in zip(run(rest, [SCORE, LATENT], {DERIVED: derived_ND}), whole, strict=True):
        np.testing.assert_array_equal(cut, uncut)


def test_what_the_file_says_of_itself_is_of_the_features(
    exported: tuple[Windowed, onnx.ModelProto],
) -> None:
    _, graph = exported
    graph = onnx.ModelProto.FromString(graph.SerializeToString())
    assert [output.name for output in graph.graph.output] == NAMES
    assert not {tensor.name for tensor in graph.graph.initializer} & set(CONDITIONAL)
    attach_table(graph, build_table(np.linspace(0.1, 5, 80, dtype=np.float32)))
    test = make_self_test(graph, MIXED, 0, W)
    assert len(test.inputs) == W - 1 + 4
    assert {len(row) for row in test.inputs} == {len(MIXED)}
    assert len(test.score) == len(test.p_value) == len(test.latent) == 4
    assert [len(row) for row in test.contributions] == [len(MIXED)] * 4
