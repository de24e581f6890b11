"""VUS-PR against closed cases, and against the paper's definition written as loops."""

from time import process_time

import numpy as np
import pytest

from hourglass.training.vus import BUFFER, THRESHOLDS, Ranges, vus_pr


def by_definition(anomalous: list[bool], score: list[float], buffer: int) -> float:
    """The mean over buffers of the area, row by row and threshold by threshold."""
    rows = len(score)
    descending = sorted(score, reverse=True)
    thresholds = [descending[int(i)] for i in np.linspace(0, rows - 1, THRESHOLDS)]
    ranges = []
    for row in range(rows):
        if anomalous[row] and (row == 0 or not anomalous[row - 1]):
            ranges.append([row, row])
        if anomalous[row]:
            ranges[-1][1] = row
    areas = []
    for length in range(buffer + 1):
        half = length // 2
        label = [1.0 if each else 0.0 for each in anomalous]
        for first, last in ranges:
            for d in range(1, half + 1):
                for row in (first - d, last + d):
                    if 0 <= row < rows:
                        label[row] = min(1.0, label[row] + (1 - d / length) ** 0.5)
        merged = [[ranges[0][0] - half, ranges[0][1] + half]]
        for first, last in ranges[1:]:
            if merged[-1][1] < first - half:
                merged.append([first - half, last + half])
            else:
                merged[-1][1] = last + half
        area, recall_before = 0.0, 0.0
        for threshold in thresholds:
            above = [each >= threshold for each in score]
            hits = sum(each for each, is_above in zip(label, above, strict=True) if is_above)
            to_be_found = sum(
                1.0 if exact else each * is_above
                for exact, each, is_above in zip(anomalous, label, above, strict=True)
            )
            found = sum(any(above[max(first, 0) : last + 1]) for first, last in merged)
            recall = min(hits / ((sum(anomalous) + to_be_found) / 2), 1) * found / len(merged)
            area += (recall - recall_before) * hits / sum(above)
            recall_before = recall
        areas.append(area)
    return sum(areas) / len(areas)


@pytest.mark.parametrize("seed", range(12))
def test_it_is_the_papers_definition(seed: int) -> None:
    random = np.random.default_rng(seed)
    anomalous_N = np.zeros(400, dtype=bool)
    for start in random.choice(400, 6):  # ranges meet, and touch the ends
        anomalous_N[start : start + random.integers(1, 25)] = True
    anomalous_N[-1] |= seed % 3 == 0
    anomalous_N[0] |= seed % 4 == 0
    score_N = random.normal(size=400) + anomalous_N * random.uniform(0, 2)
    if seed % 2:
        score_N = score_N.round()  # ties
    wanted = by_definition(anomalous_N.tolist(), score_N.tolist(), buffer=20)
    assert vus_pr(anomalous_N, score_N, buffer=20) == pytest.approx(wanted, abs=1e-12)


def test_without_a_buffer_a_perfect_score_has_all_and_a_constant_one_the_share_of_anomalies() -> (
    None
):
    anomalous_N = np.zeros(1000, dtype=bool)
    anomalous_N[300:400] = True
    # at a threshold of four rows' spacing the last step of recall may hold a few normal rows
    perfect_N = anomalous_N.astype(float)
    assert vus_pr(anomalous_N, perfect_N, buffer=0) == 1
    assert vus_pr(anomalous_N, np.zeros(1000), buffer=0) == pytest.approx(0.1)
    assert vus_pr(anomalous_N, -perfect_N, buffer=0) == pytest.approx(0.1, abs=0.001)


def test_one_buffer_by_hand() -> None:
    anomalous_N = np.array([0, 0, 0, 1, 0, 0, 0, 0], dtype=bool)
    score_N = np.array([0, 0, 1, 0, 0, 0, 0, 0], dtype=float)  # the row before the anomaly
    # of buffers 0 and 1: nothing but at the threshold that all rows reach, precision 1/8.
    # of 2 rows: one on either side, with the label sqrt(1/2): at first hits h, recall h / (1 + h/2),
    # precision h; then hits 1 + 2h, recall 1 of (1 + 2h) / (1 + h) at most 1, precision (1 + 2h)/8
    h = np.sqrt(1 / 2)
    recall = h / (1 + h / 2)
    of_2 = recall * h + (1 - recall) * (1 + 2 * h) / 8
    assert vus_pr(anomalous_N, score_N, buffer=2) == pytest.approx((1 / 8 + 1 / 8 + of_2) / 3)


def test_an_alarm_a_few_rows_late_is_worth_more_than_one_far_away() -> None:
    anomalous_N, late_N, far_N = (np.zeros(2000, dtype=bool) for _ in range(3))
    anomalous_N[1000:1020], late_N[1022:1042], far_N[1500:1520] = True, True, True
    near, far = (vus_pr(anomalous_N, each.astype(float)) for each in (late_N, far_N))
    assert near > 0.3 > 0.05 > far


def test_buffers_do_not_leave_an_entity() -> None:
    random = np.random.default_rng(0)
    anomalous_N = np.zeros(600, dtype=bool)
    anomalous_N[[299, 450]] = True
    anomalous_N[295:300] = True
    score_N = random.normal(size=600)
    score_N[300:320] = 5.0  # of the next entity
    segment_N = np.repeat([0, 1], 300)
    assert vus_pr(anomalous_N, score_N, segment_N) < vus_pr(anomalous_N, score_N) - 0.05
    ranges = Ranges.of(np.ones(600, dtype=bool), segment_N)
    assert (ranges.start_E.tolist(), ranges.stop_E.tolist()) == ([0, 300], [300, 600])


def test_it_says_what_is_missing() -> None:
    nothing_N = np.zeros(10, dtype=bool)
    with pytest.raises(ValueError, match="needs anomalous and normal rows"):
        vus_pr(nothing_N, np.zeros(10))
    nothing_N[3] = True
    with pytest.raises(ValueError, match="row 2 has no score"):
        vus_pr(nothing_N, np.array([0, np.nan, *range(8)]))


def test_fifty_thousand_rows_take_seconds() -> None:
    random = np.random.default_rng(0)
    anomalous_N = np.zeros(50_000, dtype=bool)
    for start in random.choice(50_000, 400):
        anomalous_N[start : start + 20] = True
    started = process_time()
    vus_pr(anomalous_N, random.normal(size=50_000), buffer=BUFFER)
    assert process_time() - started < 5
