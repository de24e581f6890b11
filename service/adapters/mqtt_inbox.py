"""Inbox: messages of MQTT that wait.

A broker sends ahead only so many of QoS 1, since they are acknowledged after their answers; those
of QoS 0 know no such limit and get one here.
"""

import asyncio
import logging
from time import monotonic
from typing import TYPE_CHECKING

from hourglass.service.adapters.tally import Tally

if TYPE_CHECKING:
    from aiomqtt import Message

MOST_WAITING = 10_000  # messages, beyond which one of QoS 0 is dropped
SAID_SECONDS = 10.0  # between lines in the log
_logger = logging.getLogger(__name__)


def inbox_type(drops: "Drops", most: int = MOST_WAITING) -> "type[asyncio.Queue[Message]]":
    """What aiomqtt makes its queue of."""

    class Inbox(asyncio.Queue["Message"]):
        def put_nowait(self, message: "Message") -> None:
            if message.qos == 0 and self.qsize() >= most:
                drops.add()
            else:
                super().put_nowait(message)

    return Inbox


class Drops:
    """Counts what is dropped, and says it now and then."""

    def __init__(self, tally: Tally) -> None:
        self._tally, self._unsaid, self._said = tally, 0, -SAID_SECONDS

    def add(self) -> None:
        """One more."""
        self._tally.dropped()
        self._unsaid += 1
        if monotonic() - self._said >= SAID_SECONDS:
            self.say()

    def say(self) -> None:
        """How many since the last time, if any."""
        if self._unsaid:
            _logger.warning(
                "%d messages of QoS 0 were dropped: more come than are scored; those of QoS 1 wait"
                " at the broker",
                self._unsaid,
            )
            self._unsaid, self._said = 0, monotonic()
