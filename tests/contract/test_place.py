"""The same row gets the same answer, to the last bit, whoever else asks.

Every member and preset, its rows with gaps and without, held-out rows that the calibration table is
made of among them: alone, in pairs and in batches up to a thousand, and at every place of a batch;
on the scoring path, on that of rows without a gap, and through the whole graph. What this shows it
shows of the processor that it runs on.
"""

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from hourglass.service.model.detector import Detector
from hourglass.service.rows.tables import encode_table
from hourglass.training.calibrate import SCORE_RESOLUTION
from hourglass.training.models import VARIANTS
from tests.contract.conftest import MEMBERS, SIBLINGS, Pair
from tests.training import family, tables
from tests.training.family import Published
from tests.training.tables import Float32

Bits = NDArray[np.uint32]


REST = sorted(VARIANTS.keys() - MEMBERS.keys())  # of the family, as a run publishes them


@pytest.fixture(scope="module", params=[*MEMBERS, *SIBLINGS, *REST])
def member(request: pytest.FixtureRequest, pairs: Callable[[str], Pair]) -> Pair | Published:
    return family.publish(request.param) if request.param in REST else pairs(request.param)


@pytest.fixture(scope="module", params=["whole", "with gaps"])
def rows_ND(request: pytest.FixtureRequest, member: Pair | Published) -> Float32:
    return some_rows(member, 240, gaps=request.param == "with gaps")


def some_rows(member: Pair | Published, count: int, *, gaps: bool) -> Float32:
    """Held-out rows and new ones; a third of them with more cells missing, or none with any."""
    features = member.detector.manifest.features
    new_ND = encode_table(tables.mixed(count, anomalies=count // 10, seed=7), features)
    rows_ND = np.concatenate([member.prepared.split.calibration_ND, new_ND])[:count]
    rng = np.random.default_rng(8)
    if gaps:
        rows_ND[(rng.random(rows_ND.shape) < 0.3) & (np.arange(len(rows_ND)) % 3 == 0)[:, None]] = (
            np.nan
        )
        return rows_ND
    return np.where(np.isnan(rows_ND), np.nan_to_num(rows_ND[0]), rows_ND)


def answers(detector: Detector, rows_ND: Float32) -> Bits:
    """[N, ...] the bits of all that is said of each row."""
    scores, explanation = detector.score(rows_ND), detector.explain(rows_ND)
    columns = (*scores, *explanation, detector.encode(rows_ND))
    together = np.concatenate([column.reshape(len(rows_ND), -1) for column in columns], axis=1)
    return np.ascontiguousarray(together).view(np.uint32)


def in_batches(detector: Detector, rows_ND: Float32, size: int) -> Bits:
    # copies, since a view would lie in the memory where it lay before
    parts = [rows_ND[start : start + size].copy() for start in range(0, len(rows_ND), size)]
    return np.concatenate([answers(detector, part_ND) for part_ND in parts])


def test_a_row_is_answered_alike_alone_and_in_batches_of_any_size(
    member: Pair | Published, rows_ND: Float32
) -> None:
    alone = in_batches(member.detector, rows_ND, 1)
    for size in (2, 3, 5, 7, 64, 1000):
        assert np.array_equal(in_batches(member.detector, rows_ND, size), alone), size


def test_a_row_is_answered_alike_at_every_place_of_a_batch(
    member: Pair | Published, rows_ND: Float32
) -> None:
    first = answers(member.detector, rows_ND[:37])
    for places in range(1, 37):
        moved = answers(member.detector, np.roll(rows_ND[:37], places, axis=0))
        assert np.array_equal(np.roll(moved, -places, axis=0), first), places


def test_a_row_scores_alike_by_its_score_alone_and_by_the_whole_graph(
    member: Pair | Published, rows_ND: Float32
) -> None:
    scores, explanation = member.detector.score(rows_ND), member.detector.explain(rows_ND)
    assert scores.score.tobytes() == explanation.score.tobytes()
    assert scores.p_value.tobytes() == explanation.p_value.tobytes()


def test_a_row_without_a_gap_scores_alike_beside_one_that_has_one(member: Pair | Published) -> None:
    rows_ND = some_rows(member, 240, gaps=False)
    beside_ND = np.concatenate([rows_ND, np.full((1, rows_ND.shape[1]), np.nan, np.float32)])
    alone_N = member.detector.score(rows_ND).score
    assert member.detector.score(beside_ND).score[:-1].tobytes() == alone_N.tobytes()


def test_a_calibration_row_scores_what_the_table_says_of_it_whoever_asks(
    member: Pair | Published,
) -> None:
    rows_ND, table = member.prepared.split.calibration_ND, member.detector.table
    alone = np.concatenate([member.detector.score(row_D[None].copy()).score for row_D in rows_ND])
    assert np.isin(np.maximum(alone, SCORE_RESOLUTION), table.scores).all()


def test_only_the_table_look_up_whose_counts_are_exact_sums_by_a_kernel_of_sums(
    member: Pair | Published,
) -> None:
    nodes = onnx.load_model_from_string(member.data).graph.node
    sums = [node.output[0] for node in nodes if node.op_type in ("ReduceSum", "ReduceMean")]
    assert sums == ["calibration_block_count", "calibration_place", "severity_place"]


@pytest.mark.parametrize("gaps", [False, True])
def test_two_thousand_rows_are_answered_alike(pairs: Callable[[str], Pair], gaps: bool) -> None:
    member = pairs("denoising")
    rows_ND = some_rows(member, 2000, gaps=gaps)
    alone = in_batches(member.detector, rows_ND, 1)
    assert len({row.tobytes() for row in alone}) > 1500
    for size in (2, 3, 5, 7, 64, 1000):
        assert np.array_equal(in_batches(member.detector, rows_ND, size), alone), size
