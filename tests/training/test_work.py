"""Workers: what becomes of the trainings that the retired Azure service's clients ask for."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from azure.ai.anomalydetector import AnomalyDetectorClient
from azure.ai.anomalydetector.models import (
    AnomalyState,
    ModelInfo,
    MultivariateBatchDetectionOptions,
    MultivariateLastDetectionOptions,
    VariableValues,
)
from azure.core.credentials import AzureKeyCredential

from hourglass.service.adapters.azure import changed_pairs
from hourglass.service.serving.jobs import Job, Jobs, TrainRequest
from hourglass.training.__main__ import main
from hourglass.training.progress import Epoch, Progress
from hourglass.training.work import _Epochs, pairs_of, work
from tests.serving import serving
from tests.test_readmes import blocks

START = datetime(2021, 1, 1, tzinfo=UTC)
FIT, NEW = 700, 100  # rows
ODD = FIT + 60  # where b leaves a and c
NAMES = ("a", "b", "c")


def at(row: int) -> datetime:
    return START + timedelta(minutes=row)


def rows() -> np.ndarray:
    """Three variables that go together, until one of them does not."""
    rng = np.random.default_rng(0)
    base_N = np.sin(np.arange(FIT + NEW) / 20) + 0.3 * rng.standard_normal(FIT + NEW)
    rows_ND = base_N[:, None] + 0.1 * rng.standard_normal((FIT + NEW, 3))
    rows_ND[ODD, 1] += 6
    return rows_ND


def write(path: Path) -> Path:
    """One table, in which c lacks some values."""
    columns = {name: rows()[:, place] for place, name in enumerate(NAMES)}
    frame = pl.DataFrame({"timestamp": [at(i).isoformat() for i in range(FIT + NEW)], **columns})
    lacking = pl.when(pl.int_range(pl.len()) % 50 != 7).then(pl.col("c"))
    frame.with_columns(lacking.alias("c")).write_csv(path)
    return path


def ask(models: Path, source: Path, **changes: object) -> Job:
    asked = {
        "source": str(source),
        "is_multi_table": False,
        "start": START.timestamp(),
        "end": at(FIT - 1).timestamp(),
        "display_name": None,
        "window": 28,
        "align_mode": "Outer",
        "fill_method": "Linear",
        "padding": 0.0,
    }
    return Jobs(models).create({}, TrainRequest(**{**asked, **changes}), (str(source.parent),))


def test_without_a_job_there_is_nothing_to_do(tmp_path: Path):
    assert work(tmp_path, {}) is None
    assert main(["work", "--models", str(tmp_path), "--once"]) == 0


@pytest.mark.parametrize(
    ("text", "changes", "code", "message"),
    [
        (None, {}, "InvalidData", "data.csv is not a file that is there"),
        ("timestamp,a\n2021-01-01,x\n", {}, "InvalidData", "column 'a'"),
        ("timestamp,a\n2020-01-01,1\n", {}, "NotEnoughInput", "there are no rows from startTime"),
        (
            "timestamp,a\n2021-01-01,1\n2021-01-02,\n",
            {"end": at(10_000).timestamp()},
            "TooManyMissingValues",
            "variable 'a': expected at most 20% of the rows without a value, got 50.0%",
        ),
        (
            "timestamp,a\n" + "".join(f"{at(i):%Y-%m-%dT%H:%M:%SZ},{i % 7}\n" for i in range(60)),
            {},
            "TrainingFailed",
            "slidingWindow takes fewer",
        ),
    ],
)
def test_a_job_whose_data_cannot_be_trained_on_fails_with_its_reason(
    tmp_path: Path,
    text: str | None,
    changes: dict[str, object],
    code: str,
    message: str,
    capsys: pytest.CaptureFixture[str],
):
    models, data = tmp_path / "models", tmp_path / "data.csv"
    if text:
        data.write_text(text)
    job = ask(models, data, **changes)
    assert main(["work", "--models", str(models), "--once"]) == 0
    ended = Jobs(models).get(job.id)
    assert ended.status == "FAILED"
    assert ended.errors[0].code == code
    assert message in ended.errors[0].message
    assert f"model {job.id} is FAILED: {ended.errors[0].message}" in capsys.readouterr().err
    assert not (models / job.id).exists()


def test_a_job_reads_from_where_its_service_allows_alone(tmp_path: Path):
    models, data = tmp_path / "models", tmp_path / "data"
    data.mkdir()
    (tmp_path / "secret.csv").write_text("timestamp,a\n2021-01-01,1\n")
    job = ask(models, data / "link.csv")
    (data / "link.csv").symlink_to(tmp_path / "secret.csv")  # after it was taken
    done = work(models, {})
    assert done is not None
    assert "lies below none of the places" in done.job.errors[0].message
    assert done.job.id == job.id


def test_the_training_of_a_job_that_is_deleted_ends(tmp_path: Path):
    models, data = tmp_path / "models", write(tmp_path / "data.csv")
    job = ask(models, data)
    stages: list[str] = []

    def delete(stage: str) -> None:
        stages.append(stage)
        if stage == "splitting":
            Jobs(models).delete(job.id)

    done = work(models, {}, lambda _: nullcontext(Progress(stage=delete)))
    assert done is not None
    assert done.job.id == job.id
    assert stages[-1] == "splitting"  # and nothing was fitted
    assert Jobs(models).all() == []
    assert not (models / job.id).exists()


def test_the_epochs_of_a_network_are_told_of(tmp_path: Path):
    jobs, job = Jobs(tmp_path), ask(tmp_path, tmp_path / "data.csv")
    told: list[int] = []
    epochs = _Epochs(jobs, job.id, Progress(epoch=lambda epoch: told.append(epoch.number)))
    epochs._told -= 60  # so long ago that it is time again
    for number in (1, 2):
        epochs.progress.epoch(Epoch(number, 2, 1.0 / number, 2.0 / number, 1.0))
    assert told == [1, 2]
    (kept,) = jobs.get(job.id).epochs  # the next is told of a while later
    assert (kept.number, kept.loss, kept.held_out_loss) == (1, 1.0, 2.0)
    assert [each.loss for each in epochs.seen] == [1.0, 0.5]


def test_flags_that_cannot_be_are_said_before_a_job_is_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    job = ask(tmp_path, tmp_path / "data.csv")
    assert main(["work", "--models", str(tmp_path), "--once", "--preset", "best"]) == 2
    assert "there is no preset 'best'" in capsys.readouterr().err
    assert Jobs(tmp_path).get(job.id).status == "CREATED"


def test_pairs_are_of_variables_that_go_together():
    rng = np.random.default_rng(1)
    base_N = rng.standard_normal(2000)
    rows_ND = np.stack(
        [
            base_N,
            10 - 3 * base_N + 0.3 * rng.standard_normal(2000),
            rng.standard_normal(2000),
            np.full(2000, 5.0),
        ],
        axis=1,
    ).astype(np.float32)
    rows_ND[::10, 0] = np.nan
    pairs = pairs_of(("a", "b", "c", "d"), rows_ND)
    (pair,) = pairs.pairs
    assert (pair.first, pair.second) == (0, 1)
    assert pair.correlation == pytest.approx(-1, abs=0.02)
    assert pairs.mean == pytest.approx((0, 10, 0, 5), abs=0.2)
    assert pairs.sd == pytest.approx((1, 3, 1, 1), abs=0.2)
    assert changed_pairs(pairs, {"a": 2.0, "b": 4.0, "c": 9.0, "d": 5.0}) == {}
    assert changed_pairs(pairs, {"a": 2.0, "b": 16.0, "c": 0.0, "d": 5.0}) == {
        "a": ["b"],
        "b": ["a"],
    }
    assert changed_pairs(pairs, {"a": float("nan"), "b": 16.0, "c": 0.0, "d": 5.0}) == {}
    assert changed_pairs(None, {"a": 1.0}) == {}


def find_faults() -> Callable[..., list[AnomalyState]]:
    """The function that service/README.md shows."""
    (text,) = (each.text for each in blocks("service/README.md") if "def find_faults" in each.text)
    names = {
        "AnomalyDetectorClient": AnomalyDetectorClient,
        "AzureKeyCredential": AzureKeyCredential,
        "ModelInfo": ModelInfo,
        "MultivariateBatchDetectionOptions": MultivariateBatchDetectionOptions,
        "time": time,
    }
    exec(compile(text, "service/README.md", "exec"), names)
    return names["find_faults"]


def worker(models: Path) -> subprocess.Popen[str]:
    flags = ["--models", str(models), "--once", "--no-report", "--preset", "fast", "--quiet"]
    command = [sys.executable, "-m", "hourglass.training", "work", *flags]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def wait_for(is_so: Callable[[], bool], worker: subprocess.Popen[str] | None = None) -> None:
    deadline = time.monotonic() + 120
    while not is_so():
        assert worker is None or worker.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.heavy
def test_a_model_is_trained_by_a_worker_in_the_place_of_one_that_died_and_finds_the_fault(
    tmp_path: Path,
):
    """From the client's first call to its last one, as the README shows it."""
    models, data = tmp_path / "models", write(tmp_path / "data.csv")
    models.mkdir()
    jobs = Jobs(models)
    with (
        serving(models, azure=True, azure_data=str(tmp_path)) as http,
        AnomalyDetectorClient(str(http.base_url), AzureKeyCredential("any")) as client,
        ThreadPoolExecutor() as pool,
    ):
        asked = (str(http.base_url), "any", str(data), at(0), at(FIT - 1), at(FIT + NEW - 1))
        found = pool.submit(find_faults(), *asked)
        wait_for(lambda: len(jobs.all()) == 1)
        (job,) = jobs.all()
        begun = models / ".jobs" / f"{job.id}.pairs.json"
        # who is told to stop gives the job back; of who is killed another one takes it
        for sent, left in ((signal.SIGKILL, ("RUNNING", 1)), (signal.SIGTERM, ("CREATED", 1))):
            dying = worker(models)
            wait_for(begun.exists, dying)
            assert client.get_multivariate_model(job.id).model_info.status == "RUNNING"
            dying.send_signal(sent)
            dying.communicate(timeout=60)
            job = jobs.get(job.id)
            assert (job.status, job.attempts) == left
            begun.unlink()
        third = worker(models)
        assert third.communicate(timeout=300)[1] == ""
        assert third.returncode == 0

        faults = found.result(timeout=60)
        (odd,) = (each for each in faults if each.timestamp == at(ODD))
        assert odd.value.severity > 0.9
        blamed = odd.value.interpretation[0]
        assert blamed.variable == "b"
        assert blamed.contribution_score > 0.5
        assert set(blamed.correlation_changes.changed_variables) == {"a", "c"}
        assert sum(each.timestamp < at(ODD) for each in faults) <= 0.1 * (ODD - FIT)

        (model,) = client.list_multivariate_models()
        assert (model.model_info.status, model.model_info.errors) == ("READY", [])
        state = model.model_info.diagnostics_info.model_state
        assert state.epoch_ids == [1]  # of closed forms
        assert 0 < state.train_losses[0] < 10
        assert 0 < state.validation_losses[0] < 10
        assert state.latencies_in_seconds[0] > 0
        states = model.model_info.diagnostics_info.variable_states
        ratios = {each.variable: each.filled_n_a_ratio for each in states}
        assert ratios == {"a": 0, "b": 0, "c": pytest.approx(0.02)}

        stamps = [f"{at(i):%Y-%m-%dT%H:%M:%SZ}" for i in range(ODD - 27, ODD + 1)]
        variables = [
            VariableValues(
                variable=name, timestamps=stamps, values=rows()[ODD - 27 : ODD + 1, i].tolist()
            )
            for i, name in enumerate(NAMES)
        ]
        wanted = MultivariateLastDetectionOptions(variables=variables, top_contributor_count=2)
        (last,) = client.detect_multivariate_last_anomaly(job.id, wanted).results
        assert last.value.score == pytest.approx(odd.value.score, abs=1e-2)
        assert len(last.value.interpretation) == 2

        client.delete_multivariate_model(job.id)
        assert list(client.list_multivariate_models()) == []
        assert not (models / job.id).exists()
