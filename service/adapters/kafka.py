"""`hourglass stream --kafka`: rows of one topic scored as they come, their answers to another.

Nothing is lost and nothing answered twice, by what the topics themselves say:

- the answers to partition p of the rows go to partition p of the answers, in the order of the rows,
  each with the offset of its row (SOURCE); what is refused goes to partition p of the dead letters,
  before the answers to what came together with it. Offsets are committed after both;
- who is given a partition reads back the ends of both, and goes on after the last row that was
  answered, wherever the committed offset is;
- the last answer to each entity of those that came together carries the entity's state (STATE), but
  for its window: this is made again of the rows before, which are read back too.

What cannot be excluded: a process that stands still between a look at the clock and a write, for
longer than a session, writes answers that another one has written too. They are the same answers:
who reads them tells them apart by entity and time.
"""

import asyncio
import logging
from collections.abc import Iterable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from hourglass.service.adapters.avro import RegistryAway
from hourglass.service.adapters.entities import Entities, Outcome
from hourglass.service.adapters.kafka_brokers import Brokers, KafkaFailed, started
from hourglass.service.adapters.kafka_records import (
    STATE,
    answer_of,
    letter_of,
    messages,
    place_in,
    send,
    source_of,
)
from hourglass.service.adapters.messages import Message, Reader
from hourglass.service.adapters.pulse import Pulse
from hourglass.service.adapters.tally import Tally
from hourglass.service.machine.collector import freeze
from hourglass.service.model.served import Served
from hourglass.service.serving.registry import Registry
from hourglass.service.streams.state import State

if TYPE_CHECKING:
    from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition

MOST_ROWS = 8192  # that are scored together
POLL_SECONDS = 0.5  # that nothing may come before the model and the end are looked for
READ_BACK = 20_000  # rows of a partition, and answers to them
SESSION_SECONDS = 10.0  # without a heartbeat, after which partitions are given to others
READ_TIMEOUT_MS = 20_000  # without anything of what is there to be read
RETRY_SECONDS = 1.0  # after a broker that was away
_logger = logging.getLogger(__name__)


class Topics(NamedTuple):
    """Where rows come from, and where answers and what is refused go."""

    rows: str
    answers: str
    dead: str


@dataclass(slots=True)
class Lane:
    """What is known of one partition."""

    entities: Entities
    following: int  # offset after the last row that was dealt with
    lettered: int  # offset of the last one that is among the dead letters


class KafkaStream:
    """Scores until it is stopped. `group` is the name by which consumers share the partitions."""

    def __init__(
        self,
        brokers: Brokers,
        topics: Topics,
        name: str,
        registry: Registry,
        *,
        group: str,
        reader: Reader,
        tally: Tally,
        events_per_day: float = 1.0,
        gap: float | None = None,
        read_back: int = READ_BACK,
        session_seconds: float = SESSION_SECONDS,
    ) -> None:
        self._brokers, self._topics, self._name, self._registry = brokers, topics, name, registry
        self._group, self._reader, self._tally = group, reader, tally
        self._per_day, self._gap, self._read_back = events_per_day, gap, read_back
        self._session_seconds = session_seconds
        self._lanes: dict[TopicPartition, Lane] = {}
        self._busy = asyncio.Lock()  # rows are scored, or partitions change hands
        self._ending = asyncio.Event()
        self._pulse = Pulse(session_seconds)

    def stop(self) -> None:
        """End after what is being scored."""
        self._ending.set()

    async def run(self) -> None:
        """Until `stop`; KafkaFailed, UnknownModel."""
        await self._registry.look(self._name)
        await self._registry.get(self._name)
        freeze()
        beating = asyncio.create_task(self._pulse.beat())
        try:
            await self._run()
        finally:
            beating.cancel()

    async def _run(self) -> None:
        while not self._ending.is_set():
            try:
                async with AsyncExitStack() as stack:
                    await self._brokers.require_let_in()
                    producer = await started(stack, self._brokers.producer())
                    consumer = await started(stack, self._consumer())
                    await self._require_topics(producer)
                    consumer.subscribe([self._topics.rows], listener=self._listener())
                    await self._work(consumer, producer)
            except self._brokers.errors.KafkaError as error:
                if isinstance(error, self._brokers.fatal):
                    raise KafkaFailed(f"{self._brokers.addresses}: {str(error)[:200]}") from error
                self._tally.failed()
                await self._wait(f"Kafka at {self._brokers.addresses}: {str(error)[:200]}")
            finally:
                self._lanes.clear()

    async def _wait(self, why: object) -> None:
        """Before something is tried again."""
        _logger.warning("%s; it is tried again", why)
        with suppress(TimeoutError):
            await asyncio.wait_for(self._ending.wait(), RETRY_SECONDS)

    async def _work(self, consumer: "AIOKafkaConsumer", producer: "AIOKafkaProducer") -> None:
        looked = monotonic()
        while not self._ending.is_set():
            came = await consumer.getmany(
                timeout_ms=round(1000 * POLL_SECONDS), max_records=MOST_ROWS
            )
            if monotonic() - looked >= self._registry.store.poll_seconds:
                await self._registry.look(self._name)
                looked = monotonic()
            served = await self._registry.get(self._name)
            async with self._busy:
                for partition, records in came.items():
                    if partition not in consumer.assignment():
                        continue
                    try:
                        await self._take(served, partition, records, consumer, producer)
                    except RegistryAway as error:  # they come again
                        consumer.seek(partition, records[0].offset)
                        await self._wait(error)
            for partition in consumer.assignment():
                lane, end = self._lanes.get(partition), consumer.highwater(partition)
                if lane is not None and end is not None:
                    self._tally.note_lag(partition.partition, max(end - lane.following, 0))

    async def _take(
        self,
        served: Served,
        partition: "TopicPartition",
        records: "list[ConsumerRecord]",
        consumer: "AIOKafkaConsumer",
        producer: "AIOKafkaProducer",
    ) -> None:
        """Score what came of a partition, and write what is said of it."""
        lane = self._lanes.get(partition)
        if lane is None or records[0].offset < lane.following:  # of a topic that was made anew
            # from there on it is read in the next turn: where this took long, others may have been
            # given the partition meanwhile, which the listener is told between turns
            lane = await self._open(served, partition, records[0].offset)
            self._lanes[partition] = lane
            consumer.seek(partition, lane.following)
            return
        began, stops = monotonic(), self._pulse.stops
        rows = messages(records)
        await asyncio.to_thread(self._reader.prepare, rows)
        if records[0].offset > lane.following:
            await self._note_gone(consumer, partition, lane.following)
        outcome = await asyncio.to_thread(self._score, served, lane.entities, rows)
        del self._lanes[partition]  # its states are ahead of what is written
        if self._pulse.stops != stops or self._pulse.has_stopped():
            consumer.seek(partition, lane.following)  # as one that was just assigned
            return
        await self._write(partition, lane, records, outcome, producer)
        lane.following = records[-1].offset + 1
        self._lanes[partition] = lane
        self._tally.took(outcome, len(records), monotonic() - began)
        await self._commit(consumer, partition, lane.following)

    def _score(self, served: Served, entities: Entities, came: list[Message]) -> Outcome:
        few = served.detector.window > 1
        rows, refused = self._reader.read(came, served.schema, few=few)
        outcome = entities.take(served, rows)
        return outcome._replace(refused=sorted([*refused, *outcome.refused]))

    async def _write(
        self,
        partition: "TopicPartition",
        lane: Lane,
        records: "list[ConsumerRecord]",
        outcome: Outcome,
        producer: "AIOKafkaProducer",
    ) -> None:
        source = source_of(self._group, partition)
        refused = [each for each in outcome.refused if each.place > lane.lettered]
        if refused:
            by_offset = {each.offset: each for each in records}
            letters = [letter_of(source, by_offset[each.place], each) for each in refused]
            await send(producer, self._topics.dead, partition.partition, letters)
            lane.lettered = refused[-1].place
        if outcome.answered:
            answers = [answer_of(source, each) for each in outcome.answered]
            await send(producer, self._topics.answers, partition.partition, answers)

    async def _open(self, served: Served, partition: "TopicPartition", first: int) -> Lane:
        """What the topics say of a partition of which the rows from `first` on were not said to be
        done.
        """
        began = monotonic()
        source = source_of(self._group, partition)
        async with AsyncExitStack() as stack:
            consumer = await started(stack, self._brokers.consumer(None))
            answers = await self._end_of(consumer, self._topics.answers, partition.partition)
            letters = await self._end_of(consumer, self._topics.dead, partition.partition)
            following, kept = first, dict[str, tuple[int, State]]()
            for record in answers:
                if (place := place_in(record, source)) is not None:
                    following = max(following, place + 1)
                    state = dict(record.headers).get(STATE)
                    if state is not None and record.key is not None:
                        with suppress(msgspec.MsgspecError):  # of another release
                            found = msgspec.msgpack.decode(state, type=State)
                            kept[record.key.decode()] = place, found
            places = [place_in(record, source) for record in letters]
            lettered = max((each for each in places if each is not None), default=-1)
            last, rows = (
                max(following - 1, lettered),
                self._brokers.kafka.TopicPartition(*partition),
            )
            if last >= (end := (await consumer.end_offsets([rows]))[rows]) and last >= first:
                raise KafkaFailed(
                    f"{self._topics.answers!r} and {self._topics.dead!r} answer rows up to offset"
                    f" {last} of partition {partition.partition} of {partition.topic!r}, which ends"
                    f" at {end}: it was made anew, for which another --group is needed"
                )
            before = await self._read(
                consumer,
                rows,
                max(following - self._read_back, 0),
                following,
            )
        entities = Entities(events_per_day=self._per_day, gap=self._gap)

        def restore() -> None:
            came, few = messages(before), served.detector.window > 1
            self._reader.prepare(came)
            rows, _ = self._reader.read(came, served.schema, few=few)
            entities.restore(served, rows, kept)

        await asyncio.to_thread(restore)
        _logger.info(
            "partition %d of %s from offset %d on: %d entities of %d rows before, in %.1f s",
            partition.partition,
            partition.topic,
            following,
            len(entities),
            len(before),
            monotonic() - began,
        )
        return Lane(entities, following, lettered)

    async def _end_of(
        self, consumer: "AIOKafkaConsumer", topic: str, partition: int
    ) -> "list[ConsumerRecord]":
        place = self._brokers.kafka.TopicPartition(topic, partition)
        end = (await consumer.end_offsets([place]))[place]
        return await self._read(consumer, place, end - self._read_back, end)

    async def _read(
        self, consumer: "AIOKafkaConsumer", place: "TopicPartition", first: int, end: int
    ) -> "list[ConsumerRecord]":
        """What a partition still holds from one offset on, before another."""
        first = max(first, (await consumer.beginning_offsets([place]))[place])
        found: list[ConsumerRecord] = []
        if first >= end:
            return found
        consumer.assign([place])
        consumer.seek(place, first)
        position = first
        while position < end:
            for records in (await consumer.getmany(timeout_ms=READ_TIMEOUT_MS)).values():
                found += [each for each in records if each.offset < end]
            before, position = position, await consumer.position(place)
            if position == before:
                raise self._brokers.errors.KafkaTimeoutError(
                    f"nothing came of {place.topic}, partition {place.partition}, from offset"
                    f" {position} on, of {end}"
                )
        return found

    async def _note_gone(
        self, consumer: "AIOKafkaConsumer", partition: "TopicPartition", following: int
    ) -> None:
        """Say how many rows the brokers have let go before they were read; other gaps between
        offsets are nobody's rows.
        """
        kept = (await consumer.beginning_offsets([partition]))[partition]
        if kept > following:
            self._tally.gone(kept - following)
            _logger.error(
                "partition %d of %s: offsets %d to %d are gone before they were read: the topic"
                " keeps too little, or this process is too slow",
                partition.partition,
                partition.topic,
                following,
                kept - 1,
            )

    async def _commit(
        self, consumer: "AIOKafkaConsumer", partition: "TopicPartition", following: int
    ) -> None:
        """Say how far the rows are done; where the partition has just changed hands, its next owner
        finds it out from the answers.
        """
        errors = self._brokers.errors
        with suppress(errors.CommitFailedError, errors.IllegalStateError):
            await consumer.commit({partition: following})

    async def _require_topics(self, producer: "AIOKafkaProducer") -> None:
        """KafkaFailed where answers to a partition have none of the same number to go to."""
        rows = await producer.partitions_for(self._topics.rows)
        for topic in (self._topics.answers, self._topics.dead):
            if missing := sorted(rows - await producer.partitions_for(topic)):
                raise KafkaFailed(
                    f"answers go to the partition that their rows come from: topic {topic!r} lacks"
                    f" partition {missing[0]}, expected {len(rows)}, as {self._topics.rows!r} has"
                )

    def _consumer(self) -> "AIOKafkaConsumer":
        session = round(1000 * self._session_seconds)
        return self._brokers.consumer(
            self._group, session_timeout_ms=session, heartbeat_interval_ms=session // 4
        )

    def _listener(self) -> object:
        stream, busy = self, self._busy

        class Listener(self._brokers.kafka.ConsumerRebalanceListener):  # type: ignore[misc, name-defined]
            async def on_partitions_revoked(self, _: "Iterable[TopicPartition]") -> None:
                async with busy:  # what is being scored is written before
                    stream._lanes.clear()
                    stream._tally.forget_lag()

            async def on_partitions_assigned(self, assigned: "Iterable[TopicPartition]") -> None:
                places = sorted(each.partition for each in assigned)
                _logger.info("partitions of %s: %s", stream._topics.rows, places or "none")

        return Listener()
