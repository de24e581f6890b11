"""Peers: the worker processes that share a port, each with its own models in memory.

A threshold that one of them stores holds in all of them before the client is answered: each has a
socket in a folder that only they can enter, is sent the model's name there, and says when it has
looked. One that does not say so in time finds the threshold at its next look.
"""

import asyncio
import logging
import os
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

ANSWER_SECONDS = 2.0
_logger = logging.getLogger(__name__)
_LARGEST = 256  # bytes of a message: a number and a model's name


class Peers:
    """The others, as one worker sees them."""

    def __init__(self, folder: Path, pid: int, look: Callable[[str], Awaitable[None]]) -> None:
        self._folder, self._look = folder, look
        self._own = folder / f"{pid}.worker"
        self._socket: socket.socket | None = None
        self._asked = 0
        self._lacking: dict[int, set[str]] = {}  # by the number of what was asked
        self._answered = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    def listen(self) -> None:
        """From now on this worker is told, and tells."""
        own = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            own.setblocking(False)
            own.bind(str(self._own))
        except OSError as error:  # a path of over 107 bytes
            own.close()
            _logger.warning("workers cannot tell each other of thresholds: %s", error)
            return
        self._socket = own
        asyncio.get_running_loop().add_reader(own, self._read)

    def close(self) -> None:
        """Be no peer any more."""
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._own.unlink(missing_ok=True)
            self._socket = None

    async def tell(self, name: str) -> bool:
        """Have all others look at a model's folder; whether all of them have."""
        if self._socket is None:
            return False
        self._asked += 1
        number, lacking = self._asked, set[str]()
        self._lacking[number] = lacking
        for place in sorted(set(self._folder.glob("*.worker")) - {self._own}):
            if self._send(f"{number} {name}", str(place)):
                lacking.add(str(place))
        with suppress(TimeoutError):
            async with asyncio.timeout(ANSWER_SECONDS):
                while lacking:
                    self._answered.clear()
                    await self._answered.wait()
        del self._lacking[number]
        return not lacking

    def _send(self, message: str, place: str) -> bool:
        """Whether it may be answered; a worker that has died leaves its socket behind."""
        assert self._socket is not None
        try:
            self._socket.sendto(message.encode(), place)
        except (ConnectionRefusedError, FileNotFoundError):
            Path(place).unlink(missing_ok=True)
            return False
        except OSError:  # it has so much to read that it takes no more
            return True
        return True

    def _read(self) -> None:
        assert self._socket is not None
        with suppress(BlockingIOError):
            message, place = self._socket.recvfrom(_LARGEST)
            number, _, name = message.decode().partition(" ")
            if name:
                task = asyncio.create_task(self._look_and_answer(number, name, place))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            else:
                self._lacking.get(int(number), set()).discard(place)
                self._answered.set()

    async def _look_and_answer(self, number: str, name: str, place: str) -> None:
        await self._look(name)
        if self._socket is not None:
            self._send(number, place)


def pids(folder: Path) -> list[int]:
    """Of the workers that live: sockets of dead ones, whose numbers may be others' now, are none of
    the same parent.
    """
    found = sorted(int(place.stem) for place in folder.glob("*.worker"))
    return [pid for pid in found if _parent_of(pid) == os.getppid()]


def _parent_of(pid: int) -> int | None:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return None
