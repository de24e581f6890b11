"""The detector: one loaded artifact, and what it answers."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import onnxruntime as ort
import pytest

from hourglass.service.errors import InvalidArtifact
from hourglass.service.model import artifact
from hourglass.service.model.detector import RUN_CELLS, Detector, lone_differs
from tests.artifacts import MIXED, NUMERIC, make_artifact, sample_rows


@pytest.fixture(scope="module", params=[NUMERIC, MIXED], ids=["plain", "mixed"])
def features(request):
    return request.param


@pytest.fixture(scope="module")
def detector(features):
    return Detector.from_bytes(make_artifact(features))


@pytest.fixture(scope="module")
def rows_ND(features):
    rows_ND = sample_rows(features, 50, seed=11)
    rows_ND[::7, 0] = np.nan
    return rows_ND


def test_scores_of_the_fast_path_are_those_of_the_whole_graph(detector, rows_ND):
    fast, whole = detector.score(rows_ND), detector.explain(rows_ND)
    np.testing.assert_allclose(fast.score, whole.score, rtol=1e-6)
    np.testing.assert_array_equal(fast.p_value, whole.p_value)
    assert fast.score.dtype == fast.p_value.dtype == np.float32


def test_a_row_without_a_gap_scores_to_the_last_bit_as_by_the_way_of_those_with_one(
    detector, features
):
    """Else one equal to the calibration row that the threshold comes from would be an anomaly or
    not by the way it took.
    """
    complete_ND = sample_rows(features, 200, seed=12)
    gapped_ND = np.concatenate([complete_ND, np.full((1, 4), np.nan, np.float32)])
    together = detector.score(gapped_ND).score[:-1]
    np.testing.assert_array_equal(detector.score(complete_ND).score, together)
    alone = np.concatenate([detector.score(complete_ND[n : n + 1]).score for n in range(200)])
    np.testing.assert_allclose(alone, together, rtol=1e-6)


def test_contributions_are_non_negative_and_sum_to_the_score(detector, rows_ND):
    explanation = detector.explain(rows_ND)
    assert (explanation.contributions >= 0).all()
    np.testing.assert_allclose(explanation.contributions.sum(axis=1), explanation.score, rtol=1e-5)


def test_p_values_of_the_graph_are_those_of_the_table(detector, rows_ND):
    scores = detector.score(rows_ND)
    np.testing.assert_array_equal(scores.p_value, detector.table.p_value(scores.score))


def test_reconstructions_have_no_gaps(detector, rows_ND):
    assert np.isfinite(detector.reconstruct(rows_ND)).all()


def test_a_code_decodes_to_the_reconstruction_of_its_row(detector, rows_ND):
    codes_NK = detector.encode(rows_ND)
    assert codes_NK.shape == (50, detector.latent_width) == (50, 2)
    np.testing.assert_allclose(
        detector.decode(codes_NK), detector.reconstruct(rows_ND), rtol=1e-5, atol=1e-6
    )


def test_a_row_without_any_value_has_no_score_and_is_thus_not_normal(detector):
    scores = detector.score(np.full((1, 4), np.nan, np.float32))
    assert np.isnan(scores.score).all()
    assert np.isnan(scores.p_value).all()


def test_one_row_scores_the_same_alone_and_among_others(detector, rows_ND):
    together = detector.score(rows_ND).score
    alone = np.concatenate([detector.score(rows_ND[n : n + 1]).score for n in range(50)])
    np.testing.assert_allclose(alone, together, rtol=1e-5)


def test_rows_read_from_bytes_need_not_be_copied(detector, rows_ND):
    read_only_ND = np.frombuffer(rows_ND.tobytes(), np.float32).reshape(rows_ND.shape)
    assert not read_only_ND.flags.writeable
    np.testing.assert_array_equal(detector.score(read_only_ND).score, detector.score(rows_ND).score)


def test_p_values_of_held_out_rows_are_uniform(features):
    table_rows = 2000
    detector = Detector.from_bytes(make_artifact(features, calibration_rows=table_rows))
    p_values = np.sort(detector.score(sample_rows(features, 5000, seed=77)).p_value)
    distance = np.abs(p_values - np.arange(1, 5001) / 5000).max()
    assert distance < 1.63 * np.sqrt(1 / table_rows + 1 / 5000)  # Kolmogorov-Smirnov at 1 %


def test_a_model_whose_reconstruction_needs_the_row_cannot_decode():
    detector = Detector.from_bytes(make_artifact(decodable=False))
    assert not detector.can_decode
    with pytest.raises(ValueError, match="needs the row as well as the code"):
        detector.decode(np.zeros((1, 2), np.float32))


def test_what_the_manifest_says_of_itself_is_in_force():
    detector = Detector.from_bytes(make_artifact(alpha=0.1, delta=0.2, certified=False))
    threshold = detector.threshold
    assert (threshold.alpha, threshold.delta, threshold.certified, threshold.rank) == (
        0.1,
        0.2,
        False,
        40,
    )
    assert detector.width == 4


def test_the_self_test_finds_a_score_that_training_did_not_compute():
    with pytest.raises(
        InvalidArtifact, match="the self-test failed: score differs from what training computed"
    ):
        Detector.from_bytes(make_artifact(self_test_scale=1.001))


def test_two_seeds_make_two_models_and_one_seed_one():
    assert make_artifact(seed=1) == make_artifact(seed=1)
    assert make_artifact(seed=1) != make_artifact(seed=2)


def test_a_bulk_of_rows_is_answered_as_its_parts_are() -> None:
    detector = Detector.from_bytes(make_artifact())
    run_rows = RUN_CELLS // detector.width
    rows_ND = (
        np.random.default_rng(0).normal(size=(2 * run_rows + 3, detector.width)).astype(np.float32)
    )
    for start in range(0, len(rows_ND), run_rows):
        part = slice(start, start + run_rows)
        assert np.array_equal(
            detector.score(rows_ND).score[part], detector.score(rows_ND[part]).score
        )
        assert np.array_equal(
            detector.explain(rows_ND).contributions[part],
            detector.explain(rows_ND[part]).contributions,
        )
    assert detector.encode(rows_ND[:0]).shape == (0, detector.latent_width)


def test_runs_of_a_bulk_beside_each_other_answer_as_one_after_another(features):
    data = make_artifact(features)
    rows_ND = sample_rows(features, 5 * RUN_CELLS // 4 + 7, seed=3)
    alone = Detector.from_bytes(data)
    with ThreadPoolExecutor(3) as pool:
        beside = Detector.from_bytes(data, pool=pool)
        for method in ("score", "explain"):
            for ours, theirs in zip(
                getattr(beside, method)(rows_ND), getattr(alone, method)(rows_ND), strict=True
            ):
                np.testing.assert_array_equal(ours, theirs)


def test_answers_of_two_threads_at_once_are_their_own(detector, features):
    """Nothing is shared between runs that a second one could write over."""
    batches = [sample_rows(features, 1 + n % 70, seed=n) for n in range(60)]
    expected = [detector.score(rows_ND) for rows_ND in batches]
    with ThreadPoolExecutor(4) as pool:
        got = list(pool.map(detector.score, batches * 5))
    for ours, theirs in zip(got, expected * 5, strict=True):
        np.testing.assert_array_equal(ours.score, theirs.score)
        np.testing.assert_array_equal(ours.p_value, theirs.p_value)


def test_no_run_takes_more_cells_than_its_share_however_wide_the_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """4,194 rows of 2,000 features took 2.4 GB in one run of the masked member, and 6.6 GB by all
    routes.
    """
    seen = []
    real = ort.InferenceSession.run

    def run(
        session: ort.InferenceSession, outputs: list[str], feed: dict[str, np.ndarray]
    ) -> list[np.ndarray]:
        seen.append(next(iter(feed.values())).size)
        return real(session, outputs, feed)

    data = make_artifact(tuple(artifact.Feature(name=f"x{d}", kind="numeric") for d in range(300)))
    monkeypatch.setattr(ort.InferenceSession, "run", run)
    detector = Detector.from_bytes(data)
    assert len(detector.score(np.zeros((1000, 300), np.float32)).score) == 1000
    assert RUN_CELLS - 300 < max(seen) <= RUN_CELLS


def test_how_long_a_cell_takes_is_measured_when_a_model_is_loaded(detector):
    assert 1e-11 < detector.cell_seconds < 1e-2


class Kernels:
    """A session as a processor might have it: sums of rows, off by `alone` for one row, by `place`
    for every row of an odd number.
    """

    def __init__(self, *, alone=0.0, place=0.0):
        self.alone, self.place, self.sizes = np.float32(alone), np.float32(place), []

    def run(self, outputs, feed):
        (rows_ND,) = feed.values()
        self.sizes.append(len(rows_ND))
        off_N = self.place * (np.arange(len(rows_ND)) % 2) + self.alone * (len(rows_ND) == 1)
        return [(rows_ND.sum(axis=1) + off_N).astype(np.float32) for _ in outputs]


def test_where_one_row_has_another_kernel_it_is_run_as_two():
    rows_ND = sample_rows(NUMERIC, 20, seed=3)
    assert not lone_differs(Kernels(), rows_ND)
    assert lone_differs(Kernels(alone=1e-3), rows_ND)

    session = Kernels(alone=1e-3)
    detector = Detector.from_bytes(make_artifact())
    detector = replace(detector, _scoring=session, _gapless=session, _lone_as_two=True)
    together_N = detector.score(rows_ND).score
    for n in range(len(rows_ND)):
        assert detector.score(rows_ND[n : n + 1]).score.tobytes() == together_N[n : n + 1].tobytes()
    assert session.sizes == [20] + [2] * 20


def test_where_the_place_among_others_matters_too_one_row_is_run_as_it_is():
    """An older file's, whose answers stay."""
    rows_ND = sample_rows(NUMERIC, 20, seed=3)
    assert not lone_differs(Kernels(place=1e-3), rows_ND)
    assert not lone_differs(Kernels(alone=1e-3, place=1e-3), rows_ND)
