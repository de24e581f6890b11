"""How a broker is reached: through TLS or not, and as whom.

What is no secret is a flag; a user and a password are in the environment or in a file.
"""

import argparse
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from hourglass.service.errors import InvalidSettings

BROKER_AUTH = "BROKER_AUTH"  # of the environment, as SCHEMA_REGISTRY_AUTH: USER:PASSWORD
REGISTRY_AUTH = "SCHEMA_REGISTRY_AUTH"
SASL = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who asks."""

    user: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Access:
    """Without `tls` everything is sent in the clear."""

    tls: ssl.SSLContext | None = None
    credentials: Credentials | None = None


def access_of(options: argparse.Namespace, environ: Mapping[str, str]) -> Access:
    """Of a broker; InvalidSettings."""
    asking = credentials_of(environ, BROKER_AUTH, "--auth-file", options.auth_file)
    return Access(tls_of(options), asking)


def credentials_of(
    environ: Mapping[str, str], variable: str, flag: str, path: Path | None
) -> Credentials | None:
    """What a file or, without one, the environment says; InvalidSettings, which repeats none of
    it.
    """
    source, text = variable, environ.get(variable)
    if path is not None:
        source = f"{flag} {path}"
        try:
            text = path.read_text()
        except OSError as error:
            raise InvalidSettings(f"{source}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise InvalidSettings(f"{source}: expected text in UTF-8") from error
    if text is None:
        return None
    user, _, password = text.rstrip("\r\n").partition(":")
    if not (user and password):
        raise InvalidSettings(f"{source}: expected USER:PASSWORD")
    return Credentials(user, password)


def tls_of(options: argparse.Namespace) -> ssl.SSLContext | None:
    """By --tls, or one of the files that it takes; InvalidSettings."""
    if not (options.tls or options.tls_ca or options.tls_cert or options.tls_key):
        return None
    if options.tls_key and not options.tls_cert:
        raise InvalidSettings("--tls-key expects --tls-cert, the certificate that it belongs to")
    try:
        context = ssl.create_default_context(cafile=options.tls_ca)
    except (OSError, ssl.SSLError) as error:
        raise InvalidSettings(f"--tls-ca {options.tls_ca}: {_said(error)}") from error
    if options.tls_cert:
        try:
            context.load_cert_chain(options.tls_cert, options.tls_key, password=_refuse_password)
        except (OSError, ssl.SSLError) as error:
            files = f"--tls-cert {options.tls_cert} --tls-key {options.tls_key}"
            raise InvalidSettings(f"{files}: {_said(error)}") from error
    return context


def add_access_arguments(command: "argparse._ActionsContainer") -> None:
    """The flags that `access_of` reads."""
    command.add_argument(
        "--tls", action="store_true", help="speak TLS with the broker (default: where files say so)"
    )
    command.add_argument(
        "--tls-ca",
        type=Path,
        metavar="PEM",
        help="certificates that are trusted, of an https registry too (default: the system's)",
    )
    command.add_argument(
        "--tls-cert", type=Path, metavar="PEM", help="a certificate that says who asks"
    )
    command.add_argument("--tls-key", type=Path, metavar="PEM", help="its key, without a password")
    command.add_argument(
        "--auth-file",
        type=Path,
        metavar="PATH",
        help=f"a file with USER:PASSWORD for the broker (or {BROKER_AUTH})",
    )


def is_tls_refusal(error: BaseException | None) -> bool:
    """Whether TLS failed, and not the connection."""
    is_broken = isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError | ssl.SSLSyscallError)
    return isinstance(error, ssl.SSLError) and not is_broken


def _refuse_password() -> NoReturn:
    """In place of asking the terminal for it."""
    raise InvalidSettings("--tls-key: expected a key without a password")


def _said(error: OSError) -> str:
    """Of OpenSSL its reason."""
    reason = getattr(error, "reason", None) or error.strerror or str(error)
    return str(reason).replace("_", " ").lower()
