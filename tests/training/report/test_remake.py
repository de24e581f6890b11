"""A report made anew on other rows, and its snippets against a live service."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest

from hourglass.service.errors import InvalidTable
from hourglass.service.serving.store import MODEL_FILE
from hourglass.training.errors import RunError
from hourglass.training.report import Report
from hourglass.training.report.remake import Rows, remake
from tests.artifacts import make_artifact, publish
from tests.serving import serving
from tests.training import tables
from tests.training.conftest import Outcome, Published
from tests.training.report.conftest import Run, facts_of

Command = Callable[..., Outcome]


def checks(facts: object) -> dict[str, str]:
    return {each.name: each.status for each in facts.checks}


def new_rows(path: Path, *, rows: int = 300, drift: float = 0.0) -> Path:
    """Like those of the contaminated run, without its anomalies."""
    rows_ND = tables.correlated(rows, noise=0.1, seed=9)
    rows_ND += np.linspace(0, drift, rows)[:, None].astype(np.float32)
    table = pl.DataFrame(rows_ND, schema=["a", "b", "c", "d"]).with_columns(
        alone=pl.Series(np.random.default_rng(1).uniform(size=rows)),
        site=pl.Series(np.arange(rows) % 3),
    )
    return tables.write(table, path)


def test_new_rows_like_the_old_pass_and_keep_the_budget(contaminated: Run, tmp_path: Path) -> None:
    data = new_rows(tmp_path / "new.csv")
    facts = remake(contaminated.folder / MODEL_FILE, Rows(data, group="site"))
    assert facts.rows == "300 normal rows of new.csv, that are new to the model"
    assert (facts.seen, facts.scores.calibrated, facts.scores.rows) == (0.0, False, 300)
    assert [each.name for each in facts.scores.blocks] == ["0", "1", "2"]
    assert sum(each.rate.n for each in facts.scores.blocks) == 300
    assert facts.scores.uniform
    assert (facts.scores.uniform.n, facts.scores.uniform.against) == (300, 75)
    assert checks(facts)["Uniform p-values"] == "pass"
    assert facts.scores.alarms.interval
    assert facts.scores.alarms.interval[0] <= facts.alpha
    # what only the run knows
    assert facts.origin.run_toml == contaminated.facts.origin.run_toml
    assert facts.cost.fit_cpu_seconds == contaminated.facts.cost.fit_cpu_seconds
    assert facts.version == contaminated.facts.version


def test_of_many_groups_the_largest_are_told(contaminated: Run, tmp_path: Path) -> None:
    table = pl.read_csv(new_rows(tmp_path / "new.csv"))
    site = [f"s{i}" for i in range(100)] + ["large"] * 200
    data = tables.write(table.with_columns(site=pl.Series(site)), tmp_path / "sites.csv")
    scores = remake(contaminated.folder / MODEL_FILE, Rows(data, group="site")).scores
    assert (len(scores.blocks), scores.all_blocks) == (30, 101)
    assert next(each.rate.n for each in scores.blocks if each.name == "large") == 200


def test_rows_are_numbered_as_in_the_file_whatever_their_time(
    contaminated: Run, tmp_path: Path
) -> None:
    table = pl.read_csv(new_rows(tmp_path / "new.csv"))
    at = pl.Series(np.arange(300)[::-1] * 3600 + 1.7e9)
    far = pl.when(pl.int_range(pl.len()) == 41).then(30.0).otherwise(pl.col("b"))
    data = tables.write(table.with_columns(at=at, b=far), tmp_path / "timed.csv")
    facts = remake(contaminated.folder / MODEL_FILE, Rows(data, time="at"))
    assert facts.strangest.rows[0].row == 42
    assert facts.strangest.rows[0].alarms
    assert (facts.budgets.rows_per_day_is, facts.budgets.rows_per_day) == (
        "observed",
        pytest.approx(24),
    )
    assert facts.scores.parts_of == "the order of at"


def test_rows_that_drift_fail(contaminated: Run, tmp_path: Path) -> None:
    data = new_rows(tmp_path / "drift.csv", drift=4.0)
    facts = remake(contaminated.folder / MODEL_FILE, Rows(data))
    assert checks(facts)["Uniform p-values"] == checks(facts)["Exchangeable rows"] == "fail"
    assert facts.verdict.status == "fail"
    assert facts.verdict.text.startswith("Do not rely on it yet: ")


def test_rows_that_made_the_model_are_not_called_new(contaminated: Run) -> None:
    facts = remake(contaminated.folder / MODEL_FILE, Rows(contaminated.data))
    assert facts.seen == 1.0
    assert "some of which may have made the model" in facts.rows


def test_a_model_that_scores_all_rows_alike_fails(contaminated: Run, tmp_path: Path) -> None:
    table = pl.read_csv(contaminated.data)[:1]
    data = tables.write(pl.concat([table] * 40), tmp_path / "same.csv")
    facts = remake(contaminated.folder / MODEL_FILE, Rows(data))
    assert checks(facts)["Scores tell rows apart"] == "fail"
    assert "are of one value only" in next(c.text for c in facts.checks if c.status == "fail")
    parts = [table.with_columns(a=pl.lit(value)) for value in (8.0, 9.0)]
    two = tables.write(pl.concat(parts * 20), tmp_path / "two.csv")
    facts = remake(contaminated.folder / MODEL_FILE, Rows(two))
    assert "are of two values only" in next(
        check.text for check in facts.checks if check.name == "Scores tell rows apart"
    )


def test_labels_that_are_chance_to_the_model_fail(contaminated: Run, tmp_path: Path) -> None:
    table = pl.read_csv(new_rows(tmp_path / "new.csv"))
    labels = np.random.default_rng(3).integers(0, 2, len(table))
    data = tables.write(table.with_columns(fault=labels), tmp_path / "chance.csv")
    facts = remake(contaminated.folder / MODEL_FILE, Rows(data, label="fault"))
    assert facts.labelled
    assert facts.labelled.anomalies == labels.sum()
    found = next(check for check in facts.checks if check.name == "Scores tell rows apart")
    assert found.status == "fail"
    assert found.text.startswith("at chance on the labelled anomalies: AUROC")


def test_a_model_without_a_run_beside_it_has_a_report_too(tmp_path: Path) -> None:
    version = publish(tmp_path / "models", "tiny", make_artifact())
    data = tables.write(
        pl.DataFrame(tables.correlated(80), schema=["a", "b", "c", "d"]), tmp_path / "rows.csv"
    )
    facts = remake(tmp_path / "models" / "tiny" / version / MODEL_FILE, Rows(data))
    assert (facts.name, facts.learning, facts.origin.run_toml) == ("tiny", (), None)
    assert checks(facts)["Parity"] == "pass"


def test_rows_that_cannot_tell_are_refused(contaminated: Run, tmp_path: Path) -> None:
    file = contaminated.folder / MODEL_FILE
    data = new_rows(tmp_path / "new.csv", rows=30)
    with pytest.raises(RunError, match=r"there is no column 'when' in .*new\.csv"):
        remake(file, Rows(data, time="when"))
    empty = pl.read_csv(data).with_columns(pl.lit(None, pl.Float64).alias(c) for c in "abcd")
    empty = empty.with_columns(alone=pl.lit(None, pl.Float64))
    with pytest.raises(InvalidTable, match="at least one normal row with enough values"):
        remake(file, Rows(tables.write(empty, tmp_path / "empty.csv")))


def test_the_command_puts_the_report_beside_the_model_or_elsewhere(
    published: Published, command: Command, tmp_path: Path
) -> None:
    data, elsewhere = published.config.data, tmp_path / "here"
    before = (published.folder / "report.json").read_bytes()
    done = command(
        "report", published.folder, data, "--label", "fault", "--rows-per-day", 100, "--output", elsewhere
    )  # fmt: skip
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[-1] == f"Report {elsewhere / 'report.html'}"
    assert (published.folder / "report.json").read_bytes() == before
    assert sorted(path.name for path in elsewhere.iterdir()) == [
        "card.md",
        "report.html",
        "report.json",
    ]
    assert facts_of(elsewhere).budgets.rows_per_day == 100
    kept = msgspec.json.decode((elsewhere / "report.json").read_bytes(), type=Report)
    assert kept.quality == published.report.quality
    wrong = command("report", published.folder, tmp_path / "nothing.csv")
    assert wrong.code == 2
    assert "nothing.csv" in wrong.err


@pytest.mark.slow
def test_the_snippets_run_against_a_live_service(published: Published) -> None:
    facts = facts_of(published.folder)
    with serving(published.folder.parents[1]) as client:
        here = str(client.base_url).rstrip("/")
        for snippet in facts.snippets:
            text = snippet.text.replace("http://127.0.0.1:8000", here)
            if snippet.language == "sh":
                done = subprocess.run(
                    ["bash", "-ec", text], capture_output=True, text=True, check=True
                )
                answer = msgspec.json.decode(done.stdout)
                assert answer.get("model", answer.get("model_name")) == "mixed"
            elif snippet.language == "python":
                done = subprocess.run(
                    [sys.executable, "-c", text], capture_output=True, text=True, check=True
                )
                assert re.fullmatch(r"\[(True|False)\] \[[\d.]+\]\n", done.stdout)
        metrics = client.get("/metrics").text
    (promql,) = (each.text for each in facts.snippets if each.language == "promql")
    for name in re.findall(r"hourglass_\w+", promql):
        assert f'{name}{{model="mixed"}}' in metrics
