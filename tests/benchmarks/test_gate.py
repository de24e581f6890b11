"""The gate's benchmark: what it spoils, what it measures, what it counts."""

from pathlib import Path

import numpy as np
import pytest

from tests.benchmarks.gate.__main__ import JUDGED, TUNED, main
from tests.benchmarks.gate.case import Outcome, Quality, measure
from tests.benchmarks.gate.spoiling import WAYS, Honest
from tests.benchmarks.gate.table import lines
from tests.training.tables import correlated

RANDOM = np.random.default_rng


def rows() -> Honest:
    anomalies_AD = correlated(100, seed=2) + 20
    return Honest(correlated(500), correlated(400, seed=1), anomalies_AD, RANDOM(0))


def test_each_way_spoils_rows_as_its_name_says() -> None:
    fresh_ND = rows().fresh_ND
    made = {way: spoil(rows()) for way, spoil in WAYS.items()}
    assert np.array_equal(made["honest"], fresh_ND)
    strange_N = ~(made["contaminated"][:, None] == fresh_ND[None]).all(axis=2).any(axis=1)
    assert strange_N.mean() == pytest.approx(0.03, abs=0.002)
    assert not made["zeroed"].any()
    assert len(made["zeroed night"]) == 550
    assert (made["rescaled"] == fresh_ND * 1000).all()
    assert (np.sort(made["shuffled"], axis=0) == np.sort(fresh_ND, axis=0)).all()
    assert not (made["shuffled"] == fresh_ND).all()
    moved_D = (made["shifted"] - fresh_ND).mean(axis=0) / fresh_ND.std(axis=0)
    assert moved_D == pytest.approx(3, abs=0.01)
    for way in ("zeroed column", "rescaled column", "shifted column"):
        assert (made[way] != fresh_ND).any(axis=0).sum() == 1


def test_no_set_is_both_tuned_and_judged_on() -> None:
    assert not set(TUNED) & set(JUDGED)


def good(**changed: float) -> Quality:
    usual = {"average_precision": 0.8, "detection": 0.7, "false_alarms": 0.03, "alpha": 0.05}
    return Quality(**{**usual, **changed})


def outcome(way: str, *, published: bool, challenger: Quality | None = None) -> Outcome:
    return Outcome(
        set="a",
        seed=0,
        way=way,
        published=published,
        reason="",
        champion=good(),
        challenger=challenger,
        rows=100,
    )


def test_a_refit_is_sound_that_is_as_good_as_the_honest_one() -> None:
    counted = lines(
        [
            outcome("honest", published=True, challenger=good()),
            outcome("contaminated", published=True, challenger=good(detection=0.6)),
            outcome("contaminated", published=True, challenger=good(detection=0.5)),
            outcome("contaminated", published=True, challenger=good(average_precision=0.7)),
            outcome("contaminated", published=True, challenger=good(false_alarms=0.5)),
            outcome("zeroed", published=False),
        ]
    )
    assert {line.way: line[1:] for line in counted} == {
        "honest": (1, 0, 1, 0),
        "contaminated": (4, 0, 1, 3),
        "zeroed": (1, 1, 0, 0),
        "all that are spoilt": (5, 1, 1, 3),
    }
    assert counted[-1].handled == 0.4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small set of correlated rows, and anomalies that break the correlation."""
    folder = tmp_path_factory.mktemp("gate")
    normal_ND, anomalies_AD = correlated(900), RANDOM(1).permuted(correlated(60), axis=0) * 2
    x_ND = np.concatenate([normal_ND, anomalies_AD])
    np.savez(folder / "small.npz", X=x_ND, y=np.repeat([0, 1], [900, 60]))
    return folder


def test_refits_of_a_set_go_through_the_gate(folder: Path) -> None:
    honest, rescaled = measure(folder / "small.npz", 0, ["honest", "rescaled"], force=False)
    assert honest.published, honest.reason
    assert honest.challenger
    assert {check.name for check in honest.checks} >= {"Rank agreement", "Ranges"}
    assert (rescaled.published, rescaled.challenger) == (False, None)
    (forced,) = measure(folder / "small.npz", 0, ["rescaled"], force=True)
    assert not forced.published
    assert forced.challenger
    assert forced.challenger.detection < 0.05  # blind: what the gate spares its readers


def test_the_command_writes_a_table(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [str(folder), "--sets", "small", "--seeds", "0", "--ways", "zeroed"]
    assert main([*given, "--output", str(tmp_path)]) == 0
    assert "| zeroed | 1 | 1 | 0 | 0 | 100.0% |" in capsys.readouterr().out
