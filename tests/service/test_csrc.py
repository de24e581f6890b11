"""The C under the sanitizers of gcc: no byte beside a buffer is looked at, and nothing is done that
C leaves undefined.
"""

import os
import shlex
import subprocess
import sys
import sysconfig
import tomllib
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest

from hourglass import service
from hourglass.service.floats import plain
from tests.serving import ROOT

SOURCE = Path(service.__file__).with_name("floats") / "csrc" / "floats.c"
INCLUDE = f"-I{sysconfig.get_path('include')}"

ATTACK = """
import sys
sys.path.insert(0, sys.argv[1])
import array, random
import compiled as floats

rng = random.Random(0)
BODIES = [
    b'{"rows":[[1.5,-2.25e1,null,12345678.87654321],[0,0,1e-5,20000000]]}',
    b' { "rows" : [ [ 0.1234567890123456789 , 1e-9223372036854775808,1.55e-9223372036854775807,0.5e9223372036854775808 ] ] } ',
    b'{"rows":[[0.00000000000000000000000000000000000000000000000001,1e-60,1e45,123456789012345678901234567890]]}',
    b'{"rows":[[4.9406564584124654e-324,16777217.000000001,-0.0,3.4028235677973366e38]]}',
]
PIECES = [b"", b"0", b"9" * 25, b".", b"e", b"E-", b"-", b"null", b"nul", b"[", b"]", b"]]}", b",", b" ", b"\\x00", b"\\xff", b'"rows"']
read = 0
for body in BODIES:
    for end in range(len(body) + 1):
        for kind in (bytes, bytearray):
            floats.read_rows(kind(body[:end]), 4, 10)
    for _ in range(20_000):
        place = rng.randrange(len(body))
        changed = body[:place] + rng.choice(PIECES) + body[place + rng.randrange(4):]
        read += floats.read_rows(changed, rng.choice((1, 4, 4, 4, 5)), 10) is not None
assert read > 1000, read
for size in (65_000, 66_000):  # on either side of where others may run
    for body in BODIES:
        floats.read_rows(b" " * size + body, 4, 10)
floats.read_rows(b'{"rows":[' + b"[1]," * 5000 + b"[1]]}", 1, 10_000)
for width in (0, -1, 1, 2**62):
    floats.read_rows(BODIES[0], width, 2**62)

bits = array.array("I", [rng.getrandbits(32) for _ in range(100_000)] + [e << 23 | m for e in range(255) for m in (0, 1, 2**23 - 1)])
values = [value for value in memoryview(bits.tobytes()).cast("f") if value - value == 0]
numbers = array.array("f", values)
spans = [(0, len(numbers)), (0, 1), (5, 300), *((start, start + 40) for start in range(0, 4000, 40))]
written = floats.write_scores(b"{", 1.0, 2.0, numbers, numbers, numbers, spans)
assert None not in written
for value in values[:20_000]:
    one = array.array("f", [value])
    head = b"{" + b"m" * rng.randrange(4000)
    assert floats.write_scores(head, abs(value), value, one, one, one, [(0, 1)]) != [None]
found, on_line = array.array("f", numbers), array.array("f", numbers)
for count in (1, 2, 3, 1000):
    ends = array.array("f", sorted(values[:count]))
    lines = array.array("f", [1] * (4 * count + 4))
    floats.look_up(ends, array.array("f", range(count + 1)), lines, numbers, found, on_line)
print("attacked")
"""


@pytest.mark.slow
def test_nothing_is_read_or_written_beside_a_buffer_and_nothing_undefined_is_done(tmp_path):
    if sys.platform != "linux":
        pytest.skip("the sanitizers are preloaded in the way of Linux")
    compiler = shlex.split(os.environ.get("CC", "cc"))
    sanitizers = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    built = tmp_path / "compiled.abi3.so"
    subprocess.run(
        [*compiler, "-O1", "-g", *sanitizers, "-shared", "-fPIC", INCLUDE, SOURCE, "-o", built],
        check=True,
    )
    runtime = subprocess.run(
        [*compiler, "-print-file-name=libasan.so"], check=True, capture_output=True, text=True
    )
    environment = os.environ | {
        "LD_PRELOAD": runtime.stdout.strip(),
        "ASAN_OPTIONS": "detect_leaks=0",  # the interpreter's own
        "PYTHONMALLOC": "malloc",  # so that every object has a surrounding that is watched
    }
    done = subprocess.run(
        [sys.executable, "-c", ATTACK, str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (done.stdout, done.stderr) == ("attacked\n", "")


@pytest.mark.slow
def test_a_place_on_a_line_has_the_same_bits_where_one_instruction_multiplies_and_adds(tmp_path):
    (extension,) = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"][
        "ext-modules"
    ]
    cpu = Path("/proc/cpuinfo")
    fused = ["-mfma"] if cpu.exists() and " fma " in cpu.read_text() else []  # as ARM always has
    compiler, built = shlex.split(os.environ.get("CC", "cc")), tmp_path / "compiled.abi3.so"
    flags = [*extension["extra-compile-args"], *fused, "-shared", "-fPIC", INCLUDE]
    subprocess.run([*compiler, *flags, SOURCE, "-o", built], check=True)
    specification = spec_from_file_location("compiled", built)
    compiled = module_from_spec(specification)
    specification.loader.exec_module(compiled)
    draw = np.random.default_rng(0)
    ends_E, numbers_N = (draw.lognormal(size=count).astype(np.float32) for count in (50, 10_000))
    lines = draw.lognormal(size=4 * 51).astype(np.float32)
    places = []
    for twin in (compiled, plain):
        found_N, on_line_N = np.empty((2, len(numbers_N)), np.float32)
        twin.look_up(np.sort(ends_E), lines[:51], lines, numbers_N, found_N, on_line_N)
        places.append(on_line_N)
    np.testing.assert_array_equal(*places)
