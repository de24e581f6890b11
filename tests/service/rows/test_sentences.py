import numpy as np

from hourglass.service.model.conditional import Expectation
from hourglass.service.model.reasons import Reasons
from hourglass.service.rows.sentences import say_why
from tests.artifacts import MIXED

NAN = np.nan
ROW_ND = np.array([[2019.0, 1.0, 1.0, -3.5]], np.float32)  # load, open, site, heat
EXPECTED = Expectation(
    value_ND=np.array([[741.2, 0.03, 0.0, 20.0]]),
    sd_ND=np.array([[90.3, NAN, NAN, 4.0]]),
    probability_ND=np.array([[NAN, 0.03, 0.93, NAN]]),
    distance_ND=np.zeros((1, 4)),
)


def say(row_ND, order, blamed, *, group=None, sent=None):
    reasons = Reasons(
        np.array([order]),
        np.array([blamed]),
        np.array([group is not None]),
        [tuple(group or ())],
        EXPECTED,
    )
    return say_why(MIXED, row_ND, reasons, sent)[0]


def test_a_number_is_said_with_its_unit_what_was_expected_and_how_far_it_is_off():
    assert say(ROW_ND, [0, 1, 2, 3], 1) == (
        "load is 2019 kW where 741.2 ± 90 kW was expected (14 sd too high)"
    )
    assert say(ROW_ND, [3, 1, 2, 0], 1) == (
        "heat is -3.5 °C where 20 ± 4 °C was expected (5.9 sd too low)"
    )


def test_a_category_and_a_boolean_are_said_with_the_probability_of_what_was_expected():
    assert say(ROW_ND, [2, 1, 0, 3], 2) == (
        "site is south where north was expected (93%); open is true where false was expected (97%)"
    )


def test_an_unknown_category_is_said_as_it_came():
    row_ND = np.array([[0.0, 0.0, -1.0, 0.0]], np.float32)
    assert say(row_ND, [2, 0, 1, 3], 1, sent={(0, 2): "mars"}).startswith("site is mars where")
    assert say(row_ND, [2, 0, 1, 3], 1).startswith("site is unknown where north")


def test_what_is_off_beyond_measure_is_said_to_be():
    row_ND = np.array([[1e9, 0.0, 0.0, 0.0]], np.float32)
    assert say(row_ND, [0, 1, 2, 3], 1).endswith("was expected (over 1000 sd too high)")


def test_at_most_three_are_named_and_the_others_counted():
    sentence = say(ROW_ND, [0, 1, 2, 3], 4)
    assert sentence.count(" was expected ") == 3
    assert sentence.endswith("; and 1 more")


def test_a_row_that_differs_as_a_whole_says_what_moved_together():
    assert say(ROW_ND, [0, 1, 2, 3], 4, group=[0, 3, 1]) == (
        "differs as a whole: load is 2019 kW, and heat and open moved with it"
    )
    assert say(ROW_ND, [0, 1, 2, 3], 4, group=[0]) == (
        "differs as a whole, most of all in one value: load is 2019 kW"
    )
    assert say(ROW_ND, [0, 1, 2, 3], 4, group=[]) == "differs as a whole"


def test_of_a_row_that_does_not_alarm_there_is_nothing_to_say():
    assert say(ROW_ND, [0, 1, 2, 3], 0) is None
