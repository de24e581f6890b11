"""From a fitted core to a tidy ONNX graph, and from that and a manifest to the bytes of a file."""

import logging
import warnings
from typing import Any

import msgspec
import numpy as np
import onnx
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from onnx import checker, numpy_helper
from torch import Tensor, nn

from hourglass.service.model import artifact
from hourglass.service.model.artifact import (
    BASELINE_CENTER,
    BASELINE_SCALE,
    CONDITIONAL,
    CONTRIBUTIONS,
    DERIVED,
    ENTITY,
    INPUT,
    LATENT,
    LATENT_DEVIATION,
    NOBODY,
    OUTPUTS,
    RECONSTRUCTION,
    SCORE,
    Feature,
    Manifest,
    SelfTest,
)
from hourglass.training.baselines import Baselines, from_fleet
from hourglass.training.core import Core
from hourglass.training.folds import Folds
from hourglass.training.rounding import round_alike_everywhere
from hourglass.training.windows import Windowed, stretches

OPSET = 20
NAMED = (*CONDITIONAL, BASELINE_CENTER, BASELINE_SCALE)  # constants that the contract names
SELF_TEST_ROWS = 4

Float32 = NDArray[np.float32]


def export_core(core: Core | Folds | Windowed) -> onnx.ModelProto:
    """The core as a tidy ONNX graph: the same weights give the same bytes in any process."""
    batch = torch.export.Dim("batch")
    # two rows that reach every branch: one with values, one with missing cells
    if isinstance(core, Windowed):
        example = torch.zeros(2, core.rows + 1, len(core.features))
        dynamic = {INPUT: {0: batch, 1: torch.export.Dim("time", min=core.rows)}}
    else:
        example = torch.zeros(2, len(core.encoding.features))
        dynamic = {INPUT: {0: batch}}
    example[1, ..., ::2] = torch.nan
    examples: tuple[Tensor, ...] = (example,)
    if isinstance(core, Windowed) and core.baselines is not None:
        examples, dynamic = (example, torch.tensor([0, NOBODY])), {**dynamic, ENTITY: {0: batch}}
    names = [SCORE, CONTRIBUTIONS, RECONSTRUCTION, LATENT]
    with torch.no_grad():
        if core.eval()(*examples).deviation_NK is not None:
            names.append(LATENT_DEVIATION)
    exported: nn.Module = core
    if isinstance(core, Windowed):
        exported, names = _WithDerived(core).eval(), [*names, DERIVED]
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        # the exporter warns of its own insides (a missing torchvision, its pytree classes), which
        # nobody here can act on
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings("ignore", category=FutureWarning)
        warnings.filterwarnings("ignore", category=UserWarning, module=r"torch\..*|onnxscript\..*")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            program = torch.onnx.export(
                exported,
                examples,
                None,
                input_names=[*dynamic],
                output_names=names,
                dynamo=True,
                dynamic_shapes=dynamic,
                opset_version=OPSET,
                verbose=False,
            )
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
    assert program is not None
    model: onnx.ModelProto = program.model_proto
    _name_constants(model.graph, core)
    round_alike_everywhere(model)
    _tidy(model)
    if isinstance(core, Windowed):
        for output in model.graph.output:  # instead of a formula of the input's sizes
            output.type.tensor_type.shape.dim[0].dim_param = "windows"
        model.graph.value_info.append(model.graph.output.pop())
    return model


class _WithDerived(nn.Module):
    """What a windowed core answers, and the derived columns, at which the graph can be cut."""

    def __init__(self, core: Windowed) -> None:
        super().__init__()
        self.core = core

    def forward(self, features: Tensor, entity: Tensor | None = None) -> tuple[Tensor, ...]:
        output, derived_ND = self.core.answer(features, entity)
        return (*output[:4], derived_ND)


def run_graph(
    model: onnx.ModelProto, outputs: list[str], rows_ND: Float32, *, batch: int = 1024
) -> list[Float32]:
    """The named outputs of [N, D] rows, as onnxruntime computes them; single-threaded, so that
    digits repeat.
    """
    session = _session(model)
    parts = [
        session.run(outputs, {INPUT: rows_ND[i : i + batch]}) for i in range(0, len(rows_ND), batch)
    ]
    return [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]


def run_windows(
    model: onnx.ModelProto,
    outputs: list[str],
    rows_NF: Float32,
    segment_N: NDArray[np.integer],
    window: int,
    code_N: NDArray[np.integer] | None = None,
) -> tuple[list[Float32], NDArray[np.integer]]:
    """The same of a windowed graph: the named outputs of all windows of rows [N, F], which are in
    order within segments, and which row [M] each answers for. A graph with baselines takes the
    codes of the rows' entities. ValueError where there is no window.
    """
    session = _session(model)
    slices = list(stretches(segment_N, window))
    if not slices:
        raise ValueError(f"no segment has the {window} rows of a window")
    parts = []
    for part in slices:
        feed: dict[str, Any] = {INPUT: rows_NF[np.newaxis, part]}
        if code_N is not None:
            feed[ENTITY] = code_N[part.start : part.start + 1]
        parts.append(session.run(outputs, feed))
    row_M = np.concatenate([np.arange(part.start + window - 1, part.stop) for part in slices])
    return [np.concatenate(arrays) for arrays in zip(*parts, strict=True)], row_M


def make_self_test(
    model: onnx.ModelProto,
    features: tuple[Feature, ...],
    seed: int,
    window: int = 1,
    baselines: Baselines | None = None,
    entity: str | None = None,
) -> SelfTest:
    """Rows made up from the features' ranges, never training rows, and the graph's answers; the
    last row has missing cells. Of a windowed model they are one series, with baselines one of
    `entity`, the first.
    """
    rng, rows = np.random.default_rng(seed), window - 1 + SELF_TEST_ROWS
    rows_ND = np.stack([_made_up(feature, rows, rng) for feature in features], axis=1)
    series_N = np.zeros(rows, dtype=np.int64)  # the segment of each row, and its entity's code
    if baselines is not None:
        rows_ND = from_fleet(baselines, rows_ND, series_N)
    rows_ND[-1, 1::3] = np.nan
    names = list(OUTPUTS)
    values = (
        run_graph(model, names, rows_ND)
        if window == 1
        else run_windows(
            model, names, rows_ND, series_N, window, None if baselines is None else series_N
        )[0]
    )
    answers = dict(zip(names, values, strict=True))
    return SelfTest(
        inputs=_plain(rows_ND),
        **{name: _plain(values) for name, values in answers.items()},
        entity=entity,
    )


def to_bytes(model: onnx.ModelProto, manifest: Manifest) -> bytes:
    """The artifact: the graph with its manifest, checked by onnx, serialised deterministically."""
    del model.metadata_props[:]
    model.metadata_props.add(key=artifact.METADATA_KEY, value=artifact.encode_manifest(manifest))
    model.producer_name, model.producer_version = "hourglass", manifest.producer.hourglass
    checker.check_model(model, full_check=True)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def _tidy(model: onnx.ModelProto) -> None:
    """Drop what differs between processes or nobody reads: doc strings, node metadata, inner
    shapes, torch's own functions.
    """
    graph = model.graph
    del model.functions[:]
    del graph.value_info[:]
    del graph.metadata_props[:]
    model.doc_string = graph.doc_string = ""
    graph.name = "hourglass"
    for i, node in enumerate(graph.node):
        node.name = f"{node.op_type}_{i}"
        node.doc_string = ""
        del node.metadata_props[:]
    for value in (*graph.input, *graph.output, *graph.initializer):
        value.doc_string = ""
        del value.metadata_props[:]
    _keep_once(graph)


def _name_constants(graph: onnx.GraphProto, core: Core | Folds | Windowed) -> None:
    """Constants of the contract by its names, also those that torch found equal to another, and
    left out for that.
    """
    found, values = {tensor.name for tensor in graph.initializer}, core.state_dict()
    for name in CONDITIONAL:
        if name in values and name not in found:
            graph.initializer.append(numpy_helper.from_array(values[name].numpy(), name))
    if isinstance(core, Windowed) and core.baselines is not None:
        for name, table in (
            (BASELINE_CENTER, core.baselines.center),
            (BASELINE_SCALE, core.baselines.scale),
        ):
            graph.initializer.append(numpy_helper.from_array(table.numpy(), name))


def _keep_once(graph: onnx.GraphProto) -> None:
    """Constants by name, and one for all that are alike, of which torch makes one for each use."""
    constants: list[onnx.TensorProto] = []
    kept: dict[bytes, str] = {}
    same: dict[str, str] = {}
    # those that the contract names keep their names
    for tensor in sorted(
        graph.initializer, key=lambda tensor: (tensor.name not in NAMED, tensor.name)
    ):
        value = onnx.TensorProto()
        value.CopyFrom(tensor)
        value.ClearField("name")
        same[tensor.name] = kept.setdefault(
            value.SerializeToString(deterministic=True), tensor.name
        )
        if tensor.name in NAMED or same[tensor.name] == tensor.name:
            constants.append(tensor)
    constants.sort(key=lambda tensor: tensor.name)
    del graph.initializer[:]
    graph.initializer.extend(constants)
    for node in graph.node:
        node.input[:] = [same.get(name, name) for name in node.input]


def _made_up(feature: Feature, rows: int, rng: np.random.Generator) -> Float32:
    if feature.kind == "categorical":
        return rng.integers(0, len(feature.categories), rows).astype(np.float32)
    if feature.kind == "boolean":
        return rng.integers(0, 2, rows).astype(np.float32)
    low, high = feature.minimum or 0.0, feature.maximum or 0.0
    return (low + (high - low) * rng.uniform(0.2, 0.8, rows)).astype(np.float32)


def _session(model: onnx.ModelProto) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def _plain(values: Float32) -> Any:
    """Nested tuples; NaN becomes None.

    Python's floats of float32 print long: nine digits say the same number.
    """

    def plain(value: Any) -> Any:
        if isinstance(value, list):
            return tuple(plain(item) for item in value)
        return None if value != value else float(f"{value:.9g}")

    return msgspec.convert(plain(values.tolist()), Any)
