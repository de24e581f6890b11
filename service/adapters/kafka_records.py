"""Records of Kafka: rows as they come, and answers and dead letters as they are written.

Both say in the header SOURCE which row they are of: the group, its topic, partition and offset. An
answer to the last row of an entity of those that came together carries the entity's state (STATE),
a dead letter its REASON.
"""

import asyncio
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from msgspec import structs

from hourglass.service.adapters.entities import Answered
from hourglass.service.adapters.messages import Message, Refused

if TYPE_CHECKING:
    from aiokafka import AIOKafkaProducer, ConsumerRecord, TopicPartition

SOURCE, STATE = "hourglass-source", "hourglass-state"
REASON = "hourglass-reason"
BATCH_BYTES = 500_000  # of answers that are written at once; brokers take a megabyte


class Record(NamedTuple):
    """What is written."""

    key: bytes | None
    value: bytes | None
    time: int  # milliseconds since 1970
    headers: list[tuple[str, bytes]]


def messages(records: "Sequence[ConsumerRecord]") -> list[Message]:
    """Rows as they came."""
    return [
        Message(
            each.offset,
            each.value,
            _text(each.key),
            each.timestamp / 1000 if each.timestamp >= 0 else None,  # -1: nobody said it
        )
        for each in records
    ]


def _text(key: bytes | None) -> str | None:
    """A key; two that are no text must not become one."""
    return None if key is None else key.decode(errors="surrogateescape")


def source_of(group: str, partition: "TopicPartition") -> bytes:
    """Of the rows of a partition, as a group reads them."""
    return f"{group} {partition.topic} {partition.partition}".encode()


def place_in(record: "ConsumerRecord", source: bytes) -> int | None:
    """The offset of the row that a record answers; None where it answers none of this source."""
    said, _, place = dict(record.headers).get(SOURCE, b"").rpartition(b" ")
    return int(place) if said == source and place.isdigit() else None


def answer_of(source: bytes, answered: Answered) -> Record:
    """What is said of a row, with the state after it where this one is the last."""
    answer, state = answered.answer, answered.state
    headers = [(SOURCE, b"%b %d" % (source, answered.place))]
    if state is not None:
        small = structs.replace(state, before=b"", past=b"")
        headers.append((STATE, msgspec.msgpack.encode(small)))
    time = round(1000 * answered.time)
    return Record(answer.entity.encode(), msgspec.json.encode(answer), max(time, 0), headers)


def letter_of(source: bytes, record: "ConsumerRecord", refused: Refused) -> Record:
    """A message as it came, with the reason why it has no answer. Of a long one its beginning,
    since with the reason brokers might not take it, and then it would be in the way for ever.
    """
    where = f"{record.topic}, partition {record.partition}, offset {record.offset}"
    value, reason = record.value, refused.reason
    if value is not None and len(value) > BATCH_BYTES:
        reason += f" (here are its first {BATCH_BYTES} bytes of {len(value)})"
        value = value[:BATCH_BYTES]
    headers = [
        (SOURCE, b"%b %d" % (source, record.offset)),
        (REASON, f"{where}: {reason}".encode()),
    ]
    return Record(record.key, value, max(record.timestamp, 0), headers)


async def send(
    producer: "AIOKafkaProducer", topic: str, partition: int, records: Iterable[Record]
) -> None:
    """Write records in this order, and wait until brokers have them."""
    batch, sent = producer.create_batch(), []
    for record in records:
        if not _append(batch, record):
            sent.append(await producer.send_batch(batch, topic, partition=partition))
            batch = producer.create_batch()
            _append(batch, record)
    sent.append(await producer.send_batch(batch, topic, partition=partition))
    await asyncio.gather(*sent)


def _append(batch: Any, record: Record) -> bool:
    key, value, time, headers = record
    return batch.append(key=key, value=value, timestamp=time, headers=headers) is not None
