"""`hourglass keys add | list | remove`: the file of keys, from a command line."""

import argparse
import os
import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from hourglass.service.keys import file

KEYS_FILE = "keys.jsonl"  # where none is named


def add_commands(parser: argparse.ArgumentParser) -> None:
    """Give the parser `add`, `list` and `remove`; each sets `run`."""
    commands = parser.add_subparsers(required=True, metavar="add | list | remove")

    command = commands.add_parser("add", help="make a key and print it", allow_abbrev=False)
    command.add_argument("name", metavar="NAME", help="whose key it is, as metrics will call it")
    command.add_argument(
        "--scope",
        action="append",
        required=True,
        choices=file.SCOPES,
        help="what the key is for; may be given several times",
    )
    command.add_argument(
        "--model",
        action="append",
        metavar="PATTERN",
        help="the models it is for, with * and ?; may be given several times (default: all)",
    )
    command.add_argument(
        "--rate", type=_requests_a_second, metavar="N/s", help="the most requests, /s, /m or /h"
    )
    command.add_argument(
        "--expires", type=_duration, metavar="90d", help="after so many days, or hours (12h)"
    )
    command.set_defaults(run=add_key)

    listing = commands.add_parser("list", help="print what is said of keys", allow_abbrev=False)
    listing.set_defaults(run=list_keys)

    removing = commands.add_parser("remove", help="make a key void", allow_abbrev=False)
    removing.add_argument("name", metavar="NAME", help="whose key it is")
    which = removing.add_mutually_exclusive_group()
    which.add_argument("--id", help="of the one that is meant, if NAME has several")
    which.add_argument("--all", action="store_true", help="all keys of that name")
    removing.set_defaults(run=remove_keys)

    for each in (command, listing, removing):
        each.add_argument(
            "--keys",
            type=Path,
            metavar="FILE",
            help=f"the file (default: that of HOURGLASS_KEYS, or {KEYS_FILE})",
        )


def add_key(options: argparse.Namespace) -> int:
    """Make a key, and print it: it is nowhere else."""
    path = _keys_path(options)
    expires = options.expires and datetime.now(UTC).replace(microsecond=0) + options.expires
    key = file.add_key(
        path,
        options.name,
        options.scope,
        models=options.model or file.ALL_MODELS,
        rate=options.rate,
        expires=expires,
    )
    print(key)
    _warn(f"{path} holds its hash alone: keep the key, which is not shown again")
    return 0


def list_keys(options: argparse.Namespace) -> int:
    """Print what the file says of its keys."""
    path = _keys_path(options)
    found = file.read_keys(path)
    if found.is_readable_by_all:
        _warn(f"anybody may read {path}: chmod 600 {path}")
    lines = [("NAME", "ID", "SCOPES", "MODELS", "RATE", "CREATED", "EXPIRES")]
    for key in found.keys:
        expired = ", expired" if key.expires and key.expires <= datetime.now(UTC) else ""
        lines.append(
            (
                key.name,
                key.id,
                ",".join(key.scopes),
                ",".join(key.models),
                f"{key.rate:g}/s" if key.rate else "-",
                f"{key.created:%Y-%m-%d}",
                f"{key.expires:%Y-%m-%dT%H:%M:%SZ}{expired}" if key.expires else "-",
            )
        )
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(map(str.ljust, line, widths)).rstrip())
    return 0


def remove_keys(options: argparse.Namespace) -> int:
    """Take keys out of the file: services that read it refuse them within a second."""
    for key in file.remove_keys(_keys_path(options), options.name, id=options.id, all=options.all):
        print(f"removed {key.name} {key.id}")
    return 0


def _keys_path(options: argparse.Namespace) -> Path:
    return options.keys or Path(os.environ.get("HOURGLASS_KEYS") or KEYS_FILE)


def _requests_a_second(text: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)/([smh])", text)
    rate = float(found[1]) / {"s": 1, "m": 60, "h": 3600}[found[2]] if found else 0.0
    if not 0 < rate <= 1e6:
        raise argparse.ArgumentTypeError(f"expected a rate such as 100/s or 6000/m, got {text!r}")
    return rate


def _duration(text: str) -> timedelta:
    found = re.fullmatch(r"(\d{1,5})([dh])", text)
    lasts = timedelta(**{{"d": "days", "h": "hours"}[found[2]]: int(found[1])}) if found else None
    if not lasts:
        raise argparse.ArgumentTypeError(f"expected a time such as 90d or 12h, got {text!r}")
    return lasts


def _warn(problem: str) -> None:
    print(f"hourglass: {problem}", file=sys.stderr)
