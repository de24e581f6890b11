"""Card: the report as Markdown, for where a model is handed on."""

import re

from hourglass.service.errors import printable
from hourglass.training.report.estimates import Estimate
from hourglass.training.report.facts import Facts
from hourglass.training.report.page import counted_in, unit_of
from hourglass.training.report.timeline import Timeline

CARD = "card.md"
LONGEST = 200  # characters of what comes from the rows
MOST_COLUMNS = 50
# signs by which Markdown, or HTML inside it, would read a column's name as something else
_SIGNS = re.compile(r"([\\`*_{}\[\]<>#|!~$&])")


def write_card(facts: Facts) -> str:
    """The whole file."""
    lines = [
        f"# {_text(facts.name)}",
        "",
        f"Hourglass model, version `{facts.version}`.",
        "",
        f"**{facts.verdict.status}.** {_text(facts.verdict.text)}",
        "",
        f"Made of {_text(facts.rows)}. Intervals are of 95 %; n counts {counted_in(facts)}.",
        "",
        "## What it is for",
        "",
        f"It scores {unit_of(facts)} with the features below by how unlike those it was fitted on"
        f" they are: {_text(facts.promise)}. Guarantee: {facts.guarantee}"
        f" ({_text(facts.guarantee_reason)}).",
        "",
        "## Checks",
        "",
        *_table(
            ("check", "", "found"),
            [(each.name, each.status, each.text) for each in facts.checks],
        ),
        "",
        "## What it finds",
        "",
    ]
    if facts.labelled:
        area = facts.labelled.auroc
        if area.value is not None and area.interval is not None:
            lines.append(
                f"- AUROC on labelled anomalies: {area.value:.3f} ({area.interval[0]:.3f} to"
                f" {area.interval[1]:.3f}, {area.told_by})"
            )
        lines.append(f"- Labelled anomalies that alarm: {facts.labelled.detection.say()}")
        if facts.labelled.ranges:
            ranges = facts.labelled.ranges.say()
            lines.append(f"- Labelled ranges of rows of which one alarms: {ranges}")
    else:
        lines.append("- Of real anomalies nothing is known: there are no labels.")
    lines += [f"- Is the network worth it: {_text(facts.peers.text)}.", ""]
    if facts.gate:
        lines += [
            "## The gate",
            "",
            f"Against `{facts.gate.champion[:12]}`, which was in service:"
            f" {_text(facts.gate.reason)}.",
            "",
            *_table(
                ("check", "", "found"),
                [(each.name, each.status, each.text) for each in facts.gate.checks],
            ),
            "",
        ]
    if facts.power:
        lines += ["## What it cannot see", ""]
        lines += [f"- {_text(sentence)}" for sentence in facts.power.cannot_see]
        lines.append("")
    if facts.timeline:
        lines += _timeline(facts.timeline, facts.alpha)
    lines += [
        "## False alarms by budget",
        "",
        f"The intervals presuppose {_text(facts.budgets.presupposes)}.",
        "",
        *_table(
            ("alpha", "threshold", "false-alarm rate", "certified"),
            [
                (
                    f"{each.alpha:g}{' (in force)' if each.in_force else ''}",
                    "-" if each.threshold is None else f"{each.threshold:.4g}",
                    _estimate(each.false_alarm_rate),
                    "yes" if each.certified else "no",
                )
                for each in facts.budgets.alphas
            ],
        ),
        "",
        "## Data",
        "",
        f"{facts.data.rows:,} normal rows, {facts.data.anomalies:,} labelled anomalies,"
        f" {facts.data.dropped:,} with too few values.",
        "",
        *_table(
            ("feature", "kind", "missing", "smallest", "largest"),
            [
                (
                    column.name,
                    column.kind,
                    f"{column.missing:,} of {facts.data.rows:,}",
                    "" if column.minimum is None else f"{column.minimum:.5g}",
                    "" if column.maximum is None else f"{column.maximum:.5g}",
                )
                for column in facts.data.columns[:MOST_COLUMNS]
            ],
        ),
    ]
    if (rest := len(facts.data.columns) - MOST_COLUMNS) > 0:
        lines += ["", f"report.json has the other {rest:,}."]
    lines += ["", "## What of the rows is in the files", ""]
    lines += [f"- {each.file}: {_text(each.what)}" for each in facts.privacy]
    lines += [
        "",
        "## Cost",
        "",
        f"- {facts.cost.one_row_ms:.3g} ms for one of the {unit_of(facts)},"
        f" {facts.cost.bulk_row_ms:.3g} ms for each in bulk (medians of {facts.cost.timed_runs}"
        " calls)",
        f"- {facts.cost.size_kib:,.0f} KiB",
        "",
        "## Where it comes from",
        "",
        f"- data: {_text(facts.origin.data)}, SHA-256 {facts.origin.data_sha256 or 'unknown'}",
        f"- seed: {facts.origin.seed}",
        *(f"- {name}: {_text(version)}" for name, version in facts.origin.versions.items()),
        "",
    ]
    return "\n".join(lines)


def _timeline(timeline: Timeline, alpha: float) -> list[str]:
    whose = f" of {timeline.entities:,} entities ({timeline.entity})" if timeline.entity else ""
    lines = [
        "## In time",
        "",
        f"- An answer looks at {timeline.window} rows{_text(whose)} in the order of"
        f" {_text(timeline.time.column)}, the judged one last; the first {timeline.window - 1}"
        " have none.",
        f"- {timeline.held_out:,} held-out windows tell as much as"
        f" {max(timeline.effective, 1):,.0f} that are drawn singly.",
    ]
    if (worst := timeline.worst) and worst.rate:
        lines.append(
            f"- The worst of {len(timeline.blocks)} blocks of time, {_text(worst.name)}, alarms"
            f" at {worst.rate:.1%}, where alpha is {alpha:g}."
        )
    return [*lines, ""]


def _table(headings: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    return [
        f"| {' | '.join(headings)} |",
        f"|{' --- |' * len(headings)}",
        *(f"| {' | '.join(map(_text, row))} |" for row in rows),
    ]


def _estimate(estimate: Estimate | None) -> str:
    return "" if estimate is None or estimate.value is None else estimate.say()


def _text(text: str) -> str:
    shown = printable(text).replace("\n", " ")
    shown = shown if len(shown) <= 10 * LONGEST else shown[: 10 * LONGEST] + "…"
    return _SIGNS.sub(r"\\\1", shown)
