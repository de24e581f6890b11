"""Unpacking what comes compressed, never beyond a limit; packing what goes out as its client wants
it.
"""

import gzip
import tracemalloc
import zlib

import pytest
from litestar.exceptions.http_exceptions import RequestEntityTooLarge

from hourglass.service.api.body import accepted_encoding, accepts_raw, unpack
from hourglass.service.errors import InvalidBody

COMPRESS = {"gzip": gzip.compress, "deflate": zlib.compress}


@pytest.mark.parametrize("encoding", COMPRESS)
class TestUnpack:
    def test_it_gives_what_was_packed_up_to_the_limit(self, encoding):
        for body in (b"", b"{}", bytes(1000)):
            assert unpack(COMPRESS[encoding](body), encoding, max_bytes=1000) == body

    def test_a_byte_more_than_the_limit_is_refused(self, encoding):
        with pytest.raises(RequestEntityTooLarge):
            unpack(COMPRESS[encoding](bytes(1001)), encoding, max_bytes=1000)

    def test_a_bomb_is_refused_without_going_off(self, encoding):
        bomb = COMPRESS[encoding](bytes(50_000_000))
        assert len(bomb) < 60_000
        tracemalloc.start()
        with pytest.raises(RequestEntityTooLarge):
            unpack(bomb, encoding, max_bytes=100_000)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 2_000_000

    def test_what_is_broken_cut_short_or_goes_on_is_refused(self, encoding):
        packed = COMPRESS[encoding](b"some words" * 9)
        for body, message in (
            (b"{}", f"is not {encoding}"),
            (packed[:-1], "cut short"),
            (b"", "cut short"),
            (packed + b"abc", f"nothing after the {encoding} data, got 3 bytes"),
        ):
            with pytest.raises(InvalidBody, match=message):
                unpack(body, encoding, max_bytes=1000)


@pytest.mark.parametrize(
    ("header", "encoding"),
    [
        ("", None),
        ("gzip", "gzip"),
        ("deflate", "deflate"),
        ("GZIP, deflate, br", "gzip"),
        ("deflate, gzip", "deflate"),
        ("gzip;q=0.2, deflate;q=0.8", "deflate"),
        ("gzip; q=0", None),
        ("gzip;q=x, identity", None),
        ("br, *;q=0.5", None),
        (",;,", None),
    ],
)
def test_the_encoding_is_the_one_liked_best(header, encoding):
    assert accepted_encoding(header) == encoding


@pytest.mark.parametrize(
    ("accept", "raw"),
    [
        ([], False),
        (["*/*"], False),
        (["application/*"], False),
        (["application/json"], False),
        (["text/html"], False),
        (["application/octet-stream"], True),
        (["Application/Octet-Stream ; q=0.1"], True),
        (["application/octet-stream, */*"], True),
        (["application/octet-stream;q=0.5, */*"], False),
        (["application/octet-stream;q=0.5, */*;q=0.1"], True),
        (["application/octet-stream;q=0.5, application/json;q=0.2, */*"], True),
        (["application/json, application/octet-stream"], True),
        (["application/octet-stream;q=0"], False),
        (["application/octet-stream;q=x"], False),
        (["application/json;q=0.5", "application/octet-stream"], True),
        ([","], False),
    ],
)
def test_raw_numbers_are_for_who_names_them_and_does_not_like_json_better(accept, raw):
    headers = [
        (b"host", b"application/octet-stream"),
        *((b"accept", value.encode()) for value in accept),
    ]
    assert accepts_raw(headers) is raw
