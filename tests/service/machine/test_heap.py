"""What the C library does with freed memory, told by the faults that taking it again costs."""

import subprocess
import sys

import numpy as np
import pytest

from hourglass.service.machine import heap

FAULTS = """
import resource
from hourglass.service.machine import heap

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        bodies = [bytes([1]) * 2**20 for _ in range(4)]
        del bodies
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

heap.keep_freed()
faults()
kept = faults()
heap.give_back_freed()
print(kept, faults())
"""


def test_freed_memory_is_kept_until_it_is_given_back():
    kept, given_back = map(int, subprocess.check_output([sys.executable, "-c", FAULTS]).split())
    assert kept < 50  # of 10,240 pages
    assert given_back > 500


RESIDENT = """
import numpy as np
from hourglass.service.machine import heap

def pages():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1])

for large in (b"a" * 2**25, bytearray(b"a") * 2**25, np.ones(2**23, np.float32)):
    filled = pages()
    heap.empty(large)
    print(filled - pages())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="madvise(2) is Linux's")
def test_a_large_buffer_is_emptied_before_it_is_freed():
    emptied = [*map(int, subprocess.check_output([sys.executable, "-c", RESIDENT]).split())]
    assert emptied == [pytest.approx(2**25 / 4096, rel=0.01)] * 3


def test_only_what_the_c_library_does_not_keep_is_large():
    assert not heap.is_large(bytes(heap.KEPT_BYTES))
    assert heap.is_large(bytearray(heap.KEPT_BYTES + 1))
    assert heap.is_large(np.empty(heap.KEPT_BYTES, np.float32))
