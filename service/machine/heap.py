"""Freed memory: the C library is asked to keep what large requests need again, and to give back
what loading took.
"""

import ctypes
import mmap
import sys
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

ROOM_BYTES = 2**21  # for a large body, until as many of it have come
KEPT_BYTES = 16 * 2**20  # freed ones, of each thread's heap
Buffer = bytes | bytearray | NDArray[np.float32]
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


def is_large(buffer: Buffer) -> bool:
    """Whether to free it takes so long that others notice: then `empty` is called before."""
    return (buffer.nbytes if isinstance(buffer, np.ndarray) else len(buffer)) > KEPT_BYTES


def empty(buffer: Buffer) -> None:
    """Let the pages of a large buffer go that nobody reads any more; from then on it holds zeros.

    To free 96 MiB takes 7.6 ms, in which the interpreter lets no thread run; here it does.
    """
    if sys.platform == "linux":
        values_N = np.frombuffer(buffer, np.uint8)
        first, end = values_N.ctypes.data, values_N.ctypes.data + len(values_N)
        first += -first % mmap.PAGESIZE
        whole = (end - first) // mmap.PAGESIZE * mmap.PAGESIZE
        _call("madvise", ctypes.c_void_p(first), ctypes.c_size_t(whole), mmap.MADV_DONTNEED)


def give_back_freed() -> None:
    """By itself glibc keeps what loading took and freed: of a large model four times its size."""
    _call("malloc_trim", 0)


def _call(function: str, *arguments: int | ctypes.c_void_p | ctypes.c_size_t) -> None:
    if sys.platform == "linux":
        with suppress(AttributeError):  # another C library
            getattr(ctypes.CDLL(None), function)(*arguments)
