"""`python -m tests.fuzz --minutes 30`: build the C for libFuzzer, and let it look for inputs to
which it answers another thing than Python, or for which a sanitizer ends it.
"""

import argparse
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from tests.fuzz.corpus import read_corpus, write_corpus

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
FLOATS = ROOT / "service" / "floats"
WORK = ROOT / "build" / "fuzz"
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-O1", "-g"]
MOST_BYTES = 256  # of an input: a body of a few rows with every kind of number
WORDS = ('{"rows":[[', "null", "],[", "]]}", "e-45", "1e38", "3.4028235677973366e38", "0.", "-0")


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    if (clang := shutil.which(options.clang)) is None:
        print(f"{options.clang} is not installed: apt-get install clang", file=sys.stderr)
        return 2
    fuzzer, found = build(clang), WORK / "found"
    if not options.go_on:
        shutil.rmtree(found, ignore_errors=True)
    fill(found, read_corpus())
    ended = run(fuzzer, found, f"-max_total_time={round(options.minutes * 60)}")
    if ended:
        print(f"it ended with {ended}; the input is in {WORK}", file=sys.stderr)
        return 1
    least = WORK / "least"
    shutil.rmtree(least, ignore_errors=True)
    fill(least, [])
    # by the ways taken alone: the values compared on them are too many to keep
    merged = run(fuzzer, least, str(found), "-merge=1", "-use_value_profile=0")
    if merged == 0 and options.keep:
        write_corpus(path.read_bytes() for path in least.iterdir())
    return 0


def build(clang: str) -> Path:
    """An interpreter with both twins, of which the C tells libFuzzer where it has been."""
    WORK.mkdir(parents=True, exist_ok=True)
    include = f"-I{sysconfig.get_path('include')}"
    object_file, fuzzer = WORK / "floats.o", WORK / "fuzzer"
    library = sysconfig.get_config_var("LIBDIR")
    python = [
        f"-L{library}",
        f"-Wl,-rpath,{library}",
        f"-lpython{sysconfig.get_config_var('LDVERSION')}",
    ]
    instrumented = ["-fsanitize=fuzzer-no-link", *SANITIZERS, include]
    source, way_in = FLOATS / "csrc" / "floats.c", HERE / "libfuzzer.c"
    for command in (
        [clang, *instrumented, "-c", source, "-o", object_file],
        [
            clang,
            "-fsanitize=fuzzer",
            *SANITIZERS,
            include,
            way_in,
            object_file,
            *python,
            "-o",
            fuzzer,
        ],
    ):
        subprocess.run(command, check=True)
    return fuzzer


def run(fuzzer: Path, folder: Path, *flags: str) -> int:
    """libFuzzer on a folder of inputs; its exit status."""
    words = WORK / "words.txt"
    words.write_text("".join('"{}"\n'.format(word.replace('"', '\\"')) for word in WORDS))
    command = [
        fuzzer, folder, f"-max_len={MOST_BYTES}", f"-dict={words}", f"-artifact_prefix={WORK}/",
        "-use_value_profile=1", "-print_final_stats=1", *flags,
    ]  # fmt: skip
    paths = HERE, FLOATS, sysconfig.get_path("purelib")
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
        "PYTHONMALLOC": "malloc",  # so that every object has a surrounding that is watched
        "PYTHONDONTWRITEBYTECODE": "1",
        "ASAN_OPTIONS": "detect_leaks=0",  # the interpreter's own
    }
    return subprocess.run(command, env=environment, check=False).returncode


def fill(folder: Path, inputs: Sequence[bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, each in enumerate(inputs):
        (folder / f"kept-{number}").write_bytes(each)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz", description=__doc__, allow_abbrev=False
    )
    add = parser.add_argument
    add("--minutes", type=float, default=30, metavar="N", help="of looking (30)")
    add("--clang", default="clang", metavar="COMMAND", help="the compiler (clang)")
    add("--go-on", action="store_true", help="with what the last run found, beside what is kept")
    add("--keep", action="store_true", help="write the least of what was found to corpus.txt")
    return parser


if __name__ == "__main__":
    sys.exit(main())
