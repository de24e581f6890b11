"""Signatures: who made a model's file, by Ed25519 (RFC 8032) of the package cryptography.

A signature is 64 bytes, made of the file's own, and lies beside it; keys are PEM, as OpenSSL writes
them, so that without us

    openssl pkeyutl -verify -pubin -inkey signing.pem.pub -rawin -in model.onnx \
        -sigfile model.onnx.sig

says the same. It tells who made the file, and neither which model it is meant for nor that it is
the newest: who may write into the store can still point at another signed version, or change the
budget.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hourglass.service.errors import InvalidArtifact, InvalidSettings

if TYPE_CHECKING:
    pass

SIGNATURE_FILE = "model.onnx.sig"
SIGNATURE_BYTES = 64
MAX_KEY_BYTES = 2**20
NEEDED = "signatures need the package cryptography: pip install 'hourglass[signing]'"
_PEM = re.compile(rb"-----BEGIN ([A-Z ]+)-----.*?-----END \1-----", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Trust:
    """A file of public keys, one PEM block each; what is between the blocks is for people.

    The file is read whenever a model is, so that a key can be added or taken off at any time.
    """

    path: Path

    def require_keys(self) -> None:
        """InvalidSettings where the file has no key, or one that is of another kind."""
        _require_cryptography()
        self._keys()

    def require(self, data: bytes, signature: bytes | None, place: Path) -> None:
        """InvalidArtifact, whose fault is `untrusted`, unless one of the keys signed the file."""
        if signature is None:
            raise InvalidArtifact(
                f"{place} has no signature beside it, expected one by a key of {self.path};"
                " hourglass-train sign makes it",
                "untrusted",
            )
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        try:
            keys = self._keys()
        except InvalidSettings as error:
            raise InvalidArtifact(f"{place} cannot be trusted: {error}", "untrusted") from error
        for key in keys:
            try:
                Ed25519PublicKey.from_public_bytes(key).verify(signature, data)
                return
            except InvalidSignature:
                continue
        raise InvalidArtifact(
            f"{place} is signed by none of the {len(keys)} keys of {self.path}, or was changed"
            " since",
            "untrusted",
        )

    def stamp(self) -> object:
        """Something that differs as soon as the file is another one."""
        try:
            status = os.stat(self.path)
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino

    def _keys(self) -> list[bytes]:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        from cryptography.hazmat.primitives.serialization import load_pem_public_key

        keys = []
        for number, block in enumerate(_PEM.finditer(_read(self.path)), 1):
            where = f"key {number} of {self.path}"
            if b"PRIVATE" in block[1]:
                raise InvalidSettings(f"{where} is a private one, expected public keys alone")
            try:
                key = load_pem_public_key(block[0])
            except ValueError as error:
                raise InvalidSettings(f"{where} cannot be read: {error}") from error
            if not isinstance(key, Ed25519PublicKey):
                raise InvalidSettings(f"{where} is of another kind, expected Ed25519")
            keys.append(key.public_bytes_raw())
        if not keys:
            raise InvalidSettings(
                f"{self.path} has no key, expected -----BEGIN PUBLIC KEY-----; hourglass-train sign"
                " --new-key makes a pair"
            )
        return keys


class SigningKey:
    """A private key; InvalidSettings where a file holds none that can be used."""

    def __init__(self, path: Path) -> None:
        _require_cryptography()
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        try:
            key = load_pem_private_key(_read(path), password=None)
        except (ValueError, TypeError) as error:  # TypeError: it needs a password
            raise InvalidSettings(
                f"{path} is no private key in PEM without a password; hourglass-train sign"
                " --new-key makes one"
            ) from error
        if not isinstance(key, Ed25519PrivateKey):
            raise InvalidSettings(f"{path} is a key of another kind, expected Ed25519")
        self._key: Ed25519PrivateKey = key

    def sign(self, data: bytes) -> bytes:
        """The signature of a file's bytes."""
        return self._key.sign(data)


def make_keys(path: Path) -> Path:
    """Write a new private key for its owner alone, and beside it the public one, whose path is
    returned; InvalidSettings where one of them is there already.
    """
    _require_cryptography()
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key, public = Ed25519PrivateKey.generate(), path.with_name(f"{path.name}.pub")
    pem = serialization.Encoding.PEM
    private_bytes = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public_bytes = key.public_key().public_bytes(
        pem, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    if public.exists():
        raise InvalidSettings(f"{public} is there already, and stays")
    for place, mode, data in ((path, 0o600, private_bytes), (public, 0o644, public_bytes)):
        try:
            descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        except FileExistsError as error:
            raise InvalidSettings(f"{place} is there already, and stays") from error
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
    return public


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_KEY_BYTES)
    except OSError as error:
        raise InvalidSettings(f"{path} cannot be read: {error.strerror}") from error


def _require_cryptography() -> None:
    try:
        import cryptography  # noqa: F401
    except ImportError as error:
        raise InvalidSettings(NEEDED) from error
