"""What has been counted of a fuzz."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from tests.benchmarks.hard.answers import Answer
from tests.benchmarks.hard.good import Good
from tests.benchmarks.hard.mutations import Mutated

if TYPE_CHECKING:
    from tests.benchmarks.hard.connection import Connection

KEPT = 5  # finds of a kind that are written down


class Tally:
    """Answers by status, and finds by kind, of which the first few are written to a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mutated = self.good = self.connections = 0
        self.closed_without_a_word = 0
        self.statuses: Counter[int] = Counter()
        self.by_kind: Counter[tuple[str, int]] = Counter()
        self.finds: Counter[str] = Counter()
        self.plain_errors = 0  # that are not problem+json

    def answered(self, asked: Good | Mutated, answer: Answer) -> None:
        self.statuses[answer.status] += 1
        self.by_kind[_kind(asked), answer.status] += 1
        if answer.status >= 400 and not answer.is_problem:
            self.plain_errors += 1

    def found(self, what: str, connection: "Connection", said: bytes) -> None:
        self.finds[what] += 1
        if self.finds[what] <= KEPT:
            self.folder.mkdir(parents=True, exist_ok=True)
            requests = "".join(f"{_kind(each)}: {each.data!r}\n" for each in connection.requests)
            unanswered = f"unanswered: {len(connection.due)}\n"
            text = (
                f"exchange {connection.index}: {what}\n{requests}{unanswered}received: {said!r}\n"
            )
            name = what.replace(" ", "-").replace("'", "")
            (self.folder / f"{name}-{connection.index}.txt").write_text(text)


def _kind(asked: Good | Mutated) -> str:
    return "good" if isinstance(asked, Good) else asked.kind
