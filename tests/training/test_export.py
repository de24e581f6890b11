import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from hourglass.service.model import artifact
from hourglass.service.model.artifact import Feature
from hourglass.service.serving.store import MODEL_FILE
from hourglass.training.core import Core
from hourglass.training.data import prepare
from hourglass.training.export import export_core, make_self_test, run_graph
from hourglass.training.features import Encoding
from hourglass.training.models.denoising import DenoisingConfig
from tests.training import tables
from tests.training.conftest import Published

NAMES = [artifact.SCORE, artifact.CONTRIBUTIONS, artifact.RECONSTRUCTION, artifact.LATENT]
DATA = prepare(tables.mixed(200), label="fault")


@pytest.fixture(scope="module")
def core() -> Core:
    """Unfitted and weighed: the exported graph has to say whatever the network says."""
    torch.manual_seed(0)
    encoding = Encoding(DATA.features, DATA.normal_ND)
    core = Core(DenoisingConfig(hidden=(8,), latent=3).resolve(encoding).build(encoding)).eval()
    core.weigh(torch.from_numpy(DATA.normal_ND))
    return core


@pytest.fixture(scope="module")
def graph(core: Core) -> onnx.ModelProto:
    return export_core(core)


def odd_rows() -> tables.Float32:
    """The anomalies, rows with holes, unseen categories, extremes, and one with nothing."""
    rows_ND = np.concatenate([DATA.anomalies_AD, DATA.normal_ND[:60]])
    rows_ND[20:40, ::2] = np.nan
    rows_ND[40:50, 4] = artifact.UNSEEN
    rows_ND[50, 0], rows_ND[51, 1], rows_ND[52, 2], rows_ND[53, 0] = 1e38, -1e38, np.inf, -np.inf
    rows_ND[54] = np.nan
    return rows_ND


@torch.no_grad()
@pytest.mark.parametrize("batch", [1, 7, 1024])
def test_torch_and_onnxruntime_agree_on_any_row(
    core: Core, graph: onnx.ModelProto, batch: int
) -> None:
    rows_ND = odd_rows()
    # near zero what counts is a small part of what is usual: one for scores, a feature's own
    # deviation for its expected value
    usual = {name: np.float32(1) for name in NAMES} | {
        artifact.RECONSTRUCTION: core.member.encoding.scale_D.numpy()
    }
    answers = zip(
        NAMES,
        core(torch.from_numpy(rows_ND))[: len(NAMES)],
        run_graph(graph, NAMES, rows_ND, batch=batch),
        strict=True,
    )
    for name, ours, theirs in answers:
        assert (np.abs(ours.numpy() - theirs) <= 1e-4 * np.abs(theirs) + 1e-5 * usual[name])[
            ~np.isnan(theirs)
        ].all(), name
        assert np.array_equal(np.isnan(ours.numpy()), np.isnan(theirs))


def test_the_graph_names_its_tensors_as_the_contract_does(graph: onnx.ModelProto) -> None:
    assert [value.name for value in graph.graph.input] == [artifact.INPUT]
    assert [value.name for value in graph.graph.output] == NAMES
    shapes = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in graph.graph.output
    }
    batch = graph.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    assert batch
    assert shapes == {
        artifact.SCORE: [batch],
        artifact.CONTRIBUTIONS: [batch, 7],
        artifact.RECONSTRUCTION: [batch, 7],
        artifact.LATENT: [batch, 3],
    }


def test_a_published_file_holds_no_path_and_nothing_of_the_exporter_s(published: Published) -> None:
    model = onnx.load_model_from_string(published.data)
    assert not model.functions
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)
    assert not model.graph.value_info
    assert not model.graph.metadata_props
    assert [entry.key for entry in model.metadata_props] == [artifact.METADATA_KEY]
    assert (model.producer_name, model.graph.name) == ("hourglass", "hourglass")
    for trace in (
        b"site-packages",
        b".py",
        b"/home",
        b"/tmp",
        b"/work",
        Path.cwd().name.encode() + b"/",
        published.config.data.encode(),
    ):
        assert trace not in published.data


@pytest.mark.slow
def test_another_process_writes_the_same_bytes_from_the_run_that_was_kept(
    published: Published, tmp_path: Path
) -> None:
    flags = ["--config", str(published.folder / "run.toml"), "--models", str(tmp_path), "--quiet"]
    done = subprocess.run(
        [sys.executable, "-m", "hourglass.training", "fit", *flags], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "")
    (warning,) = done.stderr.splitlines()
    assert "column 'broken' is empty in all rows" in warning
    written = (tmp_path / "mixed" / published.report.version / MODEL_FILE).read_bytes()
    assert written == published.data


def test_the_self_test_is_made_up_and_has_missing_cells(published: Published) -> None:
    test = published.detector.manifest.self_test
    assert None in test.inputs[-1]
    rows = {
        tuple(None if cell != cell else cell for cell in row) for row in DATA.normal_ND.tolist()
    }
    assert not rows & set(test.inputs)
    assert all(score is not None for score in test.score)


def test_a_self_test_of_a_feature_that_was_always_missing_is_made_up_too(
    graph: onnx.ModelProto,
) -> None:
    features = tuple(
        Feature(name=feature.name, kind=feature.kind, categories=feature.categories)
        for feature in DATA.features
    )
    from hourglass.service.model.calibration import build_table
    from hourglass.training.calibrate import attach_table

    whole = onnx.ModelProto.FromString(graph.SerializeToString())
    attach_table(whole, build_table(np.ones(30, dtype=np.float32)))
    test = make_self_test(whole, features, seed=0)
    assert len(test.inputs[0]) == 7
    assert make_self_test(whole, features, seed=0) == test
    assert make_self_test(whole, features, seed=1) != test
