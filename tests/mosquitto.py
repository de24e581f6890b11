"""Debian's mosquitto, an MQTT broker, for tests."""

import json
import os
import shutil
import socket
import subprocess
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from tests.lacking import lacking
from tests.serving import free_port

MOSQUITTO = shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin")


class Mosquitto:
    """A broker of its own, which keeps sessions over a restart, and a client that hears all."""

    def __init__(self, folder: Path, *, more: str = "") -> None:
        """`more`: lines of its configuration, after those of the listener that tests use."""
        if MOSQUITTO is None:
            lacking("mosquitto is not installed: it is in Debian's package of that name")
        self._folder, self.port = folder, free_port()
        (folder / "mosquitto.conf").write_text(
            f"per_listener_settings {'true' if more else 'false'}\n"
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\n"
            f"user {os.environ.get('USER', 'root')}\n"
            f"persistence true\npersistence_location {folder}/\n{more}"
        )
        self.heard: list[paho.MQTTMessage] = []
        self._client = paho.Client(CallbackAPIVersion.VERSION2, "test", clean_session=False)
        self._client.on_message = lambda _, __, message: self.heard.append(message)
        self._client.on_connect = lambda client, *_: client.subscribe("#", 1)
        self._hears = threading.Event()
        self._client.on_subscribe = lambda *_: self._hears.set()
        self._client.reconnect_delay_set(1, 1)
        self.address = f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """The client, where it is at work, comes back by itself."""
        assert MOSQUITTO is not None
        self._hears.clear()
        self._broker = subprocess.Popen(
            [MOSQUITTO, "-c", str(self._folder / "mosquitto.conf")],
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 120
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
                break
            except OSError:
                assert time.monotonic() < deadline
                assert self._broker.poll() is None, "mosquitto ended"
                time.sleep(0.05)

    def hear(self) -> None:
        """Wait until the client hears what is published."""
        assert self._hears.wait(120)

    def stop(self) -> None:
        """Sessions are on disk then."""
        self._broker.terminate()
        self._broker.wait(60)

    def put(self, topic: str, body: Any, retain: bool = False) -> None:
        """Publish bytes, or what JSON is made of, and wait until the broker has it."""
        sent = body if isinstance(body, bytes) else json.dumps(body)
        said = self._client.publish(topic, sent, 1, retain)
        said.wait_for_publish(120)
        assert said.is_published(), topic

    def on(self, topic: str) -> list[Any]:
        """What was published to a topic, without what the broker had kept."""
        return [
            json.loads(each.payload)
            for each in list(self.heard)
            if each.topic == topic and not each.retain
        ]

    def wait(self, topic: str, count: int, seconds: float = 120) -> list[Any]:
        deadline = time.monotonic() + seconds
        while len(found := self.on(topic)) < count:
            assert time.monotonic() < deadline, f"{len(found)} of {count} messages to {topic}"
            time.sleep(0.05)
        return found

    def kept(self, topic: str) -> bytes | None:
        """What the broker keeps of a topic."""
        found: list[bytes] = []
        asking = paho.Client(CallbackAPIVersion.VERSION2)
        asking.on_message = lambda _, __, message: found.append(message.payload)
        asking.connect("127.0.0.1", self.port)
        asking.subscribe(topic, 1)
        deadline = time.monotonic() + 60
        while not found and time.monotonic() < deadline:
            asking.loop(0.05)
        asking.disconnect()
        return found[0] if found else None

    def __enter__(self) -> "Mosquitto":
        self.start()
        self._client.connect("127.0.0.1", self.port)
        self._client.loop_start()
        self.hear()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._client.disconnect()
        self._client.loop_stop()
        self.stop()
