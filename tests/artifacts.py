"""A factory of tiny, valid artifacts, made in milliseconds with onnx.helper alone: no torch.

The model is a fixed linear projection of the standardised, one-hot encoded cells onto a few
directions and back. What it answers is meaningless; that it answers through the contract is the
point.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from hourglass.service.model import artifact
from hourglass.service.model.artifact import (
    CalibrationRecord,
    DriftReference,
    Feature,
    GuaranteeKind,
    Manifest,
    Model,
    Producer,
    RowCounts,
    SelfTest,
)
from hourglass.service.model.calibration import Table, build_table
from hourglass.service.model.detector import Detector
from hourglass.service.model.schema import Schema
from hourglass.service.model.served import Served
from hourglass.service.serving.store import MODEL_FILE

Float32 = NDArray[np.float32]

NUMERIC = tuple(
    Feature(name=name, kind="numeric", minimum=-3.0, maximum=3.0) for name in ("a", "b", "c", "d")
)
MIXED = (
    Feature(name="load", kind="numeric", unit="kW", minimum=-3.0, maximum=3.0),
    Feature(name="open", kind="boolean"),
    Feature(name="site", kind="categorical", categories=("north", "south", "west")),
    Feature(name="heat", kind="numeric", unit="°C", minimum=-3.0, maximum=3.0),
)


def make_artifact(
    features: Sequence[Feature] = NUMERIC,
    *,
    seed: int = 0,
    shift: float = 0.0,
    latent: int = 2,
    calibration_rows: int = 400,
    alpha: float = 0.05,
    delta: float = 0.05,
    certified: bool = True,
    guarantee: GuaranteeKind | None = None,  # by the rule
    reason: str | None = None,
    decodable: bool = True,
    min_observed_fraction: float = 0.5,
    self_test_scale: float = 1.0,
    conditional: bool = False,
    **changes: object,
) -> bytes:
    """An artifact's bytes. `shift` moves what is normal, so that two models differ in every score.

    `self_test_scale` spoils the self-test's scores, `conditional` adds the Gaussian of the rows;
    `changes` are of the manifest.
    """
    model = _model(features, seed=seed, shift=shift, latent=latent, decodable=decodable)
    if conditional:
        attach_conditional(model, features, shift=shift)
    rows_ND = sample_rows(features, calibration_rows, seed=seed + 1, shift=shift)
    _attach_table(model, build_table(_run(model, rows_ND)[artifact.SCORE]))
    test_ND = sample_rows(features, 5, seed=seed + 2, shift=shift)
    test_ND[0, 0] = np.nan
    answers = _run(model, test_ND)
    answers[artifact.SCORE] = answers[artifact.SCORE] * np.float32(self_test_scale)
    manifest = Manifest(
        format=artifact.format_of(None),
        model=Model(
            variant="handmade", hyper_parameters={"shift": shift}, seed=seed, parameter_count=0
        ),
        producer=Producer(
            hourglass="0", torch="0", onnx=onnx.__version__, onnxruntime=ort.__version__, threads=1
        ),
        rows=RowCounts(fit=1000, validation=100, calibration=calibration_rows),
        features=tuple(features),
        calibration=CalibrationRecord(
            method="split-conformal",
            guarantee=guarantee or ("certified" if certified else "marginal"),
            rule="certified" if certified else "marginal",
            reason=reason,
            n=calibration_rows,
            alpha=alpha,
            delta=delta,
        ),
        drift=drift_references(features, sample_rows(features, 1000, seed=seed + 3, shift=shift)),
        min_observed_fraction=min_observed_fraction,
        self_test=SelfTest(
            inputs=_plain(test_ND), **{name: _plain(answers[name]) for name in artifact.OUTPUTS}
        ),
    )
    return with_manifest(
        model, artifact.encode_manifest(msgspec.structs.replace(manifest, **changes))
    )


def make_windowed_artifact(
    features: Sequence[Feature] = NUMERIC,
    *,
    rows: int = 4,
    gap: float | None = None,
    seed: int = 0,
    calibration_rows: int = 400,
    entities: Mapping[str, tuple[float, float]] | None = None,
    **changes: object,
) -> bytes:
    """The same of a windowed model: how far each row is from the mean of the `rows` - 1 rows before
    it is scored as make_artifact's model scores rows. What was missing before counts as 0, and a
    category is looked at by itself. `entities` have baselines: a center and a scale of each number.
    """
    model = _model(features, seed=seed, shift=0.0, latent=2, decodable=True)
    _look_back(model.graph, features, rows)
    if entities:
        _attach_baselines(model.graph, features, entities)
    series_TD = sample_rows(features, calibration_rows + rows - 1, seed=seed + 1)
    _attach_table(model, build_table(_run(model, series_TD[None])[artifact.SCORE]))
    test_TD = sample_rows(features, 4 + rows, seed=seed + 2)
    test_TD[0, 0] = test_TD[-1, 1] = np.nan
    answers = _run(model, test_TD[None])
    single_row = make_artifact(features, calibration_rows=calibration_rows)
    (entry,) = onnx.load_model_from_string(single_row).metadata_props
    single = artifact.decode_manifest(entry.value)
    known = artifact.Window(
        rows=rows,
        representation="residual",
        expected_sd=tuple(1.0 if each.kind == "numeric" else None for each in features),
        gap=gap,
    )
    baseline = artifact.Baseline(entities=tuple(entities)) if entities else None
    manifest = msgspec.structs.replace(
        single,
        format=artifact.format_of(known, baseline),
        requires=(artifact.WINDOW, *([artifact.BASELINE] if baseline else [])),
        window=known,
        baseline=baseline,
        self_test=SelfTest(
            inputs=_plain(test_TD), **{name: _plain(answers[name]) for name in artifact.OUTPUTS}
        ),
    )
    return with_manifest(
        model, artifact.encode_manifest(msgspec.structs.replace(manifest, **changes))
    )


def make_served(features: Sequence[Feature], **options: Any) -> Served:
    """Such an artifact as the registry has it in service."""
    return _served(make_artifact(features, **options))


def make_windowed_served(features: Sequence[Feature] = NUMERIC, **options: Any) -> Served:
    """The same of a windowed one."""
    return _served(make_windowed_artifact(features, **options))


def _served(data: bytes) -> Served:
    detector = Detector.from_bytes(data)
    return Served("tiny", detector, Schema.of(detector.manifest), detector.threshold, 0.0)


def with_manifest(model: onnx.ModelProto, text: str) -> bytes:
    """The model's bytes, carrying this text as its manifest."""
    del model.metadata_props[:]
    helper.set_model_props(model, {artifact.METADATA_KEY: text})
    return model.SerializeToString(deterministic=True)


def publish(models: Path, name: str, data: bytes) -> str:
    """Put an artifact into a models folder as training does: the version first, then the pointer;
    returns the version.
    """
    version = artifact.version_of(data)
    folder = models / name / version
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MODEL_FILE).write_bytes(data)
    point(models, name, version)
    return version


def point(models: Path, name: str, version: str) -> None:
    """Move a model's pointer, atomically."""
    new = models / name / ".current.new"
    new.write_text(version + "\n")
    new.replace(models / name / "current")


def sample_rows(
    features: Sequence[Feature], n: int, *, seed: int = 0, shift: float = 0.0
) -> Float32:
    """Normal rows [n, D]: what the model was made for."""
    draw = np.random.default_rng(seed)
    columns = {
        "numeric": lambda _: draw.normal(shift, 1.0, n),
        "boolean": lambda _: draw.integers(0, 2, n),
        "categorical": lambda feature: draw.integers(0, len(feature.categories), n),
    }
    return np.stack([columns[feature.kind](feature) for feature in features], axis=1).astype(
        np.float32
    )


def drift_references(features: Sequence[Feature], rows_ND: Float32) -> tuple[DriftReference, ...]:
    """What a manifest says of fit rows [N, D]: deciles of numbers, counts of the rest."""
    found = []
    for feature, column in zip(features, rows_ND.T, strict=True):
        seen = column[~np.isnan(column)]
        edges = np.quantile(seen, np.arange(1, 10) / 10).astype(np.float32)
        counts = np.bincount(np.searchsorted(edges, seen, side="right"), minlength=10)
        if feature.kind != "numeric":
            edges = edges[:0]
            counts = np.bincount(seen.astype(int), minlength=len(feature.categories) or 2)
        found.append(
            DriftReference(
                edges=tuple(edges.tolist()),
                counts=tuple(counts.tolist()),
                missing=len(column) - len(seen),
            )
        )
    return tuple(found)


def as_json_rows(features: Sequence[Feature], rows_ND: Float32) -> list[list[object]]:
    """Rows as a client would send them."""

    def cell(value: np.float32, feature: Feature) -> object:
        if np.isnan(value):
            return None
        if feature.kind == "numeric":
            return float(value)
        return bool(value) if feature.kind == "boolean" else feature.categories[int(value)]

    return [
        [cell(value, feature) for value, feature in zip(row, features, strict=True)]
        for row in rows_ND
    ]


def _model(
    features: Sequence[Feature], *, seed: int, shift: float, latent: int, decodable: bool
) -> onnx.ModelProto:
    """score = mean over observed cells of the squared error of the projection; a wide row is its
    one-hot encoding.
    """
    draw = np.random.default_rng(seed)
    widths = [
        max(len(feature.categories), 1) if feature.kind == "categorical" else 1
        for feature in features
    ]
    wide, count = sum(widths), len(features)
    spread = np.zeros((count, wide), np.float32)  # feature -> its wide columns
    # the category of a wide column; NaN where it is a number
    code = np.full(wide, np.nan, np.float32)
    start = 0
    for index, (feature, width) in enumerate(zip(features, widths, strict=True)):
        spread[index, start : start + width] = 1.0
        if feature.kind == "categorical":
            code[start : start + width] = np.arange(width)
        start += width
    is_code = ~np.isnan(code)
    weights = np.linalg.qr(draw.normal(size=(wide, latent)))[0].astype(np.float32)
    arrays = {
        "spread": spread,
        "gather": spread.T.copy(),
        "code": np.nan_to_num(code),
        "is_code": is_code,
        "mean": np.where(is_code, 0.0, shift).astype(np.float32),
        "encoder": weights,
        "decoder": weights.T.copy(),
        "zero": np.float32(0),
        "one": np.float32(1),
        "axis": np.array([1], np.int64),
    }
    node = helper.make_node
    nodes = [
        node("IsNaN", [artifact.INPUT], ["missing"]),
        node("Where", ["missing", "zero", artifact.INPUT], ["known"]),
        node("Where", ["missing", "zero", "one"], ["observed"]),
        node("MatMul", ["known", "spread"], ["wide_value"]),
        node("MatMul", ["observed", "spread"], ["wide_observed"]),
        node("Equal", ["wide_value", "code"], ["is_this"]),
        node("Cast", ["is_this"], ["one_hot"], to=TensorProto.FLOAT),
        node("Sub", ["wide_value", "mean"], ["centred"]),
        node("Where", ["is_code", "one_hot", "centred"], ["encoded"]),
        node("Mul", ["encoded", "wide_observed"], ["clean"]),
        node("MatMul", ["clean", "encoder"], [artifact.LATENT]),
        node("MatMul", [artifact.LATENT, "decoder"], ["projected"]),
        node("Sub", ["clean", "projected"], ["residual"]),
        node("Mul", ["residual", "residual"], ["squared"]),
        node("Mul", ["squared", "wide_observed"], ["counted"]),
        node("MatMul", ["counted", "gather"], ["errors"]),
        node("ReduceSum", ["observed", "axis"], ["observed_count"], keepdims=1),
        node("Div", ["errors", "observed_count"], [artifact.CONTRIBUTIONS]),
        node("ReduceSum", [artifact.CONTRIBUTIONS, "axis"], [artifact.SCORE], keepdims=0),
        node("Add", ["projected", "mean"], ["expected_wide"]),
        *_readout(features, widths, arrays),
    ]
    # a residual connection: the reconstruction then depends on the row by another way than the code
    if not decodable:
        arrays["little"] = np.float32(1e-3)
        nodes[-1].output[0] = "read"
        nodes += [
            node("Mul", ["known", "little"], ["leak"]),
            node("Add", ["read", "leak"], [artifact.RECONSTRUCTION]),
        ]
    shapes = {
        artifact.SCORE: ["batch"],
        artifact.CONTRIBUTIONS: ["batch", count],
        artifact.RECONSTRUCTION: ["batch", count],
        artifact.LATENT: ["batch", latent],
    }
    graph = helper.make_graph(
        nodes,
        "handmade",
        [helper.make_tensor_value_info(artifact.INPUT, TensorProto.FLOAT, ["batch", count])],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name, shape in shapes.items()
        ],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def _look_back(graph: onnx.GraphProto, features: Sequence[Feature], window: int) -> None:
    """Have a graph of rows take series, and look at their differences from the rows before."""
    node, before, width = helper.make_node, window - 1, len(features)
    arrays = {
        "time_axis": np.array([1], np.int64),
        "first": np.array([before], np.int64),
        "end": np.array([np.iinfo(np.int64).max], np.int64),
        "count": np.float32(before),
        "flat": np.array([-1, width], np.int64),
        "is_category": np.array([feature.kind == "categorical" for feature in features]),
    }
    nodes = [
        node("IsNaN", [artifact.INPUT], ["series_missing"]),
        node("Where", ["series_missing", "zero", artifact.INPUT], ["series"]),
    ]
    for k in range(before):
        arrays[f"begin_{k}"] = np.array([k], np.int64)
        arrays[f"until_{k}"] = np.array([k - before], np.int64)
        nodes.append(
            node("Slice", ["series", f"begin_{k}", f"until_{k}", "time_axis"], [f"before_{k}"])
        )
    nodes += [
        node("Sum", [f"before_{k}" for k in range(before)], ["sum"]),
        node("Div", ["sum", "count"], ["sum_over_count"]),
        node("Where", ["is_category", "zero", "sum_over_count"], ["mean_before"]),
        node("Slice", [artifact.INPUT, "first", "end", "time_axis"], ["judged"]),
        node("Sub", ["judged", "mean_before"], ["apart"]),
        node("Reshape", ["apart", "flat"], [artifact.DERIVED]),
    ]
    for each in graph.node:
        each.input[:] = [
            artifact.DERIVED if name == artifact.INPUT else name for name in each.input
        ]
        each.output[:] = [
            "of_derived" if name == artifact.RECONSTRUCTION else name for name in each.output
        ]
    rest = [*graph.node, node("Reshape", ["mean_before", "flat"], [artifact.RECONSTRUCTION])]
    del graph.node[:]
    graph.node.extend([*nodes, *rest])
    graph.initializer.extend(numpy_helper.from_array(np.asarray(v), k) for k, v in arrays.items())
    made = helper.make_tensor_value_info
    graph.input[0].CopyFrom(made(artifact.INPUT, TensorProto.FLOAT, ["batch", "time", width]))
    graph.value_info.append(made(artifact.DERIVED, TensorProto.FLOAT, ["windows", width]))
    for output in graph.output:
        output.type.tensor_type.shape.dim[0].dim_param = "windows"


def _attach_baselines(
    graph: onnx.GraphProto, features: Sequence[Feature], entities: Mapping[str, tuple[float, float]]
) -> None:
    """Have a graph of series take the entities' codes, and look at their rows in the fleet's units,
    of which the level is 0.
    """
    is_number = np.array([feature.kind == "numeric" for feature in features])
    lines = [*entities.values(), (0.0, 1.0)]
    arrays = {
        artifact.BASELINE_CENTER: np.array([is_number * line[0] for line in lines], np.float32),
        artifact.BASELINE_SCALE: np.array(
            [is_number * (line[1] - 1) + 1 for line in lines], np.float32
        ),
        "first_entity": np.array(0, np.int64),
        "entities": np.array(len(entities), np.int64),
    }
    node = helper.make_node
    nodes = [
        node("GreaterOrEqual", [artifact.ENTITY, "first_entity"], ["from_first"]),
        node("Less", [artifact.ENTITY, "entities"], ["to_last"]),
        node("And", ["from_first", "to_last"], ["is_known"]),
        node("Where", ["is_known", artifact.ENTITY, "entities"], ["entity_line"]),
        node("Gather", [artifact.BASELINE_CENTER, "entity_line"], ["flat_center"]),
        node("Gather", [artifact.BASELINE_SCALE, "entity_line"], ["flat_scale"]),
        node("Unsqueeze", ["flat_center", "time_axis"], ["center"]),
        node("Unsqueeze", ["flat_scale", "time_axis"], ["scale"]),
        node("Sub", [artifact.INPUT, "center"], ["off_center"]),
        node("Div", ["off_center", "scale"], ["of_fleet"]),
    ]
    last = graph.node[-1]
    for each in graph.node:
        each.input[:] = ["of_fleet" if name == artifact.INPUT else name for name in each.input]
    last.input[0] = "own_before"
    rest = [
        *graph.node[:-1],
        node("Mul", ["mean_before", "scale"], ["scaled_before"]),
        node("Add", ["scaled_before", "center"], ["own_before"]),
        last,
    ]
    rest = [onnx.NodeProto.FromString(each.SerializeToString()) for each in rest]
    del graph.node[:]
    graph.node.extend([*nodes, *rest])
    graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in arrays.items())
    graph.input.append(helper.make_tensor_value_info(artifact.ENTITY, TensorProto.INT64, ["batch"]))


def attach_conditional(
    model: onnx.ModelProto, features: Sequence[Feature], *, shift: float = 0.0
) -> None:
    """The Gaussian of `sample_rows`: all columns independent, but for the first two, whose
    correlation is made up.
    """
    mean, scale = [], []
    for feature in features:
        count = len(feature.categories)
        one = {"numeric": (shift, 1.0), "boolean": (0.5, 0.5)}.get(feature.kind)
        mean += [one[0]] if one else [1 / count] * count
        scale += [one[1]] if one else [np.sqrt(1 / count * (1 - 1 / count))] * count
    correlation = np.eye(len(mean))
    correlation[0, 1] = correlation[1, 0] = 0.6
    values = (mean, scale, np.linalg.inv(correlation))
    for name, value in zip(artifact.CONDITIONAL, values, strict=True):
        model.graph.initializer.append(
            numpy_helper.from_array(np.asarray(value, dtype=np.float32), name)
        )


def _readout(
    features: Sequence[Feature], widths: list[int], arrays: dict[str, NDArray[np.generic]]
) -> list[onnx.NodeProto]:
    """The expected value of each feature from the wide columns: of a category the most likely
    code.
    """
    nodes, columns, start = [], [], 0
    for index, (feature, width) in enumerate(zip(features, widths, strict=True)):
        arrays[f"from_{index}"] = np.array([start], np.int64)
        arrays[f"to_{index}"] = np.array([start + width], np.int64)
        column = f"column_{index}"
        columns.append(column)
        part = f"part_{index}"
        nodes.append(
            helper.make_node(
                "Slice", ["expected_wide", f"from_{index}", f"to_{index}", "axis"], [part]
            )
        )
        if feature.kind == "categorical":
            nodes.append(helper.make_node("ArgMax", [part], [f"most_{index}"], axis=1, keepdims=1))
            nodes.append(
                helper.make_node("Cast", [f"most_{index}"], [column], to=TensorProto.FLOAT)
            )
        elif feature.kind == "boolean":
            nodes.append(helper.make_node("Sigmoid", [part], [column]))
        else:
            nodes.append(helper.make_node("Identity", [part], [column]))
        start += width
    return [*nodes, helper.make_node("Concat", columns, [artifact.RECONSTRUCTION], axis=1)]


def _attach_table(model: onnx.ModelProto, table: Table) -> None:
    """p_value and severity as one-level look-ups: count the ends below, take that interval's
    p-value, or the place on its line; NaN stays NaN.
    """
    graph, node = model.graph, helper.make_node
    graph.initializer.append(numpy_helper.from_array(np.array(np.nan, np.float32), "nan"))
    graph.initializer.append(numpy_helper.from_array(table.scores, artifact.TABLE_SCORES))
    graph.initializer.append(numpy_helper.from_array(table.p_values, artifact.TABLE_P_VALUES))
    graph.node.extend(
        [
            node("Unsqueeze", [artifact.SCORE, "axis"], ["score_column"]),
            node("Less", [artifact.TABLE_SCORES, "score_column"], ["below"]),
            node("Cast", ["below"], ["below_one"], to=TensorProto.INT64),
            node("ReduceSum", ["below_one", "axis"], ["interval"], keepdims=0),
            node("Gather", [artifact.TABLE_P_VALUES, "interval"], ["p_found"]),
            node("IsNaN", [artifact.SCORE], ["no_score"]),
            node("Where", ["no_score", "nan", "p_found"], [artifact.P_VALUE]),
        ]
    )
    graph.output.insert(
        1, helper.make_tensor_value_info(artifact.P_VALUE, TensorProto.FLOAT, ["batch"])
    )
    if table.severity is None:
        return
    for name, array in (
        (artifact.SEVERITY_ENDS, table.severity.ends),
        (artifact.SEVERITY_LINES, table.severity.lines),
        ("lowest", np.float32(table.severity.lines[0, 0])),
        ("highest", np.finfo(np.float32).max),
        ("part_sizes", np.ones(4, np.int64)),
    ):
        graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    graph.node.extend(
        [
            node("Clip", ["score_column", "lowest", "highest"], ["clipped"]),
            node("Less", [artifact.SEVERITY_ENDS, "clipped"], ["more_below"]),
            node("Cast", ["more_below"], ["more_below_one"], to=TensorProto.INT64),
            node("ReduceSum", ["more_below_one", "axis"], ["more"], keepdims=0),
            node("Add", ["interval", "more"], ["step"]),
            node("Gather", [artifact.SEVERITY_LINES, "step"], ["line"]),
            node(
                "Split",
                ["line", "part_sizes"],
                ["line_start", "line_width", "line_base", "line_rise"],
                axis=1,
            ),
            node("Sub", ["clipped", "line_start"], ["within"]),
            node("Div", ["within", "line_width"], ["share"]),
            node("Mul", ["line_rise", "share"], ["risen"]),
            node("Add", ["line_base", "risen"], ["on_line"]),
            node("Squeeze", ["on_line", "axis"], ["severity_found"]),
            node("Where", ["no_score", "nan", "severity_found"], [artifact.SEVERITY]),
        ]
    )
    graph.output.insert(
        2, helper.make_tensor_value_info(artifact.SEVERITY, TensorProto.FLOAT, ["batch"])
    )


def _run(model: onnx.ModelProto, rows_ND: Float32) -> dict[str, Float32]:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    feed: dict[str, NDArray[Any]] = {artifact.INPUT: rows_ND}
    if any(each.name == artifact.ENTITY for each in session.get_inputs()):
        feed[artifact.ENTITY] = np.full(len(rows_ND), artifact.NOBODY)
    return dict(zip(names, session.run(names, feed), strict=True))


def _plain(array: Float32) -> tuple[object, ...]:
    """Nested tuples with None for NaN."""
    if array.ndim == 1:
        return tuple(None if np.isnan(value) else float(value) for value in array)
    return tuple(_plain(row) for row in array)
