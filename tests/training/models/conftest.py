"""The members of the family, each published once a session."""

from collections.abc import Callable

import pytest

from tests.training import family
from tests.training.family import Published


@pytest.fixture(scope="session")
def publish() -> Callable[[str], Published]:
    """variant -> its tiny model, made by `run` when it is first asked for."""
    return family.publish
