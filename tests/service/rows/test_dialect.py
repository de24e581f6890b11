"""How a CSV is said to be written."""

import argparse

import pytest

from hourglass.service.errors import InvalidSettings
from hourglass.service.rows.dialect import (
    Dialect,
    add_dialect_arguments,
    dialect_of,
    given_dialect,
)


def parsed(*arguments):
    parser = argparse.ArgumentParser()
    add_dialect_arguments(parser)
    return given_dialect(parser.parse_args(arguments))


def test_flags_are_the_fields_of_a_dialect_and_only_those_that_are_given():
    assert parsed() == {}
    given = parsed(
        *"--separator tab --decimal , --thousands . --comment # --no-header".split(),
        *"--null NA -999 - --null ?".split(),
    )
    assert Dialect(**given) == Dialect(
        separator="\t",
        decimal=",",
        thousands=".",
        comment="#",
        header=False,
        null=("NA", "-999", "-", "?"),
    )
    assert parsed("--separator", "\\t") == {"separator": "\t"}


def test_flags_that_contradict_each_other_are_said_by_whoever_reads_them():
    parser = argparse.ArgumentParser()
    add_dialect_arguments(parser)
    with pytest.raises(InvalidSettings, match=r"thousands and decimal are both '\.'"):
        dialect_of(parser.parse_args(["--thousands", "."]))


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"separator": ";;"}, "separator must be one character, no quote or line end; got ';;'"),
        ({"separator": '"'}, "separator must be one character"),
        ({"comment": "§"}, "comment must be one character"),
        ({"thousands": "."}, "thousands and decimal are both '.'; --decimal names another"),
    ],
)
def test_signs_that_mean_two_things_are_refused(values, sentence):
    with pytest.raises(ValueError, match=sentence):
        Dialect(**values)
