"""What a model file must be before onnxruntime is allowed to see it.

A model is a program from elsewhere. Read as bytes it cannot point at other files; the checks here
keep it from calling custom operators, nesting graphs, or making a session take gigabytes through
constants it computes while loading.
"""

import math
from collections import Counter

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import ModelProto, TensorProto, numpy_helper

from hourglass.service.errors import InvalidArtifact
from hourglass.service.model import artifact
from hourglass.service.model.shapes import SERIES_RANK, shapes_of

MAX_TENSOR_ELEMENTS = 1 << 26  # of any one constant, stored or computed while loading
MAX_ELEMENTS = 1 << 27  # of all of them together
MIN_OPSET, MAX_OPSET = 13, 23

# Pure functions of their inputs, whose output is no larger than their inputs' product; nothing with
# subgraphs, state or randomness.
OPERATORS = frozenset(
    "Abs Add And ArgMax ArgMin Cast Ceil Celu Clip Concat Constant ConstantOfShape Cos CumSum Div"
    " Einsum Elu Equal Erf Exp Expand Flatten Floor Gather GatherElements GatherND Gelu Gemm"
    " Greater GreaterOrEqual HardSigmoid HardSwish Identity IsInf IsNaN LayerNormalization"
    " LeakyRelu Less LessOrEqual Log LogSoftmax MatMul Max Mean Min Mish Mod Mul Neg Not OneHot Or"
    " PRelu Pad Pow RMSNormalization Range Reciprocal ReduceL1 ReduceL2 ReduceLogSumExp ReduceMax"
    " ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Round Selu Shape"
    " Sigmoid Sign Sin Slice Softmax Softplus Softsign Split Sqrt Squeeze Sub Sum Swish Tanh"
    " ThresholdedRelu Tile TopK Transpose Trilu Unsqueeze Where Xor".split()
)


def parse_model(data: bytes, *, max_bytes: int) -> ModelProto:
    """Bytes -> a model that is safe to make a session of; InvalidArtifact with the reason
    otherwise.
    """
    if len(data) > max_bytes:
        raise InvalidArtifact(
            f"the model file has {len(data)} bytes, at most {max_bytes} are loaded"
        )
    try:
        model = onnx.load_model_from_string(data)
    except DecodeError as error:
        raise InvalidArtifact("the model file is not ONNX, or is cut short") from error
    if not model.graph.node:
        raise InvalidArtifact("the model file is not ONNX: it holds no graph")
    _check_structure(model)
    for tensor in model.graph.initializer:
        _check_tensor(tensor)
    for node in model.graph.node:
        _check_node(node)
    _check_interface(model)
    _check_computed_sizes(model, window_of(model))
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise InvalidArtifact(
            f"the model file is not valid ONNX: {str(error).splitlines()[0]}"
        ) from error
    return model


def read_manifest(model: ModelProto) -> artifact.Manifest:
    """The manifest a checked model carries, itself checked against the graph's widths."""
    manifest = _manifest_of(model)
    width = model.graph.input[0].type.tensor_type.shape.dim[-1].dim_value
    if width != len(manifest.features):
        raise InvalidArtifact(
            f"the manifest names {len(manifest.features)} features, the graph takes {width}"
        )
    if manifest.window is not None and not _is_of_series(model):
        raise InvalidArtifact("the manifest gives windows of rows, and the graph takes single ones")
    if manifest.baseline is not None:
        _check_baseline(model, manifest, manifest.baseline)
    if manifest.rows.calibration != manifest.calibration.n:
        raise InvalidArtifact("the manifest gives two different numbers of calibration rows")
    _check_names(manifest)
    if manifest.sampling:
        _check_sampling(manifest)
    if manifest.reference:
        _check_reference(manifest)
    return manifest


def window_of(model: ModelProto) -> int:
    """W, the rows that an answer looks at: 1 of a model of single rows; InvalidArtifact where the
    manifest of a graph of series does not fit it.
    """
    if not _is_of_series(model):
        return 1
    manifest = _manifest_of(model)
    if (window := manifest.window) is None or artifact.WINDOW not in manifest.requires:
        raise InvalidArtifact(
            f"the graph takes series, and the manifest does not require {artifact.WINDOW!r} and"
            " say of which rows it is"
        )
    if len(window.expected_sd) != len(manifest.features):
        raise InvalidArtifact(
            f"the manifest gives {len(window.expected_sd)} deviations from what is expected, and"
            f" names {len(manifest.features)} features"
        )
    if not any(artifact.DERIVED in node.output for node in model.graph.node):
        raise InvalidArtifact(f"the model file lacks the inner tensor {artifact.DERIVED!r}")
    return window.rows


def _is_of_series(model: ModelProto) -> bool:
    return len(model.graph.input[0].type.tensor_type.shape.dim) == SERIES_RANK


def _manifest_of(model: ModelProto) -> artifact.Manifest:
    found = [entry.value for entry in model.metadata_props if entry.key == artifact.METADATA_KEY]
    if len(found) != 1:
        raise InvalidArtifact(
            "the model file carries no Hourglass manifest: it was not written by hourglass-train"
        )
    return artifact.decode_manifest(found[0])


def _check_names(manifest: artifact.Manifest) -> None:
    names = [feature.name for feature in manifest.features]
    if "" in names:
        raise InvalidArtifact(f"the manifest gives feature {names.index('')} no name")
    if twice := next((name for name, count in Counter(names).items() if count > 1), None):
        raise InvalidArtifact(f"the manifest names two features {twice!r}")
    for feature in manifest.features:
        counts = Counter(feature.categories)
        if twice := next((name for name, count in counts.items() if count > 1), None):
            raise InvalidArtifact(
                f"the manifest names two categories of {feature.name!r} {twice!r}"
            )


def _check_baseline(
    model: ModelProto, manifest: artifact.Manifest, baseline: artifact.Baseline
) -> None:
    if manifest.window is None or artifact.BASELINE not in manifest.requires:
        raise InvalidArtifact(
            f"the manifest gives entities a baseline, and does not require {artifact.BASELINE!r}"
            f" and {artifact.WINDOW!r}"
        )
    counts = Counter(baseline.entities)
    if twice := next((name for name, count in counts.items() if count > 1), None):
        raise InvalidArtifact(f"the manifest names two entities {twice!r}")
    shape = [len(baseline.entities) + 1, len(manifest.features)]
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for name in (artifact.BASELINE_CENTER, artifact.BASELINE_SCALE):
        found = list(tensors[name].dims) if name in tensors else "none"
        if found != shape:
            raise InvalidArtifact(f"expected the constant {name!r} of shape {shape}, got {found}")
    scale_EF = numpy_helper.to_array(tensors[artifact.BASELINE_SCALE])
    if scale_EF.dtype != np.float32 or not (np.isfinite(scale_EF) & (scale_EF > 0)).all():
        raise InvalidArtifact(f"{artifact.BASELINE_SCALE!r} is not of float32 numbers above 0")


def _check_sampling(manifest: artifact.Manifest) -> None:
    sampling, width = (
        manifest.sampling,
        len(manifest.self_test.latent[0]) if manifest.self_test.latent else 0,
    )
    assert sampling is not None
    fits = len(sampling.noise) == len(manifest.features) and min(sampling.noise) >= 0
    if sampling.kind == "codebook":
        fits = (
            fits
            and len(sampling.codes) == len(sampling.shares) > 0
            and all(len(code) == width for code in sampling.codes)
        )
        fits = fits and min(sampling.shares) >= 0 and abs(sum(sampling.shares) - 1) < 1e-6
    if not fits:
        raise InvalidArtifact(
            "the manifest's sampling does not fit the model: its codes, shares or noise have the"
            " wrong size or sign"
        )


def _check_reference(manifest: artifact.Manifest) -> None:
    reference = manifest.reference
    assert reference is not None
    width = len(manifest.self_test.latent[0]) if manifest.self_test.latent else 0
    if {len(each) for each in (reference.minimum, reference.maximum, *reference.codes)} != {width}:
        raise InvalidArtifact(f"the manifest's reference codes do not have {width} numbers each")


def _check_structure(model: ModelProto) -> None:
    if model.functions:
        raise InvalidArtifact("the model file defines functions of its own, which are not loaded")
    if model.training_info:
        raise InvalidArtifact("the model file carries training graphs, which are not loaded")
    if model.graph.sparse_initializer:
        raise InvalidArtifact("the model file holds sparse tensors, which are not loaded")
    for opset in model.opset_import:
        if opset.domain not in ("", "ai.onnx"):
            raise InvalidArtifact(
                f"the model file needs operators of the domain {opset.domain!r}; only ONNX's own"
                " are allowed"
            )
        if not MIN_OPSET <= opset.version <= MAX_OPSET:
            raise InvalidArtifact(
                f"the model file has opset {opset.version}, expected {MIN_OPSET} to {MAX_OPSET}"
            )


def _check_tensor(tensor: TensorProto) -> None:
    if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
        raise InvalidArtifact(
            f"the tensor {tensor.name!r} lies outside the model file, which is not loaded"
        )
    if any(size < 0 for size in tensor.dims) or math.prod(tensor.dims) > MAX_TENSOR_ELEMENTS:
        raise InvalidArtifact(
            f"the tensor {tensor.name!r} has shape {list(tensor.dims)}, over {MAX_TENSOR_ELEMENTS}"
            " elements"
        )


def _check_node(node: onnx.NodeProto) -> None:
    if node.domain not in ("", "ai.onnx") or node.op_type not in OPERATORS:
        domain = f"{node.domain}." if node.domain else ""
        raise InvalidArtifact(
            f"the model file uses the operator {domain}{node.op_type}, which is not on the list of"
            " allowed ones"
        )
    for attribute in node.attribute:
        if attribute.HasField("g") or attribute.graphs:
            raise InvalidArtifact(
                f"the operator {node.op_type} carries a graph of its own, which is not loaded"
            )
        if attribute.HasField("sparse_tensor") or attribute.sparse_tensors:
            raise InvalidArtifact(
                f"the operator {node.op_type} carries a sparse tensor, which is not loaded"
            )
        for tensor in (attribute.t, *attribute.tensors):
            _check_tensor(tensor)


def _check_computed_sizes(model: ModelProto, window: int) -> None:
    """Refuse a graph in which one row makes a tensor over the cap, or one whose size cannot be told
    beforehand.

    Constant folding computes such tensors while the session is made, and few bytes suffice: two
    vectors make an outer product.
    """
    try:
        shapes = shapes_of(model, rows=1, window=window)
    except onnx.shape_inference.InferenceError as error:
        raise InvalidArtifact(
            f"the shapes in the model file do not fit each other: {str(error).splitlines()[0]}"
        ) from error
    if window > 1 and shapes.get(artifact.SCORE) != (1,):
        raise InvalidArtifact(
            f"the manifest gives windows of {window} rows, of which the graph does not make one"
            " score each"
        )
    together = sum(math.prod(tensor.dims) for tensor in model.graph.initializer)
    for node in model.graph.node:
        for tensor in (attribute.t for attribute in node.attribute if attribute.HasField("t")):
            together += math.prod(tensor.dims)
        for name in node.output:
            if not name:  # an output that is left out
                continue
            if name not in shapes:
                raise InvalidArtifact(
                    f"the operator {node.op_type} makes a tensor whose size cannot be told"
                    " beforehand"
                )
            if math.prod(shapes[name]) > MAX_TENSOR_ELEMENTS:
                raise InvalidArtifact(
                    f"the operator {node.op_type} would make a tensor of over {MAX_TENSOR_ELEMENTS}"
                    " elements"
                )
            together += math.prod(shapes[name])
    if together > MAX_ELEMENTS:
        raise InvalidArtifact(
            f"the tensors of the model file have over {MAX_ELEMENTS} elements together"
        )


def _check_interface(model: ModelProto) -> None:
    inputs = [
        value
        for value in model.graph.input
        if value.name not in {tensor.name for tensor in model.graph.initializer}
    ]
    wanted = [artifact.INPUT]
    if _is_of_series(model) and _manifest_of(model).baseline is not None:
        wanted.append(artifact.ENTITY)
    if [value.name for value in inputs] != wanted:
        raise InvalidArtifact(
            f"the model file has inputs {[value.name for value in inputs]}, expected {wanted}"
        )
    outputs = {value.name for value in model.graph.output}
    expected = [name for name in artifact.OUTPUTS if name != artifact.SEVERITY]  # 1.0 lacks it
    if missing := [name for name in expected if name not in outputs]:
        raise InvalidArtifact(f"the model file lacks the output {', '.join(missing)}")
    # a later minor format may have outputs that are not known here, and not asked for
    names = (*artifact.OUTPUTS, artifact.LATENT_DEVIATION)
    known = [value for value in model.graph.output if value.name in names]
    for value in inputs[1:]:
        tensor = value.type.tensor_type
        if tensor.elem_type != TensorProto.INT64 or len(tensor.shape.dim) != 1:
            raise InvalidArtifact(f"{value.name!r} is not an int64 tensor of 1 dimension")
    for value in (inputs[0], *known):
        tensor = value.type.tensor_type
        of_rows = (artifact.SCORE, artifact.P_VALUE, artifact.SEVERITY)
        rank = 1 if value.name in of_rows else 2
        ranks = (rank, SERIES_RANK) if value.name == artifact.INPUT else (rank,)
        if tensor.elem_type != TensorProto.FLOAT or len(tensor.shape.dim) not in ranks:
            raise InvalidArtifact(f"{value.name!r} is not a float32 tensor of {rank} dimension(s)")
    if not 1 <= inputs[0].type.tensor_type.shape.dim[-1].dim_value <= MAX_TENSOR_ELEMENTS:
        raise InvalidArtifact(f"the width of {artifact.INPUT!r} is not fixed")
