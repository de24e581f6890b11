"""Brokers of Kafka, as aiokafka's clients reach them."""

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, TypeVar

from hourglass.service.adapters.access import SASL, Access, is_tls_refusal
from hourglass.service.adapters.kafka_records import BATCH_BYTES
from hourglass.service.errors import HourglassError, InvalidSettings

if TYPE_CHECKING:
    from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

NEEDED = "rows from Kafka need the package aiokafka: pip install 'hourglass[kafka]'"
FETCH_BYTES = 8 * 2**20  # of one partition, at once
FATAL = (  # of aiokafka's errors: those that waiting does not help
    "AuthenticationFailedError",
    "AuthenticationMethodNotSupported",
    "ClusterAuthorizationFailedError",
    "GroupAuthorizationFailedError",
    "IllegalSaslStateError",
    "IncompatibleBrokerVersion",  # one that knows no SASL
    "InvalidGroupIdError",
    "InvalidSessionTimeoutError",
    "InvalidTopicError",
    "MessageSizeTooLargeError",
    "SaslAuthenticationFailed",
    "TopicAuthorizationFailedError",
    "UnsupportedSaslMechanismError",
    "UnsupportedVersionError",
)
Client = TypeVar("Client", "AIOKafkaConsumer", "AIOKafkaProducer")


class KafkaFailed(HourglassError):
    """The brokers refuse what is asked of them."""


class Brokers:
    """`addresses`: HOST:PORT by commas; `sasl`: how credentials are told."""

    def __init__(self, addresses: str, access: Access | None = None, sasl: str = SASL[0]) -> None:
        try:
            import aiokafka
        except ImportError as error:
            raise InvalidSettings(NEEDED) from error
        self.addresses, self.kafka, self.errors = addresses, aiokafka, aiokafka.errors
        self.fatal = tuple(getattr(aiokafka.errors, name) for name in FATAL)
        tls, credentials = (access.tls, access.credentials) if access else (None, None)
        self._settings: dict[str, Any] = {
            "client_id": "hourglass",
            "security_protocol": ("SASL_" if credentials else "") + ("SSL" if tls else "PLAINTEXT"),
            "ssl_context": tls,
        }
        if credentials is not None:
            self._settings |= {
                "sasl_mechanism": sasl,
                "sasl_plain_username": credentials.user,
                "sasl_plain_password": credentials.password,
            }

    def producer(self) -> "AIOKafkaProducer":
        return self.kafka.AIOKafkaProducer(
            bootstrap_servers=self.addresses,
            enable_idempotence=True,
            max_batch_size=BATCH_BYTES,
            **self._settings,
        )

    def consumer(self, group: str | None, **more: Any) -> "AIOKafkaConsumer":
        """Of a group, or of none."""
        return self.kafka.AIOKafkaConsumer(
            bootstrap_servers=self.addresses,
            group_id=group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            fetch_max_wait_ms=100,
            max_partition_fetch_bytes=FETCH_BYTES,
            **self._settings,
            **more,
        )

    async def require_let_in(self) -> None:
        """KafkaFailed where TLS or SASL fails: the clients would take that for brokers that are
        away.
        """
        from aiokafka.conn import collect_hosts, create_conn

        for host, port, _ in collect_hosts(self.addresses):
            try:
                connection = await create_conn(host, port, **self._settings)
            except (self.errors.KafkaError, OSError, TimeoutError, ValueError) as error:
                for each in (error, error.__cause__):
                    if isinstance(each, (*self.fatal, ValueError)) or is_tls_refusal(each):
                        said = str(each)[:200] or type(each).__name__
                        raise KafkaFailed(f"{host}:{port}: {said}") from error
            else:
                connection.close()


async def started(stack: AsyncExitStack, client: Client) -> Client:
    """A client that is stopped with the stack, also where it does not start."""
    stack.push_async_callback(client.stop)
    await client.start()
    return client
