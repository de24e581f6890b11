"""Commands of the READMEs that a test runs with something of its own in place of what they name."""

import re
import shlex
from collections.abc import Mapping

from tests.serving import ROOT


def command_with(flag: str, instead: Mapping[str, str]) -> list[str]:
    """The words after the program's name, of the command of service/README.md that has the flag."""
    text = (ROOT / "service/README.md").read_text()
    (found,) = re.findall(rf"^\.venv/bin/hourglass (.*{flag} (?:.*\\\n)*.*)$", text, re.MULTILINE)
    words = shlex.split(found.replace("\\\n", " "))
    assert {*instead} <= {*words}
    return [instead.get(word, word) for word in words]
