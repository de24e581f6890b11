"""Every protocol by its name, in the table's order."""

from tests.benchmarks.trust import (
    changed_cells,
    contamination,
    default_alpha,
    demo,
    few_rows,
    hard_columns,
    order,
    refits,
    series,
    severity,
    shuffled,
)
from tests.benchmarks.trust.protocol import Protocol

PROTOCOLS: dict[str, Protocol] = {
    "order": order.PROTOCOL,
    "shuffled": shuffled.PROTOCOL,
    "contamination": contamination.PROTOCOL,
    "default-alpha": default_alpha.PROTOCOL,
    "few-rows": few_rows.PROTOCOL,
    "changed-cells": changed_cells.PROTOCOL,
    "demo": demo.PROTOCOL,
    "severity": severity.PROTOCOL,
    "refits": refits.PROTOCOL,
    "hard-columns": hard_columns.PROTOCOL,
    "series": series.PROTOCOL,
}
