"""Detector: one loaded artifact, ready to score. Immutable; the service swaps whole detectors.

Shapes: N rows, D features, K latent dimensions. Everything is float32.
"""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple, Self, TypeVar

import numpy as np
import onnx
from numpy.typing import NDArray

from hourglass.service.errors import HourglassError, InvalidArtifact
from hourglass.service.model import artifact, subgraphs
from hourglass.service.model.artifact import (
    BASELINE_SCALE,
    CONTRIBUTIONS,
    DERIVED,
    ENTITY,
    INPUT,
    LATENT,
    LATENT_DEVIATION,
    NOBODY,
    P_VALUE,
    RECONSTRUCTION,
    SCORE,
    SEVERITY,
    Manifest,
)
from hourglass.service.model.calibration import Table, Threshold
from hourglass.service.model.conditional import Conditional
from hourglass.service.model.safety import parse_model, read_manifest
from hourglass.service.model.session import Session
from hourglass.service.model.severity import LARGEST, Lines

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
T = TypeVar("T")
DEFAULT_MAX_BYTES = 256 * 2**20
# Of one run of the graph. What a member makes of a cell inside can be a hundred times as much; and
# what stays in the caches is scored a tenth faster (365 -> 325 ns a row of 32 features against
# 2^17; of 128 features it makes no difference down to 2^14).
RUN_CELLS = 2**15
# The same of short series, each a window or a little more: deriving is 158 kernels, most of them
# slices and sums, and 21 windows of 30 x 52 are too few to share what these cost (9,000 -> 13,100
# windows/s against 2^15, medians of 15 interleaved rounds on a busy core; of 4 x 4 no difference).
SERIES_CELLS = 2**17
MEASURED_SECONDS = 0.0002
COMPARED_ROWS = 128
COMPARED_PLACES = 8
ROW_OUTPUTS = (SCORE, CONTRIBUTIONS, RECONSTRUCTION, LATENT)


class Scores(NamedTuple):
    score: Float32  # [N]
    p_value: Float32  # [N]
    severity: Float32  # [N]


class Codes(NamedTuple):
    code: Float32  # [N, K]
    deviation: Float32 | None  # [N, K] standard deviation; None of a code that is no distribution


class Explanation(NamedTuple):
    score: Float32  # [N]
    p_value: Float32  # [N]
    severity: Float32  # [N]
    contributions: Float32  # [N, D], sum to score
    reconstruction: Float32  # [N, D], original units


@dataclass(frozen=True, slots=True)
class Detector:
    """One model.

    Its methods take float32 rows [N, D] in raw units: NaN is missing, a category its index. Those
    of a windowed model take T rows of one entity, oldest first, and answer for N = T - W + 1 of
    them, which have the W - 1 before; ValueError where there are fewer than W. Where entities have
    baselines, `of` gives the detector of one of them; by itself it takes rows for those of an
    entity that is not known.
    """

    version: str
    manifest: Manifest
    table: Table
    threshold: Threshold  # the manifest's own; the service may use another
    # what values let expect of each other; None of a file of format 1.0
    conditional: Conditional | None = field(repr=False)
    size_bytes: int
    has_deviation: bool  # whether its code is a distribution
    cell_seconds: float  # what the score of one cell takes, as measured when it was loaded
    _scoring: Session = field(repr=False)  # features -> score
    _gapless: Session = field(repr=False)  # the same for rows without a gap
    _whole: Session = field(repr=False)
    # rows of a series -> what a windowed model derives of them, which its scoring reads
    _deriving: Session | None = field(repr=False)
    # latent -> reconstruction; None where it needs the row too
    _decoder: Session | None = field(repr=False)
    _lone_as_two: bool = field(repr=False)  # whether one row is run as two
    _codes: Mapping[str, int] = field(repr=False)  # of entities with baselines, by their names
    # their spreads over the fleet's, the last line of nobody; None where none has a baseline
    _scale_EF: Float32 | None = field(repr=False)
    _pool: Executor | None = field(repr=False)
    _code: int = NOBODY  # whose rows it takes

    @classmethod
    def from_bytes(
        cls, data: bytes, *, pool: Executor | None = None, max_bytes: int = DEFAULT_MAX_BYTES
    ) -> Self:
        """Load, check and self-test an artifact; InvalidArtifact with the reason when anything is
        amiss.

        Runs of a bulk of rows go to the pool's threads, where there is one, and so beside each
        other.
        """
        try:
            model = parse_model(data, max_bytes=max_bytes)
            manifest = read_manifest(model)
            record = manifest.calibration
            table = _read_table(model, record.n)
            _check_rows(table, record)
            whole, deriving, by_rows, of_rows = Session(data), None, model, None
            rows_ND = _rows_to_compare(manifest, whole)
            entities = manifest.baseline.entities if manifest.baseline else ()
            codes = {entity: code for code, entity in enumerate(entities)}
            if manifest.window is not None:
                by_rows = subgraphs.rows_graph(model)
                deriving = Session(subgraphs.derived_graph(model))
                of_rows = Session(by_rows.SerializeToString())
                feed: dict[str, Any] = {INPUT: rows_ND[np.newaxis]}
                if codes:
                    feed[ENTITY] = np.array([codes.get(manifest.self_test.entity or "", NOBODY)])
                rows_ND = np.nan_to_num(deriving.run([DERIVED], feed)[0])
            scoring = Session(subgraphs.score_graph(by_rows))
            gapless = _gapless_session(by_rows, scoring, rows_ND)
            detector = cls(
                version=artifact.version_of(data),
                manifest=manifest,
                table=table,
                threshold=table.threshold(
                    record.alpha, record.delta, certified=record.is_rule_certified
                ),
                conditional=Conditional.read(model, manifest.features),
                size_bytes=len(data),
                has_deviation=any(each.name == LATENT_DEVIATION for each in model.graph.output),
                cell_seconds=_row_seconds(gapless, rows_ND.shape[1]) / len(manifest.features),
                _scoring=scoring,
                _gapless=gapless,
                _whole=whole,
                _deriving=deriving,
                _decoder=Session(decoder) if (decoder := subgraphs.decoder_graph(model)) else None,
                _lone_as_two=(
                    lone_differs(of_rows, rows_ND, (SCORE, CONTRIBUTIONS, LATENT))
                    if of_rows
                    else lone_differs(whole, rows_ND)
                ),
                _codes=codes,
                _scale_EF=_read_scale(model) if codes else None,
                _pool=pool,
            )
            _check_table(table, Session(subgraphs.table_graph(model)))
            detector.self_test()
        except HourglassError:
            raise
        except Exception as error:
            # what protobuf, onnx and onnxruntime raise at a malformed file has no base in common
            reason = next(iter(str(error).splitlines()), "")
            raise InvalidArtifact(
                f"the model cannot be run: {type(error).__name__}: {reason[:200]}"
            ) from error
        return detector

    def rest(self) -> None:
        """Hold no more than the bytes of a small model until it is asked again."""
        for session in (
            self._scoring, self._gapless, self._whole, self._deriving, self._decoder
        ):  # fmt: skip
            if session is not None:
                session.rest()

    def of(self, entity: str | None) -> Self:
        """The detector of an entity's rows; of one that is not known, or where entities have no
        baselines, it is the same for all.
        """
        code = NOBODY if entity is None else self._codes.get(entity, NOBODY)
        return self if code == self._code else replace(self, _code=code)

    def knows(self, entity: str | None) -> bool | None:
        """Whether an entity has a baseline; None where none has."""
        return entity in self._codes if self._codes else None

    @property
    def expected_sd(self) -> Float64:
        """[D] of a windowed model the standard deviation of what is met from what is expected, in
        the units of the rows; NaN of what is no number. ValueError of a model of single rows.
        """
        if self.manifest.window is None:
            raise ValueError("this model scores single rows")
        # what never was otherwise than expected has no deviation to tell in
        sd_D = np.array([sd or np.nan for sd in self.manifest.window.expected_sd], np.float64)
        return sd_D if self._scale_EF is None else sd_D * self._scale_EF[self._code]

    @property
    def width(self) -> int:
        """D, the number of features."""
        return len(self.manifest.features)

    @property
    def window(self) -> int:
        """W, how many rows an answer looks at: 1 of a model of single rows."""
        return self.manifest.window.rows if self.manifest.window else 1

    def score(self, rows_ND: Float32, *, gapless: bool = False) -> Scores:
        """[N, D] -> scores, p-values and severities [N]; NaN only where no cell of the row is
        observed.

        Of `gapless` rows the caller knows that no cell is missing.
        """
        if self._deriving is not None:
            parts = self._series_parts(rows_ND)
            return self._look_up(np.concatenate([*self._side_by_side(self._score_series, parts)]))
        session = self._gapless if gapless or not has_gap(rows_ND) else self._scoring
        return self._look_up(self._run(session, [SCORE], INPUT, rows_ND)[0])

    def score_windows(self, series_BTD: Float32) -> Scores:
        """[B, T, D] short series, of W rows or a few more -> scores, p-values and severities
        [B (T - W + 1)], those of the first series first; ValueError of a model of single rows.
        """
        if self._deriving is None:
            raise ValueError("this model scores single rows")
        count = max(1, SERIES_CELLS // series_BTD[0].size)
        parts = [series_BTD[i : i + count] for i in range(0, len(series_BTD), count)]
        return self._look_up(np.concatenate([*self._side_by_side(self._score_series, parts)]))

    def explain_windows(self, windows_BWD: Float32) -> Explanation:
        """[B, W, D] windows of rows -> what explain says of their last rows; ValueError of a model
        of single rows.
        """
        if self._deriving is None:
            raise ValueError("this model scores single rows")
        outputs = [SCORE, CONTRIBUTIONS, RECONSTRUCTION]
        score_B, *rest = self._run(self._whole, outputs, INPUT, windows_BWD)
        return Explanation(score_B, *self.table.look_up(score_B), *rest)

    def encode_windows(self, windows_BWD: Float32) -> Float32:
        """[B, W, D] windows of rows -> codes [B, K] of their last rows; ValueError of a model of
        single rows.
        """
        if self._deriving is None:
            raise ValueError("this model encodes single rows")
        return self._run(self._whole, [LATENT], INPUT, windows_BWD)[0]

    def explain(self, rows_ND: Float32) -> Explanation:
        """[N, D] -> scores, p-values, severities, contributions [N, D] that sum to the score, and
        the expected values [N, D].
        """
        outputs = [SCORE, CONTRIBUTIONS, RECONSTRUCTION]
        score_N, *rest = self._run_whole(outputs, rows_ND)
        return Explanation(score_N, *self.table.look_up(score_N), *rest)

    def reconstruct(self, rows_ND: Float32) -> Float32:
        """[N, D] -> [N, D] with the missing filled in and the noise removed, original units.

        Gaps are filled by Conditional.fill, where the file carries it.
        """
        (clean_ND,) = self._run_whole([RECONSTRUCTION], rows_ND)
        if self.conditional is None or not has_gap(rows_ND):
            return clean_ND
        return self.conditional.fill(rows_ND, clean_ND)

    def encode(self, rows_ND: Float32) -> Float32:
        """[N, D] -> codes [N, K]."""
        return self._run_whole([LATENT], rows_ND)[0]

    def encode_with_deviation(self, rows_ND: Float32) -> Codes:
        """[N, D] -> codes [N, K] and, of a variational model, how sure each number of them is."""
        if not self.has_deviation:
            return Codes(self.encode(rows_ND), None)
        return Codes(*self._run_whole([LATENT, LATENT_DEVIATION], rows_ND))

    @property
    def can_decode(self) -> bool:
        """Whether a code alone determines a row."""
        return self._decoder is not None

    @property
    def latent_width(self) -> int:
        """K, the number of latent dimensions."""
        return len(self.manifest.self_test.latent[0])

    def decode(self, codes_NK: Float32) -> Float32:
        """Codes [N, K] -> rows [N, D]; ValueError where can_decode is false."""
        if self._decoder is None:
            raise ValueError("this model's reconstruction needs the row as well as the code")
        return self._run(self._decoder, [RECONSTRUCTION], LATENT, codes_NK)[0]

    def sample(self, count: int, seed: int) -> Float32:
        """Draw codes as the manifest says and decode them: [count, D] made-up rows, the same for
        the same seed.

        ValueError where the manifest says nothing of it: most of such a model's code space decodes
        to nothing real.
        """
        sampling = self.manifest.sampling
        if sampling is None:
            raise ValueError(
                "this model's code space has holes, so codes drawn from it decode to nothing real"
            )
        rng = np.random.default_rng(seed)
        if sampling.kind == "normal":
            codes_NK = rng.standard_normal((count, self.latent_width)).astype(np.float32)
        else:
            codes_NK = _array(sampling.codes)[
                rng.choice(len(sampling.codes), count, p=sampling.shares)
            ]
        rows_ND = self.decode(codes_NK)
        noise_ND = rng.standard_normal(rows_ND.shape) * np.array(sampling.noise)
        boolean_D = np.array([feature.kind == "boolean" for feature in self.manifest.features])
        # of a boolean the decoded value is the probability of true
        drawn_ND = rng.random(rows_ND.shape) < rows_ND
        return np.where(boolean_D, drawn_ND, rows_ND + noise_ND).astype(np.float32)

    def _run_whole(self, outputs: list[str], rows_ND: Float32) -> list[Float32]:
        """Outputs of the whole graph."""
        if self._deriving is None:
            return self._run(self._whole, outputs, INPUT, rows_ND)
        run, lone = partial(self._run_series, outputs), len(rows_ND) == self.window
        if lone and self._lone_as_two:
            two = run(np.concatenate([rows_ND[:1], rows_ND])[np.newaxis])
            return [array[1:] for array in two]
        parts = self._side_by_side(run, self._series_parts(rows_ND))
        return [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]

    def _score_series(self, series_BTD: Float32) -> Float32:
        """[B, T, D] -> [B (T - W + 1)] scores, in this thread: what is derived of a part, which is
        several times as wide, is gone before the next one's.
        """
        assert self._deriving is not None
        (derived_ND,) = self._deriving.run([DERIVED], self._feed(INPUT, series_BTD))
        session = self._scoring if has_gap(derived_ND) else self._gapless
        if len(derived_ND) == 1 and self._lone_as_two:
            return session.run([SCORE], {INPUT: np.repeat(derived_ND, 2, axis=0)})[0][:1]  # type: ignore[no-any-return]
        rows = max(1, RUN_CELLS // derived_ND.shape[1])
        starts = range(0, len(derived_ND), rows)
        parts = [session.run([SCORE], {INPUT: derived_ND[i : i + rows]})[0] for i in starts]
        return np.concatenate(parts)

    def _run_series(self, outputs: list[str], series_BTD: Float32) -> list[Float32]:
        return self._whole.run(outputs, self._feed(INPUT, series_BTD))  # type: ignore[no-any-return]

    def _feed(self, source: str, values: Float32) -> dict[str, Any]:
        if source != INPUT or not self._codes:
            return {source: values}
        return {INPUT: values, ENTITY: np.full(len(values), self._code, np.int64)}

    def _series_parts(self, rows_TD: Float32) -> list[Float32]:
        """Parts [1, T, D] of a series, each with the rows before it that its first window has."""
        before = self.window - 1
        count = len(rows_TD) - before
        if count < 1:
            raise ValueError(f"a window has {self.window} rows, and there are {len(rows_TD)}")
        rows = max(self.window, RUN_CELLS // rows_TD.shape[1])
        return [rows_TD[i : i + before + rows][np.newaxis] for i in range(0, count, rows)]

    def _side_by_side(self, run: Callable[[Float32], T], parts: list[Float32]) -> Iterable[T]:
        return self._pool.map(run, parts) if self._pool and len(parts) > 1 else map(run, parts)

    def _look_up(self, score_N: Float32) -> Scores:
        return Scores(score_N, *self.table.look_up(score_N))

    def _run(
        self, session: Session, outputs: list[str], source: str, values: Float32
    ) -> list[Float32]:
        """Many rows go in parts: inner tensors are wider than rows, and a whole bulk of them would
        fill the memory.
        """
        if len(values) == 1 and self._lone_as_two:
            two = session.run(outputs, self._feed(source, np.repeat(values, 2, axis=0)))
            return [array[:1] for array in two]
        if values.size <= RUN_CELLS:
            return session.run(outputs, self._feed(source, values))  # type: ignore[no-any-return]
        rows = max(1, RUN_CELLS // values[0].size)

        def run(start: int) -> list[Float32]:
            part = self._feed(source, values[start : start + rows])
            return session.run(outputs, part)  # type: ignore[no-any-return]

        starts = range(0, len(values), rows)
        parts = self._pool.map(run, starts) if self._pool else map(run, starts)
        return [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]

    def self_test(self) -> None:
        """Recompute the manifest's self-test; InvalidArtifact when this machine's answers differ
        from training's.
        """
        test = self.manifest.self_test
        inputs_ND, own = _array(test.inputs), self.of(test.entity)
        score, p_value, severity, contributions, reconstruction = own.explain(inputs_ND)
        answers: dict[str, tuple[Float32, Sequence[Any]]] = {
            SCORE: (score, test.score),
            P_VALUE: (p_value, test.p_value),
            CONTRIBUTIONS: (contributions, test.contributions),
            RECONSTRUCTION: (reconstruction, test.reconstruction),
            LATENT: (own.encode(inputs_ND), test.latent),
            "score of the scoring path": (own.score(inputs_ND).score, test.score),
        }
        if self.window > 1:  # a graph that looks further back than it says answers otherwise
            views = np.lib.stride_tricks.sliding_window_view(inputs_ND, self.window, axis=0)
            of_windows = own.score_windows(np.ascontiguousarray(views.transpose(0, 2, 1)))
            answers["score of each window alone"] = of_windows.score, test.score
        for name, (got, expected) in answers.items():
            if not _close(
                got, _array(expected), steps=1 / (self.table.n + 1) if name == P_VALUE else 0.0
            ):
                raise InvalidArtifact(
                    f"the self-test failed: {name} differs from what training computed"
                )
        # compared as the p-values they stand for, which may move by one rank
        if test.severity is not None and not _close(
            10.0**-severity, 10.0 ** -_array(test.severity), steps=1 / (self.table.n + 1)
        ):
            raise InvalidArtifact(
                "the self-test failed: severity differs from what training computed"
            )


def has_gap(rows_ND: Float32) -> bool:
    """Whether any value is missing.

    Of all ways the fastest: a sum of squares is NaN only where one of them is.
    """
    return math.isnan(np.vdot(rows_ND, rows_ND))


def lone_differs(session: Session, rows_ND: Float32, outputs: Sequence[str] = ROW_OUTPUTS) -> bool:
    """Whether a row comes out in one way alone and in another among others, the same wherever it is
    among them: then this processor has another kernel for one row.

    Where the place matters too, as in files of before it was seen to, rows stay as they come out.
    """

    def answers(part_ND: Float32) -> list[bytes]:
        found = session.run([*outputs], {INPUT: part_ND})
        return [b"".join(array[i].tobytes() for array in found) for i in range(len(part_ND))]

    few_ND = rows_ND[:COMPARED_PLACES]
    together, later = answers(few_ND), answers(few_ND[1:]) if len(few_ND) > 1 else []
    alone = [answers(few_ND[i : i + 1])[0] for i in range(len(few_ND))]
    return together[1:] == later and alone != together


def _gapless_session(model: onnx.ModelProto, scoring: Session, rows_ND: Float32) -> Session:
    """A session for rows without a gap, if it scores these rows as the other does, to the last bit;
    else the other.
    """
    (expected_N,) = scoring.run([SCORE], {INPUT: rows_ND})
    try:
        if (part := subgraphs.complete_graph(model)) is None:
            return scoring
        gapless = Session(part)
        (got_N,) = gapless.run([SCORE], {INPUT: rows_ND})
    except Exception:  # onnxruntime's have no base in common; what cannot be run so is run as it is
        return scoring
    return gapless if np.array_equal(expected_N, got_N, equal_nan=True) else scoring


def _rows_to_compare(manifest: Manifest, whole: Session) -> Float32:
    """Rows without a gap, COMPARED_ROWS of them or as many as may be run at once: from cells of the
    self-test's, which do not belong together, step by step to what is expected instead.
    """
    inputs_ND, width = _array(manifest.self_test.inputs), len(manifest.features)
    if inputs_ND.ndim != 2 or inputs_ND.shape[1] != width:
        raise InvalidArtifact(f"the self-test's rows do not have {width} features")
    window = manifest.window.rows if manifest.window else 1
    count = max(1, min(COMPARED_ROWS, RUN_CELLS // width)) + window - 1
    picked_ND = np.random.default_rng(0).integers(len(inputs_ND), size=(count, width))
    strange_ND = np.take_along_axis(np.nan_to_num(inputs_ND), picked_ND, axis=0)
    if manifest.window is None:
        expected_ND = np.nan_to_num(whole.run([RECONSTRUCTION], {INPUT: strange_ND})[0])
    else:  # of all rows
        expected_ND = np.broadcast_to(np.nan_to_num(inputs_ND).mean(axis=0), strange_ND.shape)
    share_N1 = np.linspace(0.0, 1.0, count, dtype=np.float32)[:, None]
    blended_ND = share_N1 * expected_ND + (1 - share_N1) * strange_ND
    numeric_D = np.array([feature.kind == "numeric" for feature in manifest.features])
    return np.where(numeric_D, blended_ND, strange_ND)


def _row_seconds(session: Session, width: int) -> float:
    """What a row takes, of runs that grow until one takes long enough to be measured, and no
    longer: models differ by a factor of a thousand.
    """
    rows, seconds = 1, 0.0
    while True:
        feed = {INPUT: np.zeros((rows, width), np.float32)}
        seconds = min(_seconds(partial(session.run, [SCORE], feed)) for _ in range(3))
        if seconds > MEASURED_SECONDS or rows * width * 4 > RUN_CELLS:
            return seconds / rows
        rows *= 4


def _seconds(work: Callable[[], object]) -> float:
    """Of the processor: who waits for it, beside others, is not slow."""
    started = time.thread_time()
    work()
    return time.thread_time() - started


def _close(got: Float32, expected: Float32, *, steps: float) -> bool:
    """Equal to the self-test's tolerance, relative to the largest value; a p-value may also move by
    one rank.
    """
    if got.shape != expected.shape:
        return False
    # below one, as of a row reproduced exactly, is rounding
    scale = float(np.nanmax(np.abs(expected), initial=1.0))
    tolerance = artifact.SELF_TEST_TOLERANCE
    return np.allclose(
        got, expected, rtol=tolerance, atol=1.01 * steps + 0.1 * tolerance * scale, equal_nan=True
    )


def _array(values: Sequence[float | None] | Sequence[Sequence[float | None]]) -> Float32:
    try:
        return np.array(values, dtype=np.float32)  # None becomes NaN
    except ValueError as error:
        raise InvalidArtifact("the self-test's rows have different lengths") from error


def _read_table(model: onnx.ModelProto, n: int) -> Table:
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    try:
        scores = onnx.numpy_helper.to_array(tensors[artifact.TABLE_SCORES]).ravel()
        p_values = onnx.numpy_helper.to_array(tensors[artifact.TABLE_P_VALUES]).ravel()
    except KeyError as error:
        raise InvalidArtifact(f"the model file lacks the calibration table {error}") from error
    scores = scores[np.isfinite(scores)]
    p_values = p_values[: len(scores) + 1]
    ordered = len(scores) > 0 and (np.diff(scores) > 0).all() and (np.diff(p_values) < 0).all()
    if not ordered or len(p_values) != len(scores) + 1 or p_values[0] != 1.0 or p_values[-1] <= 0:
        raise InvalidArtifact(
            "the calibration table is not a table of ascending scores and falling p-values"
        )
    return Table(n, scores, p_values, _read_severity(tensors, scores))


def _read_scale(model: onnx.ModelProto) -> Float32:
    """[E + 1, D], as the model's checks have it."""
    (tensor,) = (each for each in model.graph.initializer if each.name == BASELINE_SCALE)
    scale_EF: Float32 = onnx.numpy_helper.to_array(tensor)
    return scale_EF


def _check_rows(table: Table, record: artifact.CalibrationRecord) -> None:
    """The most extreme of n scores has the p-value 1 / (n + 1); of blocks that of the smallest."""
    most = 1 / table.smallest_p_value
    if record.guarantee in ("certified", "marginal") and record.n + 1 > most * (1 + 1e-5):
        raise InvalidArtifact(
            f"the manifest gives {record.n} calibration rows, its smallest p-value"
            f" {table.smallest_p_value:g} is one of {round(most) - 1}"
        )


def _read_severity(tensors: Mapping[str, onnx.TensorProto], scores: Float32) -> Lines | None:
    """None where the file is of format 1.0."""
    if artifact.SEVERITY_ENDS not in tensors or artifact.SEVERITY_LINES not in tensors:
        return None
    more = onnx.numpy_helper.to_array(tensors[artifact.SEVERITY_ENDS])
    lines = onnx.numpy_helper.to_array(tensors[artifact.SEVERITY_LINES])
    ends = np.sort(np.concatenate([scores, more.ravel()]))
    if lines.shape == (len(ends), 4) and np.isfinite(ends).all() and np.isfinite(lines).all():
        start, width, base, rise = lines.T
        ascending = (width > 0).all() and (rise >= 0).all() and base[0] >= 0
        if ascending and (start[1:] == ends[:-1]).all() and (base[1:] >= (base + rise)[:-1]).all():
            return Lines(more, lines)
    raise InvalidArtifact("the severities are not lines that rise from step to step")


def _check_table(table: Table, lookup: Session) -> None:
    """InvalidArtifact unless p-values and severities read off the table, as the hot path does, are
    those of the graph, at and beside every step.

    In the graph the look-up is 16 nodes and takes half as long again as the score of one row; here
    it is one binary search.
    """
    far = np.float32(np.inf)
    limits = np.array([0, -far, LARGEST, far, np.nan], np.float32)
    ends = table.scores
    if table.severity is not None:
        ends = np.concatenate([ends, table.severity.ends[:-1]])
    score_N = np.concatenate([np.nextafter(ends, -far), ends, np.nextafter(ends, far), limits])
    p_value_N, severity_N = table.look_up(score_N)
    found = dict(
        zip(
            (output.name for output in lookup.get_outputs()),
            lookup.run(None, {SCORE: score_N}),
            strict=True,
        )
    )
    if not np.array_equal(found[P_VALUE], p_value_N, equal_nan=True):
        raise InvalidArtifact("the model's p-values are not those of its calibration table")
    # another machine may multiply and add in one step, and round once where it rounds twice here
    if (table.severity is not None) != (SEVERITY in found) or not np.allclose(
        found.get(SEVERITY, severity_N), severity_N, rtol=1e-6, atol=1e-6, equal_nan=True
    ):
        raise InvalidArtifact("the model's severities are not those of its calibration table")
