"""What can be done with a model and a file, without a server: score the file's rows, print what the
manifest says.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import NamedTemporaryFile
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hourglass.service.errors import InvalidSettings, InvalidTable, printable
from hourglass.service.model.artifact import Baseline, Feature, Queries, RowCounts, Window
from hourglass.service.model.detector import DEFAULT_MAX_BYTES, Explanation, Scores
from hourglass.service.model.reasons import Reasons, reasons_of, reasons_of_windows
from hourglass.service.model.served import Served
from hourglass.service.rows import ordered
from hourglass.service.rows.dialect import USUAL, Dialect
from hourglass.service.rows.ordered import Run, Stretch, in_places, score_stretches, windows_at
from hourglass.service.rows.sentences import MOST_NAMED, say_why
from hourglass.service.rows.tables import encode_table, read_rows
from hourglass.service.rows.times import to_seconds
from hourglass.service.serving.loading import load, served_from
from hourglass.service.serving.observers import UNOBSERVED, Observers
from hourglass.service.serving.store import REPORT_PAGE, ModelFolder, locate, name_of, read_file

if TYPE_CHECKING:
    import polars as pl

Float32 = NDArray[np.float32]

CHUNK_ROWS = 65536
# anomalies of a chunk that get a reason, the strangest: each takes as long as scoring dozens of
# rows
REASONED_ROWS = 1000
TOP_ROWS = 10
# before the name of a result where the file has a column of that name
PREFIX = "hourglass_"
COLUMNS = ("score", "ratio", "p_value", "severity", "extrapolated", "is_anomaly", "reason")
WARMING = "warming"  # one more of a windowed model
# features that are to blame for an anomaly, those most first; no cell of a CSV holds a list
BLAMED = "blamed"
KNOWN_ENTITY = "known_entity"  # and another one where entities have baselines
STORED = {
    "none": "no training rows, nor averages of them",
    "averages": "averages of training rows, which whoever has the file can read",
    "rows": "training rows as they are, which whoever has the file can read",
}


class _Why(NamedTuple):
    """Why a row is an anomaly."""

    sentence: str | None
    blamed: list[str]  # features


def open_model(path: Path, *, alpha: float | None = None) -> tuple[Served, str | None]:
    """A model file, a version's folder, or a model's, with the threshold in force; and what is
    wrong with that threshold.
    """
    path = path.absolute()  # its name is the model's, also of `.`
    if (model := ModelFolder(path)).has_current():
        served, _ = load(model)
    else:
        file = locate(path)
        artifact = read_file(file, max_bytes=DEFAULT_MAX_BYTES)
        served = served_from(artifact, name_of(file))
    if alpha is None:
        return served, served.warning
    return with_budget(served, alpha), None


def with_budget(served: Served, alpha: float) -> Served:
    """The model with another budget; UncertifiableAlpha, or InvalidSettings of what is none."""
    if not isinstance(alpha, int | float) or not 1e-9 <= alpha <= 0.5:
        raise InvalidSettings(f"alpha: expected a number from 1e-9 to 0.5, got {alpha!r}")
    current = served.threshold
    threshold = served.detector.table.threshold(alpha, current.delta, certified=current.certified)
    return replace(served, threshold=threshold)


def score_file(
    served: Served,
    data: Path,
    dialect: Dialect = USUAL,
    *,
    time: str | None = None,
    entity: str | None = None,
    progress: Callable[[int, int], None],
    observers: Observers = UNOBSERVED,
) -> "pl.DataFrame":
    """The file's rows with the COLUMNS of results beside them, of anomalies also the reason; null
    where too few values are there to score. Where a column of the file has the name of a result,
    the results' names get the PREFIX.

    Of a windowed model `time` and `entity` are columns that say which rows follow each other;
    without them the file's rows are one entity's, in order. Rows that too few rows come before have
    nulls, and are WARMING. Where entities have baselines, KNOWN_ENTITY tells which rows are of
    one that has none, and are judged by the fleet's.
    """
    names = (*COLUMNS, WARMING) if served.detector.window > 1 else COLUMNS
    if served.detector.manifest.baseline:
        names = (*names, KNOWN_ENTITY)
    require_order(served, time=time, entity=entity)
    frame = read_rows(data, served.schema.features, dialect, time=time, entity=entity)
    prefix = PREFIX if any(name in frame.columns for name in names) else ""
    if taken := [name for name in names if prefix + name in frame.columns]:
        raise InvalidTable(
            f"{data} has the columns {taken[0]!r} and {prefix + taken[0]!r} already, which is where"
            " a result would go"
        )
    results = score_frame(
        served, frame, dialect, time=time, entity=entity, progress=progress, observers=observers
    ).select(names)
    return frame.hstack(results.rename({name: prefix + name for name in names}))


def score_frame(
    served: Served,
    frame: "pl.DataFrame",
    dialect: Dialect = USUAL,
    *,
    time: str | None = None,
    entity: str | None = None,
    progress: Callable[[int, int], None] = lambda _done, _of: None,
    observers: Observers = UNOBSERVED,
) -> "pl.DataFrame":
    """The results of a table's rows alone, and BLAMED; InvalidTable names column and row of what is
    not as the model expects.
    """
    import polars as pl

    rows_ND, parts = encode_table(frame, served.schema.features, dialect), []
    if served.detector.window > 1:
        stretches = stretches_of(served, frame, time, entity)
        return _score_in_order(served, rows_ND, stretches, progress, observers)
    for start in range(0, max(frame.height, 1), CHUNK_ROWS):
        parts.append(_score_rows(served, rows_ND[start : start + CHUNK_ROWS], observers))
        if frame.height > CHUNK_ROWS:
            progress(min(start + CHUNK_ROWS, frame.height), frame.height)
    return pl.concat(parts)


def require_order(served: Served, *, time: str | None, entity: str | None) -> None:
    """InvalidSettings where an order is said of rows that a model scores one by one."""
    if served.detector.window == 1 and (time or entity):
        flag = "--time" if time else "--entity"
        raise InvalidSettings(f"{served.name} scores single rows, whatever their order: no {flag}")


def stretches_of(
    served: Served, frame: "pl.DataFrame", time: str | None, entity: str | None
) -> list[Stretch]:
    """Which of a table's rows follow each other; those without an entity are one's."""
    import polars as pl

    entities, window = None, served.detector.manifest.window
    if entity is not None:
        entities = frame[entity].cast(pl.String).fill_null("").to_list()
    time_N = None if time is None else to_seconds(frame[time])
    gap = None if window is None else window.gap
    return ordered.sorted_stretches(frame.height, entities, time_N, gap)


def result(scored: "pl.DataFrame", name: str) -> "pl.Series":
    """The column that score_file put a result in: of two of that name the later one."""
    return scored[PREFIX + name if PREFIX + name in scored.columns else name]


def write_table(frame: "pl.DataFrame", path: Path) -> None:
    """Write CSV or Parquet, whole or not at all."""
    if path.suffix.lower() not in (".csv", ".parquet"):
        raise InvalidTable(f"{path} is neither .csv nor .parquet")
    temporary = None
    try:
        with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = Path(file.name)
            if path.suffix.lower() == ".csv":
                frame.write_csv(file)
            else:
                frame.write_parquet(file)
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except OSError as error:
        raise InvalidTable(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def summarise(served: Served, scored: "pl.DataFrame") -> str:
    """In a few lines: what was scored, with what, and how much of it is strange."""
    anomalies = int(result(scored, "is_anomaly").sum())
    nameless = WARMING if served.detector.window > 1 else None
    warming = int(result(scored, nameless).sum()) if nameless else 0
    skipped = result(scored, "score").null_count() - warming
    known = scored.height - skipped - warming
    lines = [
        f"{scored.height} rows scored by {served.name}, version {served.detector.version[:12]}",
        f"{anomalies} anomalies ({anomalies / max(known, 1):.1%}); {_describe(served)}",
    ]
    if warming:
        window = served.detector.window
        lines.append(f"{warming} rows have fewer than {window - 1} rows before them: not scored")
    if served.detector.manifest.baseline:
        unknown = int((~result(scored, KNOWN_ENTITY)).sum())
        if unknown:
            lines.append(
                f"{unknown} rows are of no entity that the model knows: judged by the fleet's level"
                " and spread"
            )
    if skipped:
        lines.append(
            f"{skipped} rows hold too few values, or values too far out, and were not scored"
        )
    return "\n".join(lines)


def top_rows(served: Served, scored: "pl.DataFrame") -> str:
    """The strangest rows, as a table, with the features that make them so."""
    score = result(scored, "score")
    order = score.arg_sort(descending=True, nulls_last=True)[: min(TOP_ROWS, score.count())]
    top = scored[order]
    if top.height == 0:
        return "no row could be scored"
    why = [""] * top.height  # of a row alone a windowed model says nothing
    if served.detector.window == 1:
        explained = served.detector.explain(encode_table(top, served.schema.features))
        names = [feature.name for feature in served.schema.features]
        why = [", ".join(names[d] for d in np.argsort(-row)[:3]) for row in explained.contributions]
    lines = [["row", "score", "severity", "p-value", "anomaly", "mostly because of"]]
    results = {name: result(top, name).to_list() for name in COLUMNS}
    for place, (number, most) in enumerate(zip(order.to_list(), why, strict=True)):
        row = {name: values[place] for name, values in results.items()}
        reason = row["reason"] or most
        severity = f"{row['severity']:.2f}{' extrapolated' if row['extrapolated'] else ''}"
        numbers = f"{row['score']:.4g}", severity, f"{row['p_value']:.4g}"
        lines.append([str(number + 1), *numbers, "yes" if row["is_anomaly"] else "no", reason])
    return as_columns(lines)


def report_of(path: Path) -> Path | None:
    """The page that training wrote beside a model; None where there is none."""
    report = locate(path).with_name(REPORT_PAGE)
    return report if report.is_file() else None


def describe(served: Served, report: Path | None = None) -> str:
    """The manifest, for a person, and where its report lies."""
    manifest, detector, threshold = served.detector.manifest, served.detector, served.threshold
    model, rows, producer = manifest.model, manifest.rows, manifest.producer
    parameters = ", ".join(_settings(model.hyper_parameters)) or "none"
    facts = [
        ["version", detector.version],
        ["format", f"{manifest.format}, {detector.size_bytes} bytes"],
        ["variant", f"{model.variant}, {model.parameter_count} parameters, seed {model.seed}"],
        ["hyper-parameters", parameters],
        ["rows", _rows(rows, manifest.calibration.folds)],
        ["window", _window(manifest.window)],
        ["baseline", _baseline(manifest.baseline)],
        *(_queries(manifest.queries, manifest.features) if manifest.queries else ()),
        ["contains", STORED[model.stores_rows]],
        ["false alarms", _describe(served)],
        ["guarantee", f"{served.guarantee.kind}: {served.guarantee.reason}"],
        ["threshold", f"{threshold.score:.6g}"],
        [
            "missing values",
            f"rows with under {manifest.min_observed_fraction:.0%} of their values are refused",
        ],
        [
            "code",
            (
                f"{detector.latent_width} numbers, {'can' if detector.can_decode else 'cannot'} be"
                " decoded without the row"
            ),
        ],
        [
            "written by",
            (
                f"hourglass {producer.hourglass}, torch {producer.torch}, onnx {producer.onnx}, "
                f"onnxruntime {producer.onnxruntime}, {producer.threads} thread(s)"
            ),
        ],
    ]
    features = [["feature", "kind", "unit", "values", "missing"]]
    features += [
        [
            feature.name,
            feature.kind,
            feature.unit or "",
            _values(feature),
            f"{feature.missing_rate:.1%}",
        ]
        for feature in manifest.features
    ]
    described = f"{served.name}\n\n{as_columns(facts)}\n\n{as_columns(features)}"
    return described if report is None else f"{described}\n\nReport {printable(str(report))}"


def _queries(queries: Queries, features: Sequence[Feature]) -> list[list[str]]:
    """What a Prometheus is asked for rows."""
    by = f"one entity for each {', '.join(queries.labels)}" if queries.labels else "one entity"
    said = f"every {queries.step_seconds:g} s of a Prometheus, {by}"
    pairs = zip(features, queries.expressions, strict=True)
    return [["rows asked", said], *(["", f"{each.name}: {text}"] for each, text in pairs)]


def _window(window: Window | None) -> str:
    if window is None:
        return "single rows, in any order"
    said = f"{window.rows} rows in order of time, the judged one last ({window.representation})"
    said += ", counted" if window.interval is None else f", {window.interval:g} s apart"
    if window.gap is not None:
        unit = "" if window.interval is None else " s"
        said += f"; after a step of over {window.gap:g}{unit} a new one begins"
    return said


def _baseline(baseline: Baseline | None) -> str:
    if baseline is None:
        return "one level and spread of all rows"
    return f"a level and spread of each of {len(baseline.entities)} entities, the fleet's of others"


def _settings(table: dict[str, Any], of: str = "") -> Iterator[str]:
    """`name = value` of each setting that has a value, `fit.steps = 800` of one in a table."""
    for name, value in sorted(table.items()):
        if isinstance(value, dict):
            yield from _settings(value, f"{of}{name}.")
        elif isinstance(value, list | tuple):
            yield f"{of}{name} = {' '.join(map(str, value)) or 'none'}"
        elif value is not None:
            yield f"{of}{name} = {value}"


def _score_rows(served: Served, rows_ND: Float32, observers: Observers) -> "pl.DataFrame":
    started = perf_counter()
    scores = served.detector.score(rows_ND)
    score_N = scores.score
    seconds = perf_counter() - started
    known_N = np.isfinite(score_N) & served.schema.has_enough(rows_ND)
    observers.scored(served, rows_ND[known_N], Scores(*(each[known_N] for each in scores)), seconds)
    why = _say_why(served, rows_ND, score_N, known_N & served.threshold.is_anomaly(score_N))
    return _results(served, scores, known_N, why)


def _results(
    served: Served, scores: Scores, known_N: NDArray[np.bool_], why: list[_Why | None]
) -> "pl.DataFrame":
    import polars as pl

    columns = {
        "score": scores.score,
        "ratio": served.threshold.ratio(scores.score),
        "p_value": scores.p_value,
        "severity": scores.severity,
        "extrapolated": served.detector.table.is_extrapolated(scores.score),
        "is_anomaly": served.threshold.is_anomaly(scores.score),
        "reason": pl.Series([each and each.sentence for each in why], dtype=pl.String),
        BLAMED: pl.Series([each and each.blamed for each in why], dtype=pl.List(pl.String)),
    }
    known = pl.Series(known_N)
    return pl.DataFrame(columns).select(
        pl.when(known).then(pl.col(name)).alias(name) for name in columns
    )


def _score_in_order(
    served: Served,
    rows_ND: Float32,
    stretches: list[Stretch],
    progress: Callable[[int, int], None],
    observers: Observers,
) -> "pl.DataFrame":
    import polars as pl

    detector, count = served.detector, len(rows_ND)

    def told() -> Iterator[Run]:
        done = 0
        for run in score_stretches(served, rows_ND, stretches):
            for each in run.apart():
                observers.scored(served, *each)
            yield run
            before, done = done, done + len(run.scores.score)
            if count > CHUNK_ROWS and before // CHUNK_ROWS < done // CHUNK_ROWS:
                progress(done, count)

    scores, warming_N = in_places(count, told())
    known_N = np.isfinite(scores.score)
    anomalies = _strangest(scores.score, known_N & served.threshold.is_anomaly(scores.score))
    why: list[_Why | None] = [None] * count
    for row, window_WD, entity in windows_at(served, rows_ND, stretches, anomalies):
        own = detector.of(entity)
        explanation = own.explain_windows(window_WD[np.newaxis])
        reasons = reasons_of_windows(
            own, window_WD[np.newaxis], explanation, served.threshold.score
        )
        (why[row],) = _whys(served, window_WD[-1:], explanation, reasons)
    results = _results(served, scores, known_N, why).with_columns(pl.Series(WARMING, warming_N))
    if detector.manifest.baseline is None:
        return results
    known_entity_N = np.zeros(count, np.bool_)
    for stretch in stretches:
        known_entity_N[stretch.rows_T] = detector.knows(stretch.entity)
    return results.with_columns(pl.Series(KNOWN_ENTITY, known_entity_N))


def _strangest(score_N: Float32, anomalous_N: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Of anomalies those that get a reason."""
    anomalies = np.flatnonzero(anomalous_N)
    return anomalies[np.argsort(-score_N[anomalies], kind="stable")[:REASONED_ROWS]]


def _say_why(
    served: Served, rows_ND: Float32, score_N: Float32, anomalous_N: NDArray[np.bool_]
) -> list[_Why | None]:
    """Why rows are anomalies; of more than REASONED_ROWS, why the strangest are."""
    anomalies = _strangest(score_N, anomalous_N)
    why: list[_Why | None] = [None] * len(rows_ND)
    if not len(anomalies):
        return why
    explanation = served.detector.explain(rows_ND[anomalies])
    reasons = reasons_of(served.detector, rows_ND[anomalies], explanation, served.threshold.score)
    found = _whys(served, rows_ND[anomalies], explanation, reasons)
    for row, each in zip(anomalies.tolist(), found, strict=True):
        why[row] = each
    return why


def _whys(
    served: Served, rows_ND: Float32, explanation: Explanation, reasons: Reasons | None
) -> list[_Why]:
    """Of anomalies; what no few values explain is blamed on those that moved together, and where
    the file carries no reasons on those that contribute most.
    """
    features = served.schema.features
    if reasons is None:
        order_ND = np.argsort(-explanation.contributions, axis=1, kind="stable")
        return [
            _Why(None, [features[d].name for d in order_D[:MOST_NAMED]])
            for order_D in order_ND.tolist()
        ]
    found = []
    for n, sentence in enumerate(say_why(features, rows_ND, reasons)):
        blamed = reasons.groups[n] or reasons.order_ND[n, : reasons.blamed_N[n] or 1].tolist()
        found.append(_Why(sentence, [features[d].name for d in blamed]))
    return found


def _rows(rows: RowCounts, folds: int | None) -> str:
    if folds:
        return f"{rows.fit} in {folds} folds: each fits all models but one, which calibrates on it"
    return f"{rows.fit} to fit, {rows.validation} to validate, {rows.calibration} to calibrate"


def _describe(served: Served) -> str:
    threshold = served.threshold
    promise = (
        f"alpha = {threshold.alpha:g} "
        + {
            "certified": f"holds with confidence {1 - threshold.delta:g}",
            "marginal": "is not certified: it holds on average only",
            "blocks": "is not certified: it held in every block looked at",
            "none": "is not certified: nothing is promised",
        }[served.guarantee.kind]
    )
    return (
        f"{promise}; {threshold.expected_false_alarm_rate:.2%} of normal rows are expected to be"
        " flagged"
    )


def _values(feature: Feature) -> str:
    if feature.kind == "boolean":
        return "true, false"
    if feature.kind == "categorical":
        shown = ", ".join(feature.categories[:5])
        return shown + (
            f", … ({len(feature.categories)} in all)" if len(feature.categories) > 5 else ""
        )
    if feature.minimum is None or feature.maximum is None:
        return "all missing"
    return f"{feature.minimum:g} to {feature.maximum:g}"


def as_columns(lines: list[list[str]]) -> str:
    """Lines of cells, for a terminal."""
    # a line end is a cell's own, too: names of Excel's have some
    lines = [[printable(cell).replace("\n", "\\n") for cell in line] for line in lines]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
