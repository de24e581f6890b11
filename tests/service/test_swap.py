"""Swapping models under load: a real server process, several clients, a hundred swaps; nothing
fails and no answer mixes two.
"""

import itertools
import threading
import time

import httpx
import numpy as np
import pytest

from hourglass.service.model.detector import Detector
from tests.artifacts import NUMERIC, make_artifact, point, publish, sample_rows
from tests.serving import Process

SWAPS = 120
CLIENTS = 4


@pytest.mark.slow
def test_a_hundred_swaps_fail_no_request_and_mix_no_answer(tmp_path):
    artifacts = [make_artifact(seed=1), make_artifact(seed=2, shift=2.0)]
    detectors = {publish(tmp_path, "pump", data): Detector.from_bytes(data) for data in artifacts}
    versions = list(detectors)
    rows_ND = sample_rows(NUMERIC, 8, seed=3)
    expected = {version: detector.score(rows_ND).score for version, detector in detectors.items()}
    thresholds = {version: detector.threshold.score for version, detector in detectors.items()}
    failures, mixed, seen = [], [], []
    stop = threading.Event()

    def client(number: int) -> None:
        # of different sizes, so that batches of several requests are cut up again
        sent = rows_ND[: 1 + 2 * number % 8]
        with httpx.Client(base_url=process.url) as connection:
            while not stop.is_set():
                try:
                    answer = (
                        connection.post("/v1/models/pump/score", json={"rows": sent.tolist()})
                        .raise_for_status()
                        .json()
                    )
                except httpx.HTTPError as error:
                    failures.append(error)
                    continue
                version = answer["version"]
                seen.append(version)
                right = np.allclose(answer["score"], expected[version][: len(sent)], rtol=1e-5)
                if not right or answer["threshold"] != thresholds[version]:
                    mixed.append(answer)

    with Process(tmp_path, HOURGLASS_POLL_SECONDS="0.005") as process:
        threads = [threading.Thread(target=client, args=(number,)) for number in range(CLIENTS)]
        for thread in threads:
            thread.start()
        with httpx.Client(base_url=process.url) as operator:
            for version in itertools.islice(itertools.cycle(versions), SWAPS):
                point(tmp_path, "pump", version)
                deadline = time.monotonic() + 10
                while operator.get("/v1/models/pump").json()["version"] != version:
                    assert time.monotonic() < deadline, "the poll did not see the pointer move"
            metrics = operator.get("/metrics").text
        stop.set()
        for thread in threads:
            thread.join()
        assert process.stop() == 0
    assert failures == []
    assert mixed == []
    assert set(seen) == set(versions)
    assert sum(one != other for one, other in itertools.pairwise(seen)) >= 20
    swaps = float(
        next(line for line in metrics.splitlines() if 'outcome="swapped"' in line).split()[-1]
    )
    assert swaps >= 100
    assert 'hourglass_model_reloads_total{model="pump",outcome="failed"} 0.0' in metrics
