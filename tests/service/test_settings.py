"""Settings come from HOURGLASS_ variables and flags; whatever is wrong is one sentence that names
its source.
"""

import pytest

from hourglass.service.errors import InvalidSettings
from hourglass.service.settings import Settings, read_settings


def test_without_variables_and_flags_the_defaults_hold():
    assert read_settings({"PATH": "/bin"}) == Settings()
    assert Settings().host == "127.0.0.1"


def test_variables_are_read_and_converted():
    settings = read_settings(
        {"HOURGLASS_MODELS": "/m", "HOURGLASS_PORT": "80", "HOURGLASS_POLL_SECONDS": "0.5"}
    )
    assert (settings.models, settings.port, settings.poll_seconds) == ("/m", 80, 0.5)


def test_a_flag_wins_over_its_variable_and_an_absent_flag_does_not():
    settings = read_settings(
        {"HOURGLASS_PORT": "80", "HOURGLASS_WORKERS": "2"}, port=81, workers=None
    )
    assert (settings.port, settings.workers) == (81, 2)


def test_an_unknown_variable_is_an_error_that_lists_the_known_ones():
    with pytest.raises(
        InvalidSettings,
        match=r"^HOURGLASS_PROT is not a setting; the settings are .*HOURGLASS_PORT",
    ):
        read_settings({"HOURGLASS_PROT": "80"})


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("HOURGLASS_PORT", "eighty", "HOURGLASS_PORT is 'eighty': expected int, got str"),
        ("HOURGLASS_PORT", "65536", "HOURGLASS_PORT is '65536': expected int <= 65535"),
        ("HOURGLASS_WORKERS", "0", "HOURGLASS_WORKERS is '0': expected int >= 1"),
        ("HOURGLASS_POLL_SECONDS", "0", "HOURGLASS_POLL_SECONDS is '0': expected float > 0.0"),
        ("HOURGLASS_LOG_LEVEL", "loud", "HOURGLASS_LOG_LEVEL is 'loud': invalid enum value 'loud'"),
    ],
)
def test_a_wrong_value_names_its_variable(variable, value, message):
    with pytest.raises(InvalidSettings) as caught:
        read_settings({variable: value})
    assert str(caught.value) == message


def test_a_wrong_flag_is_named_as_a_flag():
    with pytest.raises(InvalidSettings, match=r"^--port is 70000: expected int <= 65535$"):
        read_settings({"HOURGLASS_PORT": "1"}, port=70000)
