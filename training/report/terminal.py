"""What a run says at its end on the terminal: a table for a person."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from hourglass.service.rows.times import time_of
from hourglass.training.compare import Comparison
from hourglass.training.evaluate import AlarmRates, Evaluation, Rate
from hourglass.training.evaluate_ordered import OrderedEvaluation
from hourglass.training.report.figures import Report, of_entities
from hourglass.training.report.page import PAGE
from hourglass.training.screen import Screened
from hourglass.training.suspects import SUSPECTS
from hourglass.training.versions import VersionLine

STORED = {
    "none": "none",
    "averages": "averages of them",
    "rows": "some of them as they are",
}


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
    done = "In shadow" if report.shadow else "Published"
    console.print(f"{done} {report.path}", soft_wrap=True)
    if report.summary:
        page = Path(report.path).with_name(PAGE)
        console.print(report.summary, soft_wrap=True, markup=False)
        console.print(f"Report {page}", soft_wrap=True)


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


def print_versions(lines: Sequence[VersionLine], console: Console) -> None:
    """Two lines for each version, the newest first: its figures, and why it is where it is."""
    for line in lines:
        fitted_at = line.written_at if line.fitted_at is None else line.fitted_at
        figures = [
            line.version[:12],
            f"{time_of(fitted_at):%Y-%m-%d %H:%M}",
            "" if line.rows is None else f"{line.rows:,} rows",
            "" if line.alpha is None else f"alpha {line.alpha:g} {line.guarantee}",
            "" if line.auroc is None else f"AUROC {line.auroc:.3f}",
            "in service" if line.current else "challenger" if line.challenger else "",
        ]
        console.print("  ".join(filter(None, figures)), soft_wrap=True, markup=False)
        console.print(f"    {line.why}", soft_wrap=True, markup=False)


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


def print_ordered(found: OrderedEvaluation, title: str, console: Console) -> None:
    """What is found of labelled ranges, false events, and the alarm rates by time."""
    table = Table(title=title, title_justify="left", show_header=False)
    for line in _ordered_lines(found):
        table.add_row(*line)
    console.print(table)
    blocks = Table(title="Normal rows, by time", title_justify="left")
    for heading in ("from", "to", "alarms", "alarm rate", "false events"):
        blocks.add_column(heading, justify="right", no_wrap=heading in ("from", "to"))
    for block in found.blocks:
        shown = "-" if block.alarm_rate is None else f"{block.alarm_rate:.2%}"
        blocks.add_row(
            *(_instant(each, found.is_clock) for each in (block.first, block.last)),
            f"{block.alarms} of {block.rows}",
            shown,
            str(block.false_events),
        )
    console.print(blocks)
    if found.found is None:
        console.print("Without labelled anomalies there is nothing to be found.", soft_wrap=True)


def _ordered_lines(found: OrderedEvaluation) -> list[tuple[str, str]]:
    lines = []
    if (labelled := found.found) is not None:
        delay = "-" if (rows := labelled.median_delay_rows) is None else f"{rows:g} rows"
        lines = [
            ("AUROC", f"{labelled.auroc:.3f}"),
            ("average precision", f"{labelled.average_precision:.3f}"),
            ("VUS-PR", f"{labelled.vus_pr:.3f}, buffers to {labelled.buffer_rows} rows"),
            (
                "found",
                f"{labelled.ranges_found} of {labelled.ranges} labelled ranges by an event,"
                f" {labelled.ranges_alarmed} by an alarm, within {labelled.tolerance_rows} rows",
            ),
            ("median delay", delay),
            ("detection rate", f"{labelled.detection_rate:.1%} of the anomalous rows"),
        ]
    by_day = (
        f"{found.false_events_per_day:.3g} a day of an entity, budget {found.events_per_day:g}; "
        if found.false_events_per_day is not None
        else ""
    )
    return [
        *lines,
        (
            "false events",
            f"{found.false_events} of {found.events}; {by_day}"
            f"{found.false_events_per_10000_rows:.3g} in 10,000 rows",
        ),
        (
            "false-alarm rate",
            f"{found.false_alarm_rate:.2%} of the normal rows, alpha is {found.alpha:.3g};"
            f" {found.worst_block:.2%} in the worst block",
        ),
        ("at the adaptive level", f"{found.adaptive_false_alarm_rate:.2%}"),
        (
            "rows",
            f"{found.rows} of {found.entities} entities; {found.warming_rows} warming,"
            f" {found.refused_rows} refused",
        ),
    ]


def _instant(time: float, is_clock: bool) -> str:
    return f"{time_of(time):%Y-%m-%d %H:%M:%S}" if is_clock else f"{time:.10g}"


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
    if report.window > 1:
        left_out += f" or without {report.window - 1} normal rows before them"
    if report.gap_rows:
        left_out += f", {report.gap_rows} between blocks"
    times = report.time
    spread = (
        ""
        if times is None
        else (
            f"{times.column}{of_entities(times)}: {times.gaps} gaps, the longest"
            f" {times.longest_gap:g} where a step is {times.step:g}; {times.repeated} rows of the"
            " same time as the one before"
        )
    )
    if (it := report.left_out) and it.excluded + it.screened + it.contaminated:
        left_out += (
            f", {it.excluded} excluded by number or time, {it.screened} screened,"
            f" {it.contaminated} the strangest"
        )
    if it and it.confirmed + it.alarmed:
        left_out += f", {it.confirmed} confirmed anomalies, {it.alarmed} other alarms"
    if it and it.untaught:
        left_out += f", {it.untaught} not fitted for what the model in service says of them"
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
