"""Results -> bytes."""

import json
import math
from dataclasses import replace

import numpy as np
import orjson
import pytest

from hourglass.service.errors import InvalidRow
from hourglass.service.model.calibration import Threshold
from hourglass.service.model.detector import Scores
from hourglass.service.model.served import Served
from hourglass.service.rows import decoding, encoding
from tests.artifacts import MIXED, NUMERIC, make_served, sample_rows

JSON, RAW = decoding.JSON, decoding.RAW


PLAIN_MODEL, MIXED_MODEL = make_served(NUMERIC), make_served(MIXED)
PLAIN, MIX = PLAIN_MODEL.schema, MIXED_MODEL.schema


def encode_scores(served: Served, scores: Scores) -> bytes:
    (answer,) = encoding.encode_each(served, scores, [(0, len(scores.score))])
    if isinstance(answer, Exception):
        raise answer
    return answer


class TestAnswers:
    def test_scores_survive_the_way_through_json_bit_by_bit(self):
        rows_ND = sample_rows(NUMERIC, 50, seed=9) * 3
        scores = PLAIN_MODEL.detector.score(rows_ND)
        answer = orjson.loads(encode_scores(PLAIN_MODEL, scores))
        threshold = PLAIN_MODEL.threshold
        np.testing.assert_array_equal(np.array(answer["score"], np.float32), scores.score)
        np.testing.assert_array_equal(np.array(answer["p_value"], np.float32), scores.p_value)
        np.testing.assert_allclose(answer["ratio"], scores.score / threshold.score, rtol=1e-6)
        assert answer["is_anomaly"] == (scores.score > threshold.score).tolist()
        assert any(answer["is_anomaly"])
        assert not all(answer["is_anomaly"])
        assert answer["version"] == PLAIN_MODEL.detector.version
        given_back = {
            name: answer[name]
            for name in ("model", "alpha", "delta", "certified", "guarantee", "threshold")
        }
        assert given_back == {
            "model": "tiny", "alpha": 0.05, "delta": 0.05, "certified": True, "guarantee": "certified",
            "threshold": threshold.score
        }  # fmt: skip

    def test_another_threshold_is_said_from_the_next_answer_on(self):
        scores = PLAIN_MODEL.detector.score(sample_rows(NUMERIC, 1))
        encode_scores(PLAIN_MODEL, scores)
        changed = replace(PLAIN_MODEL, threshold=replace(PLAIN_MODEL.threshold, score=0.5))
        assert orjson.loads(encode_scores(changed, scores))["threshold"] == 0.5
        assert (
            orjson.loads(encode_scores(PLAIN_MODEL, scores))["threshold"]
            == PLAIN_MODEL.threshold.score
        )

    def test_raw_answers_made_together_are_each_ones_own(self):
        rows_ND = sample_rows(NUMERIC, 6, seed=9)
        rows_ND[5] = 3e38
        with np.errstate(all="ignore"):
            scores = PLAIN_MODEL.detector.score(rows_ND)
        first, second, far = encoding.encode_each(
            PLAIN_MODEL, scores, [(0, 1), (1, 4), (4, 6)], raw=True
        )
        expected_N2 = np.stack(scores[:2], axis=1)
        np.testing.assert_array_equal(
            np.frombuffer(first + second, "<f4").reshape(-1, 2), expected_N2[:4]
        )
        assert (type(far), far.row) == (InvalidRow, 1)

    @pytest.mark.parametrize("far", [False, True])
    @pytest.mark.parametrize("sizes", [[1] * 5, [1] * 40, [3, 1, 2], [40, 1, 30, 100], [16], [17]])
    def test_answers_made_together_are_those_made_alone(self, sizes, far):
        rows_ND = sample_rows(NUMERIC, sum(sizes), seed=9) * 3
        if far:
            rows_ND[-1] = 3e38
        with np.errstate(all="ignore"):
            scores = PLAIN_MODEL.detector.score(rows_ND)
        ends = np.cumsum(sizes).tolist()
        spans = list(zip([0, *ends[:-1]], ends, strict=True))
        answers = encoding.encode_each(PLAIN_MODEL, scores, spans)
        assert [isinstance(answer, InvalidRow) for answer in answers] == [False] * (
            len(sizes) - 1
        ) + [far]
        for (start, end), answer in zip(spans, answers, strict=True):
            alone = Scores(*(each[start:end] for each in scores))
            if isinstance(answer, InvalidRow):
                assert answer.row == sizes[-1] - 1
            else:
                assert answer == encoding.encode_object(encoding._score_fields(PLAIN_MODEL, alone))

    def test_an_anomaly_is_exactly_what_has_a_p_value_of_at_most_the_expected_rate(self):
        scores = PLAIN_MODEL.detector.score(sample_rows(NUMERIC, 2000, seed=9) * 2)
        answer = orjson.loads(encode_scores(PLAIN_MODEL, scores))
        limit = PLAIN_MODEL.threshold.expected_false_alarm_rate * (1 + 1e-6)
        assert answer["is_anomaly"] == [p <= limit for p in answer["p_value"]]

    def test_a_threshold_of_zero_gives_finite_ratios(self):
        zero = Threshold(0.05, 0.05, True, 1, 0.0, 0.05)
        model = Served("tiny", PLAIN_MODEL.detector, PLAIN, zero, 0.0)
        scores = Scores(*np.array([[0, 1, 3e38], [1, 0.5, 0.1], [0, 0.3, 1]], np.float32))
        answer = orjson.loads(encode_scores(model, scores))
        assert answer["is_anomaly"] == [False, True, True]
        assert answer["ratio"][0] == 0.0
        assert all(math.isfinite(ratio) for ratio in answer["ratio"])

    def test_a_row_too_far_out_for_float32_is_refused_rather_than_answered_with_nan(self):
        rows_ND = np.array([[0, 0, 0, 0], [3e38, -3e38, 3e38, 0]], np.float32)
        with np.errstate(all="ignore"):
            scores, explanation = (
                PLAIN_MODEL.detector.score(rows_ND),
                PLAIN_MODEL.detector.explain(rows_ND),
            )
        for answer in (
            lambda: encode_scores(PLAIN_MODEL, scores),
            lambda: encoding.encode_explanations(
                PLAIN_MODEL, [encoding.Explained(rows_ND, explanation, None)], {}, top=3
            ),
        ):
            with pytest.raises(
                InvalidRow, match=r"^row 1 is so far from what tiny knows"
            ) as caught:
                answer()
            assert caught.value.row == 1

    def test_explanations_are_sorted_and_their_shares_are_of_the_score(self):
        rows_ND = sample_rows(MIXED, 6, seed=4)
        explanation = MIXED_MODEL.detector.explain(rows_ND)
        answer = orjson.loads(
            encoding.encode_explanations(
                MIXED_MODEL, [encoding.Explained(rows_ND, explanation, None)], {}, top=4
            )
        )
        for n, row in enumerate(answer["explanations"]):
            contributions = [each["contribution"] for each in row]
            assert contributions == sorted(contributions, reverse=True)
            assert sum(contributions) == pytest.approx(answer["score"][n], rel=1e-5)
            assert sum(each["share"] for each in row) == pytest.approx(1, rel=1e-5)
            assert {each["feature"] for each in row} == {feature.name for feature in MIXED}

    def test_explanations_speak_in_the_clients_values(self):
        body = json.dumps(
            {
                "rows": [
                    [None, True, "mars", 2.5],
                    {"load": 1, "open": 0, "site": "west", "heat": None},
                ]
            }
        ).encode()
        rows_ND = decoding.decode_rows(body, JSON, MIX, max_rows=10)
        sent = decoding.sent_categories(body, JSON, MIX, rows_ND)
        assert sent == {(0, 2): "mars"}
        explanation = MIXED_MODEL.detector.explain(rows_ND)
        answer = orjson.loads(
            encoding.encode_explanations(
                MIXED_MODEL, [encoding.Explained(rows_ND, explanation, None)], sent, top=9
            )
        )
        first, second = ({each["feature"]: each for each in row} for row in answer["explanations"])
        assert [first[name]["actual"] for name in ("load", "open", "site", "heat")] == [
            None,
            True,
            "mars",
            2.5,
        ]
        assert [second[name]["actual"] for name in ("load", "open", "site", "heat")] == [
            1.0,
            False,
            "west",
            None,
        ]
        assert first["site"]["expected"] in ("north", "south", "west")
        assert 0 < first["open"]["expected"] < 1
        assert (first["load"]["unit"], first["heat"]["unit"]) == ("kW", "°C")
        assert "unit" not in first["open"]

    def test_an_unseen_category_of_a_raw_body_is_shown_as_the_code_that_came(self):
        rows_ND = np.array([[0, 1, -1, 0]], np.float32)
        assert decoding.sent_categories(rows_ND.tobytes(), RAW, MIX, rows_ND) == {}
        explanation = MIXED_MODEL.detector.explain(rows_ND)
        answer = orjson.loads(
            encoding.encode_explanations(
                MIXED_MODEL, [encoding.Explained(rows_ND, explanation, None)], {}, top=9
            )
        )
        assert {each["feature"]: each["actual"] for each in answer["explanations"][0]}["site"] == -1

    def test_only_the_top_contributions_are_listed(self):
        rows_ND = sample_rows(NUMERIC, 3)
        answer = orjson.loads(
            encoding.encode_explanations(
                PLAIN_MODEL,
                [encoding.Explained(rows_ND, PLAIN_MODEL.detector.explain(rows_ND), None)],
                {},
                top=1,
            )
        )
        assert [len(row) for row in answer["explanations"]] == [1, 1, 1]

    def test_reconstructed_rows_are_in_the_clients_values_and_say_what_was_filled(self):
        rows_ND = sample_rows(MIXED, 2)
        rows_ND[1, [0, 2]] = np.nan
        expected_ND = MIXED_MODEL.detector.reconstruct(rows_ND)
        answer = orjson.loads(encoding.encode_rows(MIXED_MODEL, expected_ND, filled_from=rows_ND))
        assert answer["filled"] == [[], ["load", "site"]]
        for (load, is_open, site, heat), expected_D in zip(
            answer["rows"], expected_ND, strict=True
        ):
            assert [np.float32(load), np.float32(heat)] == [expected_D[0], expected_D[3]]
            assert is_open is bool(expected_D[1] >= 0.5)
            assert site == MIXED[2].categories[int(expected_D[2])]

    def test_codes_are_written_as_they_are(self):
        codes = PLAIN_MODEL.detector.encode_with_deviation(sample_rows(NUMERIC, 3))
        answer = orjson.loads(encoding.encode_codes(PLAIN_MODEL, codes))
        np.testing.assert_array_equal(np.array(answer["codes"], np.float32), codes.code)
        assert "deviations" not in answer
