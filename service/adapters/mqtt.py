"""`hourglass stream --mqtt`: rows of topics scored as they come, their answers published retained.

Nothing is lost and no row counts twice: the session outlasts connections, and a message is
acknowledged once its answer is at the broker and the entity's state in the session's file. What is
delivered again meanwhile is known by its entity and time. A process that dies between the two
publishes the same answer again, over the first one.
"""

import asyncio
import logging
import re
import sqlite3
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

import msgspec

from hourglass.service.adapters.access import Access, is_tls_refusal
from hourglass.service.adapters.entities import Entities, Outcome
from hourglass.service.adapters.joining import Joiner
from hourglass.service.adapters.messages import Message as Came
from hourglass.service.adapters.messages import Reader, Refused
from hourglass.service.adapters.mqtt_inbox import Drops, inbox_type
from hourglass.service.adapters.mqtt_kept import Kept
from hourglass.service.adapters.tally import Tally
from hourglass.service.errors import HourglassError, InvalidSettings
from hourglass.service.machine.collector import freeze
from hourglass.service.model.served import Served
from hourglass.service.serving.registry import Registry
from hourglass.service.streams.state import State

if TYPE_CHECKING:
    from aiomqtt import Client, Message

NEEDED = "rows from MQTT need the package aiomqtt: pip install 'hourglass[mqtt]'"
PORT, TLS_PORT = 1883, 8883
POLL_SECONDS = 0.5
RETRY_SECONDS = 1.0
MOST_MESSAGES = 1000  # that are dealt with together
NEVER = (132, 133, 134, 135)  # connections that are refused for what we are, or are called
REFUSED = 128  # and above: what a broker answers to a subscription that it does not grant
_logger = logging.getLogger(__name__)


class MqttFailed(HourglassError):
    """The broker refuses what is asked of it, or what was answered cannot be kept."""


class Topics(NamedTuple):
    """Which messages are rows, whose they are, and where answers go."""

    filter: str
    pattern: re.Pattern[str]
    answers: str  # with {entity} in it
    status: str  # of this process: online, or offline by its last will
    refused: str

    @property
    def by_sensor(self) -> bool:
        """Whether each topic has the values of one feature."""
        return "feature" in self.pattern.groupindex


def topics_of(topic: str, answers: str, base: str) -> Topics:
    """InvalidSettings where the topic is none, says no entity, or answers would come back as
    rows.
    """
    levels = topic.split("/")
    if levels[0] == "$share":
        raise InvalidSettings(
            f"--topic {topic}: rows of an entity are of one process, in order: expected no $share"
        )
    for place, level in enumerate(levels):
        is_end = level == "#" and place == len(levels) - 1
        if set(level) & {"+", "#", "\0"} and level != "+" and not is_end:
            raise InvalidSettings(
                f"--topic {topic}: expected + as a whole level, and # as the last one, got"
                f" {level!r}"
            )
    for each in ("{entity}", "{feature}"):
        if levels.count(each) > 1:
            raise InvalidSettings(f"--topic {topic}: expected {each} once")
    if not any(each == "{entity}" for each in levels):
        if "+" not in levels:
            raise InvalidSettings(
                f"--topic {topic}: expected a level + or {{entity}}, which says whose the rows are"
            )
        levels[levels.index("+")] = "{entity}"
    wild = {"{entity}": "(?P<entity>[^/]+)", "{feature}": "(?P<feature>[^/]+)", "+": "[^/]+"}
    pattern = "/".join(wild.get(each) or re.escape(each) for each in levels)
    pattern = re.sub(r"/\\?#$", "(/.*)?", pattern)
    found = Topics(
        "/".join("+" if each in wild else each for each in levels),
        re.compile(pattern),
        answers,
        f"{base}/status",
        f"{base}/refused",
    )
    if "{entity}" not in answers:
        raise InvalidSettings(f"--answers {answers}: expected {{entity}} in it")
    if set(answers) & {"+", "#", "\0"}:
        raise InvalidSettings(f"--answers {answers}: expected a topic without + and #")
    for each in (answers, f"{answers}/event", found.status, found.refused):
        if found.pattern.fullmatch(each.replace("{entity}", "x")):
            raise InvalidSettings(f"what is published to {each} would come back as rows of {topic}")
    return found


def address_of(text: str, usual: int = PORT) -> tuple[str, int]:
    """Host and port; InvalidSettings."""
    if "@" in text:
        raise InvalidSettings("--mqtt: expected HOST or HOST:PORT, without a name and a password")
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError:  # a port that is no number, brackets that do not close
        host = port = None
    if not host or port == 0 or parts.netloc != text:
        raise InvalidSettings(
            f"--mqtt {text}: expected HOST or HOST:PORT, of an IPv6 address [HOST]:PORT"
        )
    return host, usual if port is None else port


class MqttStream:
    """Scores until it is stopped. `identifier` is the session's name at the broker."""

    def __init__(
        self,
        host: str,
        port: int,
        topics: Topics,
        name: str,
        registry: Registry,
        *,
        identifier: str,
        time_field: str,
        tally: Tally,
        session: Path | None = None,
        events_per_day: float = 1.0,
        gap: float | None = None,
        join_seconds: float = 5.0,
        access: Access | None = None,
    ) -> None:
        try:
            import aiomqtt
        except ImportError as error:
            raise InvalidSettings(NEEDED) from error
        self._mqtt = aiomqtt
        self._host, self._port, self._access = host, port, access or Access()
        self._topics, self._name, self._registry = topics, name, registry
        self._identifier, self._tally, self._join_seconds = identifier, tally, join_seconds
        self._reader = Reader(None, time_field)
        self._time_field = time_field
        self._kept = Kept(session)
        self._entities = Entities(events_per_day=events_per_day, gap=gap)
        for entity, state in self._kept.states().items():
            self._entities.put(entity, state)
        self._joiner: Joiner | None = None
        # what is to be published before anything is acknowledged: also after the broker was away
        self._outbox: list[tuple[str, bytes, bool]] = []
        self._unwritten: dict[str, State] = {}  # nor what is to be kept
        self._touched: set[str] = set()  # entities of which values wait, or waited
        self._drops = Drops(tally)
        self._ending = asyncio.Event()

    def stop(self) -> None:
        """End after what is being scored."""
        self._ending.set()

    async def run(self) -> None:
        """Until `stop`; UnknownModel, MqttFailed."""
        await self._registry.look(self._name)
        served = await self._registry.get(self._name)
        freeze()
        if self._topics.by_sensor:
            features = set(served.schema.positions)
            self._joiner = Joiner(features, self._join_seconds, self._time_field)
            for entity, body in self._kept.waiting():
                self._joiner.put(entity, body)
        try:
            while not self._ending.is_set():
                try:
                    await self._connected()
                except self._mqtt.MqttError as error:
                    said = str(error)[:200]
                    code = getattr(getattr(error, "rc", None), "value", None)
                    if is_tls_refusal(error.__context__) or code in NEVER:
                        raise MqttFailed(f"{self._host}:{self._port}: {said}") from error
                    _logger.warning("MQTT at %s:%d: %s; tried again", self._host, self._port, said)
                    self._tally.failed()
                    with suppress(TimeoutError):
                        await asyncio.wait_for(self._ending.wait(), RETRY_SECONDS)
        finally:
            self._drops.say()
            self._kept.close()

    async def _connected(self) -> None:
        """One connection, until it breaks or the end."""
        topics = self._topics
        credentials = self._access.credentials
        client = self._mqtt.Client(
            self._host,
            self._port,
            username=credentials.user if credentials else None,
            password=credentials.password if credentials else None,
            tls_context=self._access.tls,
            identifier=self._identifier,
            clean_session=False,
            queue_type=inbox_type(self._drops),
            will=self._mqtt.Will(topics.status, b"offline", 1, retain=True),
        )
        # aiomqtt has no name for it: before it connects, since what was not acknowledged comes
        # with the connection
        client._client.manual_ack_set(True)
        async with client:
            (granted,) = await client.subscribe(topics.filter, qos=1)
            if (granted if isinstance(granted, int) else granted.value) >= REFUSED:
                raise MqttFailed(
                    f"the broker at {self._host} refuses the subscription to {topics.filter}"
                )
            # no sooner: who waits for it may send a row at once
            await client.publish(topics.status, b"online", qos=1, retain=True)
            _logger.info("rows of %s at %s:%d", topics.filter, self._host, self._port)
            inbox: asyncio.Queue[Message] = asyncio.Queue(MOST_MESSAGES)

            async def pump() -> None:
                async for message in client.messages:
                    await inbox.put(message)

            pumping = asyncio.create_task(pump())
            try:
                await self._work(client, inbox, pumping)
                await client.publish(topics.status, b"offline", qos=1, retain=True)
            finally:
                pumping.cancel()
                with suppress(asyncio.CancelledError, self._mqtt.MqttError):
                    await pumping

    async def _work(
        self,
        client: "Client",
        inbox: "asyncio.Queue[Message]",
        pumping: "asyncio.Task[None]",
    ) -> None:
        looked = monotonic()
        while not self._ending.is_set():
            messages = []
            with suppress(TimeoutError):
                messages.append(await asyncio.wait_for(inbox.get(), POLL_SECONDS))
            while not inbox.empty() and len(messages) < MOST_MESSAGES:
                messages.append(inbox.get_nowait())
            if pumping.done() and not messages:
                pumping.result()  # the connection broke
            if monotonic() - looked >= self._registry.store.poll_seconds:
                await self._registry.look(self._name)
                looked = monotonic()
            served = await self._registry.get(self._name)
            await self._take(served, client, messages)

    async def _take(self, served: Served, client: "Client", messages: "list[Message]") -> None:
        began = monotonic()
        came, refused = self._sort(messages)
        outcome = await asyncio.to_thread(self._score, served, came)
        for topic, reason, body in refused:
            self._outbox.append((self._topics.refused, _refusal(topic, reason, body), False))
        for each in outcome.refused:
            message = came[each.place]
            topic = f"{self._topics.filter} of {message.entity}"
            self._outbox.append(
                (self._topics.refused, _refusal(topic, each.reason, message.body or b""), False)
            )
        for answered in outcome.answered:
            topic = self._topics.answers.replace("{entity}", answered.answer.entity)
            self._outbox.append((topic, msgspec.json.encode(answered.answer), True))
        for change in outcome.changes:
            topic = self._topics.answers.replace("{entity}", change.entity)
            self._outbox.append((f"{topic}/event", msgspec.json.encode(change), True))
        # where this fails, the messages come again, and are known: what is owed stays with us
        while self._outbox:
            topic, body, is_kept = self._outbox[0]
            await client.publish(topic, body, qos=1, retain=is_kept)
            self._outbox.pop(0)
        self._unwritten |= {
            answered.answer.entity: answered.state
            for answered in outcome.answered
            if answered.state is not None
        }
        if self._joiner is not None:
            self._touched |= {each.entity for each in came if each.entity is not None}
            waiting = {entity: self._joiner.waiting(entity) for entity in self._touched}
        else:
            waiting = {}
        if self._unwritten or waiting:
            try:
                await asyncio.to_thread(self._kept.write, self._unwritten, waiting)
            except sqlite3.Error as error:  # the disk is full, say: nothing is acknowledged
                raise MqttFailed(f"the session's file cannot be written: {error}") from error
            self._unwritten, self._touched = {}, set()
        for sent in messages:
            client._client.ack(sent.mid, sent.qos)
        if messages or came:
            refusals = [Refused(0, reason) for _, reason, _ in refused]
            outcome = outcome._replace(refused=[*outcome.refused, *refusals])
            self._tally.took(outcome, len(messages), monotonic() - began)

    def _match(self, message: "Message") -> "re.Match[str] | None":
        return self._topics.pattern.fullmatch(str(message.topic))

    def _sort(
        self, messages: "Sequence[Message]"
    ) -> tuple[list[Came], list[tuple[str, str, bytes]]]:
        """Rows to be scored, and what is refused: its topic, the reason, and itself."""
        came: list[Came] = []
        refused: list[tuple[str, str, bytes]] = []
        now = time.time()
        for message in messages:
            topic, body = str(message.topic), _bytes(message.payload)
            found = self._match(message)
            if found is None:
                continue  # of a subscription of the session that was there before
            if message.retain and self._time_field.encode() not in body:
                continue  # what the broker kept for who comes new, of nobody knows when
            entity = found["entity"]
            if self._joiner is None:
                came.append(Came(len(came), body, entity, now))
                continue
            try:
                newest = self._entities.newest(entity)
                if self._joiner.add(entity, found["feature"], body, newest):
                    self._touched.add(entity)
            except HourglassError as error:
                refused.append((topic, str(error), body))
        if self._joiner is not None:
            for entity, body in self._joiner.due():
                row = msgspec.json.decode(body)
                body = msgspec.json.encode({**row["cells"], self._time_field: row["time"]})
                came.append(Came(len(came), body, entity, now))
        return came, refused

    def _score(self, served: Served, came: list[Came]) -> Outcome:
        few = served.detector.window > 1
        rows, refused = self._reader.read(came, served.schema, few=few)
        outcome = self._entities.take(served, rows)
        return outcome._replace(refused=sorted([*refused, *outcome.refused]))


def _refusal(topic: str, reason: str, body: bytes) -> bytes:
    said = {"topic": topic, "reason": reason, "payload": body[:10_000].decode(errors="replace")}
    return msgspec.json.encode(said)


def _bytes(payload: object) -> bytes:
    return payload if isinstance(payload, bytes) else str(payload).encode()
