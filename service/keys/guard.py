"""The guard: which key a request brings, whether it may do what it asks for, and how often."""

import hashlib
import hmac
import logging
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from fnmatch import translate
from pathlib import Path
from time import monotonic, time
from typing import NamedTuple

from hourglass.service.errors import Forbidden, InvalidKeys, RateExceeded, Unauthenticated
from hourglass.service.keys.file import FORM, Key, Scope, read_keys

Headers = Iterable[tuple[bytes, bytes]]

WHICHEVER = ""  # in place of a model's name: any of them, or all
# of which each holds a key as it is; the second is that of Azure's clients
HEADERS = (b"x-api-key", b"ocp-apim-subscription-key")
OUTCOMES = ("allowed", "forbidden", "limited")
_EXPECTED = "expected a key, as Authorization: Bearer KEY or as x-api-key: KEY"
_UNKNOWN = f"{_EXPECTED}, got one that is not known here"
_NOBODYS = bytes(32)  # what the digest of an unknown key is held against
_logger = logging.getLogger(__name__)


class Asked(NamedTuple):
    """What a guard is asked about: a request, as far as its head tells."""

    path: str
    headers: Headers  # names in lower case
    scopes: tuple[Scope, ...]  # of which one suffices; none: it is open to everybody
    model: str | None  # its name; WHICHEVER; None: the answer is of none


class Pass:
    """A key that is known, and what it opens."""

    __slots__ = ("_patterns", "_scopes", "_tokens", "_tokens_at", "digest", "expires", "key")

    def __init__(self, key: Key) -> None:
        self.key, self.digest = key, bytes.fromhex(key.sha256)
        self.expires = key.expires.timestamp() if key.expires else math.inf
        self._scopes = frozenset(key.scopes)
        # of all models none: these need not be looked at
        self._patterns = (
            None
            if "*" in key.models
            else re.compile("|".join(translate(pattern) for pattern in key.models))
        )
        self._tokens, self._tokens_at = max(1.0, key.rate or 0.0), monotonic()

    def covers(self, model: str) -> bool:
        """Whether the key is for that model."""
        return self._patterns is None or self._patterns.match(model) is not None

    def opens(self, scopes: Iterable[Scope]) -> bool:
        """Whether the key has one of these scopes."""
        return not self._scopes.isdisjoint(scopes)

    def wait_seconds(self) -> float:
        """0 where the rate lets another request through, which then counts; or until when not.

        The bucket holds the tokens of one second, at least one.
        """
        if (rate := self.key.rate) is None:
            return 0.0
        now = monotonic()
        tokens = min(max(1.0, rate), self._tokens + (now - self._tokens_at) * rate)
        self._tokens_at = now
        if tokens < 1:
            self._tokens = tokens
            return (1 - tokens) / rate
        self._tokens = tokens - 1
        return 0.0


class Keys:
    """The guard that asks for a key of the file. It reads the file when it is made, and `look`
    reads it again when it has changed; a broken one leaves the keys as they are.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._state = _state_of(path)
        self._passes = self._read({})
        self.problem: str | None = None  # why the file's newest state is not in force
        self._counts: Counter[tuple[str, str]] = Counter()  # requests by name and outcome

    def __call__(self, asked: Asked) -> Pass | None:
        """The key's pass; None where none is needed. Unauthenticated, RateExceeded or Forbidden
        where the request may not be answered.
        """
        if not asked.scopes:
            return None
        found = self._identify(asked.headers)
        if seconds := found.wait_seconds():
            self._counts[found.key.name, "limited"] += 1
            raise RateExceeded(
                f"the key {found.key.name!r} may ask {found.key.rate:g} times a second",
                seconds=seconds,
            )
        if not found.opens(asked.scopes):
            self._counts[found.key.name, "forbidden"] += 1
            raise Forbidden(
                f"expected a key with the scope {' or '.join(asked.scopes)}, got"
                f" {found.key.name!r}, which has {', '.join(found.key.scopes)}"
            )
        if asked.model is not None and not found.covers(asked.model):
            self._counts[found.key.name, "forbidden"] += 1
            got = repr(asked.model[:80]) if asked.model else "a path that names no model"
            raise Forbidden(
                f"the key {found.key.name!r} is for the models {', '.join(found.key.models)}, got"
                f" {got}"
            )
        self._counts[found.key.name, "allowed"] += 1
        return found

    @property
    def keys(self) -> list[Key]:
        """Those in force, also where they have expired."""
        return [each.key for each in self._passes.values()]

    def take_counts(self) -> Mapping[tuple[str, str], int]:
        """Requests since the last call, by the key's name and outcome."""
        counts, self._counts = self._counts, Counter()
        return counts

    def look(self) -> None:
        """Read the file again if it has changed; what is wrong with it is logged once."""
        state = _state_of(self._path)
        if state == self._state and self.problem is None:
            return
        self._state = state
        try:
            self._passes = self._read(self._passes)
        except InvalidKeys as error:
            if str(error) != self.problem:
                _logger.error("%s; the keys read before stay in force", error)
            self.problem = str(error)
            return
        self.problem = None
        _logger.info("%s was read: %d keys", self._path, len(self._passes))

    def _read(self, before: "Mapping[str, Pass]") -> "dict[str, Pass]":
        """By id; a key that stays as it is keeps what its rate has left."""
        file = read_keys(self._path)
        if file.is_readable_by_all:
            _logger.warning("anybody may read %s: chmod 600 %s", self._path, self._path)
        return {
            key.id: known if (known := before.get(key.id)) and known.key == key else Pass(key)
            for key in file.keys
        }

    def _identify(self, headers: Headers) -> Pass:
        text: bytes | None = None
        for name, value in headers:
            if name in HEADERS:
                given = value
            elif name == b"authorization" and value[:7].lower() == b"bearer ":
                given = value[7:].strip()
            else:
                continue
            if text is not None and text != given:
                raise Unauthenticated(f"{_EXPECTED}, got several")
            text = given
        if text is None:
            raise Unauthenticated(f"{_EXPECTED}, got none")
        if (form := FORM.fullmatch(text)) is None:
            raise Unauthenticated(_UNKNOWN)
        found = self._passes.get(form[1].decode())
        digest = hashlib.sha256(text).digest()
        if not hmac.compare_digest(digest, found.digest if found else _NOBODYS) or found is None:
            raise Unauthenticated(_UNKNOWN)
        if found.expires <= time():
            raise Unauthenticated(
                f"the key {found.key.name!r} expired at {found.key.expires:%Y-%m-%dT%H:%M:%SZ}"
            )
        return found


def _state_of(path: Path) -> object:
    """Something that differs as soon as the file is another one."""
    try:
        status = path.stat()  # of what a link leads to, as Kubernetes makes them
    except OSError as error:
        return error.errno
    return status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_size
