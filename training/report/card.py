"""Card: the report as Markdown, for where a model is handed on."""

import re

from hourglass.service.errors import printable
from hourglass.training.report.estimates import Estimate
from hourglass.training.report.facts import Facts

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
        f"Made of {_text(facts.rows)}. Intervals are of 95 %; n counts rows.",
        "",
        "## What it is for",
        "",
        "It scores rows with the features below by how unlike the rows it was fitted on they are:"
        f" {_text(facts.promise)}. Guarantee: {facts.guarantee} ({_text(facts.guarantee_reason)}).",
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
                f" {area.interval[1]:.3f}, n = {area.n:,})"
            )
        lines.append(f"- Labelled anomalies that alarm: {facts.labelled.detection.say()}")
    else:
        lines.append("- Of real anomalies nothing is known: there are no labels.")
    lines += [f"- Is the network worth it: {_text(facts.peers.text)}.", ""]
    if facts.power:
        lines += ["## What it cannot see", ""]
        lines += [f"- {_text(sentence)}" for sentence in facts.power.cannot_see]
        lines.append("")
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
        f" {facts.data.dropped:,} dropped for too few values.",
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
        f"- {facts.cost.one_row_ms:.3g} ms for one row, {facts.cost.bulk_row_ms:.3g} ms a row in"
        f" bulk (medians of {facts.cost.timed_runs} calls)",
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
