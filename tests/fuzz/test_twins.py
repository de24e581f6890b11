"""The inputs that the fuzzer found worth keeping, given to both twins."""

from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from hourglass.service.floats import plain
from tests.fuzz.corpus import CORPUS, read_corpus, write_corpus
from tests.fuzz.twins import TwinsDiffer, ask_both
from tests.service.conftest import compiled

__all__ = ["compiled"]


def test_c_and_python_answer_alike_to_every_input_that_was_kept(compiled: ModuleType) -> None:
    answers = [ask_both(compiled, plain, each) for each in read_corpus()]
    read = [answer for answer in answers if answer and isinstance(answer[0], bytes)]
    written = [answer for answer in answers if answer and isinstance(answer[0], list)]
    assert len(read) > 10, "few of the bodies are rows"
    assert len(written) > 20, "few of the scores are written"


def test_what_is_kept_is_small() -> None:
    assert CORPUS.stat().st_size < 100_000


def test_twins_that_differ_are_told_of_with_the_input(compiled: ModuleType) -> None:
    other = SimpleNamespace(read_rows=lambda body, width, max_rows: (b"", False))
    with pytest.raises(TwinsDiffer, match=r"C answers None, Python \(b'', False\), to b'\\x00{'"):
        ask_both(compiled, other, b"\x00{")


def test_inputs_are_read_as_they_were_written(tmp_path: Path) -> None:
    inputs = [bytes(range(256)), b"\\n\n\\x41'\"", b"", "ü€".encode()]
    write_corpus(inputs, tmp_path / "corpus.txt")
    assert read_corpus(tmp_path / "corpus.txt") == sorted(inputs)
