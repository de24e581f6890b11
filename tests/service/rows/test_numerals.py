"""Numbers as people write them, and the flag that reads each."""

import polars as pl
import pytest

from hourglass.service.rows.dialect import Dialect
from hourglass.service.rows.numerals import explain_cell, misread, to_numbers


def column(*cells):
    return pl.Series("a", cells)


@pytest.mark.parametrize(
    ("cells", "dialect", "numbers"),
    [
        (["1,510", "9", "-12,345.5", "1e3"], Dialect(thousands=","), [1510, 9, -12345.5, 1000]),
        (["1.510,5", "2,5"], Dialect(decimal=",", thousands=".", separator=";"), [1510.5, 2.5]),
        (["1 510", "1'510"], Dialect(thousands=" "), [1510, None]),
        (["1'510"], Dialect(thousands="'"), [1510]),
        (["1_510", "1_51"], Dialect(thousands="_"), [1510, None]),
        (["2.5", "2,5"], Dialect(decimal=",", separator=";"), [None, 2.5]),
        (["1.5", "x", None], Dialect(), [1.5, None, None]),
    ],
)
def test_numbers_are_read_as_the_dialect_writes_them(cells, dialect, numbers):
    assert to_numbers(column(*cells), dialect).to_list() == numbers


@pytest.mark.parametrize(
    ("cell", "meaning"),
    [
        ("1,510", "'1,510', digits in groups: --thousands , reads 1,510 as 1510, and --decimal ,"),
        ("1,510.25", "--thousands , reads them"),
        ("1,5", "'1,5', a decimal comma: --decimal , reads it"),
        ("1.510,5", "--decimal , --thousands . reads them"),
        ("1.510.000", "--decimal , --thousands . reads them"),
        ("1 510", "--thousands ' ' reads them"),
        ("1'510", '--thousands "\'" reads them'),
        ("1_510", "--thousands _ reads them"),
        ("1\u202f510", "by a sign that is no ASCII"),
        ("(12.5)", "a negative number in brackets"),
        ("−5", "a number with another minus"),
        ("5-", "a number with another minus"),
        ("20 C", "'20 C', which has a unit: write the number alone"),
        ("50%", "which has a unit"),
        ("$1,234.50", "which has a unit"),
        ("EUR 5", "which has a unit"),
        ("<0.01", "a bound"),
        ("NA", "'NA'; --null 'NA' reads it as missing"),
        ("N/A", "--null 'N/A' reads it as missing"),
        ("-", "--null '-' reads it as missing"),
        ("?", "--null '?' reads it as missing"),
        ("ERR", "leave a cell empty where the value is missing, or --null 'ERR'"),
    ],
)
def test_text_that_means_numbers_is_found_whatever_the_habit(cell, meaning):
    found = misread(column("1", None, "2", "3", cell, cell))
    assert found is not None
    assert found.row == 5
    assert found.cells == 2
    assert meaning in found.got
    assert meaning in explain_cell(cell)


@pytest.mark.parametrize("odd", ["NA", "?", "-", "n/a"])
def test_missing_values_do_not_make_few_numbers_a_category_nor_are_one_by_themselves(odd):
    for numbers in (("1.5", "2.5"), ()):
        found = misread(column(odd, odd, odd, odd, *numbers))
        assert found is not None
        assert (found.row, found.cells) == (1, 4)


@pytest.mark.parametrize(
    "cells",
    [
        ["1,5", "12,25", "3,0"],
        ["1,510", "9,000", "12,345"],
        ["1 510", "9 000"],
        [f"{degrees} C" for degrees in range(10, 20)],
        [f"{share}%" for share in range(10)],
        [f"${amount},000" for amount in range(1, 10)],
    ],
)
def test_a_column_of_one_habit_throughout_is_found(cells):
    found = misread(column(*cells))
    assert found is not None
    assert (found.row, found.cells, found.few_with_unit) == (1, len(cells), False)


@pytest.mark.parametrize("cells", [["2WD", "4WD"], ["8GB", "16GB", "32GB"], ["25%", "50%"]])
def test_a_few_numbers_with_a_unit_may_as_well_be_names(cells):
    found = misread(column(*cells * 10))
    assert found is not None
    assert found.few_with_unit


@pytest.mark.parametrize(
    "cells",
    [
        ["north", "south", "NA"],
        ["1.2.3", "1.2.4", "10.0.0"],
        ["192.168.100.101", "192.168.100.200"],
        ["555-123-4567", "555-987-6543"],
        ["+1 555 123 4567", "+1 555 987 6543"],
        ["SW1A 1AA", "N1 9GU"],
        ["0x1F", "0xA0"],
        ["1st", "2nd", "3rd", "4th"],
        ["18-25", "26-35", "50+"],
        ["<18", "18-65", ">65"],
        ["<=50K", ">50K"],
        ["16:9", "4:3"],
        ["10x20", "20x30"],
        ["5min", "1h", "30s"],
        ["2023Q1", "2023Q2"],
        ["A1", "B2", "C10"],
        ["31f1f4f44c9dc9a8", "12345678abcdef00"],
        ["a", "b", "1", "2"],
    ],
    ids=lambda cells: cells[0],
)
def test_names_codes_and_ranges_are_no_numbers(cells):
    assert misread(column(*cells * 5)) is None


def test_numbers_written_as_text_are_found_too():
    found = misread(column(None, "1", "2.5", "-inf"))
    assert found is not None
    assert (found.row, found.cells) == (2, 0)
    assert found.got == "'1', a number written as text: make it a column of numbers"


@pytest.mark.parametrize("name", ["count", "cell", "unit", ""])
def test_the_name_of_a_column_does_not_matter(name):
    assert misread(pl.Series(name, ["1", "2", "NA"])) is not None


def test_a_long_cell_is_not_echoed():
    found = misread(column("1", "2", "x" * 10_000_000))
    assert found is not None
    assert len(found.got) < 300
