"""THE CONTRACT between training and service: one ONNX file and the manifest inside it.

How to change it: a changed name, shape, type or meaning of what stands here raises FORMAT_MAJOR; a
new optional field raises FORMAT_MINOR. The service reads every minor of its own major, ignores
fields it does not know, and refuses an artifact whose `requires` names something it does not know.
Every published format has a file in tests/contract/golden that must load for ever.
"""

import hashlib
import re
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from hourglass.service.errors import InvalidArtifact

FORMAT_MAJOR = 1
FORMAT_MINOR = 5
ROWS_MINOR = 2  # of a file without a window, which services of before 1.3 read as well
WINDOW_MINOR = 3  # of one with a window and without baselines, likewise
BASELINE_MINOR = 4  # of one with baselines and without queries, likewise
WINDOW = "window"  # of rows that come in order, from format 1.3 on
BASELINE = "baseline"  # of entities that have a level and a spread of their own, from 1.4 on
CAPABILITIES = frozenset({WINDOW, BASELINE})  # what `requires` may name

METADATA_KEY = "hourglass"  # of metadata_props

# Tensors, all float32. N rows, D features, K latent dimensions.
# [N, D] raw units, NaN = missing, a category is its index, UNSEEN a category not met in training.
# Of a windowed model [B, T, D], rows of one entity each, oldest first: every output is then of the
# N = B (T - W + 1) rows that have the W - 1 before them.
INPUT = "features"
# [B] int64, of a model with baselines alone: whose series each is, the place of its name in the
# manifest; any other number is an entity that is not known, such as NOBODY
ENTITY = "entity"
NOBODY = -1
# [N, D'] inner tensor of a windowed model: what is derived of each window. score, contributions and
# latent follow from it alone.
DERIVED = "derived"
# [N] reconstruction error, dimensionless, higher is stranger; NaN where no cell was observed
SCORE = "score"
# [N] share of held-out normal rows at least this strange; NaN only where score is NaN
P_VALUE = "p_value"
# [N] -log10 of the p-value, beyond the largest calibration score by a fitted tail; NaN only where
# score is NaN. Files of format 1.0 lack it: their severity is -log10 of p_value.
SEVERITY = "severity"
CONTRIBUTIONS = "contributions"  # [N, D] non-negative, sum to score
RECONSTRUCTION = "reconstruction"  # [N, D] expected values; for a boolean the probability of true
LATENT = "latent"  # [N, K] the code
OUTPUTS = (SCORE, P_VALUE, SEVERITY, CONTRIBUTIONS, RECONSTRUCTION, LATENT)
# [N, K] standard deviation of a variational model's code, whose mean `latent` is; optional, from
# format 1.2 on
LATENT_DEVIATION = "latent_deviation"

# Initializers that hold the calibration table: ascending scores, padded with +inf, and the p-value
# of each interval between them.
TABLE_SCORES = "calibration_scores"
TABLE_P_VALUES = "calibration_p_values"
# Of severity (model/severity.py): the ends of its steps that are no calibration scores, ascending,
# the last the largest float32; and for each step between all ends start, width, base and rise of
# its line [E, 4]. Severity is base + rise (s - start) / width, with s no lower than the first start
# and no higher than the last end.
SEVERITY_ENDS = "severity_ends"
SEVERITY_LINES = "severity_lines"

# Initializers of the Gaussian of the encoded columns E, which says what the other values of a row
# let expect of each (from format 1.1 on, optional, all three or none): mean [E] and standard
# deviation [E] in raw units, and the inverse of the correlations [E, E], or of columns taken as
# independent [E]. A number or boolean has one column, a category one that is 1 where it is met.
CONDITIONAL_MEAN = "conditional.mean"
CONDITIONAL_SCALE = "conditional.scale"
CONDITIONAL_PRECISION = "conditional.precision"
CONDITIONAL = (CONDITIONAL_MEAN, CONDITIONAL_SCALE, CONDITIONAL_PRECISION)

# Initializers [E + 1, D] of a model with baselines: the level of each entity, and its spread over
# the fleet's; the last line is 0 and 1, of entities that are not known.
BASELINE_CENTER = "baseline.center"
BASELINE_SCALE = "baseline.scale"

UNSEEN = -1.0
SELF_TEST_TOLERANCE = 1e-4  # relative, between what training saw and what this machine computes
MODEL_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
# of the names of models that ship with the service; no other model's name can begin so
EXHIBIT_PREFIX = "learn."

MAX_WINDOW = 10_000  # rows
LAST_SECOND = 253402300799  # of the year 9999, after which dates have no name
Share = Annotated[float, Meta(ge=0, le=1)]
Count = Annotated[int, Meta(ge=0, le=10**9)]
GuaranteeKind = Literal["certified", "marginal", "blocks", "none"]  # guarantee.py says what each is


class Feature(msgspec.Struct, frozen=True, kw_only=True):
    """One column of the input, in the order of the model's input."""

    name: str
    kind: Literal["numeric", "boolean", "categorical"]
    unit: str | None = None
    categories: tuple[str, ...] = ()  # position is the code
    missing_rate: Share = 0.0  # of the fit rows
    minimum: float | None = None  # of the fit rows; None when every one was missing
    maximum: float | None = None
    # mean held-out error of the expected values; the unit of this contribution where the score is
    # made of these errors
    residual_variance: float = 1.0


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """What was fitted, enough to fit it again."""

    variant: str
    hyper_parameters: dict[str, object]
    seed: int
    parameter_count: int
    stores_rows: Literal["none", "averages", "rows"] = (
        "none"  # what of the training rows the file contains
    )


class Producer(msgspec.Struct, frozen=True, kw_only=True):
    """The versions that wrote the file."""

    hourglass: str
    torch: str
    onnx: str
    onnxruntime: str
    threads: int  # CPU training repeats bit for bit only at the same count


class RowCounts(msgspec.Struct, frozen=True, kw_only=True):
    """The three disjoint sets of normal rows; of a cross-conformal model all rows fit, and all
    calibrate.
    """

    fit: Count
    validation: Count  # early stopping and residual variance
    calibration: Count


class CalibrationRecord(msgspec.Struct, frozen=True, kw_only=True):
    """How the threshold was set, and what holds for it."""

    # cross-conformal, from format 1.1 on: by several models, each on rows it was not fitted on
    method: Literal["split-conformal", "cross-conformal"]
    guarantee: GuaranteeKind
    n: Annotated[int, Meta(ge=1, le=10**9)]
    alpha: Annotated[float, Meta(gt=0, lt=1)]
    delta: Annotated[float, Meta(gt=0, lt=1)]
    reason: str | None = None  # one sentence: why it is this guarantee; from format 1.1 on
    # how alpha becomes a threshold; None, before format 1.1: by the guarantee's own rule
    rule: Literal["certified", "marginal"] | None = None
    folds: int | None = None  # of a cross-conformal model

    @property
    def is_rule_certified(self) -> bool:
        """Whether the (alpha, delta) rule sets the threshold, or else the marginal one."""
        return (self.rule or self.guarantee) == "certified"


class DriftReference(msgspec.Struct, frozen=True, kw_only=True):
    """Of one feature of the fit rows: for numbers the inner bin edges (bins are one more), for the
    rest a count per value.
    """

    edges: tuple[float, ...] = ()
    counts: tuple[int, ...] = ()
    missing: int = 0


class SelfTest(msgspec.Struct, frozen=True, kw_only=True):
    """Made-up rows and what the graph must answer to them; None is NaN."""

    inputs: tuple[tuple[float | None, ...], ...]
    score: tuple[float | None, ...]
    p_value: tuple[float | None, ...]
    contributions: tuple[tuple[float | None, ...], ...]
    reconstruction: tuple[tuple[float | None, ...], ...]
    latent: tuple[tuple[float | None, ...], ...]
    severity: tuple[float | None, ...] | None = None  # from format 1.1 on
    entity: str | None = None  # whose rows they are, where entities have baselines


class Sampling(msgspec.Struct, frozen=True, kw_only=True):
    """How codes of new rows are drawn: from a standard normal, or from a codebook by the share of
    rows each entry stands for.
    """

    kind: Literal["normal", "codebook"]
    codes: tuple[tuple[float, ...], ...] = ()
    shares: tuple[Share, ...] = ()
    # standard deviation around a decoded row, per feature in raw units; 0 for what is no number
    noise: tuple[float, ...]


class ReferenceCodes(msgspec.Struct, frozen=True, kw_only=True):
    """Where rows lie in the space of codes: of single rows, so written of made-up or public ones
    alone; of a quantized model its codebook.
    """

    minimum: tuple[float, ...]  # of each latent dimension
    maximum: tuple[float, ...]
    codes: tuple[tuple[float, ...], ...]


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """Of a model of rows in order: what an answer looks at."""

    rows: Annotated[int, Meta(ge=2, le=MAX_WINDOW)]  # W, the judged one last
    representation: Literal["residual", "multi"]
    # of each feature in raw units, with baselines in the fleet's: standard deviation of what is met
    # from what the rows before let expect, on held-out rows; None of what is no number
    expected_sd: tuple[float | None, ...]
    # median seconds between rows of an entity; None where the rows' time is no time
    interval: Annotated[float, Meta(gt=0)] | None = None
    # of a longer step between two rows the second begins a window of its own; None: never
    gap: Annotated[float, Meta(gt=0)] | None = None


class Baseline(msgspec.Struct, frozen=True, kw_only=True):
    """Of a model whose entities have a level and a spread of their own: whose these are."""

    entities: tuple[str, ...]  # position is the code


class Queries(msgspec.Struct, frozen=True, kw_only=True):
    """Of a model whose rows were asked of a Prometheus: how, so that new ones are asked alike."""

    expressions: tuple[str, ...]  # PromQL, of each feature
    labels: tuple[str, ...]  # whose values make an entity; none: there is one
    step_seconds: Annotated[float, Meta(gt=0)]  # between rows, at whole multiples of it
    late_seconds: Annotated[float, Meta(gt=0)]  # older samples are not taken for the present


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What an artifact says of itself."""

    format: str
    model: Model
    producer: Producer
    rows: RowCounts
    features: tuple[Feature, ...]
    calibration: CalibrationRecord
    drift: tuple[DriftReference, ...]
    self_test: SelfTest
    sampling: Sampling | None = None  # None: the model cannot make up rows
    # seconds since the epoch: the newest row's time, or the data file's, since equal runs give
    # equal files; None in files of before it was written down
    fitted_at: Annotated[float, Meta(ge=0, le=LAST_SECOND)] | None = None
    min_observed_fraction: Share = 0.5  # rows with fewer observed cells are refused
    requires: tuple[str, ...] = ()
    reference: ReferenceCodes | None = None  # from format 1.2 on
    window: Window | None = None  # from format 1.3 on; with WINDOW in `requires`
    baseline: Baseline | None = None  # from format 1.4 on; with BASELINE in `requires`
    queries: Queries | None = None  # from format 1.5 on


def format_of(
    window: Window | None, baseline: Baseline | None = None, queries: Queries | None = None
) -> str:
    """The oldest format that has all that a file with this holds."""
    minor = BASELINE_MINOR if baseline else WINDOW_MINOR if window else ROWS_MINOR
    minor = FORMAT_MINOR if queries else minor
    return f"{FORMAT_MAJOR}.{minor}"


def encode_manifest(manifest: Manifest) -> str:
    """Canonical JSON: sorted keys, no spaces; equal manifests give equal text."""
    return msgspec.json.encode(manifest, order="sorted").decode()


def decode_manifest(text: str) -> Manifest:
    """Read a manifest; InvalidArtifact when it is malformed, of another major format, or requires
    what we do not know.
    """
    try:
        head = msgspec.json.decode(text, type=_Head)
    except msgspec.DecodeError as error:
        raise InvalidArtifact(f"the manifest cannot be read: {error}") from error
    major = head.format.partition(".")[0]
    if major != str(FORMAT_MAJOR):
        raise InvalidArtifact(
            f"the artifact has format {head.format}, this service reads format {FORMAT_MAJOR}.x; "
            "fit the model again with this version, or serve it with the version that wrote it"
        )
    if unknown := sorted(set(head.requires) - CAPABILITIES):
        raise InvalidArtifact(
            f"the artifact requires {', '.join(unknown)}, which this service does not know"
        )
    try:
        return msgspec.json.decode(text, type=Manifest)
    except msgspec.DecodeError as error:
        raise InvalidArtifact(f"the manifest cannot be read: {error}") from error


def version_of(data: bytes) -> str:
    """The version of a model: the SHA-256 of its file, in hex."""
    return hashlib.sha256(data).hexdigest()


class _Head(msgspec.Struct):
    format: str
    requires: tuple[str, ...] = ()
