"""The inputs that are kept: a line of text each, so that a change of them can be read."""

from collections.abc import Iterable
from pathlib import Path

CORPUS = Path(__file__).with_name("corpus.txt")


def read_corpus(path: Path = CORPUS) -> list[bytes]:
    return [
        line.encode().decode("unicode_escape").encode("latin-1")
        for line in path.read_text("ascii").splitlines()
    ]


def write_corpus(inputs: Iterable[bytes], path: Path = CORPUS) -> None:
    lines = [each.decode("latin-1").encode("unicode_escape") + b"\n" for each in sorted(inputs)]
    path.write_bytes(b"".join(lines))
