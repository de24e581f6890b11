"""What librdkafka's mock cluster lacks, in front of it: TLS, and SASL PLAIN and SCRAM.

Frames go through as they are, but that a broker's address in an answer is replaced by this one's,
which has as many bytes. SASL ends here: nothing else goes through before it has succeeded.
"""

import base64
import hashlib
import hmac
import os
import socket
import ssl
import struct
import threading
from contextlib import suppress

SASL_HANDSHAKE, API_VERSIONS, SASL_AUTHENTICATE = 17, 18, 36
OURS = ((SASL_HANDSHAKE, 1, 1), (SASL_AUTHENTICATE, 0, 1))  # versions
UNSUPPORTED, FAILED = 33, 58
ROUNDS = 4096


class Front:
    """`user`: a name and a password, which clients must tell by one of the mechanisms."""

    mechanisms = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")

    def __init__(
        self, behind: str, tls: ssl.SSLContext | None = None, user: tuple[str, str] | None = None
    ) -> None:
        host, _, port = behind.rpartition(":")
        self._behind = host, int(port)
        self._tls, self._user = tls, user
        self.passed: list[str] = []  # mechanisms by which clients were let in
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listening.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """No more are let in."""
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError, EOFError), socket.create_connection(self._behind) as broker:
            if self._tls is not None:
                client = self._tls.wrap_socket(client, server_side=True)
            with client:
                if self._user is None or self._is_let_in(client, broker):
                    answering = threading.Thread(target=self._answer, args=(broker, client))
                    answering.start()
                    with suppress(OSError, EOFError):
                        while True:
                            _send(broker, _frame(client))
                    broker.shutdown(socket.SHUT_RDWR)
                    answering.join()

    def _answer(self, broker: socket.socket, client: socket.socket) -> None:
        theirs, ours = (
            b"127.0.0.1" + struct.pack(">i", port)
            for port in (self._behind[1], int(self.address.rpartition(":")[2]))
        )
        with suppress(OSError, EOFError):
            while True:
                _send(client, _frame(broker).replace(theirs, ours))

    def _is_let_in(self, client: socket.socket, broker: socket.socket) -> bool:
        mechanism, told = "", None
        while True:
            frame = _frame(client)
            kind, version, number = struct.unpack_from(">hhi", frame)
            place = 8 + 2 + max(struct.unpack_from(">h", frame, 8)[0], 0)  # after the client's name
            if kind == API_VERSIONS:
                _send(broker, frame)
                said = _frame(broker)  # number, error, count, and three numbers for each request
                count = struct.pack(">i", struct.unpack_from(">i", said, 6)[0] + len(OURS))
                ours = b"".join(struct.pack(">hhh", *each) for each in OURS)
                _send(client, said[:6] + count + ours + said[10:])
            elif kind == SASL_HANDSHAKE:
                (length,) = struct.unpack_from(">h", frame, place)
                mechanism = frame[place + 2 : place + 2 + length].decode()
                names = b"".join(_text(each) for each in self.mechanisms)
                error = 0 if mechanism in self.mechanisms else UNSUPPORTED
                head = struct.pack(">ihi", number, error, len(self.mechanisms))
                _send(client, head + names)
            elif kind == SASL_AUTHENTICATE and version < 2:
                (length,) = struct.unpack_from(">i", frame, place)
                said = frame[place + 4 : place + 4 + length]
                is_right, more, told = self._hear(mechanism, said, told)
                error = 0 if is_right else FAILED
                reason = struct.pack(">h", -1) if is_right else _text("Authentication failed")
                session = struct.pack(">q", 0) if version else b""
                body = struct.pack(">ih", number, error) + reason
                _send(client, body + struct.pack(">i", len(more)) + more + session)
                if not is_right:
                    return False
                if told is None:
                    self.passed.append(mechanism)
                    return True
            else:
                return False

    def _hear(
        self, mechanism: str, said: bytes, told: tuple[str, bytes] | None
    ) -> tuple[bool, bytes, tuple[str, bytes] | None]:
        """Whether it is right so far, what is answered, and what was told if more is to come."""
        assert self._user is not None
        user, password = self._user
        if mechanism == "PLAIN":
            return said.decode().split("\0")[1:] == [user, password], b"", None
        algorithm = mechanism.removeprefix("SCRAM-").replace("-", "").lower()  # RFC 5802
        if told is None:
            bare = said.decode().removeprefix("n,,")
            fields = dict(each.split("=", 1) for each in bare.split(","))
            salt = os.urandom(16)
            nonce = fields["r"] + base64.b64encode(os.urandom(12)).decode()
            first = f"r={nonce},s={base64.b64encode(salt).decode()},i={ROUNDS}"
            return fields["n"] == user, first.encode(), (f"{bare},{first}", salt)
        salted = hashlib.pbkdf2_hmac(algorithm, password.encode(), told[1], ROUNDS)
        final, _, proof = said.decode().rpartition(",p=")
        signed = f"{told[0]},{final}".encode()
        client_key = hmac.digest(salted, b"Client Key", algorithm)
        stored = hashlib.new(algorithm, client_key).digest()
        mask = hmac.digest(stored, signed, algorithm)
        expected = bytes(a ^ b for a, b in zip(client_key, mask, strict=True))
        server_key = hmac.digest(salted, b"Server Key", algorithm)
        verifier = base64.b64encode(hmac.digest(server_key, signed, algorithm))
        return base64.b64decode(proof) == expected, b"v=" + verifier, None


def _frame(peer: socket.socket) -> bytes:
    (size,) = struct.unpack(">i", _exactly(peer, 4))
    return _exactly(peer, size)


def _exactly(peer: socket.socket, size: int) -> bytes:
    found = bytearray()
    while len(found) < size:
        part = peer.recv(size - len(found))
        if not part:
            raise EOFError
        found += part
    return bytes(found)


def _send(peer: socket.socket, frame: bytes) -> None:
    peer.sendall(struct.pack(">i", len(frame)) + frame)


def _text(text: str) -> bytes:
    return struct.pack(">h", len(text)) + text.encode()
