"""MLflow itself logs, loads and serves a model, in SQLite and in its own scoring server."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest
import yaml

from hourglass.service.adapters.files import open_model, score_file
from hourglass.service.adapters.mlflow import NEEDED, log_model, save_model
from hourglass.service.errors import InvalidArtifact, InvalidSettings, UncertifiableAlpha
from hourglass.service.model.artifact import version_of
from hourglass.service.serving.signatures import SigningKey, make_keys
from tests.artifacts import (
    MIXED,
    NUMERIC,
    as_json_rows,
    make_artifact,
    make_windowed_artifact,
    publish,
    sample_rows,
)
from tests.serving import ROOT, Process, free_port, wait_until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # of MLflow, SQLAlchemy and Alembic
]

MODEL = make_artifact(MIXED, conditional=True)
NAMES = [feature.name for feature in MIXED]
RESULTS = ["score", "ratio", "p_value", "severity", "extrapolated", "is_anomaly", "reason"]


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """MLflow, with a database and a folder of its own."""
    folder = tmp_path_factory.mktemp("mlflow")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        patched.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        import mlflow

        experiment = mlflow.create_experiment("plant", artifact_location=f"{folder}/artifacts")
        patched.setenv("MLFLOW_EXPERIMENT_ID", experiment)
        yield mlflow


@contextmanager
def served_by_mlflow(log: Path, name: str = "pump") -> Iterator[str]:
    """The README's command serves a model, with this environment active; where it does so."""
    (found,) = re.findall(
        r"^MLFLOW_TRACKING_URI=\S+ \.venv/bin/(mlflow models serve (?:.*\\\n)*.*)$",
        (ROOT / "service/README.md").read_text(),
        re.MULTILINE,
    )
    words, port = shlex.split(found.replace("\\\n", " ")), str(free_port())
    instead = {"models:/tumour@champion": f"models:/{name}@champion", "5001": port}
    assert {*instead} <= {*words}
    bin_folder = str(Path(sys.prefix) / "bin")
    with log.open("w") as file:
        server = subprocess.Popen(
            [f"{bin_folder}/{words[0]}", *(instead.get(word, word) for word in words[1:])],
            env=os.environ | {"PATH": os.pathsep.join([bin_folder, os.environ["PATH"]])},
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
        try:
            url = f"http://127.0.0.1:{port}"
            deadline = time.monotonic() + 60
            while not answers(f"{url}/ping"):
                assert server.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.1)
            yield url
        finally:
            os.killpg(server.pid, signal.SIGTERM)  # MLflow starts uvicorn, which outlives it
            server.wait(20)


def answers(url: str) -> bool:
    with suppress(httpx.TransportError):
        return httpx.get(url).status_code == 200
    return False


@pytest.fixture(scope="module")
def logged(mlflow: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What `log_model` made of a signed version of a models folder, registered as `pump`."""
    folder = tmp_path_factory.mktemp("signed")
    models = folder / "models"
    version = models / "pump" / publish(models, "pump", MODEL)
    (version / "report.html").write_text("<p>fine</p>")
    make_keys(folder / "signing.pem")
    (version / "model.onnx.sig").write_bytes(SigningKey(folder / "signing.pem").sign(MODEL))
    info = log_model(models / "pump", "pump", registered_model_name="pump")
    mlflow.MlflowClient().set_registered_model_alias(
        "pump", "champion", info.registered_model_version
    )
    return info, folder / "signing.pem.pub"


def rows() -> pd.DataFrame:
    """Rows of each kind of cell: two with gaps, one that is strange, one with too few values."""
    cells = as_json_rows(MIXED, sample_rows(MIXED, 12, seed=3))
    frame = pd.DataFrame(cells, columns=NAMES, index=range(100, 112))
    frame = frame.astype({"open": object, "site": object})
    frame.loc[101, "open"] = frame.loc[102, "site"] = frame.loc[103, "heat"] = None
    frame.loc[104, "load"] = 9.0
    frame.loc[105, ["load", "open", "site"]] = None
    return frame


def told_by_a_file(folder: Path, data: bytes, frame: pd.DataFrame, **order: str) -> Any:
    """What `hourglass score` says of the same rows."""
    (folder / "model.onnx").write_bytes(data)
    frame.to_csv(folder / "rows.csv", index=False)
    served, _ = open_model(folder / "model.onnx")
    return score_file(served, folder / "rows.csv", progress=lambda _done, _of: None, **order)


def assert_alike(told: pd.DataFrame, expected: Any, names: list[str]) -> None:
    for name in names:
        assert told[name].to_list() == [
            pytest.approx(each, rel=1e-5) if isinstance(each, float) else each
            for each in expected[name].to_list()
        ], name


def test_a_logged_model_says_of_a_frame_what_the_command_says_of_its_file(
    mlflow: Any, logged: Any, tmp_path: Path
):
    info, _ = logged
    told = mlflow.pyfunc.load_model("models:/pump@champion").predict(rows().assign(more=1))
    assert told.columns.to_list() == [*RESULTS, "blamed"]
    assert told.index.to_list() == list(range(100, 112))
    assert_alike(told, told_by_a_file(tmp_path, MODEL, rows()), RESULTS)
    assert told.blamed[104] == ["load"]
    assert told.reason[104].startswith("load is 9 kW where ")
    assert told.loc[105].to_list() == [None] * 8
    assert told.score.drop(105).notna().all()
    assert mlflow.pyfunc.load_model(info.model_uri).predict(rows()[:0]).empty


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("load", np.arange(12)),  # whole numbers, where fractions are expected
        ("load", pd.array([None, *range(11)], dtype="Int64")),
        ("open", pd.array([None, *[True, False] * 5, True], dtype="boolean")),
        ("open", [None, *[1.0, 0.0] * 5, 1.0]),
        ("site", pd.Categorical(["north", None, *["south", "west"] * 5])),
        ("heat", [None] * 12),
    ],
)
def test_frames_may_hold_values_as_pandas_has_them(
    mlflow: Any, logged: Any, tmp_path: Path, column: str, values: Any
):
    model = mlflow.pyfunc.load_model("models:/pump@champion")
    frame = rows().assign(**{column: values})
    told = model.predict(frame)
    assert_alike(told, told_by_a_file(tmp_path, MODEL, frame), RESULTS)
    assert told.score.isna().sum() <= 1


def test_what_goes_in_and_comes_out_is_told_and_nothing_is_pickled(logged: Any, mlflow: Any):
    info, _ = logged
    assert info.signature.inputs.input_names() == NAMES
    outputs = [each.to_dict() for each in info.signature.outputs.inputs]
    assert {each["name"]: each["type"] for each in outputs} == {
        **dict.fromkeys(["score", "ratio", "p_value", "severity"], "float"),
        **dict.fromkeys(["extrapolated", "is_anomaly"], "boolean"),
        "reason": "string",
        "blamed": "array",
    }
    folder = Path(mlflow.artifacts.download_artifacts(artifact_uri=info.model_uri))
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert {name for name in files if name.startswith("data/")} == {
        "data/model/model.onnx",
        "data/model/model.onnx.sig",
        "data/model/report.html",
    }
    assert not [name for name in files if name.endswith((".pkl", ".py"))]
    flavors = yaml.safe_load((folder / "MLmodel").read_text())["flavors"]
    assert flavors["python_function"]["loader_module"] == "hourglass.service.adapters.mlflow"
    assert flavors["hourglass"]["version"] == version_of(MODEL)
    assert flavors["hourglass"]["features"] == {each.name: each.kind for each in MIXED}
    assert "hourglass[mlflow]==0.1.0" in (folder / "requirements.txt").read_text().split()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"heat": ["warm"] * 12}, "column 'heat', row 1: expected a number, got 'warm'"),
        ({"load": [1.0, 1e39] * 6}, "'load', row 2: expected a finite number within float32"),
        ({"open": [3] * 12}, "column 'open', row 1: expected true or false, got '?3"),
        ({"site": [None, 2.5] * 6}, "column 'site', row 2: expected text, got '?2.5"),
    ],
)
def test_a_cell_that_is_no_such_value_is_named(
    mlflow: Any, logged: Any, change: dict[str, Any], sentence: str
):
    model = mlflow.pyfunc.load_model("models:/pump@champion")
    with pytest.raises(mlflow.exceptions.MlflowException, match=sentence):
        model.predict(rows().assign(**change))


def test_a_column_that_is_not_there_is_named(mlflow: Any, logged: Any):
    model = mlflow.pyfunc.load_model("models:/pump@champion")
    with pytest.raises(mlflow.exceptions.MlflowException, match=r"missing inputs \['heat'\]"):
        model.predict(rows().drop(columns="heat"))


def test_a_signature_of_types_is_taken_unless_mlflow_would_read_another_value(
    mlflow: Any, tmp_path: Path
):
    frame = rows().astype({"open": float})
    asked = mlflow.models.infer_signature(frame)
    save_model(MODEL, tmp_path / "saved", signature=asked)
    model = mlflow.pyfunc.load_model(str(tmp_path / "saved"))
    types = [each.to_dict()["type"] for each in model.metadata.signature.inputs.inputs]
    assert types == ["double", "double", "string", "double"]
    assert model.metadata.signature.outputs.input_names() == [*RESULTS, "blamed"]
    assert_alike(model.predict(frame), told_by_a_file(tmp_path, MODEL, rows()), RESULTS)
    asked = mlflow.models.infer_signature(rows().assign(open=True))
    with pytest.raises(InvalidSettings, match="of 'open' MLflow would take a missing value for fa"):
        save_model(MODEL, tmp_path / "refused", signature=asked)


@pytest.mark.parametrize("alpha", [5, 0, float("nan"), "0.1"])
def test_a_budget_that_is_none_is_said(tmp_path: Path, alpha: Any):
    with pytest.raises(InvalidSettings, match=r"alpha: expected a number from 1e-9 to 0\.5, got"):
        save_model(MODEL, tmp_path / "saved", alpha=alpha)


def test_another_budget_is_said_when_it_is_saved_or_loaded(mlflow: Any, tmp_path: Path):
    save_model(MODEL, tmp_path / "saved", alpha=0.2)
    strict = {"alpha": 0.02}
    many = sample_rows(MIXED, 400, seed=9)
    frame = pd.DataFrame(as_json_rows(MIXED, many), columns=NAMES)
    alarms = [
        mlflow.pyfunc.load_model(str(tmp_path / "saved"), model_config=config)
        .predict(frame)
        .is_anomaly.sum()
        for config in (None, strict)
    ]
    served, _ = open_model(tmp_path / "saved/data/model/model.onnx")
    scores = served.detector.score(many).score
    table = served.detector.table
    assert alarms == [table.threshold(a, 0.05).is_anomaly(scores).sum() for a in (0.2, 0.02)]
    assert alarms[0] > 3 * alarms[1] > 0
    with pytest.raises(UncertifiableAlpha, match="alpha"):
        save_model(MODEL, tmp_path / "uncertifiable", alpha=1e-6)
    assert not (tmp_path / "uncertifiable").exists()


def test_rows_in_order_are_answered_by_their_columns_of_time_and_entity(
    mlflow: Any, tmp_path: Path
):
    data = make_windowed_artifact(rows=3)
    names = list("abcd")
    frame = pd.DataFrame(sample_rows(NUMERIC, 24, seed=4), columns=names)
    frame.loc[15, "b"] = 9.0
    frame["at"] = pd.date_range("2026-01-01", periods=24, freq="min").astype(str)
    frame["machine"] = ["east", "west"] * 12
    frame = frame.sample(frac=1.0, random_state=0)
    save_model(data, tmp_path / "saved", time="at", entity="machine")
    model = mlflow.pyfunc.load_model(str(tmp_path / "saved"))
    assert model.metadata.signature.inputs.input_names() == [*names, "at", "machine"]
    told = model.predict(frame)
    expected = told_by_a_file(tmp_path, data, frame, time="at", entity="machine")
    assert_alike(told, expected, [*RESULTS, "warming"])
    assert told.warming.sum() == 4
    assert told.is_anomaly[15]
    assert told.blamed[15] == ["b"]
    with pytest.raises(InvalidSettings, match="scores single rows, whatever their order"):
        save_model(MODEL, tmp_path / "single", time="at")


def test_what_is_no_model_is_refused_before_anything_is_written(tmp_path: Path):
    with pytest.raises(InvalidArtifact, match="is neither a model file nor a folder with one"):
        save_model(tmp_path / "nothing", tmp_path / "saved")
    with pytest.raises(InvalidArtifact):
        save_model(b"no model", tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setitem(sys.modules, "mlflow.pyfunc", None)
    with pytest.raises(InvalidSettings) as raised:
        save_model(MODEL, tmp_path / "saved")
    assert str(raised.value) == NEEDED


@pytest.mark.heavy
def test_mlflow_serves_what_was_logged_and_so_does_the_service_from_its_registry(
    mlflow: Any, logged: Any, tmp_path: Path
):
    _, public = logged
    cells = as_json_rows(MIXED, sample_rows(MIXED, 5, seed=8))
    cells[1][1] = cells[2][2] = cells[3][0] = None
    cells[4][0] = 9
    cells.append([None, None, None, 1.0])
    with served_by_mlflow(tmp_path / "log") as url:
        answer = httpx.post(
            f"{url}/invocations", json={"dataframe_split": {"columns": NAMES, "data": cells}}
        )
        refused = httpx.post(
            f"{url}/invocations",
            json={"dataframe_records": [dict(zip(NAMES, "abcd", strict=True))]},
        )
    told = answer.raise_for_status().json()["predictions"]
    assert set(told[5].values()) == {None}
    assert told[4]["blamed"] == ["load"]
    assert refused.status_code == 400
    assert "column 'load', row 1: expected a number, got 'a'" in refused.json()["message"]

    flags = ("--cache", str(tmp_path / "cache"), "--trust", str(public))
    with Process("mlflow://champion", *flags, PYTHONWARNINGS="ignore") as server:
        url = f"{server.url}/v1/models/pump"
        wait_until(lambda: httpx.get(url).json().get("version") == version_of(MODEL))
        asked = httpx.post(f"{url}/explain", json={"rows": cells[:5]}).raise_for_status().json()
        report = httpx.get(f"{url}/report", headers={"accept": "text/html"}).text
        assert server.stop() == 0
    for name in RESULTS:
        assert [each[name] for each in told[:5]] == [
            pytest.approx(each, rel=1e-5) if isinstance(each, float) else each
            for each in asked[name]
        ], name
    assert report == "<p>fine</p>"


@pytest.mark.heavy
def test_with_types_mlflow_serves_csv_and_json_with_gaps(mlflow: Any, tmp_path: Path):
    frame = rows().astype({"open": float})
    asked = mlflow.models.infer_signature(frame)
    info = log_model(MODEL, "typed", registered_model_name="typed", signature=asked)
    mlflow.MlflowClient().set_registered_model_alias(
        "typed", "champion", info.registered_model_version
    )
    cells = frame.astype(object).where(frame.notna(), None).to_numpy().tolist()
    split = {"dataframe_split": {"columns": NAMES, "data": cells}}
    with served_by_mlflow(tmp_path / "log", "typed") as url:
        of_json = httpx.post(f"{url}/invocations", json=split)
        of_csv = httpx.post(
            f"{url}/invocations",
            content=frame.to_csv(index=False),
            headers={"content-type": "text/csv"},
        )
    expected = told_by_a_file(tmp_path, MODEL, rows())
    for answer in (of_json, of_csv):
        told = pd.DataFrame(answer.raise_for_status().json()["predictions"])
        assert_alike(told.astype(object).where(told.notna(), None), expected, RESULTS)
