"""Page: report.html, one file that asks nothing of any host.

Every word that comes from the rows, such as a column's name, is text: it passes `_text`, which
escapes it and writes control characters as JSON does. What the charts draw stands in a block of
JSON in which no `<` is left. A policy in the head lets nothing run but the one script, by its hash.
"""

import base64
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from html import escape

import msgspec

from hourglass.service.errors import printable
from hourglass.training.gate import Decision
from hourglass.training.report.checks import Status
from hourglass.training.report.estimates import Estimate
from hourglass.training.report.facts import Facts
from hourglass.training.report.modules import bundle, styles

PAGE = "report.html"
LONGEST = 80  # characters of a name
MOST_COLUMNS = 200  # in the table of the data; report.json has them all
WORDS: dict[Status, str] = {"pass": "pass", "warn": "warn", "fail": "FAIL"}


class _Markup(str):
    """HTML that is escaped already."""

    __slots__ = ()


def write_page(facts: Facts) -> str:
    """The whole file."""
    sections = [
        _alarms(facts),
        _scores(facts),
        *_timeline(facts),
        _power(facts),
        _peers(facts),
        _strangest(facts),
        _data(facts),
        _map(facts),
        _privacy(facts),
        _cost(facts),
        _origin(facts),
        _snippets(facts),
        *([_gate(facts.gate)] if facts.gate else []),
    ]
    return _document(facts, sections)


def _document(facts: Facts, sections: Sequence[tuple[str, str, str]]) -> str:
    style, script = styles(), bundle()
    policy = (
        f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)};"
        " base-uri 'none'; form-action 'none'"
    )
    title = f"{facts.name} {facts.version[:12]}"
    contents = "".join(
        f'<li><a href="#{anchor}">{_text(heading)}</a></li>'
        for anchor, heading, _ in [("checks", "Checks", ""), *sections]
    )
    body = "".join(
        f'<section id="{anchor}"><h2>{number}. {_text(heading)}</h2>{html}</section>'
        for number, (anchor, heading, html) in enumerate(sections, 3)
    )
    seen = ""
    if facts.seen is not None and facts.seen < 1:
        seen = f" {facts.seen:.1%} of them are rows that the model was made of."
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="generator" content="Hourglass">
<title>{_text(title)}</title>
<style>{style}</style>
</head>
<body>
<header>
<p class="kind">Hourglass report</p>
<h1>{_text(facts.name)} <span class="version">{_text(facts.version[:12])}</span></h1>
<p id="verdict" class="verdict {facts.verdict.status}"><b>1. Verdict: \
{WORDS[facts.verdict.status]}.</b> {_text(facts.verdict.text)}</p>
<p class="rows">Made of {_text(facts.rows)}.{_text(seen)} Intervals are of 95 %; \
n counts {counted_in(facts)}.</p>
</header>
<nav aria-label="Contents"><ol start="2">{contents}</ol></nav>
<main>
<section id="checks"><h2>2. Checks</h2>{_checks(facts)}</section>
{body}
</main>
<script type="application/json" id="facts">{_data_block(facts)}</script>
<script type="module">{script}</script>
</body>
</html>
"""


def _data_block(facts: Facts) -> str:
    """What the charts draw, as JSON that ends no script."""
    drawn = {
        name: getattr(facts, name)
        for name in ("budgets", "scores", "timeline", "power", "peers", "map", "learning")
    }
    text = msgspec.json.encode(drawn).decode()
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _checks(facts: Facts) -> str:
    rows = [
        (_Markup(f'<span class="{each.status}">{WORDS[each.status]}</span>'), each.name, each.text)
        for each in facts.checks
    ]
    return _table(("", "check", "what was found"), rows, words=True)


def _alarms(facts: Facts) -> tuple[str, str, str]:
    budgets = facts.budgets
    per_day = budgets.rows_per_day is not None
    streams = ""
    if facts.timeline is not None:
        streams = " In a stream one event is told of, however many of its rows alarm."
    unit = "a day" if per_day else f"per 1,000 normal {unit_of(facts)}"
    rows: list[tuple[object, ...]] = []
    for budget in budgets.alphas:
        name = f"{budget.alpha:g}" + (" (in force)" if budget.in_force else "")
        if budget.false_alarm_rate is None or budget.false_alarm_rate.interval is None:
            continue
        alarms = budget.false_alarms_per_day or tuple(
            1000 * each
            for each in (budget.false_alarm_rate.value or 0, *budget.false_alarm_rate.interval)
        )
        rows.append(
            (
                name,
                f"{budget.threshold:.4g}",
                f"{budget.severity_limit:.2f}",
                budget.false_alarm_rate,
                f"{_number(alarms[0])} ({_number(alarms[1])} to {_number(alarms[2])})",
                "certified" if budget.certified else "not certified",
            )
        )
    refused = ""
    if few := [budget for budget in budgets.alphas if budget.refusal]:
        asked = ", ".join(f"{budget.alpha:g}" for budget in few)
        refused = f"Not to be had with these calibration rows: {asked}. {few[-1].refusal}."
    how = {
        "given": f"{budgets.rows_per_day or 0:,.0f} rows a day, as was given.",
        "observed": f"{budgets.rows_per_day or 0:,.0f} rows a day, as the times of the rows say.",
        "unknown": "How many rows come a day is not known: --rows-per-day tells.",
    }[budgets.rows_per_day_is]
    ceilings = [
        (
            f"{each.prevalence:g}",
            f"{each.precision:.1%}",
            "" if each.precision_found is None else f"{each.precision_found:.1%}",
        )
        for each in budgets.ceilings
    ]
    rate = next(each for each in budgets.alphas if each.in_force).false_alarm_rate
    html = (
        _meaning(
            f"False alarms that normal rows alone would raise, by the budget alpha. {how} The"
            f" intervals presuppose {budgets.presupposes}."
            f"{streams}"
        )
        + _chart("alarms", "False alarms by alpha, with intervals")
        + _table(
            ("alpha", "threshold", "severity", "false-alarm rate", f"false alarms {unit}", ""),
            rows,
        )
        + (_meaning(refused) if refused else "")
        + "<h3>What share of alarms can be true</h3>"
        + _meaning(
            "Where few rows are anomalies most alarms are false, however good the model is:"
            " precision = prevalence × detection / (prevalence × detection + (1 - prevalence) ×"
            f" false-alarm rate). Here the rate is {_percent(rate.value if rate else None)}."
        )
        + _table(
            (
                "share of rows that are anomalies",
                "precision at most (all are found)",
                "with the detection of the labelled ones",
            ),
            ceilings,
        )
    )
    return "alarms", "Alarms by budget", html


def _scores(facts: Facts) -> tuple[str, str, str]:
    scores, unit = facts.scores, unit_of(facts)
    fixed = (
        " They set the threshold, so that their rate as a whole is fixed; how it differs from part"
        " to part is not."
        if scores.calibrated
        else ""
    )
    labelled = ""
    if facts.labelled:
        labelled = (
            f" {facts.labelled.anomalies:,} labelled anomalies: AUROC"
            f" {_area(facts.labelled.auroc)}; {facts.labelled.detection.say()} of them alarm."
        )
        if facts.labelled.ranges:
            labelled += (
                f" They make {facts.labelled.ranges.n:,} ranges of rows, of which"
                f" {facts.labelled.ranges.say()} raise an alarm: neighbours tell little more than"
                " one of them."
            )
    stretches = [
        (each.name, each.alarms, each.rate.n, each.rate) for each in (*scores.parts, *scores.blocks)
    ]
    uniform = "" if scores.uniform is None else scores.uniform.text
    shown = ""
    if len(scores.blocks) < scores.all_blocks:
        shown = f" (the {len(scores.blocks)} largest of {scores.all_blocks:,})"
    html = (
        _meaning(
            f"Scores of {scores.rows:,} held-out normal {unit}; the line is the threshold,"
            f" {scores.threshold:.4g}. {scores.alarms.say()} of them lie above it.{fixed}{labelled}"
        )
        + _chart("scores", f"Held-out {unit} by score, with the threshold")
        + (_chart("anomalies", "Labelled anomalies by score") if facts.labelled else "")
        + f"<h3>False alarms from the first row to the last, in {_text(scores.parts_of)}"
        + (f", and by {_text(scores.blocks_of)}{shown}</h3>" if scores.blocks else "</h3>")
        + _chart("parts", "False-alarm rate by part, with intervals")
        + _folded(_table((f"held-out {unit}", "alarms", "n", "rate"), stretches))
        + "<h3>P-values against uniform</h3>"
        + _meaning(uniform or f"Too few held-out {unit} to ask.")
        + (_chart("uniform", f"P-values of {unit} that did not set them") if scores.uniform else "")
    )
    return "scores", f"Scores of held-out {unit}", html


def _timeline(facts: Facts) -> Iterator[tuple[str, str, str]]:
    """Of a model of windows alone."""
    timeline = facts.timeline
    if timeline is None:
        return
    axis, unit = timeline.time, " s" if timeline.is_clock else ""
    whose = f" of {timeline.entities:,} entities ({timeline.entity})" if timeline.entity else ""
    begins = "No window begins anew, however long a step is."
    if timeline.gap is not None:
        begins = (
            f"A window begins anew after a step over {timeline.gap:g}{unit}, as"
            f" {timeline.breaks:,} are."
        )
    left_out = all(each.left_out is not None for each in timeline.blocks)
    others = ["rate at the others' threshold"] if left_out else []
    yield (
        "time",
        "Time and entities",
        _meaning(
            f"An answer looks at {timeline.window} rows{whose} in the order of {axis.column}, the"
            f" judged one last ({timeline.representation}). The median step is"
            f" {axis.step:g}{unit}; {axis.gaps:,} steps are over 1.5 times as long, the longest"
            f" {axis.longest_gap:g}{unit}; {axis.repeated:,} rows have the time of the one before,"
            f" and {timeline.unsorted:,} stand in the file before an earlier one of theirs."
            f" {begins}"
        )
        + _table(
            ("what rows are", "rows"), [(each.kind, f"{each.rows:,}") for each in timeline.rows]
        )
        + "<h3>What neighbours are worth</h3>"
        + _meaning(
            f"Windows that follow each other share rows and are alike: {timeline.held_out:,}"
            f" held-out windows tell as much of a rate as {max(timeline.effective, 1):,.0f} that"
            " are drawn singly (by the autocorrelation of their scores), and all intervals of this"
            " report count so."
        )
        + "<h3>Severity over time</h3>"
        + _chart("severity", "Severity of windows over time, with the blocks held out")
        + "<h3>Alarms by block of time</h3>"
        + _meaning(_say_blocks(facts))
        + _table(
            ("block of held-out windows", "alarms", "n", "rate", *others),
            [
                (
                    each.name,
                    each.alarms.alarms,
                    each.alarms.rate.n,
                    each.alarms.rate,
                    *([f"{each.left_out:.1%}"] if left_out else []),
                )
                for each in timeline.blocks
            ],
        )
        + "<h3>The later rows against the earlier</h3>"
        + _meaning(
            (
                f"{timeline.drift.text[:1].upper()}{timeline.drift.text[1:]}."
                if timeline.drift
                else "The held-out windows are worth too little to test whether scores drift."
            )
            + f" Of the earlier half {timeline.earlier.rate.say()} alarm, of the later half"
            f" {timeline.later.rate.say()}."
        )
        + _table(
            ("number", "mean of the later half", "its spread"),
            [
                (each.feature, f"{each.mean:+.2f} sd", f"{each.sd:.2f} times")
                for each in timeline.moved
            ],
        )
        + _meaning(
            "In standard deviations of the earlier half of the held-out rows, those first that"
            " moved most; the hour of the day moves numbers as well."
        ),
    )


def _say_blocks(facts: Facts) -> str:
    timeline = facts.timeline
    assert timeline is not None
    if timeline.worst is None:
        return "There is one block, so that none can be held against others."
    worst = timeline.worst
    how = worst.alarms.rate.say()
    if worst.rate == 0:
        return f"No block alarms, where alpha is {facts.alpha:g}."
    if worst.left_out is not None:
        how = f"{worst.left_out:.1%} at the threshold that the others give"
    return (
        f"The worst block, {worst.name}, alarms at {how}, where alpha is {facts.alpha:g}: expect as"
        " much of a block to come."
    )


def _power(facts: Facts) -> tuple[str, str, str]:
    power = facts.power
    if power is None:
        return "power", "What it can and cannot see", _meaning("No row could carry a fault.")
    kinds: dict[str, None] = {}
    for feature in power.features:
        kinds |= dict.fromkeys(found.fault for found in feature.faults)
    rows = []
    for feature in power.features:
        found = {each.fault: each.alarms for each in feature.faults}
        rows.append((feature.feature, *(found.get(kind) for kind in kinds)))
    shown = len(power.features)
    drawn = (
        f" {shown} of {power.of_features:,} features were drawn."
        if shown < power.of_features
        else ""
    )
    fitted = (
        " Most models of the file were fitted on these rows: new ones alarm more often, with and"
        " without a fault."
        if power.fitted
        else ""
    )
    unit, into = unit_of(facts), "one value of clean held-out rows"
    if power.lasting_rows:
        into = (
            "one feature of clean held-out windows (in the last row, as if it had just begun, or in"
            f" the last {power.lasting_rows}; sd is that of the feature over all of them)"
        )
    blind = "".join(f"<li>{_text(sentence)}</li>" for sentence in power.cannot_see)
    html = (
        f"<h3>What this model cannot see</h3><ul class='blind'>{blind}</ul>"
        + f"<h3>Share of faulty {unit} that alarm</h3>"
        + _meaning(
            f"Each fault was put into {into}, and counted against the threshold in force; of the"
            f" same {unit} without a fault {power.clean.say()} alarm.{drawn}{fitted}"
        )
        + _chart("power", f"Share of faulty {unit} that alarm, by feature and fault")
        + _folded(_table(("feature", *kinds), rows))
    )
    return "power", "What it can and cannot see", html


def _peers(facts: Facts) -> tuple[str, str, str]:
    peers, unit = facts.peers, unit_of(facts)
    ranges = "" if peers.ranges is None else f" in {peers.ranges:,} ranges"
    html = _meaning(f"Is the network worth it? {peers.text[:1].upper()}{peers.text[1:]}.")
    if peers.methods:
        rows = [
            (
                each.name,
                _area(each.auroc),
                f"{each.average_precision:.3f}",
                each.detection,
                ""
                if each.behind is None
                else f"{each.behind.value:+.3f} ({each.behind.interval[0]:+.3f} to"
                f" {each.behind.interval[1]:+.3f})",
            )
            for each in peers.methods
        ]
        html += (
            _meaning(
                f"{peers.normal_rows:,} normal {unit} that are new to every method, and"
                f" {peers.anomalies:,} labelled anomalies{ranges}. Detection is read where"
                f" {_percent(peers.false_alarm_rate)} of these normal {unit} lie above."
            )
            + _chart("peers", "AUROC by method, with intervals")
            + _table(
                (
                    "method",
                    "AUROC",
                    "average precision",
                    "detection",
                    "AUROC of this model beyond it",
                ),
                rows,
            )
        )
    return "peers", "The same rows by other methods", html


def _strangest(facts: Facts) -> tuple[str, str, str]:
    strangest = facts.strangest
    if facts.timeline is not None:
        return "strangest", "The strangest windows", _strangest_windows(facts)
    rows = [
        (
            each.row,
            f"{each.times_as_far:.1f}",
            each.alike,
            "not scored" if each.p_value is None else f"{each.p_value:.3g}",
            "yes" if each.alarms else "no",
            each.text,
        )
        for each in strangest.rows
    ]
    listed = f"; suspects.csv lists {strangest.listed:,}" if strangest.listed else ""
    html = _meaning(
        f"Of {strangest.of_rows:,} rows these lie farthest from all others{listed}. There are"
        " always some, also where all is in order: whoever knows the rows should look at them."
        " Their values are not written here: sd counts the standard deviations by which a value"
        " lies above (+) or below what the others in its row let expect."
    )
    if rows:
        headings = ("row", "times as far as usual", "alike", "p-value", "alarms", "why")
        html += _table(headings, rows, words=True)
    return "strangest", "The strangest rows", html


def _strangest_windows(facts: Facts) -> str:
    strangest = facts.strangest
    is_run = any(each.is_for for each in strangest.windows)
    has_entity = any(each.entity is not None for each in strangest.windows)
    headings = ["row", "time", "severity", "p-value", "alarms", "why"]
    if has_entity:
        headings.insert(2, "entity")
    if is_run:
        headings.insert(-1, "used for")
    rows = []
    for each in strangest.windows:
        row: list[object] = [each.row, each.time, f"{each.severity:.2f}", f"{each.p_value:.3g}"]
        row += ["yes" if each.alarms else "no", each.text]
        if has_entity:
            row.insert(2, each.entity)
        if is_run:
            row.insert(-1, each.is_for)
        rows.append(row)
    listed = (
        f" suspects.csv lists {strangest.listed:,} single rows that lie far from all others,"
        " whatever their order."
        if strangest.listed
        else ""
    )
    calm = " Windows that the model was fitted on look calmer than they are." if is_run else ""
    return _meaning(
        f"Of {strangest.of_windows or 0:,} windows of normal rows the model finds these strangest;"
        " no two of them share a row, and each is named by its last one. There are always some,"
        f" also where all is in order.{calm}{listed} Why: the features' shares of the score, and by"
        " how many standard deviations the last row's value lies above (+) or below what the rows"
        " before let expect. Values are not written here."
    ) + (_table(headings, rows, words=True) if rows else "")


def _data(facts: Facts) -> tuple[str, str, str]:
    data = facts.data
    rows = [
        (
            column.name,
            column.kind,
            column.unit or "",
            f"{column.missing:,} ({column.missing / max(data.rows, 1):.1%})",
            "" if column.minimum is None else f"{column.minimum:.5g}",
            "" if column.maximum is None else f"{column.maximum:.5g}",
            f"{column.distinct:,} in {column.looked_at:,}",
        )
        for column in data.columns[:MOST_COLUMNS]
    ]
    said = "".join(f"<li>{_text(each)}</li>" for each in data.warnings)
    rest = len(data.columns) - MOST_COLUMNS
    dropped = "were dropped for too few values"
    if facts.timeline is not None:
        dropped = "have too few values to be judged"
    html = (
        _meaning(
            f"{data.rows:,} normal rows and {data.anomalies:,} labelled anomalies."
            f" {data.dropped:,} rows {dropped};"
            f" {data.duplicates:,} repeat an earlier row."
        )
        + (f"<ul>{said}</ul>" if said else "")
        + _table(
            ("feature", "kind", "unit", "missing", "smallest", "largest", "distinct values"), rows
        )
        + (_meaning(f"report.json has the other {rest:,}.") if rest > 0 else "")
    )
    return "data", "Data", html


def _map(facts: Facts) -> tuple[str, str, str]:
    plane = facts.map
    html = _meaning(
        f"The code of {len(plane.held_out):,} of {plane.rows:,} held-out {unit_of(facts)}"
        f" ({plane.axes[0]}, {plane.axes[1]}: {plane.explained:.0%} of the code's variance),"
        f" {len(plane.anomalies):,} labelled anomalies and {len(plane.suspects):,}"
        f" {'suspects' if facts.timeline is None else 'of the strangest windows'}."
    ) + _chart("map", "Map of the code")
    html += "<h3>Learning</h3>"
    if facts.learning:
        rows = [
            (curve.name, curve.epoch[-1], f"{curve.loss[-1]:.5g}", f"{curve.held_out_loss[-1]:.5g}")
            for curve in facts.learning
        ]
        html += _chart("learning", "Loss by epoch") + _table(
            ("network", "epochs", "loss", "held-out loss"), rows
        )
    else:
        html += _meaning("No network was fitted by epochs: closed forms, or a report made anew.")
    return "map", "Map of the code, and learning", html


def _privacy(facts: Facts) -> tuple[str, str, str]:
    rows = [(each.file, each.what, "yes" if each.single_rows else "no") for each in facts.privacy]
    html = _meaning("What of the rows is in the files; whoever has a file can read it.")
    return (
        "privacy",
        "Privacy",
        html + _table(("file", "what of the rows", "of single rows"), rows, words=True),
    )


def _cost(facts: Facts) -> tuple[str, str, str]:
    cost, unit = facts.cost, unit_of(facts).removesuffix("s")
    rows = [
        (
            f"one {unit}",
            f"{cost.one_row_ms:.3g} ms",
            f"median of {cost.timed_runs} calls, no server",
        ),
        (
            f"a {unit} in bulk",
            f"{cost.bulk_row_ms:.3g} ms",
            f"median of {cost.timed_runs} calls of 1,024",
        ),
        ("model file", f"{cost.size_kib:,.0f} KiB", ""),
        ("fit", _seconds(cost.fit_cpu_seconds), "of the processor, all stages before this report"),
        ("fit", _seconds(cost.fit_seconds), "by the clock"),
        ("this report", _seconds(cost.report_cpu_seconds), "of the processor"),
    ]
    return (
        "cost",
        "Cost",
        _meaning("On the machine of the report.")
        + _table(("what", "cost", "how measured"), rows, words=True),
    )


def _origin(facts: Facts) -> tuple[str, str, str]:
    origin = facts.origin
    rows = [
        ("model.onnx, SHA-256", origin.version),
        (f"{origin.data}, SHA-256", origin.data_sha256 or "the file was not there"),
        ("seed", str(origin.seed)),
        *origin.versions.items(),
    ]
    html = _meaning(
        "The same rows, this run.toml, these versions and one kind of processor give the same"
        " bytes."
    ) + _table(("what", "which"), rows, words=True)
    if origin.run_toml is not None:
        html += f"<details><summary>run.toml</summary><pre>{_text(origin.run_toml)}</pre></details>"
    return "origin", "Reproducibility", html


def _snippets(facts: Facts) -> tuple[str, str, str]:
    html = _meaning("Each runs as it stands while hourglass serve does; the row is made up.")
    for snippet in facts.snippets:
        html += f"<h3>{_text(snippet.title)}</h3><pre>{_text(snippet.text)}</pre>"
    return "snippets", "Snippets", html


def unit_of(facts: Facts) -> str:
    """What is judged."""
    return "rows" if facts.timeline is None else "windows"


def counted_in(facts: Facts) -> str:
    """What n counts."""
    if facts.timeline is None:
        return "rows"
    return "windows, and what those that follow each other are worth in single ones"


def _gate(decision: Decision) -> tuple[str, str, str]:
    rows = [
        (_Markup(f'<span class="{each.status}">{WORDS[each.status]}</span>'), each.name, each.text)
        for each in decision.checks
    ]
    verdict = (
        "refused" if not decision.published else "by force" if decision.forced else "published"
    ) + (", in shadow" if decision.published and decision.shadow else "")
    html = _meaning(
        f"Against {decision.champion[:12]}, which was in service: {verdict}, {decision.reason}."
    ) + _table(("", "check", "what was found"), rows, words=True)
    return "gate", "The gate", html


def _meaning(text: str) -> str:
    return f"<p>{_text(text)}</p>"


def _folded(table: str) -> str:
    """Opened when it is printed."""
    return f'<details class="table"><summary>Table</summary>{table}</details>'


def _chart(name: str, label: str) -> str:
    return f'<div data-chart="{name}" aria-label="{_text(label)}"></div>'


def _table(
    headings: Sequence[str], rows: Iterable[Sequence[object]], *, words: bool = False
) -> str:
    head = "".join(f"<th scope='col'>{_text(each)}</th>" for each in headings)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    kind = "words" if words else "numbers"
    name = _text(f"Table: {', '.join(filter(None, headings))}")
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{name}"><table class="{kind}">'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _cell(value: object) -> str:
    match value:
        case _Markup():
            return f"<td>{value}</td>"
        case None:
            return "<td></td>"
        case Estimate(value=None):
            return "<td></td>"
        case Estimate(value=share, interval=interval, told_by=told_by):
            assert interval is not None
            told_by = told_by.replace(" =", "")
            span = f"{100 * interval[0]:.1f}–{100 * interval[1]:.1f} %, {told_by}"
            return f'<td class="estimate">{share:.1%} <small>{span}</small></td>'
        case _:
            return f"<td>{_text(value)}</td>"


def _text(value: object) -> str:
    """Escaped; a word that is too long for a line is cut."""
    text = printable(str(value))
    words = [word if len(word) <= LONGEST else f"{word[:LONGEST]}…" for word in text.split(" ")]
    return escape(" ".join(words) if len(text) < 10_000 else text[:10_000] + "…")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _area(area: Estimate) -> str:
    if area.value is None or area.interval is None:
        return "unknown"
    low, high = area.interval
    return f"{area.value:.3f} ({low:.3f} to {high:.3f}, {area.told_by})"


def _percent(share: float | None) -> str:
    return "unknown" if share is None else f"{share:.2%}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _seconds(seconds: float | None) -> str:
    return "unknown" if seconds is None else f"{seconds:.1f} s"
