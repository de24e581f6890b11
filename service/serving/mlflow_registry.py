"""MLflow's registry as where models come from: an alias names the version of each model.

    mlflow://champion     of each registered model that has this alias, the version it names

Which server, and who asks, MLflow's own variables say: MLFLOW_TRACKING_URI, MLFLOW_REGISTRY_URI,
MLFLOW_TRACKING_TOKEN. A version there is a folder; model.onnx lies in it, or in some folder below,
and its SHA-256 is what the version is called here. Copies lie in a folder of store.py:

    CACHE/<name>/current                  which version the alias names: <made>-<number>
    CACHE/<name>/numbers/<made>-<number>  the SHA-256 of what that version holds

<made> is when the registered model was made: of one that is deleted and registered anew the numbers
begin anew.

MLflow decides what is in service, so that nothing is published or promoted from here. A budget that
is changed while running is kept in the cache, and so is this machine's alone.
"""

import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from hourglass.service.errors import InvalidArtifact, InvalidSettings, ReadOnly
from hourglass.service.model.artifact import MODEL_NAME, version_of
from hourglass.service.serving.disk import write_atomically
from hourglass.service.serving.signatures import Trust
from hourglass.service.serving.store import MODEL_FILE, POINTER, ModelFolder, Store, read_file

if TYPE_CHECKING:
    pass

NEEDED = "models of MLflow need the package mlflow: pip install 'hourglass[mlflow]'"
NUMBERS = "numbers"
PAGE = 100  # models that are asked for at once
_logger = logging.getLogger(__name__)


class MlflowStore(Store):
    """The registered models that have an alias, with copies of their versions in a folder."""

    poll_seconds = 15.0
    look_seconds = 60.0

    def __init__(self, alias: str, cache: Path, trust: Trust | None = None) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when it is imported
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")  # looks end within 5 s
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "3")
        try:
            from mlflow import MlflowClient
        except ImportError as error:
            raise InvalidSettings(NEEDED) from error
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        super().__init__(cache, trust)
        self.alias = alias
        self.client: MlflowClient = MlflowClient()
        self._ignored: set[str] = set()

    def __str__(self) -> str:
        return f"mlflow://{self.alias}"

    def check(self) -> str | None:
        try:
            numbers = self._numbers()
        except Exception as error:  # of whatever store MLflow has
            here = any(self.path.glob(f"*/{POINTER}"))
            served = "the copies of its models are served meanwhile" if here else "none is served"
            return f"{self} does not answer: {_first_line(error)}; {served}"
        if not numbers:
            return f"{self}: no registered model has this alias yet; they are served as they come"
        return None

    def model(self, name: str) -> "MlflowModel":
        return MlflowModel(self.path / name, self.trust, store=self)

    def look(self) -> dict[str, tuple[object, ...]]:
        """What is here of each model that has the alias; while MLflow is away, of each that had."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)  # it may be taken away
        away = self.away
        try:
            numbers = self._numbers()
        except Exception as error:  # of whatever store MLflow has
            self.away = f"{self} does not answer: {_first_line(error)}"
            if not away:
                _logger.error("%s; what is served stays", self.away)
        else:
            self.away = None
            if away:
                _logger.info("%s answers again", self)
            self._point(numbers)
        return {name: state for name, state in super().look().items() if not state or state[0]}

    def _point(self, numbers: Mapping[str, str]) -> None:
        """Have here which version each alias names."""
        for name, number in numbers.items():
            place = self.path / name / POINTER
            if not place.exists() or place.read_text() != number:
                place.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(place, number.encode())
        for place in self.path.glob(f"*/{POINTER}"):
            if place.parent.name not in numbers:
                place.unlink(missing_ok=True)

    def _numbers(self) -> dict[str, str]:
        """Of each model that has the alias, <made>-<number> of the version that it names."""
        numbers: dict[str, str] = {}
        token = None
        while True:
            page = self.client.search_registered_models(max_results=PAGE, page_token=token)
            for each in page:
                if (number := each.aliases.get(self.alias)) is None:
                    continue
                if MODEL_NAME.fullmatch(each.name):
                    numbers[each.name] = f"{int(each.creation_timestamp)}-{int(number)}"
                elif each.name not in self._ignored:
                    self._ignored.add(each.name)
                    names = MODEL_NAME.pattern
                    _logger.warning(
                        "%s of MLflow is ignored: a model's name matches %s", each.name, names
                    )
            if not (token := page.token):
                return numbers


@dataclass(frozen=True)
class MlflowModel(ModelFolder):
    """One registered model: `path` is where copies of its versions lie."""

    store: MlflowStore = field(kw_only=True)

    def current(self) -> str:
        """The SHA-256 of what the alias names, which is fetched first."""
        try:
            number = (self.path / POINTER).read_text()
        except OSError as error:
            raise InvalidArtifact(
                f"{self.name!r} of MLflow has no alias {self.store.alias!r}", "pointer"
            ) from error
        known = self.path / NUMBERS / number
        with suppress(FileNotFoundError):
            version = known.read_text()
            if self._is_whole(version):
                return version
        version = self._fetch_number(number.rpartition("-")[2])
        known.parent.mkdir(exist_ok=True)
        write_atomically(known, version.encode())
        return version

    def state(self) -> object:
        return self.look()

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise ReadOnly(
            f"MLflow says which version of {self.name!r} is in service: register it there, and set"
            f" its alias {self.store.alias!r}"
        )

    keep = write = point = challenge = remove = retire = require_writable = _refuse

    def _fetch_number(self, number: str) -> str:
        """Bring a version here, as a folder of its SHA-256, which is returned."""
        from mlflow.artifacts import download_artifacts

        place = f"models:/{self.name}/{number} of MLflow"
        self._sweep()
        scratch = Path(tempfile.mkdtemp(prefix=".publishing-", dir=self.path))
        try:
            try:
                download_artifacts(
                    artifact_uri=f"models:/{self.name}/{number}", dst_path=str(scratch)
                )
            except Exception as error:  # of whatever store MLflow has
                raise InvalidArtifact(
                    f"{place} cannot be read: {_first_line(error)}", "unreadable"
                ) from error
            files = sorted(scratch.rglob(MODEL_FILE))
            if len(files) != 1:
                raise InvalidArtifact(
                    f"{place} has {len(files)} files {MODEL_FILE}, expected one", "missing"
                )
            version = version_of(read_file(files[0], max_bytes=sys.maxsize).data)
            files[0].parent.chmod(0o755)
            self._move_in(files[0].parent, version)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        return version


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
