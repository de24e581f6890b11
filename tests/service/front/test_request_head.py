"""Which heads are a plain score request's."""

import pytest

from hourglass.service.front.request_head import read_request_head
from tests.artifacts import MIXED, make_artifact, publish
from tests.posts import CLOSING, INVALID, LIMITS, ODD, VALID
from tests.serving import serving


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """The parts of a server."""
    folder = tmp_path_factory.mktemp("models")
    publish(folder, "plain", make_artifact())
    publish(folder, "mixed", make_artifact(MIXED))
    with serving(folder, fast=True, **LIMITS) as client:
        yield client.server.lifespan.state["parts"]


@pytest.mark.parametrize("data", [*VALID.values(), *INVALID.values()], ids=[*VALID, *INVALID])
def test_the_head_of_a_plain_request_is_read(data, service):
    head, _, body = data.partition(b"\r\n\r\n")
    read = read_request_head(head + b"\r\n\r\n", service)
    assert (read.length, read.route.rpartition("/")[2]) == (len(body), "score")


@pytest.mark.parametrize("data", [*ODD.values(), *CLOSING.values()], ids=[*ODD, *CLOSING])
def test_the_head_of_any_other_is_not(data, service):
    head = data.partition(b"\r\n\r\n")[0]
    assert read_request_head(head + b"\r\n\r\n", service) is None
