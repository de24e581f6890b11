"""The schema of a model's rows, derived from its manifest."""

import pytest

from hourglass.service.model.detector import Detector
from hourglass.service.model.schema import Schema
from tests.artifacts import MIXED, NUMERIC, make_artifact


def test_a_schema_knows_positions_and_codes():
    schema = Schema.of(Detector.from_bytes(make_artifact(MIXED)).manifest)
    assert schema.width == 4
    assert schema.positions == {"load": 0, "open": 1, "site": 2, "heat": 3}
    assert schema.codes == ({}, {}, {"north": 0.0, "south": 1.0, "west": 2.0}, {})
    assert not schema.all_numeric


@pytest.mark.parametrize(("fraction", "cells"), [(0.5, 2), (0.51, 3), (0.0, 1), (1.0, 4)])
def test_a_row_needs_its_share_of_values_and_at_least_one(fraction, cells):
    schema = Schema.of(
        Detector.from_bytes(make_artifact(NUMERIC, min_observed_fraction=fraction)).manifest
    )
    assert schema.all_numeric
    assert schema.min_observed == cells
