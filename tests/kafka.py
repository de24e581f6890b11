"""A cluster of Kafka for tests: librdkafka's mock, which speaks the protocol to any client.

It keeps the last 5 MB of each partition and the groups' offsets, and shares partitions out. It
knows no isolation of transactions.
"""

import json
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition

from tests.serving import free_port
from tests.streaming import Streaming


class Cluster:
    """One broker of this process; each topic has PARTITIONS."""

    partitions = 4

    def __init__(self) -> None:
        self._mock = Producer(
            {
                "test.mock.num.brokers": 1,
                "bootstrap.servers": "mock:1",
                "log_level": 0,
                "linger.ms": 5,
            }
        )
        brokers = self._mock.list_topics(timeout=60).brokers.values()
        self.address = ",".join(f"{each.host}:{each.port}" for each in brokers)
        self._asking = self._consumer()

    def make(self, *topics: str) -> None:
        for topic in topics:
            self._mock.list_topics(topic, timeout=60)

    def put(
        self,
        topic: str,
        messages: Iterable[tuple[str | bytes | None, Any]],
        partition: int = 0,
        headers: list[tuple[str, bytes]] | None = None,
    ) -> None:
        """Write a key and a value each: bytes, or what JSON is made of."""
        for key, value in messages:
            body = value if isinstance(value, bytes) else json.dumps(value).encode()
            while True:
                try:
                    self._mock.produce(topic, body, key, partition, headers=headers or [])
                    break
                except BufferError:
                    self._mock.poll(0.1)
        self._mock.flush(120)

    def end(self, topic: str, partition: int = 0) -> int:
        """How many messages were ever written."""
        return int(self._asking.get_watermark_offsets(TopicPartition(topic, partition))[1])

    def get(self, topic: str, partition: int = 0) -> list[Any]:
        """All messages that are there, as confluent-kafka has them."""
        consumer, found = self._consumer(), []
        try:
            end = consumer.get_watermark_offsets(TopicPartition(topic, partition))[1]
            consumer.assign([TopicPartition(topic, partition, 0)])
            deadline = time.monotonic() + 120
            while len(found) < end:
                assert time.monotonic() < deadline, f"{len(found)} of {end} messages of {topic}"
                message = consumer.poll(0.2)
                if message is not None:
                    assert message.error() is None, message.error()
                    found.append(message)
            return found
        finally:
            consumer.close()

    def wait(self, topic: str, count: int, seconds: float = 120, partition: int = 0) -> None:
        """Until so many messages are there."""
        deadline = time.monotonic() + seconds
        while (end := self.end(topic, partition)) < count:
            assert time.monotonic() < deadline, f"{end} of {count} messages of {topic}"
            time.sleep(0.02)

    def _consumer(self) -> Consumer:
        return Consumer(
            {
                "bootstrap.servers": self.address,
                "group.id": "test",
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
                "log_level": 0,
            }
        )


def streaming(
    address: str,
    models: Path,
    *more: str,
    port: int | None = None,
    log: Path,
    environ: Mapping[str, str] | None = None,
) -> Streaming:
    """The command of the README as a process of its own, from the topic rows to scores."""
    port = port or free_port()
    instead = {"localhost:9092": address, "models": str(models), "9100": str(port)}
    return Streaming("--kafka", instead, *more, log=log, environ=environ)
