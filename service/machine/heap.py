"""Freed memory: the C library is asked to keep what large requests need again, and to give back
what loading took.
"""

import ctypes
import sys
from contextlib import suppress

KEPT_BYTES = 16 * 2**20  # freed ones, of each thread's heap
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of mallopt(3)


def keep_freed() -> None:
    """By itself glibc gives a large body back as soon as it is freed, and the next has to be mapped
    again, page by page.

    That was 90 faults for a body of 512 KiB, and an eighth of the time that it took.
    """
    _call("mallopt", _M_MMAP_THRESHOLD, KEPT_BYTES)
    _call("mallopt", _M_TRIM_THRESHOLD, KEPT_BYTES)


def give_back_freed() -> None:
    """By itself glibc keeps what loading took and freed: of a large model four times its size."""
    _call("malloc_trim", 0)


def _call(function: str, *arguments: int) -> None:
    if sys.platform == "linux":
        with suppress(AttributeError):  # another C library
            getattr(ctypes.CDLL(None), function)(*arguments)
