"""What a run's progress leaves for the learning curves."""

import hashlib
from pathlib import Path

from hourglass.training.progress import Epoch, Progress
from hourglass.training.report.origin import MOST_POINTS, Recorder, hash_file


def epochs(recorder: Recorder, stage: str, count: int) -> None:
    recorder.progress.stage(stage)
    for number in range(1, count + 1):
        recorder.progress.epoch(Epoch(number, count, 1 / number, 2 / number, 2 / number))


def test_each_network_has_a_curve_from_its_first_to_its_last_epoch() -> None:
    heard: list[str] = []
    recorder = Recorder(Progress(heard.append))
    epochs(recorder, "fitting model 1 of 2", 1000)
    epochs(recorder, "fitting model 2 of 2", 3)
    long, short = recorder.curves("linear")
    assert (long.name, short.name) == ("model 1 of 2", "model 2 of 2")
    assert (long.epoch[0], long.epoch[-1], len(long.epoch)) == (1, 1000, MOST_POINTS)
    assert short.loss == (1.0, 1 / 2, 1 / 3)
    assert short.held_out_loss == (2.0, 1.0, 2 / 3)
    assert heard == ["fitting model 1 of 2", "fitting model 2 of 2"]


def test_of_several_variants_the_curve_is_of_the_one_that_is_published() -> None:
    recorder = Recorder(Progress())
    epochs(recorder, "fitting linear", 2)
    epochs(recorder, "fitting tied", 4)
    (curve,) = recorder.curves("tied")
    assert (curve.name, curve.epoch) == ("tied", (1, 2, 3, 4))


def test_a_file_is_known_by_its_hash_and_a_missing_one_by_none(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_bytes(b"a\n1\n")
    assert hash_file(file) == hashlib.sha256(b"a\n1\n").hexdigest()
    assert hash_file(tmp_path / "gone.csv") is None
