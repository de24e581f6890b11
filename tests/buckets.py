"""A real S3 server, moto's, on this machine: it can be taken away and given back, and tells which
requests came.
"""

import logging
import re
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import boto3

from tests.serving import free_port

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of moto itself
    from moto.server import ThreadedMotoServer

_REQUEST = re.compile(r'"(?:\x1b\[[\d;]*m)*(GET|PUT|HEAD|DELETE|POST) (\S+) HTTP/1.1.*?" (\d+)')


class Buckets:
    """The server, and what a client of it needs in its environment."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.requests: list[tuple[str, str, int]] = []  # method, path, status
        self.start()
        # not the product's: it looks at what lies there, and changes it
        self.client = boto3.client(
            "s3",
            endpoint_url=self.environment["AWS_ENDPOINT_URL"],
            region_name="us-east-1",
            aws_access_key_id="key",
            aws_secret_access_key="secret",
        )

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_REGION": "us-east-1",
        }

    def start(self) -> None:
        self._server = ThreadedMotoServer("127.0.0.1", self.port, verbose=False)
        self._server.start()

    def stop(self) -> None:
        """Be away; what lies there stays."""
        self._server.stop()

    def make(self) -> str:
        """The URL of a new bucket's prefix."""
        name = f"models-{uuid.uuid4().hex[:8]}"
        self.client.create_bucket(Bucket=name)
        return f"s3://{name}/plant/a"

    def fill(self, bucket: str, prefix: str, models: Path) -> None:
        """Make a bucket anew that holds a folder's models."""
        with suppress(self.client.exceptions.NoSuchBucket):
            for each in self.client.list_objects_v2(Bucket=bucket).get("Contents", ()):
                self.client.delete_object(Bucket=bucket, Key=each["Key"])
        self.client.create_bucket(Bucket=bucket)
        for file in (path for path in models.rglob("*") if path.is_file()):
            key = f"{prefix}/{file.relative_to(models)}"
            self.client.put_object(Bucket=bucket, Key=key, Body=file.read_bytes())

    def keys(self, url: str) -> set[str]:
        """What lies under a URL, without its prefix."""
        bucket, _, prefix = url.removeprefix("s3://").partition("/")
        found = self.client.list_objects_v2(Bucket=bucket, Prefix=f"{prefix}/")
        return {each["Key"].removeprefix(f"{prefix}/") for each in found.get("Contents", ())}

    def put(self, url: str, key: str, data: bytes) -> None:
        bucket, _, prefix = url.removeprefix("s3://").partition("/")
        self.client.put_object(Bucket=bucket, Key=f"{prefix}/{key}", Body=data)

    def read(self, url: str, key: str) -> bytes:
        bucket, _, prefix = url.removeprefix("s3://").partition("/")
        return self.client.get_object(Bucket=bucket, Key=f"{prefix}/{key}")["Body"].read()

    def delete(self, url: str, key: str) -> None:
        bucket, _, prefix = url.removeprefix("s3://").partition("/")
        self.client.delete_object(Bucket=bucket, Key=f"{prefix}/{key}")

    def asked(self, suffix: str) -> list[tuple[str, int]]:
        """Methods and statuses of the requests for paths that end so."""
        return [(method, status) for method, path, status in self.requests if path.endswith(suffix)]


@contextmanager
def buckets() -> Iterator[Buckets]:
    server = Buckets(free_port())
    log = logging.getLogger("werkzeug")
    handler = logging.Handler()

    def note(record: logging.LogRecord) -> None:
        if found := _REQUEST.search(record.getMessage()):
            server.requests.append((found[1], found[2].partition("?")[0], int(found[3])))

    handler.emit = note
    level, propagates = log.level, log.propagate
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    try:
        yield server
    finally:
        server.stop()
        log.removeHandler(handler)
        log.setLevel(level)
        log.propagate = propagates
