"""Peers: workers that tell each other of a changed threshold, here several in one process."""

import asyncio
import socket
from pathlib import Path

import pytest

from hourglass.service.serving import peers
from hourglass.service.serving.peers import Peers


class Worker:
    """One that notes what it is told, after so many seconds."""

    def __init__(self, folder: Path, pid: int, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.told: list[str] = []
        self.peers = Peers(folder, pid, self.look)
        self.peers.listen()

    async def look(self, name: str) -> None:
        await asyncio.sleep(self.seconds)
        self.told.append(name)


def test_all_others_have_looked_when_one_has_told_them(tmp_path: Path):
    async def tell() -> tuple[bool, list[list[str]]]:
        workers = [Worker(tmp_path, pid, seconds) for pid, seconds in ((1, 0), (2, 0.05), (3, 0))]
        all_have = await workers[0].peers.tell("pump")
        for worker in workers:
            worker.peers.close()
        return all_have, [worker.told for worker in workers]

    assert asyncio.run(tell()) == (True, [[], ["pump"], ["pump"]])
    assert list(tmp_path.iterdir()) == []


def test_two_who_tell_at_once_wait_for_their_own_answers(tmp_path: Path):
    async def tell() -> list[bool]:
        one, other = Worker(tmp_path, 1, 0.05), Worker(tmp_path, 2, 0.05)
        told = await asyncio.gather(
            one.peers.tell("pump"), one.peers.tell("fan"), other.peers.tell("pump")
        )
        assert sorted(other.told) == ["fan", "pump"]
        assert one.told == ["pump"]
        one.peers.close(), other.peers.close()
        return told

    assert asyncio.run(tell()) == [True] * 3


def test_one_that_does_not_answer_in_time_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(peers, "ANSWER_SECONDS", 0.1)

    async def tell() -> tuple[bool, list[str]]:
        one, late = Worker(tmp_path, 1), Worker(tmp_path, 2, 60.0)
        all_have = await one.peers.tell("pump")
        one.peers.close(), late.peers.close()
        return all_have, late.told

    assert asyncio.run(tell()) == (False, [])


def test_one_that_died_is_not_waited_for(tmp_path: Path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as dead:
        dead.bind(str(tmp_path / "2.worker"))

    async def tell() -> bool:
        one = Worker(tmp_path, 1)
        all_have = await one.peers.tell("pump")
        one.peers.close()
        return all_have

    assert asyncio.run(tell())
    assert list(tmp_path.iterdir()) == []


def test_a_folder_whose_path_is_too_long_for_sockets_means_that_nobody_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    deep = tmp_path / ("x" * 120)
    deep.mkdir()

    async def tell() -> bool:
        return await Worker(deep, 1).peers.tell("pump")

    assert not asyncio.run(tell())
    assert "workers cannot tell each other of thresholds: AF_UNIX path too long" in caplog.text
