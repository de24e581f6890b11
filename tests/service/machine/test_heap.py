"""What the C library does with freed memory, told by the faults that taking it again costs."""

import subprocess
import sys

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
