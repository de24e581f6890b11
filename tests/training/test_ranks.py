"""Several processes fit as one does; the slow tests start them by torchrun."""

import os
import subprocess
import sys
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score
from torch import Tensor

from hourglass.service.model.artifact import Feature
from hourglass.service.model.detector import Detector
from hourglass.training import ranks as all_ranks
from hourglass.training.errors import RunError
from hourglass.training.features import Encoded, Encoding
from hourglass.training.fit import fit
from hourglass.training.models import VARIANTS
from hourglass.training.models.member import FitConfig, Member
from hourglass.training.presets import PRESETS
from hourglass.training.ranks import ALONE, Ranks, is_one_of_several, join
from hourglass.training.sums import Sums
from tests.serving import ROOT
from tests.training import tables
from tests.training.crew import together

FEATURES = tuple(Feature(name=f"x{i}", kind="numeric") for i in range(4))
ROWS = torch.from_numpy(tables.correlated(403))
HELD_OUT = torch.from_numpy(tables.correlated(100, seed=1))


def fit_by(count: int, member: Member, config: FitConfig) -> list[dict[str, Tensor]]:
    """The weights of each of so many processes at the end."""

    def work(ranks: Ranks) -> dict[str, Tensor]:
        own = deepcopy(member)
        own.encoding.sums = Sums(ranks)
        fit(own, ROWS, HELD_OUT, config, seed=0, ranks=ranks)
        return own.state_dict()

    return together(count, work) if count > 1 else [work(ALONE)]


@pytest.mark.parametrize("count", [2, 3])
def test_a_member_without_noise_is_fitted_as_by_one_process(count: int) -> None:
    """Also where the shares of a batch are of unequal size, and where the optimiser asks anew."""
    for name in ("plain", "linear"):
        torch.manual_seed(0)
        encoding = Encoding(FEATURES, ROWS.numpy())
        config = VARIANTS[name]().resolve(encoding)
        member = config.build(encoding)
        settings = FitConfig(
            epochs=3,
            batch_size=64 if name == "plain" else 0,
            optimizer=config.fit.optimizer,
            precision="float64",
            patience=0,
        )
        (alone,) = fit_by(1, member, settings)
        for found in fit_by(count, member, settings):
            for weights, expected in alone.items():
                torch.testing.assert_close(found[weights], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["associative", "quantized", "variational", "masked"])
def test_the_weights_are_equal_on_all_processes(name: str) -> None:
    torch.manual_seed(0)
    encoding = Encoding(FEATURES, ROWS.numpy())
    member = VARIANTS[name]().resolve(encoding).build(encoding)
    first, second = fit_by(2, member, FitConfig(epochs=2, batch_size=64, patience=5))
    assert all(torch.equal(first[weights], second[weights]) for weights in first)


class Counting(Member):
    """Its gradient is the mean of the first column."""

    def __init__(self) -> None:
        super().__init__(Encoding(FEATURES, ROWS.numpy()))
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def loss(self, encoded: Encoded, generator: torch.Generator) -> Tensor:
        return self.weight * encoded.values_NE[:, 0].mean()


def test_a_batch_of_fewer_rows_than_processes_is_fitted() -> None:
    config = FitConfig(epochs=1, batch_size=2, patience=0, weight_decay=0.0)  # the last has one row
    alone, *others = fit_by(1, Counting(), config) + fit_by(3, Counting(), config)
    for found in others:
        torch.testing.assert_close(found["weight"], alone["weight"], rtol=1e-5, atol=1e-7)


def test_two_processes_find_as_much_as_one() -> None:
    """The network's noise is another: AUROC within .02, and ranks alike."""
    rows = torch.from_numpy(tables.correlated(2000, width=8))
    held_out = torch.from_numpy(tables.correlated(300, width=8, seed=1))
    tested = torch.from_numpy(tables.correlated(600, width=8, seed=2))
    tested[300:, :3] = tested[300:, :3].flip(0)
    features = tuple(Feature(name=f"x{i}", kind="numeric") for i in range(8))
    torch.manual_seed(0)
    encoding = Encoding(features, rows.numpy())
    member = PRESETS["balanced"].build(encoding)

    def scores(ranks: Ranks) -> Tensor:
        own = deepcopy(member)
        own.encoding.sums = Sums(ranks)
        fit(own, rows, held_out, PRESETS["balanced"].fit, seed=0, ranks=ranks)
        with torch.no_grad():
            score_N = own.assess(own.encoding.encode(tested)).score_N
        assert score_N is not None
        return score_N

    one, (two, _) = scores(ALONE), together(2, scores)
    is_anomaly = np.arange(600) >= 300
    aurocs = [roc_auc_score(is_anomaly, score.numpy()) for score in (one, two)]
    assert aurocs[1] == pytest.approx(aurocs[0], abs=0.02)
    assert spearmanr(one, two).statistic > 0.98


def test_of_several_processes_only_those_that_torchrun_starts_know(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = dict.fromkeys(all_ranks.TOLD_BY_TORCHRUN, "0")
    assert not is_one_of_several({"WORLD_SIZE": "2"})
    assert not is_one_of_several({**told, "WORLD_SIZE": "1"})
    assert is_one_of_several({**told, "WORLD_SIZE": "2"})
    assert join(gpu=False) is ALONE
    for name, value in {**told, "WORLD_SIZE": "9", "LOCAL_RANK": "8"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    with pytest.raises(RunError, match="9 processes or more are on a machine of 8 GPUs"):
        join(gpu=True)


def torchrun(*words: object) -> "subprocess.CompletedProcess[str]":
    command = [Path(sys.executable).parent / "torchrun", "--standalone", "--nproc_per_node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [str(word) for word in (*command, *words)],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=ROOT,
        env=environment,
    )


@pytest.mark.slow
def test_torchrun_publishes_what_one_process_does(
    tmp_path: Path, command: Callable[..., object]
) -> None:
    folder = tmp_path / "rows"
    for number in range(2):
        tables.write(tables.correlated(600, seed=number), folder / f"{number}.parquet")
    run = tmp_path / "run.toml"
    run.write_text("max_rows = 700\nreport = false\nfitted_at = 0.0\n")
    fit_words = ["fit", folder, "--config", run, "--name", "pump", "--preset", "fast"]
    done = torchrun("-m", "hourglass.training", *fit_words, "--models", tmp_path / "two")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Published") == 1
    assert done.stderr.count("drawn at random") == 1
    command(*fit_words, "--models", tmp_path / "one")
    scores = []
    for models in ("one", "two"):
        version = (tmp_path / models / "pump/current").read_text().strip()
        data = (tmp_path / models / "pump" / version / "model.onnx").read_bytes()
        scores.append(Detector.from_bytes(data).score(tables.correlated(200, seed=9)).score)
    np.testing.assert_allclose(scores[1], scores[0], rtol=1e-5)


@pytest.mark.slow
def test_one_process_that_fails_ends_all_with_its_message(tmp_path: Path) -> None:
    """The other one is waiting for its share of a sum."""
    script = tmp_path / "fail.py"
    script.write_text(
        """
import sys
import torch
import hourglass.training.__main__ as program
import hourglass.training.run as run
from hourglass.training.errors import RunError

def fail(config, progress, ranks):
    if ranks.rank == 1:
        raise RunError("no more of it")
    ranks.total(torch.zeros(1))

run.run = fail
sys.exit(program.main(["fit", "rows.csv", "--name", "pump", "--device", "cpu"]))
"""
    )
    done = torchrun(script)
    assert done.returncode != 0
    assert done.stderr.count("hourglass-train: no more of it") == 1
    assert "Traceback" not in done.stderr.split("no more of it")[0]
