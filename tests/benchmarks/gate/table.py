"""The table: of each way how many refits were refused, were sound all the same, or slipped through."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tests.benchmarks.gate.case import Outcome, Quality

# what equal refits differ by (training/README.md)
PRECISION, DETECTION, FALSE_ALARMS = 0.08, 0.13, 0.05


class Line(NamedTuple):
    """Counts of refits."""

    way: str
    refits: int
    refused: int
    sound: int  # published, and as good as the honest refit of the same set and seed
    missed: int  # published, and worse

    @property
    def handled(self) -> float:
        return (self.refused + self.sound) / self.refits


def lines(outcomes: Sequence[Outcome]) -> list[Line]:
    """One for each way, and one for all that are spoilt."""
    honest = {(each.set, each.seed): each.challenger for each in outcomes if each.way == "honest"}
    found: dict[str, list[Outcome]] = {}
    for each in outcomes:
        found.setdefault(each.way, []).append(each)
    spoilt = [each for each in outcomes if each.way != "honest"]
    return [
        _line(way, group, honest)
        for way, group in [*found.items(), ("all that are spoilt", spoilt)]
        if group
    ]


def is_sound(challenger: Quality, honest: Quality) -> bool:
    """Whether a model finds what an honest refit finds, and raises no more false alarms."""
    return (
        challenger.average_precision >= honest.average_precision - PRECISION
        and challenger.detection >= honest.detection - DETECTION
        and challenger.false_alarms <= honest.false_alarms + FALSE_ALARMS
    )


def as_markdown(found: Iterable[Line]) -> str:
    rows = [
        f"| {line.way} | {line.refits} | {line.refused} | {line.sound} | {line.missed} |"
        f" {line.handled:.1%} |"
        for line in found
    ]
    head = (
        "| rows of the refit | refits | refused | published, sound | published, worse | handled |"
    )
    return "\n".join([head, "|---|---|---|---|---|---|", *rows]) + "\n"


def _line(
    way: str, group: Sequence[Outcome], honest: dict[tuple[str, int], Quality | None]
) -> Line:
    refused = sum(not each.published for each in group)
    sound = 0
    for each in group:
        other = honest.get((each.set, each.seed))
        if each.published and each.challenger and (way == "honest" or other is None):
            sound += 1
        elif each.published and each.challenger and other:
            sound += is_sound(each.challenger, other)
    return Line(way, len(group), refused, sound, len(group) - refused - sound)
