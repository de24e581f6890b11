"""What a run says at its end: report.json beside the model, and a table for a person."""

from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from hourglass.service.model.artifact import GuaranteeKind
from hourglass.training.compare import Comparison
from hourglass.training.evaluate import AlarmRates, Evaluation, Rate
from hourglass.training.exchangeability import Exchangeability
from hourglass.training.screen import Screened
from hourglass.training.suspects import SUSPECTS, Suspect

STORED = {
    "none": "none",
    "averages": "averages of them",
    "rows": "some of them as they are",
}


class TimeAxis(msgspec.Struct, frozen=True, kw_only=True):
    """The time column of the normal rows."""

    column: str
    step: float  # the median; seconds, unless the column holds other numbers
    gaps: int  # steps over 1.5 times as long
    longest_gap: float
    repeated: int  # rows of the same time as the one before


class LeftOut(msgspec.Struct, frozen=True, kw_only=True):
    """Normal rows that neither fitted nor calibrated, by who left them out."""

    rows: int  # normal ones that were not excluded by number
    excluded: int  # by number, normal or not
    screened: int  # by the model in service
    contaminated: int  # the strangest, as --contamination asks

    def bias(self) -> str | None:
        """What that does to the guarantee: calibration rows chosen by their strangeness are calmer
        than normal rows are.
        """
        count = self.screened + self.contaminated
        if not count:
            return None
        return (
            f"the {count} strangest of {self.rows} rows were left out of calibration: if all of"
            f" them were normal, the false-alarm rate may be up to {count / self.rows:.1%} above"
            " alpha"
        )


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """One run's figures; rates are shares, seconds are wall time."""

    name: str
    version: str
    path: str
    preset: str | None = None  # whose configuration the model has, unchanged
    variant: str
    stores_rows: Literal["none", "averages", "rows"] = (
        "none"  # what of the training rows the file contains
    )
    parameter_count: int
    features: int
    fit_rows: int
    validation_rows: int
    calibration_rows: int
    # models, each fitted on all rows but one fold, on which it calibrates; 0: one model
    folds: int = 0
    dropped_rows: int  # normal rows with too few observed cells
    gap_rows: int = 0  # left out between blocks of time
    copied_rows: int = 0  # repeat an earlier row; in a random split copies stay together
    time: TimeAxis | None = None
    anomalous_rows: int  # never fitted, never calibrated on
    epochs: int
    best_epoch: int
    held_out_loss: float
    alpha: float
    alpha_chosen: bool  # by us, not asked for
    delta: float
    certified: bool
    guarantee: GuaranteeKind
    guarantee_reason: str
    exchangeability: Exchangeability
    threshold: float
    expected_false_alarm_rate: float
    quality: Evaluation | None  # of the labelled anomalies against the calibration rows
    size_bytes: int
    seconds: float
    left_out: LeftOut | None = None
    screened: Screened | None = None  # None without a model in service
    warnings: tuple[str, ...] = ()  # about columns and rows of the file, each a sentence
    contamination_warning: str | None = None
    suspects_listed: int = 0  # in suspects.csv
    suspects: tuple[Suspect, ...] = ()  # the strangest of them


def write_report(report: Report) -> str:
    """The report as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(report), indent=2).decode() + "\n"


def time_axis(column: str | None, time_N: NDArray[np.float64] | None) -> TimeAxis | None:
    """What a person should know of the time column; None without one."""
    if column is None or time_N is None:
        return None
    steps = np.diff(time_N)
    forward = steps[steps > 0]
    step = float(np.median(forward)) if len(forward) else 0.0
    return TimeAxis(
        column=column,
        step=step,
        gaps=int((steps > 1.5 * step).sum()),
        longest_gap=float(steps.max(initial=0.0)),
        repeated=int((steps == 0).sum()),
    )


def print_report(report: Report, console: Console) -> None:
    """The table, and in plain lines what was chosen or could not be certified."""
    table = Table(
        title=f"{report.name} {report.version[:12]}", show_header=False, title_justify="left"
    )
    table.add_column(style="bold")
    table.add_column()
    for label, value in _lines(report):
        table.add_row(label, value)
    console.print(table)
    if report.alpha_chosen:
        console.print(_choice(report), soft_wrap=True)
    if report.stores_rows != "none":
        console.print(_disclosure(report), soft_wrap=True)
    if report.guarantee != "certified":
        console.print(_warning(report), style="yellow", soft_wrap=True)
    if report.contamination_warning:
        console.print(f"Warning: {report.contamination_warning}.", style="yellow", soft_wrap=True)
    if report.screened:
        console.print(_screening(report.screened), soft_wrap=True)
    if report.suspects_listed:
        console.print(_suspects(report), soft_wrap=True)
    console.print(f"Published {report.path}", soft_wrap=True)


def print_evaluation(evaluation: Evaluation, title: str, console: Console) -> None:
    """Print the table that `hourglass-train evaluate` ends with."""
    table = Table(title=title, show_header=False, title_justify="left")
    table.add_column(style="bold")
    table.add_column()
    for label, value in quality_lines(evaluation):
        table.add_row(label, value)
    table.add_row(
        "rows",
        f"{evaluation.normal_rows} normal, {evaluation.anomalous_rows} anomalous,"
        f" {evaluation.refused_rows} refused",
    )
    console.print(table)


def print_comparison(comparison: Comparison, console: Console) -> None:
    """One row per member, and which one would be published and why."""
    table = Table(title=f"{comparison.name}: members compared", title_justify="left")
    headings = (
        "variant",
        "held-out error",
        "power",
        "AUROC",
        "AP",
        "KiB",
        "fit s",
        "µs, 1 row",
        "µs/row, 1,024",
    )
    for heading in headings:
        table.add_column(
            heading,
            justify="left" if heading == "variant" else "right",
            no_wrap=heading == "variant",
        )
    for it in comparison.candidates:
        labelled = [
            "-" if value is None else f"{value:.4f}" for value in (it.auroc, it.average_precision)
        ]
        cost = [
            f"{it.size_bytes / 1024:.0f}",
            f"{it.fit_seconds:.1f}",
            f"{it.one_row_microseconds:.0f}",
            f"{it.bulk_row_microseconds:.2f}",
        ]
        style = "bold" if it.variant == comparison.chosen else ""
        table.add_row(
            it.variant, f"{it.held_out_error:.4f}", f"{it.power:.1%}", *labelled, *cost, style=style
        )
    console.print(table)
    console.print(f"To publish: {comparison.reason}.", soft_wrap=True)


def quality_lines(quality: Evaluation) -> list[tuple[str, str]]:
    """The figures of an evaluation, as label and text."""
    certified = "certified" if quality.certified else "uncertified"
    return [
        ("AUROC", f"{quality.auroc:.4f}"),
        ("average precision", f"{quality.average_precision:.4f}"),
        (
            "detection rate",
            (
                f"{quality.detection_rate:.2%} of the anomalies at alpha = {quality.alpha:.3g},"
                f" {certified}"
            ),
        ),
        *_false_alarms(quality),
    ]


def print_alarm_rates(rates: AlarmRates, title: str, console: Console) -> None:
    """Alarm rates of rows without anomalies, part by part of the file."""
    table = Table(title=title, title_justify="left")
    for heading in ("rows", "alarms", "alarm rate", "95 % interval"):
        table.add_column(heading, justify="right")
    whole = ("all", rates.rows, rates.alarms)
    for name, rows, alarms in (
        *((f"{part.first}-{part.last}", part.rows, part.alarms) for part in rates.parts),
        whole,
    ):
        rate, interval = Rate.of(alarms, rows)
        shown = "-" if rate is None else f"{rate:.2%}"
        table.add_row(name, f"{alarms} of {rows}", shown, _interval(interval))
    console.print(table)
    console.print(
        f"alpha is {rates.alpha:.3g}; {rates.refused_rows} rows refused."
        " Without labelled anomalies there is nothing to be found.",
        soft_wrap=True,
    )


def print_seen(seen: float | None, console: Console) -> None:
    """Say that figures flatter a model on rows it was made of."""
    if seen:
        console.print(
            f"Warning: {seen:.1%} of the rows are rows that the model was fitted or calibrated on,"
            " or equal them: on those it looks better than it is.",
            style="yellow",
            soft_wrap=True,
        )


def _false_alarms(quality: Evaluation) -> list[tuple[str, str]]:
    if quality.false_alarm_rate is None or quality.false_alarm_interval is None:
        return []
    text = (
        f"{quality.false_alarm_rate:.2%} of the normal rows"
        f" (95 %: {_interval(quality.false_alarm_interval)})"
    )
    return [("false-alarm rate", text)]


def _interval(interval: tuple[float, float] | None) -> str:
    if interval is None:
        return "-"
    return f"{interval[0]:.2%} to {interval[1]:.2%}"


def _lines(report: Report) -> list[tuple[str, str]]:
    rows = (
        f"{report.fit_rows} fit, {report.validation_rows} held out, {report.calibration_rows}"
        " calibration"
    )
    if report.folds:
        rows = f"{report.fit_rows}, in {report.folds} folds: each fits all models but one"
    left_out = f"{report.anomalous_rows} anomalous, {report.dropped_rows} with too few values"
    if report.gap_rows:
        left_out += f", {report.gap_rows} between blocks"
    times = report.time
    spread = (
        ""
        if times is None
        else (
            f"{times.column}: {times.gaps} gaps, the longest {times.longest_gap:g} where a step is"
            f" {times.step:g}; {times.repeated} rows of the same time as the one before"
        )
    )
    if (it := report.left_out) and it.excluded + it.screened + it.contaminated:
        left_out += (
            f", {it.excluded} excluded by number, {it.screened} screened, {it.contaminated} the"
            " strangest"
        )
    lines = [
        *([("preset", report.preset)] if report.preset else []),
        (
            "variant",
            f"{report.variant}, {report.parameter_count:,} parameters, {report.features} features",
        ),
        ("rows used", rows),
        ("rows not used", left_out),
        *(
            [("copies", f"{report.copied_rows} repeat an earlier row")]
            if report.copied_rows
            else []
        ),
        *([("time", spread)] if spread else []),
        ("rows in the file", STORED[report.stores_rows]),
        *(
            [
                ("epochs", f"{report.epochs}, the best was {report.best_epoch}"),
                ("held-out loss", f"{report.held_out_loss:.5f}"),
            ]
            if report.epochs  # closed forms have none
            else []
        ),
        ("alpha, delta", f"{report.alpha:.3g}, {report.delta:.3g}"),
        ("guarantee", f"{report.guarantee}: {report.guarantee_reason}"),
        ("calibration n", f"{report.calibration_rows}"),
        ("threshold", f"{report.threshold:.5g}"),
        ("expected false-alarm rate", f"{report.expected_false_alarm_rate:.2%}"),
    ]
    if report.quality:
        lines += quality_lines(report.quality)
    return [*lines, ("size, time", f"{report.size_bytes / 1024:.0f} KiB, {report.seconds:.1f} s")]


def _warning(report: Report) -> str:
    if report.guarantee == "none":
        return (
            f"Warning: {report.guarantee_reason}. Nothing is guaranteed of the false-alarm rate."
            " Where rows come in time or in groups, --time COLUMN or --group COLUMN calibrates on"
            " whole blocks of them; where their order means nothing, shuffle the file once."
        )
    if report.guarantee == "blocks":
        return (
            f"Warning: uncertified, by blocks. {report.guarantee_reason}. Of times or groups"
            " unlike these nothing is guaranteed."
        )
    if report.folds:
        return (
            f"Warning: {report.guarantee_reason}. --folds 0 certifies, with one model and fewer"
            " rows for its threshold."
        )
    return (
        f"Warning: uncertified. The false-alarm rate is {report.expected_false_alarm_rate:.2%}"
        " on average over calibration draws; of this draw nothing is guaranteed."
    )


def _disclosure(report: Report) -> str:
    stored = (
        "averages of training rows"
        if report.stores_rows == "averages"
        else "training rows as they are"
    )
    return (
        f"The model file contains {stored}, and whoever has it can read them. --memory 0 fits a"
        " model that contains none."
    )


def _suspects(report: Report) -> str:
    first = report.suspects[0]
    return (
        f"{report.suspects_listed} rows to look at first: {SUSPECTS} beside the model lists the"
        f" strangest, anomalies or not. Row {first.row} is {first.score:.1f} times as far from its"
        f" nearest rows as usual ({', '.join(first.features)}). --exclude leaves out those that are"
        " anomalies."
    )


def _screening(screened: Screened) -> str:
    return (
        f"The model in service flags {screened.flagged} of {screened.rows} rows,"
        f" {screened.expected:.1f} would be its false alarms; {screened.left_out} were left out:"
        f" {screened.reason}. --no-screen leaves none out."
    )


def _choice(report: Report) -> str:
    rows = f"{report.calibration_rows} calibration rows"
    if report.expected_false_alarm_rate >= report.alpha / 2:
        return (
            f"Alpha is {report.alpha:.0%}: the smallest of 1, 2, 5, 10 and 20 % of which {rows}"
            " leave at least half in use."
        )
    return f"Alpha is {report.alpha:.0%}: {rows} are too few to have half of any budget in use."
