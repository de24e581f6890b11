import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper

from hourglass.service.model import artifact
from hourglass.service.model.calibration import Table, build_table, certified_rank
from hourglass.training.calibrate import DEFAULT_ALPHAS, attach_table, choose_threshold
from hourglass.training.errors import RunError
from hourglass.training.export import run_graph

Float32 = NDArray[np.float32]


def graph_of(table: Table) -> onnx.ModelProto:
    """A graph whose score is its input, with the table attached."""
    features = helper.make_tensor_value_info(artifact.INPUT, onnx.TensorProto.FLOAT, ["batch", 1])
    score = helper.make_tensor_value_info(artifact.SCORE, onnx.TensorProto.FLOAT, ["batch"])
    axis = onnx.numpy_helper.from_array(np.array([1], dtype=np.int64), "axis")
    squeeze = helper.make_node("Squeeze", [artifact.INPUT, "axis"], [artifact.SCORE])
    graph = helper.make_graph([squeeze], "identity", [features], [score], [axis])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    attach_table(model, table)
    onnx.checker.check_model(model, full_check=True)
    return model


def probes(table: Table) -> Float32:
    """Every entry, its neighbours on both sides, and what lies beyond any table."""
    beyond = np.array([-1.0, 0.0, 1e-30, 1e30, 3.4e38, -np.inf, np.inf, np.nan], dtype=np.float32)
    below, above = (np.nextafter(table.scores, np.float32(end)) for end in (-np.inf, np.inf))
    assert table.severity is not None
    ends = table.severity.ends[:-1]  # the last is the largest float32
    more = [np.nextafter(ends, np.float32(0)), ends, np.nextafter(ends, np.float32(np.inf))]
    return np.concatenate([table.scores, below, above, beyond, *more]).astype(np.float32)


def scores(n: int, kind: str) -> Float32:
    rng = np.random.default_rng(n)
    if kind == "tied":
        return rng.integers(1, 2 + n // 3, n).astype(np.float32)
    if kind == "one value":
        return np.full(n, 0.5, dtype=np.float32)
    return rng.gamma(2.0, size=n).astype(np.float32)


@pytest.mark.parametrize("kind", ["distinct", "tied", "one value"])
@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 10, 59, 100, 299, 1023, 1024, 1025, 5000, 20_000])
def test_the_graph_looks_up_what_the_table_says(n: int, kind: str) -> None:
    table = build_table(scores(n, kind))
    score_N = probes(table)
    names = [artifact.P_VALUE, artifact.SEVERITY]
    found = run_graph(graph_of(table), names, score_N[:, None])
    for looked_up, expected in zip(found, table.look_up(score_N), strict=True):
        assert np.array_equal(looked_up, expected, equal_nan=True)
        assert np.isnan(looked_up).sum() == 1


@pytest.mark.parametrize("n", [1, 59, 1025])
def test_one_row_is_looked_up_as_many_are(n: int) -> None:
    table = build_table(scores(n, "distinct"))
    score_N = probes(table)[:: max(1, n // 20)]
    names = [artifact.P_VALUE, artifact.SEVERITY]
    one_by_one = run_graph(graph_of(table), names, score_N[:, None], batch=1)
    for looked_up, expected in zip(one_by_one, table.look_up(score_N), strict=True):
        assert np.array_equal(looked_up, expected, equal_nan=True)


@pytest.mark.parametrize("n", [1, 7, 400, 1024])
def test_an_exact_table_gives_the_conformal_p_value(n: int) -> None:
    calibration_N = scores(n, "tied")
    score_N = probes(build_table(calibration_N))
    score_N = score_N[~np.isnan(score_N)]
    counted = (1 + (calibration_N[None, :] >= score_N[:, None]).sum(axis=1)) / (n + 1)
    looked_up = run_graph(
        graph_of(build_table(calibration_N)), [artifact.P_VALUE], score_N[:, None]
    )[0]
    assert looked_up == pytest.approx(counted, rel=1e-6)


def test_a_compressed_table_never_understates_a_p_value_and_is_exact_in_the_tail() -> None:
    calibration_N = scores(20_000, "distinct")
    score_N = np.random.default_rng(1).gamma(2.0, size=4000).astype(np.float32)
    counted = (1 + (calibration_N[None, :] >= score_N[:, None]).sum(axis=1)) / 20_001
    looked_up = run_graph(
        graph_of(build_table(calibration_N)), [artifact.P_VALUE], score_N[:, None]
    )[0]
    assert (looked_up >= counted * (1 - 1e-6)).all()
    assert (looked_up <= counted * 1.016).all()
    tail = counted <= 512 / 20_001
    assert looked_up[tail] == pytest.approx(counted[tail], rel=1e-6)


@pytest.mark.parametrize(
    ("n", "alpha"),
    # between two budgets it goes up and down with the whole rank
    [
        (20_000, 0.01),
        (1049, 0.01),
        (772, 0.02),
        (523, 0.02),
        (385, 0.05),
        (208, 0.05),
        (152, 0.1),
        (103, 0.1),
        (75, 0.2),
        (14, 0.2),
    ],
)
def test_the_default_alpha_is_the_first_of_1_2_5_10_20_percent_of_which_half_is_in_use(
    n: int, alpha: float
) -> None:
    table = build_table(scores(n, "distinct"))
    threshold = choose_threshold(table, None, 0.05, uncertified=False)
    assert threshold.alpha == alpha
    if n >= 80:
        assert threshold.expected_false_alarm_rate >= alpha / 2
    if alpha > 0.01:  # of no smaller one is as much in use
        smaller = DEFAULT_ALPHAS[DEFAULT_ALPHAS.index(alpha) - 1]
        assert certified_rank(n, smaller, 0.05) / (n + 1) < smaller / 2
    assert threshold.certified


@pytest.mark.parametrize("n", [4, 5, 13])
def test_with_fewer_rows_than_any_of_these_needs_the_rule_without_guarantee_is_taken(
    n: int,
) -> None:
    threshold = choose_threshold(build_table(scores(n, "distinct")), None, 0.05, uncertified=False)
    assert (threshold.alpha, threshold.certified) == (0.2, False)
    assert threshold.expected_false_alarm_rate <= 0.2


def test_an_alpha_asked_for_that_cannot_be_certified_is_refused_with_the_rows_it_needs_and_the_nearest_that_works() -> (
    None
):
    table = build_table(scores(100, "distinct"))
    with pytest.raises(RunError) as refused:
        choose_threshold(table, 0.01, 0.05, uncertified=False)
    message = str(refused.value)
    assert "299" in message
    assert "--uncertified" in message
    nearest = float(message.partition("nearest alpha that can be certified is ")[2].split(";")[0])
    assert nearest == pytest.approx(1 - 0.05 ** (1 / 100), abs=1e-4)
    assert choose_threshold(table, nearest, 0.05, uncertified=False).certified


def test_without_the_guarantee_the_same_alpha_is_had_and_marked() -> None:
    threshold = choose_threshold(build_table(scores(100, "distinct")), 0.01, 0.05, uncertified=True)
    assert (threshold.alpha, threshold.certified, threshold.rank) == (0.01, False, 1)


def test_an_alpha_that_no_score_could_reach_is_refused_even_without_the_guarantee() -> None:
    with pytest.raises(
        RunError, match=r"at least 99;.*smallest alpha that can be reached is 0\.0197"
    ):
        choose_threshold(build_table(scores(50, "distinct")), 0.01, 0.05, uncertified=True)


@pytest.mark.parametrize("kind", ["distinct", "tied"])
@pytest.mark.parametrize("n", [59, 400, 5000])
def test_a_score_alarms_exactly_when_its_p_value_is_within_the_rule(n: int, kind: str) -> None:
    table = build_table(scores(n, kind))
    threshold = choose_threshold(table, None, 0.05, uncertified=False)
    score_N = probes(table)[:-1]
    within = table.p_value(score_N) <= threshold.expected_false_alarm_rate * (1 + 1e-6)
    assert np.array_equal(score_N > threshold.score, within)


def test_with_blocks_the_default_alpha_is_one_that_the_smallest_can_tell_of() -> None:
    block_N = np.repeat([0, 1, 2], [60, 200, 200])
    table = build_table(scores(460, "distinct"), block_N=block_N)
    threshold = choose_threshold(table, None, 0.05, uncertified=True)
    assert table.smallest_p_value == pytest.approx(1 / 61)
    assert threshold.alpha == 0.05  # 1 / 61 is more than half of 2 %
