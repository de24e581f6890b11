"""Retraining through the command: what is published, what is refused, and what stays."""

import json
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest

from hourglass.service.errors import NotPromoted
from hourglass.service.model.detector import Detector
from hourglass.service.rows.tables import encode_table
from hourglass.service.serving.store import ModelFolder, Store
from hourglass.service.watch.alarms import Alarm, Alarms, Entry, OrdinaryRow, Signature
from hourglass.service.watch.recording import TIME
from hourglass.training import plant
from hourglass.training.config import load_config
from hourglass.training.errors import RunError
from hourglass.training.fingerprints import read_fingerprints
from hourglass.training.gate import DECISION, read_decision
from hourglass.training.progress import Progress
from hourglass.training.report import Report
from hourglass.training.run import run
from tests.artifacts import make_artifact
from tests.serving import serving
from tests.training import tables
from tests.training.conftest import Outcome

Command = Callable[..., Outcome]
DAY = 86_400.0
START = 1_790_000_000.0  # seconds since 1970


def dated(rows_ND: tables.Float32, *, day: float = 0.0, days: float = 10.0) -> pl.DataFrame:
    """Rows with the time of each, spread over some days."""
    table = pl.DataFrame(rows_ND, schema=[f"x{d}" for d in range(rows_ND.shape[1])])
    at = START + DAY * (day + days * np.arange(len(rows_ND)) / len(rows_ND))
    return table.with_columns(at=pl.Series(at))


@pytest.fixture(scope="session")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model of 1,000 rows in service."""
    folder = tmp_path_factory.mktemp("retrain")
    data = tables.write(tables.correlated(1000), folder / "old.csv")
    given = {"data": str(data), "name": "pump", "models": str(folder / "models")}
    # rows that it finds strange stay, so that the gate has something to find
    run(load_config(None, {**given, "variant": "linear", "epochs": 3, "folds": 0, "screen": False}))
    return folder / "models"


@pytest.fixture
def models(first: Path, tmp_path: Path) -> Path:
    """A copy of it, for one test."""
    copy = tmp_path / "models"
    shutil.copytree(first, copy)
    return copy


def pump(models: Path) -> ModelFolder:
    return Store(models).model("pump")


def contents(folder: ModelFolder) -> set[str]:
    return {path.name for path in folder.path.iterdir()}


def test_fresh_rows_are_fitted_as_the_champion_was_and_the_decision_lies_beside(
    models: Path, tmp_path: Path, command: Command
) -> None:
    before = pump(models).current()
    data = tables.write(tables.correlated(1000, seed=1), tmp_path / "new.csv")
    outcome = command("retrain", "pump", data, "--models", models)
    assert (outcome.code, outcome.err) == (0, "")
    now = pump(models).current()
    assert now != before
    folder = pump(models).path / now
    decision = read_decision(folder)
    assert decision
    assert decision == read_decision(pump(models).path)
    assert (decision.published, decision.forced) == (True, False)
    assert (decision.champion, decision.challenger) == (before, now)
    assert {check.name for check in decision.checks} >= {
        "Missing cells", "Constant columns", "Repeated values", "Ranges", "Scales", "Distributions",
        "Alarms of the champion", "Score quantiles", "Rank agreement", "Parity", "Size",
        "Time of an answer",
    }  # fmt: skip
    was, is_now = (
        tomllib.loads((pump(models).path / version / "run.toml").read_text())
        for version in (before, now)
    )
    assert was["model"] == is_now["model"]
    assert is_now["data"] == str(data)
    page = (folder / "report.html").read_text()
    assert "The gate" in page
    assert f"Against {before[:12]}, which was in service: published" in page
    assert "## The gate" in (folder / "card.md").read_text()
    assert json.loads((folder / "report.json").read_text())["gate"]["champion"] == before
    again = command("fit", "--config", folder / "run.toml", "--quiet")
    assert (again.code, pump(models).current()) == (0, now)  # the same bytes

    listed = command("versions", "pump", "--models", models, "--json")
    newest, oldest = json.loads(listed.out)
    assert (newest["version"], newest["current"], newest["rows"]) == (now, True, 730)
    assert newest["why"].startswith("none of")
    assert (oldest["version"], oldest["current"], oldest["why"]) == (
        before,
        False,
        "no gate was asked",
    )
    printed = command("versions", "pump", "--models", models).out.splitlines()
    assert printed[0].startswith(now[:12])
    assert printed[0].endswith("730 rows  alpha 0.1 certified  in service")
    assert printed[2].startswith(before[:12])
    assert printed[3] == "    no gate was asked"

    assert command("prune", "pump", "--keep", "1", "--models", models).code == 0
    assert pump(models).versions() == [now]
    assert pump(models).is_intact(now)


def test_in_shadow_the_challenger_stands_beside_the_champion_until_it_is_promoted(
    models: Path, tmp_path: Path, command: Command
) -> None:
    before = pump(models).current()
    data = tables.write(tables.correlated(1000, seed=1), tmp_path / "new.csv")
    outcome = command("retrain", "pump", data, "--models", models, "--shadow")
    assert (outcome.code, outcome.err) == (0, "")
    beside = pump(models).challenger()
    assert beside
    assert f"In shadow {models / 'pump' / beside / 'model.onnx'}" in outcome.out.replace("\n", "")
    assert (pump(models).current(), beside != before) == (before, True)
    decision = read_decision(pump(models).path / beside)
    assert decision
    assert (decision.published, decision.shadow) == (True, True)
    page = (pump(models).path / beside / "report.html").read_text()
    assert f"Against {before[:12]}, which was in service: published, in shadow" in page

    spoilt = tables.write(np.zeros((1000, 4), np.float32), tmp_path / "zero.csv")
    assert command("retrain", "pump", spoilt, "--models", models, "--shadow").code == 3
    assert pump(models).challenger() == beside
    listed = command("versions", "pump", "--models", models).out.splitlines()
    assert listed[0].startswith(beside[:12])
    assert listed[0].endswith("  challenger")
    assert command("prune", "pump", "--keep", "1", "--models", models).code == 0
    assert set(pump(models).versions()) == {before, beside}
    assert command("promote", "pump", beside[:8], "--models", models).code == 0
    assert (pump(models).current(), pump(models).challenger()) == (beside, None)

    def challenge(*given: str) -> Outcome:
        return command("challenge", "pump", *given, "--models", models)

    assert challenge(before[:8]).out == f"pump has the challenger {before}\n"
    assert pump(models).challenger() == before
    assert challenge("--clear").out == "pump has no challenger any more\n"
    assert pump(models).challenger() is None
    for version, said in ((beside[:8], "cannot challenge itself"), ("ffff", "is not there")):
        refused = challenge(version)
        assert (refused.code, said in refused.err) == (2, True)
    other = ModelFolder(models / "pump").keep(make_artifact(), {})
    refused = challenge(other[:8])
    assert (refused.code, "has other features than the version in service" in refused.err) == (
        2,
        True,
    )
    assert pump(models).challenger() is None


def test_a_first_model_has_nobody_to_be_scored_beside(tmp_path: Path, command: Command) -> None:
    data = tables.write(tables.correlated(1000), tmp_path / "old.csv")
    outcome = command("fit", data, "--name", "fan", "--models", tmp_path / "models", "--shadow")
    assert outcome.code == 2
    assert "fan has none in service that takes the same rows" in outcome.err
    assert not (tmp_path / "models").exists()


def test_what_a_server_recorded_retrains_its_model(
    models: Path,
    tmp_path: Path,
    command: Command,
) -> None:
    before, folder = pump(models).current(), tmp_path / "recorded"
    rows_ND = tables.correlated(1200, seed=1)
    with serving(models, record=str(folder), record_share=1.0) as client:
        body = {"rows": rows_ND.tolist()}
        answer = client.post("/v1/models/pump/score", json=body).raise_for_status().json()
    outcome = command(
        "retrain", "pump", folder, "--models", models, "--recent", "1h", "--exclude-alarms"
    )
    assert (outcome.code, outcome.err) == (0, "")
    now = pump(models).current()
    assert now != before
    written = tomllib.loads((pump(models).path / now / "run.toml").read_text())
    assert {"data": str(folder), "recent": "1h", "keep": ["x0", "x1", "x2", "x3"]}.items() <= (
        written.items()
    )
    assert "time" not in written  # it judges single rows, as before
    alarms = sum(answer["is_anomaly"])
    assert f"{alarms} " in outcome.out
    known = read_fingerprints(pump(models).path / now)
    assert known
    assert known.holds(rows_ND).sum() >= 1200 - alarms  # those that alarmed were looked at as well
    manifest = Detector.from_bytes(pump(models).file(now).read_bytes()).manifest
    (path,) = folder.glob("pump/*/*.parquet")
    assert manifest.fitted_at == pl.read_parquet(path)[TIME].max()
    assert manifest.rows.fit < 0.73 * 1200


SPOILT: dict[str, Callable[[tables.Float32], tables.Float32]] = {
    "zeroed": np.zeros_like,
    "in other units": lambda rows_ND: rows_ND * 1000,
    "shuffled": lambda rows_ND: np.random.default_rng(0).permuted(rows_ND, axis=0),
    "moved": lambda rows_ND: rows_ND + 3 * rows_ND.std(axis=0),
}


@pytest.mark.parametrize("way", SPOILT)
@pytest.mark.parametrize("verb", ["retrain", "fit"])
def test_spoilt_rows_are_refused_before_they_are_fitted(
    models: Path, tmp_path: Path, command: Command, way: str, verb: str
) -> None:
    before, there = pump(models).current(), contents(pump(models))
    data = tables.write(SPOILT[way](tables.correlated(1000, seed=1)), tmp_path / "new.csv")
    arguments: tuple[object, ...] = ("retrain", "pump", data, "--models", models)
    if verb == "fit":
        arguments = ("fit", data, "--name", "pump", "--models", models, "--variant", "linear")
    outcome = command(*arguments, "--quiet")
    assert outcome.code == 3
    (line,) = outcome.err.splitlines()
    assert f"the model in service, {before[:12]}, stays" in line
    assert "--force publishes all the same" in line
    assert pump(models).current() == before
    assert contents(pump(models)) - there == {DECISION, ".training"}
    decision = read_decision(pump(models).path)
    assert decision
    assert (decision.published, decision.challenger) == (False, None)


def test_force_publishes_what_the_gate_refuses_and_says_so(
    models: Path, tmp_path: Path, command: Command
) -> None:
    before = pump(models).current()
    data = tables.write(SPOILT["in other units"](tables.correlated(1000)), tmp_path / "new.csv")
    assert command("retrain", "pump", data, "--models", models, "--force", "--quiet").code == 0
    assert pump(models).current() != before
    (line,) = [
        line
        for line in json.loads(command("versions", "pump", "--models", models, "--json").out)
        if line["current"]
    ]
    assert line["why"].startswith("by force, although ranges: column 'x")
    forced = read_decision(models / "pump")
    assert forced
    assert forced.forced_at == forced.decided_at
    # the next one knows of it: what was ordinary before tells nothing any more
    tables.write(SPOILT["in other units"](tables.correlated(1000, seed=8)), data)
    assert command("retrain", "pump", data, "--models", models, "--quiet").code == 0
    after = read_decision(models / "pump")
    assert after
    assert (after.forced, after.forced_at) == (False, forced.forced_at)


def with_faults(rows: int, share: float, *, labelled: int, seed: int) -> pl.DataFrame:
    """Rows of which a share is anomalous without a label, and some more with one."""
    rows_ND = tables.correlated(rows + labelled, seed=seed)
    rows_ND[: round(share * rows), 2] *= -1  # where each value is in range, and the row is not
    rows_ND[rows:, 2] *= -1
    table = pl.DataFrame(rows_ND, schema=[f"x{d}" for d in range(rows_ND.shape[1])])
    fault = np.arange(rows + labelled) >= rows
    return table.with_columns(fault=pl.Series(fault.astype(int))).sample(
        fraction=1.0, shuffle=True, seed=seed
    )


def test_a_model_that_has_learnt_anomalies_is_refused_by_confirmed_ones_and_kept(
    models: Path, tmp_path: Path, command: Command
) -> None:
    before = pump(models).current()
    data = tables.write(with_faults(1000, 0.45, labelled=40, seed=1), tmp_path / "new.csv")
    flags = ("--variant", "linear", "--epochs", "3", "--no-screen", "--label", "fault", "--quiet")
    outcome = command("fit", data, "--name", "pump", "--models", models, *flags)
    assert outcome.code == 3
    decision = read_decision(pump(models).path)
    assert decision
    assert decision.challenger
    assert "confirmed anomalies" in outcome.err
    assert pump(models).current() == before
    # a person who has looked at its report may bring it into service
    assert f"promote pump {decision.challenger[:12]}" in outcome.err
    assert pump(models).is_intact(decision.challenger)
    listed = json.loads(command("versions", "pump", "--models", models, "--json").out)
    assert [line["why"][:8] for line in listed if line["version"] == decision.challenger] == [
        "refused:"
    ]
    promoted = command("promote", "pump", decision.challenger[:12], "--models", models)
    assert promoted.code == 0
    assert pump(models).current() == decision.challenger


def test_rows_that_cannot_be_used_end_with_2(
    models: Path, tmp_path: Path, command: Command
) -> None:
    before = pump(models).current()
    few = tables.write(tables.correlated(5), tmp_path / "few.csv")
    other = tables.write(tables.correlated(100, width=5), tmp_path / "other.csv")
    for data, said in (
        (tmp_path / "none.csv", "none.csv"),
        (few, "there are 5 normal rows"),
        (other, "serves a model with other features"),
    ):
        outcome = command("retrain", "pump", data, "--models", models, "--quiet")
        assert outcome.code == 2
        assert said in outcome.err
    outcome = command("retrain", "valve", few, "--models", models)
    assert outcome.code == 2
    assert "there is no model 'valve' in service" in outcome.err
    (pump(models).path / before / "run.toml").unlink()
    outcome = command("retrain", "pump", few, "--models", models)
    assert outcome.code == 2
    assert "hourglass-train fit --name pump fits one anew" in outcome.err
    assert pump(models).current() == before


def test_of_two_runs_at_once_the_second_ends_at_once(
    models: Path, tmp_path: Path, command: Command
) -> None:
    data = tables.write(tables.correlated(1000, seed=1), tmp_path / "new.csv")
    with pump(models).alone():
        for arguments in (
            ("retrain", "pump", data),
            ("prune", "pump", "--keep", "1"),
            ("retire", "pump"),
        ):
            outcome = command(*arguments, "--models", models)
            assert outcome.code == 2
            assert "another run of 'pump' is under way" in outcome.err


def test_a_model_does_not_follow_another_than_it_was_compared_with(
    models: Path, tmp_path: Path
) -> None:
    data = tables.write(tables.correlated(1000, seed=1), tmp_path / "new.csv")
    given = {"data": str(data), "name": "pump", "models": str(models)}
    config = load_config(None, {**given, "variant": "linear", "epochs": 3, "folds": 0})
    other = "0" * 64

    def promote(stage: str) -> None:
        if stage == "publishing":
            pump(models).point(other)

    with pytest.raises(NotPromoted, match="was brought to version 000000000000 meanwhile"):
        run(config, Progress(promote, lambda _: None))
    assert pump(models).current() == other


def test_a_retired_model_lies_aside_and_comes_back_when_it_is_moved_back(
    models: Path, command: Command
) -> None:
    version = pump(models).current()
    outcome = command("retire", "pump", "--models", models)
    assert outcome.code == 0
    assert not pump(models).path.exists()
    (place,) = (models / ".retired").iterdir()
    assert str(place) in outcome.out
    place.rename(models / "pump")
    assert pump(models).current() == version
    assert command("retire", "valve", "--models", models).code == 2


def test_the_version_in_service_is_never_pruned(models: Path, command: Command) -> None:
    with pytest.raises(NotPromoted, match="is in service, and stays"):
        pump(models).remove(pump(models).current())
    assert command("prune", "pump", "--keep", "0", "--models", models).code == 2


@pytest.fixture(scope="session")
def timed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model of ten days in service."""
    folder = tmp_path_factory.mktemp("timed")
    data = tables.write(dated(tables.correlated(1000)), folder / "old.csv")
    given = {"data": str(data), "name": "pump", "models": str(folder / "models"), "time": "at"}
    run(load_config(None, {**given, "variant": "linear", "epochs": 1, "window": 1}))
    return folder / "models"


def test_recent_rows_alone_are_fitted_and_spans_of_time_are_left_out(
    timed: Path, tmp_path: Path, command: Command
) -> None:
    models = tmp_path / "models"
    shutil.copytree(timed, models)
    rows_ND = tables.correlated(2000, seed=1)
    rows_ND[-300:-200] *= 1000  # a day and a half before the end, for a day
    data = tables.write(dated(rows_ND, days=20), tmp_path / "new.csv")
    spoilt = command("retrain", "pump", data, "--models", models, "--recent", "10d", "--quiet")
    assert spoilt.code == 3
    first, last = (START + DAY * day for day in (16.9, 18.0))
    flags = ("--recent", "10d", "--exclude", f"{first:.0f}/{last:.0f}")
    outcome = command("retrain", "pump", data, "--models", models, *flags, "--quiet")
    assert outcome.err == ""
    assert outcome.code == 0
    folder = pump(models).path / pump(models).current()
    report = msgspec.json.decode((folder / "report.json").read_bytes(), type=Report)
    assert report.left_out
    # the newest row's time less ten days is that of row 1,000
    assert report.left_out.excluded == 999 + 110
    assert report.left_out.rows == 2000 - 999 - 110
    resolved = tomllib.loads((folder / "run.toml").read_text())
    assert (resolved["recent"], resolved["exclude_times"]) == ("10d", [f"{first:.0f}/{last:.0f}"])
    # the next retraining does not keep what was said of these rows
    next_ = command("retrain", "pump", data, "--models", models, "--recent", "2h", "--quiet")
    assert (next_.code, "normal rows" in next_.err) == (2, True)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--recent", "10d"), "--recent is of rows that have a time"),
        (("--exclude", "2026-01-01/2026-01-02"), "--exclude is of rows that have a time"),
        (("--time", "x0", "--recent", "often"), "expected a time such as 30d or 12h, got 'often'"),
        (("--time", "x0", "--recent", "10d"), "holds no dates or times, so it has no 10d"),
        (("--time", "x0", "--exclude", "2026-01-01"), "expected FROM/TO"),
        (("--time", "x0", "--exclude", "2/1"), "expected FROM/TO"),
        (("--time", "x0", "--exclude", "then/now"), "expected a date, a time or a number"),
        (("--exclude-alarms",), "--journal FILE names them"),
        (("--confirmed", "ab"), "--journal FILE names them"),
        (("--journal", "none.sqlite"), "there is no journal none.sqlite"),
    ],
)
def test_flags_that_cannot_be_followed_are_refused(
    models: Path, tmp_path: Path, command: Command, flags: tuple[str, ...], said: str
) -> None:
    data = tables.write(tables.correlated(100, seed=1), tmp_path / "new.csv")
    outcome = command("retrain", "pump", data, "--models", models, *flags, "--quiet")
    assert outcome.code == 2
    assert said in outcome.err


class Kept:
    """A service's journal: alarms of two groups, and rows that did not alarm."""

    def __init__(self, path: Path, alarms: dict[str, tables.Float32], calm: tables.Float32) -> None:
        self.path, at = path, START
        found, counts = [], {}
        for feature, rows_ND in alarms.items():
            signature = Signature(None, (feature,))
            counts[signature] = len(rows_ND)
            found += [
                Alarm(signature, at, "v", 9.0, 3.0, 0.001, as_json(row), None, "so")
                for row in rows_ND
            ]
        ordinary = [OrdinaryRow(n, at, "v", 0.1, 0.8, as_json(row)) for n, row in enumerate(calm)]
        file = Alarms(path)
        file.write([Entry("pump", 1000, counts, found, ordinary)])
        groups = file.groups("pump", since=0.0, most=10)
        self.keys = {group.features[0]: group.key for group in groups}
        file.close()


def as_json(row_D: tables.Float32) -> str:
    return json.dumps([float(value) for value in row_D])


def test_alarms_stay_out_and_confirmed_ones_have_to_be_found_again(
    models: Path, tmp_path: Path, command: Command
) -> None:
    rows_ND = tables.correlated(1000, seed=1)
    rows_ND[:30, 2] += 15  # an incident
    rows_ND[30:50, 1] -= 9  # alarms that nobody looked at
    data = tables.write(rows_ND, tmp_path / "new.parquet")
    kept = Kept(
        tmp_path / "journal.sqlite",
        {"x2": rows_ND[:30], "x1": rows_ND[30:50]},
        tables.correlated(100, seed=2),
    )
    flags = ("--journal", kept.path, "--exclude-alarms", "--confirmed", kept.keys["x2"])
    outcome = command("retrain", "pump", data, "--models", models, *flags, "--quiet")
    assert (outcome.code, outcome.err) == (0, "")
    folder = pump(models).path / pump(models).current()
    report = msgspec.json.decode((folder / "report.json").read_bytes(), type=Report)
    assert report.left_out
    assert (report.left_out.confirmed, report.left_out.alarmed) == (30, 20)
    assert report.fit_rows + report.validation_rows + report.calibration_rows == 950
    # calibration rows are calmer than all rows by those that were left out for their alarms
    assert report.guarantee == "none"
    assert "the 20 strangest of 1000 rows" in report.guarantee_reason
    decision = read_decision(folder)
    assert decision
    found = {check.name: check for check in decision.checks}
    assert found["Confirmed anomalies"].text == (
        "100.0% of 30 confirmed anomalies alarm, 100.0% with the champion"
    )
    assert found["Rows that did not alarm"].status == "pass"
    assert found["Recent alarms"].status == "pass"
    wrong = command("retrain", "pump", data, "--models", models, "--journal", kept.path,
                    "--confirmed", "no-such-key")  # fmt: skip
    assert wrong.code == 2
    assert "no alarms of pump are kept under the key 'no-such-key'" in wrong.err


def test_what_is_no_journal_is_refused(models: Path, tmp_path: Path, command: Command) -> None:
    data = tables.write(tables.correlated(100, seed=1), tmp_path / "new.csv")
    (tmp_path / "other").write_text("no journal")
    outcome = command("retrain", "pump", data, "--models", models, "--journal", tmp_path / "other")
    assert outcome.code == 2
    assert "is no journal of Hourglass" in outcome.err


def test_a_row_in_the_journal_equals_the_row_of_the_file_in_every_cell(first: Path) -> None:
    rows_ND = tables.correlated(50, seed=3)
    detector = Detector.from_bytes(pump(first).file(pump(first).current()).read_bytes())
    table = pl.DataFrame([json.loads(as_json(row)) for row in rows_ND], orient="row",
                         schema=[f"x{d}" for d in range(4)])  # fmt: skip
    np.testing.assert_array_equal(encode_table(table, detector.manifest.features), rows_ND)


def test_a_run_that_needs_a_time_says_so() -> None:
    flags: dict[str, Any] = {"data": "a.csv", "name": "pump", "recent": "3d"}
    with pytest.raises(RunError, match="recent is of rows that have a time"):
        load_config(None, flags)


def test_a_model_of_windows_retrains_through_the_gate(tmp_path: Path, command: Command) -> None:
    files = plant.write_plant(tmp_path)
    rows = pl.read_csv(files.before)
    half = rows.height // len(plant.PUMPS) // 2
    old, new = (
        pl.concat([part[start:stop] for part in rows.partition_by(plant.ENTITY)])
        for start, stop in ((0, half), (half, 2 * half))
    )
    models = tmp_path / "models"
    given = {"data": str(tables.write(old, tmp_path / "old.csv")), "name": "pump"}
    order = {"time": plant.TIME, "entity": plant.ENTITY, "window": 10, "preset": "fast"}
    run(load_config(None, {**given, **order, "models": str(models)}))
    before = pump(models).current()

    zeros = new.with_columns(pl.lit(0.0).alias(name) for name in plant.NUMBERS)
    data = tables.write(zeros, tmp_path / "zeros.csv")
    refused = command("retrain", "pump", data, "--models", models, "--quiet")
    assert (refused.code, pump(models).current()) == (3, before)

    data = tables.write(new, tmp_path / "new.csv")
    outcome = command("retrain", "pump", data, "--models", models, "--recent", "20h", "--quiet")
    assert (outcome.code, outcome.err) == (0, "")
    folder = pump(models).path / pump(models).current()
    detector = Detector.from_bytes((folder / "model.onnx").read_bytes())
    assert detector.window == 10
    decision = read_decision(folder)
    assert decision
    found = {check.name: check for check in decision.checks}
    assert found["Rank agreement"].value is not None
    assert found["Alarms of the champion"].value is not None
