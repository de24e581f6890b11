"""Freed memory: the C library is asked to keep what large requests need again, and to give back
what loading took.
"""

import ctypes
import sys
from contextlib import suppress

ROOM_BYTES = 2**21  # for a large body, until as many of it have come
KEPT_BYTES = 16 * 2**20  # freed ones, of each thread's heap
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of mallopt(3)


def keep_freed() -> None:
    """By itself glibc gives a large body back as soon as it is freed, and the next has to be mapped
    again, page by page.

    That was 90 faults for a body of 512 KiB, and an eighth of the time that it took.
    """
    _call("mallopt", _M_MMAP_THRESHOLD, KEPT_BYTES)
    _call("mallopt", _M_TRIM_THRESHOLD, KEPT_BYTES)


def reserve(count: int) -> bytearray:
    """So many bytes that are to be written before they are read: they hold anything.

    bytearray(count) would write them all; the pages of these are mapped as they are filled.
    """
    new = ctypes.pythonapi.PyByteArray_FromStringAndSize
    new.restype, new.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.c_ssize_t)
    reserved: bytearray = new(None, count)
    return reserved


def give_back_freed() -> None:
    """By itself glibc keeps what loading took and freed: of a large model four times its size."""
    _call("malloc_trim", 0)


def _call(function: str, *arguments: int) -> None:
    if sys.platform == "linux":
        with suppress(AttributeError):  # another C library
            getattr(ctypes.CDLL(None), function)(*arguments)
