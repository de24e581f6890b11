"""The command line as a user meets it: what it refuses, in one sentence and without a trace, and
how it ends when interrupted.
"""

import errno
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import polars as pl
import pytest

from hourglass.service.adapters.files import describe, open_model
from hourglass.service.model.detector import Detector
from hourglass.service.rows.dialect import Dialect
from hourglass.service.serving.store import locate
from hourglass.training.bars import progress_lines
from hourglass.training.compare import Comparison
from hourglass.training.config import load_config
from hourglass.training.models.linear import LinearConfig
from hourglass.training.models.member import FitConfig
from hourglass.training.models.plain import PlainConfig
from hourglass.training.presets import PRESETS
from hourglass.training.progress import Epoch
from hourglass.training.report import Report
from tests.training import tables
from tests.training.conftest import Outcome, Published

Command = Callable[..., Outcome]

GOOD = tables.correlated(60)


def csv(table: pl.DataFrame) -> str:
    return table.write_csv()


def with_cell(row: int, value: object) -> str:
    """The good table with one cell of column x1 replaced."""
    column = [str(cell) for cell in GOOD[:, 1].tolist()]
    column[row - 1] = str(value)
    return csv(
        pl.DataFrame(GOOD, schema=["x0", "x1", "x2", "x3"]).with_columns(x1=pl.Series(column))
    )


def with_column(values: list[object], name: str = "extra") -> pl.DataFrame:
    return pl.DataFrame(GOOD, schema=["x0", "x1", "x2", "x3"]).with_columns(
        pl.Series(name, values, strict=False)
    )


DATES = [f"2026-01-{1 + i % 28:02d}" for i in range(60)]

REFUSED_TABLES = {
    "unbounded text": (
        csv(with_column([f"user {i}" for i in range(60)])),
        "column 'extra', row 1: expected categories that repeat, got text with 60 values in 60 rows,"
        " as an id or free text has (the first is 'user 0'); --ignore 'extra' leaves it out",
    ),
    "dates": (
        csv(with_column(DATES)),
        "column 'extra', row 1: expected numbers, true/false or text, got the date",
    ),
    "times": (
        csv(with_column([f"{day} 12:00:00" for day in DATES])),
        "column 'extra', row 1: expected numbers",
    ),
    "an infinity": (
        with_cell(4, "inf"),
        "column 'x1', row 4: expected a finite number within float32, got inf",
    ),
    "a minus infinity": (
        with_cell(4, "-Infinity"),
        "column 'x1', row 4: expected a finite number within float32, got -inf",
    ),
    "a number beyond float32": (
        with_cell(7, "1e39"),
        "column 'x1', row 7: expected a finite number within float32, got 1e+39",
    ),
    "a number beyond float64": (
        with_cell(7, "1e400"),
        "column 'x1', row 7: expected a finite number within float32, got inf",
    ),
    "a stray word": (
        with_cell(9, "oops"),
        "column 'x1', row 9: expected a number like the rows around it, got 'oops'",
    ),
    "no rows": ("a,b\n", "holds no rows"),
    "an empty file": ("", "holds no rows"),
    "too few rows": (
        csv(pl.DataFrame(GOOD[:19])),
        "there are 19 normal rows, expected at least 20",
    ),
    "a column twice": ("a,b,a\n" + "1,2,3\n" * 30, "has the column 'a' more than once"),
    "a line too long": ("a,b\n" + "1,2\n" * 30 + "1,2,3\n", "row 31: expected 2 cells, got 3"),
    "a line too short": ("a,b\n" + "1,2\n" * 30 + "1\n", "row 31: expected 2 cells, got 1"),
    "nothing but missing cells": ("a,b\n" + ",\n" * 30, "every cell of the normal rows is missing"),
    "another separator": ("a;b\n" + "1;2\n" * 30, "between names: --separator ';' reads it"),
    "a decimal comma": (
        with_cell(9, "1,5"),
        "column 'x1', row 9: expected a number like the rows around it, got '1,5', a decimal"
        " comma: --decimal , reads it",
    ),
    "another encoding": (b"a,caf\xe9\n" + b"1,2\n" * 30, "is not UTF-8 text: byte 0xe9"),
    "no table at all": (bytes(range(256)) * 10, "is not UTF-8 text: byte 0x80"),
}


def refused(outcome: Outcome, sentence: str, models: Path) -> None:
    assert outcome.code == 2
    assert outcome.err.count("\n") == 1
    assert outcome.err.startswith("hourglass-train")
    assert sentence in outcome.err
    assert outcome.out == ""
    assert not models.exists()


@pytest.mark.parametrize("case", REFUSED_TABLES)
def test_data_that_cannot_be_used_ends_in_one_sentence(
    tmp_path: Path, command: Command, case: str
) -> None:
    content, sentence = REFUSED_TABLES[case]
    data, models = tmp_path / "table.csv", tmp_path / "models"
    data.write_bytes(content if isinstance(content, bytes) else content.encode())
    refused(command("fit", data, "--name", "pump", "--models", models), sentence, models)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (pl.Series([None, *DATES[1:]]).str.to_date(), "column 'extra', row 2: expected numbers, true/false or text, got the date"),
        (pl.Series(DATES).str.to_datetime(), "column 'extra', row 1: expected numbers"),
        (pl.Series([[1.0, 2.0]] * 60), "column 'extra', row 1: expected numbers, true/false or text, got List(Float64)"),
        (pl.Series([{"a": 1}] * 60), "column 'extra', row 1: expected numbers, true/false or text, got Struct"),
        (pl.Series([b"x"] * 60), "column 'extra', row 1: expected numbers, true/false or text, got Binary"),
        (pl.Series([0.0] * 59 + [float("inf")]), "column 'extra', row 60: expected a finite number within float32, got inf"),
    ],
    ids=["dates", "times", "lists", "structs", "bytes", "infinity"],
)  # fmt: skip
def test_parquet_columns_that_are_no_features_are_refused(
    tmp_path: Path, command: Command, values: pl.Series, sentence: str
) -> None:
    data, models = tmp_path / "table.parquet", tmp_path / "models"
    tables.write(with_column([0] * 60).with_columns(values.alias("extra")), data)
    refused(command("fit", data, "--name", "pump", "--models", models), sentence, models)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (
            ["calm", "calm", "odd"] * 20,
            (
                "label column 'extra': expected 0 for normal rows, got 'calm' (40 rows), 'odd'"
                " (20 rows); --normal VALUE names the normal one"
            ),
        ),
        (
            [1, 1, -1] * 20,
            (
                "label column 'extra': expected 0 for normal rows, got '1' (40 rows), '-1'"
                " (20 rows); --normal VALUE names the normal one"
            ),
        ),
        (
            [0] * 20 + [None] + [1] * 39,
            "label column 'extra', row 21: expected a label, got nothing",
        ),
        ([1] * 60, "there are 0 normal rows, expected at least 20"),
    ],
)
def test_a_label_that_cannot_be_used_is_refused(
    tmp_path: Path, command: Command, values: list[object], sentence: str
) -> None:
    data, models = tables.write(with_column(values), tmp_path / "table.csv"), tmp_path / "models"
    refused(
        command("fit", data, "--name", "pump", "--models", models, "--label", "extra"),
        sentence,
        models,
    )


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--label", "bad"], "there is no column 'bad'; the columns are 'x0', 'x1', 'x2', 'x3'"),
        (["--ignore", "x0", "bad"], "there is no column 'bad'"),
        (["--ignore", "x0", "x1", "x2", "x3"], "no feature columns are left"),
        (["--colour", "red"], "unrecognized arguments: --colour red"),
        (["--alp", "0.1"], "unrecognized arguments: --alp 0.1"),
        (["--alpha", "0"], "alpha must be above 0 and at most 0.5, got 0"),
        (["--alpha", "0.6"], "alpha must be above 0 and at most 0.5, got 0.6"),
        (["--alpha", "nan"], "alpha must be above 0 and at most 0.5, got nan"),
        (["--alpha", "much"], "argument --alpha: invalid float value: 'much'"),
        (["--delta", "0.9"], "delta must be above 0 and at most 0.5, got 0.9"),
        (["--epochs", "0"], "epochs and steps must be at least 1"),
        (["--seed", "-1"], "seed from 0"),
        (
            ["--variant", "crystal-ball"],
            "there is no variant 'crystal-ball'; the variants are plain, ",
        ),
        (
            ["--preset", "best"],
            "there is no preset 'best'; the presets are fast, balanced, accurate",
        ),
        (["--preset", "fast", "--variant", "linear"], "expected a preset or a variant, got both"),
        (
            ["--variant", "linear", "--memory", "0"],
            "memory is for associative, which remembers rows; linear does not",
        ),
        (["--variant", "associative", "--memory", "-1"], "memory must not be negative"),
        (["--memory", "some"], "argument --memory: invalid int value: 'some'"),
        (["--loss", "guess"], "'guess'"),
        (["--loss", "bce"], "the loss bce needs every number between 0 and 1"),
        (["--separator", ";;"], "separator must be one character"),
        (["--thousands", "."], "thousands and decimal are both '.'"),
        (["--keep", "bad"], "there is no column 'bad'"),
        (["--categorical", "x0"], "column 'x0', row 1: expected categories that repeat, got text"),
        (["--config", "absent.toml"], "absent.toml cannot be read: No such file or directory"),
        (["--name", "../pump"], "name must be lower-case letters, digits, - and _"),
        (["--models", "/dev/null"], "/dev/null/pump cannot be written: /dev/null is not a folder"),
    ],
    ids=" ".join,
)
def test_flags_that_cannot_be_followed_end_in_one_sentence(
    tmp_path: Path, command: Command, flags: list[str], sentence: str
) -> None:
    data, models = tables.write(GOOD, tmp_path / "table.csv"), tmp_path / "models"
    refused(command("fit", data, "--name", "pump", "--models", models, *flags), sentence, models)


def test_an_unknown_field_of_the_file_is_refused_with_the_file(
    tmp_path: Path, command: Command
) -> None:
    data, models = tables.write(GOOD, tmp_path / "table.csv"), tmp_path / "models"
    (tmp_path / "run.toml").write_text('colour = "red"\n')
    outcome = command(
        "fit", data, "--name", "pump", "--models", models, "--config", tmp_path / "run.toml"
    )
    refused(outcome, f"{tmp_path / 'run.toml'}: Object contains unknown field 'colour'", models)


def test_a_file_that_nests_too_deep_is_refused(tmp_path: Path, command: Command) -> None:
    data, models = tables.write(GOOD, tmp_path / "table.csv"), tmp_path / "models"
    file = tmp_path / "run.toml"
    file.write_text("ignore = " + "[" * 100_000 + "]" * 100_000 + "\n")
    outcome = command("fit", data, "--name", "pump", "--models", models, "--config", file)
    refused(outcome, "run.toml nests arrays or tables too deep to be read", models)


@pytest.mark.parametrize(
    "model",
    [
        'preset = "balanced"\n[model]\nwidth = 1_000_000\n',
        '[model]\nvariant = "denoising"\nhidden = [1_000_000, 1_000_000]\n',
    ],
)
def test_a_model_larger_than_memory_is_refused_before_it_is_built(
    tmp_path: Path, command: Command, model: str
) -> None:
    data, models = tables.write(GOOD, tmp_path / "table.csv"), tmp_path / "models"
    file = tmp_path / "run.toml"
    file.write_text(model)
    outcome = command("fit", data, "--name", "pump", "--models", models, "--config", file)
    refused(outcome, "GB are left; make it smaller, its width first", models)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes"),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : std::bad_alloc"),
    ],
    ids=["Python", "torch", "CUDA", "onnxruntime"],
)
def test_memory_that_is_not_enough_is_one_sentence(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def too_much(*_: object) -> None:
        raise error

    monkeypatch.setattr("hourglass.training.run.read_rows_of", too_much)
    data, models = tables.write(GOOD, tmp_path / "table.csv"), tmp_path / "models"
    outcome = command("fit", data, "--name", "pump", "--models", models)
    refused(outcome, "there is not enough memory for this; fewer rows (max_rows), columns", models)


def test_a_fit_says_what_it_leaves_out_and_keeps_how_the_file_is_written(
    tmp_path: Path, command: Command
) -> None:
    models = tmp_path / "models"
    lines = [
        f"{place};{';'.join(str(value).replace('.', ',') for value in row)};{-1 if place % 7 else 1}"
        for place, row in enumerate(GOOD.round(4).tolist())
    ]
    data = tmp_path / "table.csv"
    data.write_text("\n".join(["# by hand", "Unnamed: 0;a;b;c;d;y", *lines, "?;1;?;2;3;-1", ""]))
    flags = "--separator ; --decimal , --null ? NA --comment # --label y --normal -1".split()
    outcome = command(
        *("fit", data, "--name", "pump", "--models", models, "--variant", "linear", "--epochs"),
        *(2, "--uncertified", "--quiet", *flags),
    )
    said = "column 'Unnamed: 0' is left out: it is an index that pandas wrote along, or has no name"
    assert (outcome.code, outcome.err.count("\n")) == (0, 1)
    assert said in outcome.err
    folder = locate(models / "pump").parent
    report = msgspec.json.decode((folder / "report.json").read_bytes(), type=Report)
    assert said in report.warnings[0]
    assert (report.features, report.anomalous_rows) == (4, 9)
    kept = load_config(folder / "run.toml", {})
    assert kept.dialect() == Dialect(separator=";", decimal=",", null=("?", "NA"), comment="#")
    assert kept.normal == "-1"
    measured = command(
        *("evaluate", models / "pump", data, "--json", "--label", "y", "--normal", "-1"), *flags[:9]
    )
    assert measured.code == 0
    assert msgspec.json.decode(measured.out)["anomalous_rows"] == 9
    data.write_text("\n".join(["a;b;c;d", "1;2;3;4", "1;2;3;n.d."]))
    named = command("evaluate", models / "pump", data, *flags[:4])
    assert named.code == 2
    assert "column 'd', row 2: expected a number, got 'n.d.'" in named.err


def test_all_columns_that_cannot_be_features_are_refused_at_once(
    tmp_path: Path, command: Command
) -> None:
    table = with_column(DATES, "day").with_columns(
        pl.Series("guest", [f"user {i}" for i in range(60)]),
        pl.Series("plz", ["01067", "80331", "04109"] * 20),
        *(pl.Series(f"t{i}", [f"{j}%" for j in range(60)]) for i in range(8)),
    )
    data, models = tables.write(table, tmp_path / "table.csv"), tmp_path / "models"
    outcome = command("fit", data, "--name", "pump", "--models", models)
    assert (outcome.code, models.exists()) == (2, False)
    first, *lines = outcome.err.splitlines()
    assert first == "hourglass-train: 11 columns cannot be features as they are"
    assert [line.partition(",")[0] for line in lines[:5]] == [
        f"  column '{name}'" for name in ("day", "guest", "plz", "t0", "t1")
    ]
    assert "'01067' begins with 0, as a code or a postcode does" in lines[2]
    assert lines[5:] == [
        "  and 't2', 't3', 't4', 't5', 't6', 't7'",
        "--ignore day guest plz t0 t1 t2 t3 t4 t5 t6 t7 leaves out all of them",
    ]
    flags = ("--variant", "linear", "--epochs", "1", "--uncertified", "--quiet")
    flags += ("--categorical", "plz", "--ignore", "day", "guest", *(f"t{i}" for i in range(8)))
    assert command("fit", data, "--name", "pump", "--models", models, *flags).code == 0


def test_a_line_of_units_is_named_with_what_leaves_it_out(tmp_path: Path, command: Command) -> None:
    lines = [",".join(map(str, row)) for row in GOOD.tolist()]
    data, models = tmp_path / "table.csv", tmp_path / "models"
    data.write_text("\n".join(["x0,x1,x2,x3", "kPa,m/s,mm,mm", *lines]))
    arguments = ("fit", data, "--name", "pump", "--models", models)
    refused(
        command(*arguments),
        "row 1 holds kPa m/s mm where all other rows hold numbers (columns 'x0', 'x1', 'x2' and 1"
        " more), as a line of units does: delete it, or --comment k leaves out lines of a CSV that"
        " begin so",
        models,
    )
    flags = ("--variant", "linear", "--epochs", "1", "--uncertified", "--quiet")
    assert command(*arguments, *flags, "--comment", "k").code == 0
    data.write_text("\n".join(["kW,x1,x2,x3", "kPa,m/s,mm,mm", *lines]))
    assert "or --null kPa m/s mm reads its cells as missing" in command(*arguments).err
    other = ("--name", "other", "--null", "kPa", "m/s", "mm")
    assert command(*arguments, *flags, *other).code == 0


def test_without_a_terminal_a_line_says_every_so_often_what_a_run_does(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with progress_lines(0.01) as progress:
        progress.stage("exporting")
        said = ""
        while "exporting" not in said:
            said += capsys.readouterr().err
        progress.epoch(Epoch(3, 40, 0.5, 0.25, 0.25))
        while "epoch" not in said:
            said += capsys.readouterr().err
    assert re.search(r"(?m)^hourglass-train: exporting, \d+ s so far$", said)
    assert (
        "hourglass-train: fitting, epoch 3/40  loss 0.5000  held out 0.2500 (best 0.2500)" in said
    )
    capsys.readouterr()
    time.sleep(0.05)
    assert capsys.readouterr().err == ""


def test_data_that_is_absent_or_not_named_is_refused(tmp_path: Path, command: Command) -> None:
    models = tmp_path / "models"
    absent = command("fit", tmp_path / "absent.csv", "--name", "pump", "--models", models)
    refused(absent, "absent.csv is not a file", models)
    refused(command("fit", "--name", "pump", "--models", models), "data is needed", models)


def test_an_alpha_that_cannot_be_certified_is_refused_before_anything_is_published(
    tmp_path: Path, command: Command
) -> None:
    data, models = tables.write(GOOD, tmp_path / "table.csv"), tmp_path / "models"
    flags = ("--variant", "linear", "--epochs", "1", "--alpha", "0.01", "--folds", "0")
    outcome = command("fit", data, "--name", "pump", "--models", models, *flags)
    refused(
        outcome, "it needs at least 299; the nearest alpha that can be certified is 0.181", models
    )
    assert "--uncertified" in outcome.err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["fly"], "invalid choice: 'fly'"),
        (["evaluate", "m"], "the following arguments are required: DATA"),
        (["promote", "pump"], "the following arguments are required: VERSION"),
        (["promote", "pump", "abc", "--models", "absent"], "there is no model 'pump' in absent"),
        (["demo", "--port", "99999"], "expected a port from 1 to 65535, got 99999"),
        (["evaluate", "m", "d.csv", "--thousands", "."], "thousands and decimal are both '.'"),
        (
            ["compare", "d.csv", "--name", "pump", "--separator", ";;"],
            "separator must be one character",
        ),
        (
            ["evaluate", "absent", "d.csv", "--label", "y"],
            "absent is neither a model file nor a folder with one",
        ),
    ],
)
def test_other_commands_refuse_in_one_sentence_too(
    command: Command, arguments: list[str], sentence: str
) -> None:
    outcome = command(*arguments)
    assert outcome.code == 2
    assert outcome.err.count("\n") == 1
    assert sentence in outcome.err


@pytest.mark.parametrize("what", ["fit", "compare"])
def test_a_folder_that_cannot_be_written_is_said_before_the_fit(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    # as for a user without permission
    monkeypatch.setattr(os, "access", lambda path, _: Path(path) != tmp_path)
    monkeypatch.setattr("hourglass.training.trial.fit", None)
    data = tables.write(GOOD, tmp_path / "table.csv")
    places = {
        "fit": ["--models", tmp_path / "models"],
        "compare": ["--output", tmp_path / "new" / "table.json"],
    }
    outcome = command(what, data, "--name", "pump", *places[what])
    assert outcome.code == 2
    assert outcome.err.endswith(
        f"cannot be written: there is no permission to write into {tmp_path}\n"
    )


def test_what_the_disk_refuses_is_one_sentence_too(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    data, models = tables.write(GOOD, tmp_path / "table.csv"), tmp_path / "models"
    flags = ("--variant", "linear", "--epochs", "1", "--folds", "0")
    outcome = command("fit", data, "--name", "pump", "--models", models, *flags)
    assert (outcome.code, outcome.err) == (
        2,
        f"hourglass-train: {models / 'pump'} cannot be written: No space left on device\n",
    )
    assert [path.name for path in models.rglob("*")] == ["pump"]


@pytest.mark.slow
def test_a_preset_is_fitted_and_the_report_says_what_of_the_rows_the_file_contains(
    tmp_path: Path, command: Command
) -> None:
    data, models = tables.write(GOOD, tmp_path / "table.csv"), tmp_path / "models"
    flags = ("--name", "pump", "--models", models, "--variant", "associative", "--epochs", "1")
    flags += ("--folds", "0")
    outcome = command("fit", data, *flags, "--memory", "2")
    assert (outcome.code, outcome.err) == (0, "")
    assert "averages of them" in outcome.out
    assert (
        "The model file contains averages of training rows, and whoever has it can read them."
        in outcome.out
    )
    assert "averages of training rows, which" in inspected(models / "pump")
    outcome = command("fit", data, *flags, "--memory", "0")
    assert "The model file contains" not in outcome.out
    assert "no training rows, nor averages of them" in inspected(models / "pump")


def inspected(model: Path) -> str:
    return describe(open_model(model)[0])


@pytest.mark.slow
def test_a_run_of_a_preset_has_its_name_and_gives_the_same_bytes_again_from_the_file_beside_it(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PRESETS, "accurate", LinearConfig(fit=FitConfig(epochs=2)))
    data, models = tables.write(GOOD, tmp_path / "table.csv"), tmp_path / "models"
    flags = ("--name", "pump", "--models", models, "--preset", "accurate", "--folds", "0")
    assert "accurate" in command("fit", data, *flags).out
    first = locate(models / "pump")
    report = msgspec.json.decode((first.parent / "report.json").read_bytes(), type=Report)
    assert (report.preset, report.variant, report.stores_rows) == ("accurate", "linear", "none")
    assert (
        command("fit", "--config", first.parent / "run.toml", "--models", tmp_path / "again").code
        == 0
    )
    assert locate(tmp_path / "again" / "pump").read_bytes() == first.read_bytes()


@pytest.mark.slow
def test_a_preset_can_be_compared_and_published(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PRESETS, "accurate", PlainConfig(fit=FitConfig(epochs=40)))
    data, models = tables.write(tables.mixed(), tmp_path / "table.csv"), tmp_path / "models"
    where = (
        "--name",
        "pump",
        "--models",
        models,
        "--ignore",
        "fault",
        "--output",
        tmp_path / "table.json",
    )
    outcome = command("compare", data, *where, "--variants", "accurate", "--publish")
    assert outcome.code == 0
    assert "accurate" in outcome.out
    table = msgspec.json.decode((tmp_path / "table.json").read_bytes(), type=Comparison)
    assert [candidate.variant for candidate in table.candidates] == ["accurate", "linear"]
    fitted = Detector.from_bytes(locate(models / "pump").read_bytes()).manifest.model.variant
    assert fitted == {"accurate": "plain", "linear": "linear"}[table.chosen]


def test_evaluating_data_without_the_model_s_columns_names_one(
    tmp_path: Path, command: Command, published: Published
) -> None:
    data = tables.write(published.table.drop("heat"), tmp_path / "table.csv")
    outcome = command("evaluate", published.folder, data, "--label", "fault")
    assert outcome.code == 2
    assert (
        outcome.err
        == "hourglass-train: the table has no column 'heat', which the model expects (1 absent in"
        " all)\n"
    )


@pytest.mark.slow
def test_an_interrupted_fit_says_so_and_leaves_nothing(tmp_path: Path) -> None:
    tables.write(GOOD, tmp_path / "table.csv")
    (tmp_path / "run.toml").write_text("[model.fit]\nepochs = 1000000\npatience = 0\n")
    # progress shows on a terminal, and tells when the fit is under way
    ours, theirs = pty.openpty()
    fit = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "hourglass.training",
            "fit",
            "table.csv",
            "--name",
            "pump",
            "--config",
            "run.toml",
        ],
        cwd=tmp_path,
        stderr=theirs,
        stdout=subprocess.PIPE,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "200"},
        # a job in the background ignores it
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    os.close(theirs)
    shown = b""
    try:
        while b"epoch" not in shown:
            shown += os.read(ours, 4096)
        fit.send_signal(signal.SIGINT)
        while True:
            try:
                shown += os.read(ours, 4096)
            except OSError:  # the other end is closed
                break
        assert fit.wait(timeout=60) == 130
    finally:
        fit.kill()
        fit.communicate()
        os.close(ours)
    assert b"interrupted; nothing was published" in shown
    assert b"Traceback" not in shown
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run.toml", "table.csv"]
