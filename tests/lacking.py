"""What tests need of a machine, and it may lack."""

import os
from typing import NoReturn

import pytest


def lacking(reason: str) -> NoReturn:
    """Fail the test in CI, where .ci/run installs all that tests need; elsewhere skip it."""
    if "CI" in os.environ:
        pytest.fail(reason)
    pytest.skip(reason)
