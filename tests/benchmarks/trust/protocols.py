"""Every protocol by its name, in the table's order."""

from tests.benchmarks.trust import changed_cells, demo
from tests.benchmarks.trust.protocol import Protocol

PROTOCOLS: dict[str, Protocol] = {
    "changed-cells": changed_cells.PROTOCOL,
    "demo": demo.PROTOCOL,
}
