"""Timelines as the service answers them, made up for a page: `answering(page, Made())`."""

import datetime
import random
from dataclasses import dataclass, field
from urllib.parse import parse_qs, unquote, urlsplit

from playwright.sync_api import Page, Route

BEGIN = 1_764_390_000  # 2025-11-29 04:20 UTC
SECONDS = 14_400  # 240 bins as the service keeps them


def iso(seconds: float) -> str:
    """So many seconds after the beginning, as the service writes a moment."""
    at = datetime.datetime.fromtimestamp(BEGIN + seconds, datetime.UTC)
    return at.isoformat().replace("+00:00", "Z")


def event(key: str, entity: str, start: float, end: float | None, *features: str) -> dict:
    return {
        "id": key,
        "model": "plain",
        "version": "0" * 64,
        "entity": entity,
        "start": iso(start),
        "peak": iso(start + 120),
        "end": None if end is None else iso(end),
        "open": end is None,
        "rows": 40,
        "severity": 5.1,
        "p_value": 8e-6,
        "features": list(features),
        "sentence": f"{features[0]} is 3.1 where 9.8 ± 0.4 was expected.",
    }


@dataclass
class Made:
    """What is answered: `many` pumps, the first strange from .6 to .65 of the time, by c; the last
    one is warming.
    """

    many: int = 3
    first: str = "pump-0"
    left: str = ""  # one whose state is gone
    features: tuple[str, ...] = ("a", "b", "c", "d")
    until: float = SECONDS
    asked: list[dict[str, str]] = field(default_factory=list)
    events: list[dict] = field(
        default_factory=lambda: [
            event("open", "pump-0", 0.6 * SECONDS, None, "c"),
            event("closed", "pump-0", 1000, 1500, "a"),
        ]
    )

    def timeline(self, bins: int) -> dict:
        entities = []
        for pump in range(self.many):
            severity = [0.3] * bins
            if pump == 0:
                severity[int(0.6 * bins) : int(0.65 * bins)] = [5.1] * int(0.05 * bins)
            warming = pump > 0 and pump == self.many - 1
            entities.append(
                {
                    "entity": f"pump-{pump}" if pump else self.first,
                    "severity": [None] * bins if warming else severity,
                    "last": None if self.left == f"pump-{pump}" else iso(self.until - 5),
                    "warming": warming,
                    "event": "open" if pump == 0 and any(e["open"] for e in self.events) else None,
                }
            )
        return self._frame(bins) | {"entities": entities}

    def of(self, entity: str, bins: int) -> dict:
        noise = random.Random(entity)
        contributions = [[0.1 * noise.random() for _ in range(bins)] for _ in self.features]
        if entity == self.first:
            contributions[2][int(0.6 * bins) : int(0.65 * bins)] = [1.8] * int(0.05 * bins)
        return self._frame(bins) | {
            "entity": entity,
            "severity": [0.3] * bins,
            "features": self.features,
            "contributions": contributions,
            "events": [each for each in self.events if each["entity"] == entity],
        }

    def _frame(self, bins: int) -> dict:
        seconds = self.until / bins
        return {
            "model": "plain",
            "since": iso(0),
            "until": iso(self.until),
            "bin_seconds": seconds,
            "times": [iso(seconds * at) for at in range(bins)],
        }


def answering(page: Page, made: Made) -> None:
    """Has the page's requests for timelines and events of `plain` answered so."""

    def answer(route: Route) -> None:
        url = urlsplit(route.request.url)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        last = unquote(url.path.rpartition("/")[2])
        if last == "events":
            route.fulfill(json={"model": "plain", "events": made.events})
        elif last == "timeline":
            made.asked.append(query)
            route.fulfill(json=made.timeline(int(query["bins"])))
        elif last == made.left:
            problem = {"title": "Unknown entity", "status": 404, "detail": "It sent no row."}
            route.fulfill(status=404, json=problem)
        else:
            route.fulfill(json=made.of(last, int(query["bins"])))

    page.route("**/v1/models/plain/timeline**", answer)
    page.route("**/v1/models/plain/events**", answer)
