"""Both implementations of floats: the tests of one are the tests of the other."""

import importlib
from types import ModuleType

import pytest

from hourglass.service.floats import plain
from tests.lacking import lacking


@pytest.fixture(scope="session")
def compiled() -> ModuleType:
    """The C; only where it could not be built the test is skipped, and never in CI."""
    try:
        return importlib.import_module("hourglass.service.floats.compiled")
    except ModuleNotFoundError:
        lacking(
            "service/floats/csrc is not compiled: no C compiler was there, or no Python headers"
        )


@pytest.fixture(scope="session", params=["C", "Python"])
def floats(request: pytest.FixtureRequest) -> ModuleType:
    """Each implementation."""
    return plain if request.param == "Python" else request.getfixturevalue("compiled")
