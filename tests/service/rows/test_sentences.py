import numpy as np
import pytest

from hourglass.service.model.artifact import Feature
from hourglass.service.model.conditional import Expectation
from hourglass.service.model.reasons import Reasons
from hourglass.service.rows.sentences import say_why, say_why_without_values
from tests.artifacts import MIXED

NAN = np.nan
ROW_ND = np.array([[2019.0, 1.0, 1.0, -3.5]], np.float32)  # load, open, site, heat
EXPECTED = Expectation(
    value_ND=np.array([[741.2, 0.03, 0.0, 20.0]]),
    sd_ND=np.array([[90.3, NAN, NAN, 4.0]]),
    probability_ND=np.array([[NAN, 0.03, 0.93, NAN]]),
    distance_ND=np.zeros((1, 4)),
)


def say(row_ND, order, blamed, *, group=None, sent=None, expected=EXPECTED, features=MIXED):
    reasons = Reasons(
        np.array([order]),
        np.array([blamed]),
        np.array([group is not None]),
        [tuple(group or ())],
        expected,
    )
    return say_why(features, row_ND, reasons, sent)[0]


def test_a_number_is_said_with_its_unit_what_was_expected_and_how_far_it_is_off():
    assert say(ROW_ND, [0, 1, 2, 3], 1) == (
        "load is 2019 kW where 741 ± 90 kW was expected (14 sd too high)"
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


def test_what_no_deviation_or_probability_is_known_of_is_said_without():
    unsure = EXPECTED._replace(
        sd_ND=np.full((1, 4), NAN), probability_ND=np.array([[NAN, 0.03, NAN, NAN]])
    )
    assert say(ROW_ND, [0, 2, 1, 3], 2, expected=unsure) == (
        "load is 2019 kW where 741.2 kW was expected; site is south where north was expected"
    )
    reasons = Reasons(np.array([[0, 2, 1, 3]]), np.array([1]), np.array([False]), [()], unsure)
    assert say_why_without_values(MIXED, ROW_ND, reasons) == ["load is not what was expected"]


def test_what_is_off_beyond_measure_is_said_to_be():
    row_ND = np.array([[1e9, 0.0, 0.0, 0.0]], np.float32)
    assert say(row_ND, [0, 1, 2, 3], 1).endswith("was expected (over 1000 sd too high)")


def say_load(value, expected, sd):
    row_ND = np.array([[value, 0, 0, 0]], np.float32)
    value_ND, sd_ND = EXPECTED.value_ND.copy(), EXPECTED.sd_ND.copy()
    value_ND[0, 0], sd_ND[0, 0] = expected, sd
    return say(row_ND, [0], 1, expected=EXPECTED._replace(value_ND=value_ND, sd_ND=sd_ND))


@pytest.mark.parametrize(
    ("value", "expected", "sd", "sentence"),
    [
        (65535, 21.4567, 3.21, "65535 kW where 21.5 ± 3.2 kW was expected (over 1000 sd too high)"),
        (-999, 0.00021, 0.0123, "-999 kW where 0 ± 0.012 kW was expected (over 1000 sd too low)"),
        (20190, 74123, 1234, "20190 kW where 74100 ± 1200 kW was expected (44 sd too low)"),
        (3.1415927, 1.2345, 0.5, "3.14 kW where 1.23 ± 0.5 kW was expected (3.8 sd too high)"),
        (2e12, 1e12, 1e10, "2e+12 kW where 1e+12 ± 1e+10 kW was expected (100 sd too high)"),
        (3e-9, 1e-9, 2e-10, "3e-09 kW where 1e-09 ± 2e-10 kW was expected (10 sd too high)"),
        (-0.001, 5, 1.0, "0 kW where 5 ± 1 kW was expected (5 sd too low)"),
        (1e9 + 64, 1e9, 5.0, "1000000060 kW where 1000000000 ± 5 kW was expected (12 sd too high)"),
        (1e38, 0.0, 1e30, "1e+38 kW where 0 ± 1e+30 kW was expected (over 1000 sd too high)"),
    ],
)
def test_numbers_have_as_many_digits_as_say_something(value, expected, sd, sentence):
    assert say_load(value, expected, sd) == f"load is {sentence}"


def test_a_value_that_is_strange_only_beside_the_others_is_said_to_be_expected_by_itself():
    assert say_load(3.1, 3.0, 0.5) == "load is 3.1 kW, which by itself was expected (3 ± 0.5 kW)"
    row_ND = np.array([[0.0, 0.0, 0.0, 0.0]], np.float32)
    assert say(row_ND, [2, 1, 0, 3], 2) == (
        "site is north, which by itself was expected (93%);"
        " open is false, which by itself was expected (97%)"
    )


def test_a_probability_is_never_said_to_be_all():
    probability_ND = np.array([[NAN, 0.001, 0.9999, NAN]])
    value_ND = np.array([[0.0, 0.001, 0.0, 0.0]])
    sure = EXPECTED._replace(value_ND=value_ND, probability_ND=probability_ND)
    assert say(ROW_ND, [2, 1, 0, 3], 2, expected=sure) == (
        "site is south where north was expected (over 99%);"
        " open is true where false was expected (over 99%)"
    )


def test_a_category_where_none_was_ever_met_is_said_so():
    features = (MIXED[0], MIXED[1], Feature(name="site", kind="categorical"), MIXED[3])
    row_ND = np.array([[0.0, 0.0, -1.0, 0.0]], np.float32)
    never = EXPECTED._replace(probability_ND=np.full((1, 4), NAN))
    said = say(row_ND, [2], 1, sent={(0, 2): "mars"}, expected=never, features=features)
    assert said == "site is mars where none was ever met"


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        ("deep south", "deep south"),
        ("", '""'),
        (" ", '" "'),
        ("a\nb", '"a\\nb"'),
        ("x" * 1000, "x" * 59 + "…"),
    ],
)
def test_a_clients_string_keeps_to_its_place_in_the_sentence(sent, said):
    row_ND = np.array([[0.0, 0.0, -1.0, 0.0]], np.float32)
    sentence = say(row_ND, [2, 0, 1, 3], 1, sent={(0, 2): sent})
    assert sentence == f"site is {said} where north was expected (93%)"


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
    assert say(ROW_ND, [0, 1, 2, 3], 4, group=[1, 0]) == (
        "differs as a whole: open is true, and load moved with it"
    )
    wide = tuple(Feature(name=f"x{d}", kind="numeric") for d in range(8))
    row_ND = np.full((1, 8), 65535.0, np.float32)
    assert say(row_ND, [0], 5, group=range(8), features=wide) == (
        "differs as a whole: x0 is 65535, and x1, x2, x3 and 4 more moved with it"
    )


def test_of_a_row_that_does_not_alarm_there_is_nothing_to_say():
    assert say(ROW_ND, [0, 1, 2, 3], 0) is None
