import csv
import json
import re
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from sklearn.datasets import load_breast_cancer

from hourglass.service.serving.store import POINTER
from hourglass.training.demo import write_data
from tests.conftest import Demo
from tests.serving import free_port
from tests.training.conftest import Outcome

Command = Callable[..., Outcome]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("demo")).parent


def test_the_data_are_569_real_rows_of_which_benign_is_normal(folder: Path) -> None:
    with (folder / "tumour.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    bunch = load_breast_cancer()
    assert len(rows) == 569
    assert len(rows[0]) == 31
    assert sum(row["malignant"] == "1" for row in rows) == 212
    assert [float(row["mean_radius"]) for row in rows] == bunch.data[:, 0].tolist()


@pytest.mark.parametrize("kind", ["benign", "malignant"])
def test_the_request_bodies_hold_one_row_of_the_data_each(folder: Path, kind: str) -> None:
    body = json.loads((folder / f"{kind}.json").read_text())
    with (folder / "tumour.csv").open() as lines:
        wanted = [
            row
            for row in csv.DictReader(lines)
            if row.pop("malignant") == str(int(kind == "malignant"))
        ]
    assert body == {"rows": [{name: float(value) for name, value in wanted[0].items()}]}


@pytest.mark.slow
def test_the_demo_model_tells_malignant_from_benign_and_a_second_run_reuses_it(
    demo: Demo, command: Command
) -> None:
    models, data = demo.folder / "models", demo.folder / "demo"
    assert "Alpha is 20%" in demo.printed  # what its few rows certify and leave in use
    assert "Published" in demo.printed
    figures = command(
        "evaluate", models / "tumour", data / "tumour.csv", "--label", "malignant", "--json"
    )
    assert json.loads(figures.out)["auroc"] >= 0.95
    pointer = (models / "tumour" / POINTER).stat().st_mtime_ns
    second = command("demo", "--models", models, "--folder", data, "--port", free_port())
    assert second.code == 0
    assert "Published" not in second.out
    assert (models / "tumour" / POINTER).stat().st_mtime_ns == pointer
    first = re.search(r"https?://\S+", second.out)[0]
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", first)  # the console's
    for words in ("/score", "benign.json", "malignant.json", "/explain", "/metrics", "/docs"):
        assert words in second.out


def test_a_taken_port_is_one_sentence_before_anything_slow(
    tmp_path: Path, command: Command
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        outcome = command(
            "demo", "--models", tmp_path / "models", "--folder", tmp_path / "demo", "--port", port
        )
    assert outcome.code == 2
    assert (
        outcome.err
        == f"hourglass-train: port {port} on 127.0.0.1 is taken; choose another: make demo"
        f" PORT={port + 1}\n"
    )
    assert not (tmp_path / "demo").exists()
