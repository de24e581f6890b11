"""One cell: what is a number, and the words for what is none."""

import numpy as np
import pytest

from hourglass.service.errors import InvalidNumber, InvalidRow
from hourglass.service.model.detector import Detector
from hourglass.service.model.schema import Schema
from hourglass.service.rows import cells
from hourglass.service.rows.cells import NoNumber
from tests.artifacts import make_artifact


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1.5", 1.5),
        ("-1e300", -1e300),
        ("1e999", NoNumber("1e999")),
        ("-1e999", NoNumber("-1e999")),
    ],
)
def test_digits_beyond_any_float_are_no_number(text, value):
    assert cells.parse_float(text) == value


def test_from_overflow_on_a_number_is_no_float32():
    below = np.nextafter(cells.OVERFLOW, 0)
    assert np.isfinite(np.float64(below).astype(np.float32))
    with np.errstate(over="ignore"):
        assert np.isinf(np.float64(cells.OVERFLOW).astype(np.float32))


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "null"), ("\ud800é", '"\\ud800\\u00e9"'), ([1, 2], "an array of 2"), ({}, "an object of 0"),
     (10**99, "1" + "0" * 59 + "…")],
)  # fmt: skip
def test_what_came_is_shown_short_and_in_ascii(value, text):
    assert cells.shown(value) == text


def test_a_refusal_names_row_feature_expectation_and_what_came():
    for error, kind, expected in (
        (cells.bad_number(3, "a", "NaN"), InvalidNumber, "a finite number within float32"),
        (cells.misfit(3, "a", "true or false", "NaN"), InvalidRow, "true or false"),
    ):
        assert type(error) is kind
        assert (error.row, error.feature, error.expected, error.got) == (3, "a", expected, "NaN")
        assert str(error) == f"expected {expected} for 'a', got NaN in row 3"


def test_the_first_wrong_cell_is_the_one_named():
    schema = Schema.of(Detector.from_bytes(make_artifact()).manifest)
    rows_ND = np.arange(8.0).reshape(2, 4)
    cells.require_cells(rows_ND, rows_ND > 7, schema, "less")
    with pytest.raises(InvalidRow, match="expected less for 'c', got 6 in row 1"):
        cells.require_cells(rows_ND, rows_ND > 5, schema, "less")
