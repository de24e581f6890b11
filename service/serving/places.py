"""Places: from where models are served, as a person names it: a folder, a bucket, a registry."""

import hashlib
import os
import re
from pathlib import Path

from hourglass.service.errors import InvalidSettings
from hourglass.service.serving import objects
from hourglass.service.serving.signatures import Trust
from hourglass.service.serving.store import Store

_URL = re.compile(r"([a-z][a-z0-9+]*)://(.*)")
_ALIAS = re.compile(r"[A-Za-z0-9_.-]+")
# of the environment, which say where the bucket or container of a URL is
_SERVERS = (
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_ENDPOINT",
    "AZURE_STORAGE_ACCOUNT_NAME",
    "AZURE_STORAGE_ENDPOINT",
    "AZURE_ENDPOINT",
)
_FORMS = "a folder, s3://BUCKET/PREFIX, gs://, az://, file:///FOLDER or mlflow://ALIAS"


def open_store(
    models: str | Path, *, cache: Path | None = None, trust: Path | None = None
) -> Store:
    """The store of a folder or URL; InvalidSettings where that is none, or its extra is missing.

    Of a URL the models' copies lie in a folder of their own below `cache`. `trust` is a file of
    public keys, one of which must have signed what is read.
    """
    trusted = Trust(trust) if trust else None
    if trusted:
        trusted.require_keys()
    if (url := _URL.fullmatch(str(models))) is None:
        return Store(Path(models), trusted)
    scheme, rest = url.groups()
    if scheme == "file":
        if not rest.startswith("/"):
            raise InvalidSettings(f"{models} names a machine, expected file:///FOLDER")
        return Store(Path(rest), trusted)
    if scheme in objects.SCHEMES:
        from hourglass.service.serving.bucket import Bucket

        variables = [name for name in _SERVERS if os.environ.get(name)]
        server = "".join(f"\n{name}={os.environ[name]}" for name in variables)
        return Bucket(str(models), _place(str(models), cache, server), trusted)
    if scheme == "mlflow":
        if not _ALIAS.fullmatch(rest):
            raise InvalidSettings(
                f"{models} names no alias, expected mlflow://ALIAS, as mlflow://champion; the"
                " server is MLFLOW_TRACKING_URI"
            )
        from hourglass.service.serving.mlflow_registry import MlflowStore

        server = os.environ.get("MLFLOW_REGISTRY_URI") or os.environ.get("MLFLOW_TRACKING_URI", "")
        return MlflowStore(rest, _place(str(models), cache, server), trusted)
    raise InvalidSettings(f"models cannot be taken from {models}, expected {_FORMS}")


def _place(url: str, cache: Path | None, server: str = "") -> Path:
    """A folder that no other URL has, of whatever server, and whose name a person knows."""
    if cache is None:
        base = os.environ.get("XDG_CACHE_HOME")
        cache = (Path(base) if base else Path.home() / ".cache") / "hourglass"
    name = re.sub(r"[^A-Za-z0-9]+", "-", url).strip("-")[:60]
    return cache / f"{name}-{hashlib.sha256(f'{url}{server}'.encode()).hexdigest()[:8]}"
