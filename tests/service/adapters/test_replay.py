"""`hourglass replay`: a file against other budgets, without a server."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from hourglass.service.__main__ import main
from hourglass.service.adapters import replay as replays
from tests.artifacts import NUMERIC, sample_rows
from tests.serving import serving

ROWS = sample_rows(NUMERIC, 80, seed=4)
ROWS[20:25] *= 9


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Rows of which five are anomalies, and one too empty for a score."""
    frame = pl.DataFrame(ROWS, schema=[feature.name for feature in NUMERIC])
    broken = pl.Series([int(20 <= row < 25) for row in range(80)])
    frame = frame.with_columns(broken=broken, state=pl.Series(["fine", "off"]).gather(broken))
    empty = pl.DataFrame(
        {"a": [1.0], "broken": [1], "state": ["off"]},
        schema_overrides={"a": pl.Float32, "broken": pl.Int64},
    )
    path = tmp_path / "rows.csv"
    pl.concat([frame, empty], how="diagonal").write_csv(path)
    return path


def test_it_tells_what_the_route_tells(models, table, tmp_path, capsys):
    output = tmp_path / "replay.json"
    flags = ["--alpha", "0.1", "--alpha", "0.05", "--label", "broken", "--rows-per-day", "160"]
    assert main(["replay", str(models / "plain"), str(table), *flags, "--output", str(output)]) == 0
    written = json.loads(output.read_text())
    labels = [int(20 <= row < 25) for row in range(80)]
    body = {"rows": ROWS.tolist(), "alphas": [0.1, 0.05], "labels": labels, "rows_per_day": 160}
    with serving(models) as client:
        answer = client.post("/v1/models/plain/replay", json=body).raise_for_status().json()
    assert written["alphas"] == answer["alphas"]
    assert (written["rows"], written["refused_rows"]) == (80, 1)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("80 rows scored by plain, version ")
    assert printed[0].endswith("1 hold too few values, or values too far out, and have no score")
    columns = ["alpha", "promised", "alarms", "share of rows", "episodes", "longest"]
    columns += ["alarms a day", "precision", "recall", "false alarms"]
    assert [each.strip() for each in printed[2].split("  ") if each.strip()] == columns
    (_, half) = answer["alphas"]
    cells = [each.strip() for each in printed[4].split("  ") if each.strip()]
    low, high = half["recall_interval"]
    assert cells[0] == "0.05 (in force)"
    assert cells[2] == str(half["alarms"])
    assert cells[6] == f"{half['alarms_per_day']:.3g}"
    assert cells[8] == f"{half['recall']:.2%} ({low:.2%} to {high:.2%})"
    assert printed[-1] == f"written to {output}"


def test_without_alpha_the_usual_ones_are_shown_and_without_labels_no_recall(models, table, capsys):
    assert main(["replay", str(models / "plain"), str(table)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[3:7]] == ["0.1", "0.05", "0.02", "0.01"]
    assert "recall" not in lines[2]
    assert "alarms a day" not in lines[2]


def test_a_label_may_be_a_word(models, table, tmp_path, capsys):
    outputs = [tmp_path / "number.json", tmp_path / "word.json"]
    for flags, output in zip((["broken"], ["state", "--normal", "Fine"]), outputs, strict=True):
        arguments = ["replay", str(models / "plain"), str(table), "--label", *flags]
        assert main([*arguments, "--output", str(output)]) == 0
    assert outputs[0].read_bytes() == outputs[1].read_bytes()


def test_large_files_are_scored_in_parts(models, table, monkeypatch, capsys):
    main(["replay", str(models / "plain"), str(table)])
    whole = capsys.readouterr().out
    monkeypatch.setattr(replays, "CHUNK_ROWS", 7)
    main(["replay", str(models / "plain"), str(table)])
    assert capsys.readouterr().out == whole


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--alpha", "0.0001"], "alpha = 0.0001 cannot be certified"),
        (["--label", "worse"], "there is no column 'worse' to be the label; the columns are 'a'"),
        (
            ["--label", "state"],
            "label column 'state': expected 0 for normal rows, got 'fine', 'off'",
        ),
        (["--label", "state", "--normal", "good"], "no row has the normal value 'good'"),
        (["--normal", "good"], "--normal names a value of the column that --label names"),
        (
            ["--output", "replay.txt"],
            "replay.txt is not .json, which is what a replay is written as",
        ),
    ],
)
def test_what_cannot_be_done_is_one_sentence(models, table, capsys, flags, said):
    assert main(["replay", str(models / "plain"), str(table), *flags]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert said in err


@pytest.mark.parametrize("flag", [["--rows-per-day", "0"], ["--alpha", "0.7"]])
def test_a_number_out_of_range_is_named_with_its_flag(models, table, capsys, flag):
    with pytest.raises(SystemExit) as ended:
        main(["replay", str(models / "plain"), str(table), *flag])
    assert ended.value.code == 2
    assert flag[0] in capsys.readouterr().err


def test_nothing_is_left_of_labels_that_are_missing():
    frame = pl.DataFrame({"label": [0.0, 1.0, None, float("nan"), 2.0]})
    labels = replays._labels(frame, "label", None)
    assert np.array_equal(labels, [0, 1, np.nan, np.nan, 1], equal_nan=True)
