"""Settings: read once, from the environment (HOURGLASS_<NAME>) and the command line's flags, and
passed on as a value.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from hourglass.service.errors import InvalidSettings

PREFIX = "HOURGLASS_"
CLIENT_KEY = "HOURGLASS_KEY"  # what a client of the service has; here it is no setting
LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["text", "json"]


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything about a running service that its operator chooses."""

    # MODELS/<name>/<version>/model.onnx, MODELS/<name>/current: a folder, or a URL of a bucket
    models: str = "models"
    cache: Path | None = None  # where the copies of a URL's models lie; None: ~/.cache/hourglass
    trust: Path | None = None  # a file of public keys, one of which must have signed a version
    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535)] = 8000  # 0: any free one
    workers: Annotated[int, Meta(ge=1, le=256)] = 1
    # how often the models are looked at; None: 1 of a folder, 15 of a URL
    poll_seconds: Annotated[float, Meta(gt=0, le=3600)] | None = None
    max_body_bytes: Annotated[int, Meta(ge=1)] = 32 * 2**20
    max_rows: Annotated[int, Meta(ge=1)] = 65536  # in one request
    max_model_bytes: Annotated[int, Meta(ge=1)] = 256 * 2**20
    # kept in memory; the others are read again when somebody asks; None: all of them
    max_loaded: Annotated[int, Meta(ge=1)] | None = None
    threads: Annotated[int, Meta(ge=1, le=1024)] | None = (
        None  # for one bulk of rows; None: the CPUs that each worker has
    )
    # work on up to this many cells is done on the event loop; scoring on sixteen times as many, by
    # models that do it in 1 ms
    inline_cells: Annotated[int, Meta(ge=0)] = 8192
    log_level: LogLevel = "info"
    log_format: LogFormat = "text"
    access_log: bool = False  # a line for each answer
    keep_alive: Annotated[float, Meta(gt=0, le=86400)] = 75.0  # seconds; above load balancers' 60
    min_bytes_per_second: Annotated[int, Meta(ge=0)] = 500  # of a body, or of an answer's reading
    max_connections: Annotated[int, Meta(ge=1)] = 4096  # of each worker
    max_held_bytes: Annotated[int, Meta(ge=1)] = 256 * 2**20  # bodies and unread answers, a worker
    root_path: Annotated[str, Meta(pattern=r"^(/[A-Za-z0-9._~-]+)*$")] = ""  # in front, by a proxy
    allowed_hosts: str = ""  # by commas; none: localhost's if bound to it, else any
    cors_origins: str = ""  # by commas
    # an SQLite file that keeps alarms with their rows' values; None: the last ones in memory,
    # without values
    journal: Path | None = None
    journal_alarms: Annotated[int, Meta(ge=1, le=10**7)] = 100_000  # in the file, at most
    journal_days: Annotated[float, Meta(gt=0, le=36500)] = 30.0  # that they stay there
    # that a window of rows has at least, which is held against the fit rows
    drift_rows: Annotated[int, Meta(ge=100, le=10**6)] = 1000
    drift_seconds: Annotated[float, Meta(ge=0, le=31 * 86400)] = 600.0
    # of rows that a challenger is scored on, too; 0: no challenger is scored
    shadow_share: Annotated[float, Meta(ge=0, le=1)] = 0.1
    # a folder or a bucket's URL, where a share of scored rows is written as Parquet; none: no rows
    record: str = ""
    record_share: Annotated[float, Meta(gt=0, le=1)] = 0.1  # of the rows, or of streams' entities
    # of one file, which ends by whichever comes first
    record_rows: Annotated[int, Meta(ge=1, le=10**6)] = 100_000
    record_seconds: Annotated[float, Meta(ge=1, le=86400)] = 600.0
    record_bytes: Annotated[int, Meta(ge=1)] = 2**30  # kept, of all files
    # an SQLite file that keeps streams; None: streams.sqlite in the folder of models
    streams: Path | None = None
    max_entities: Annotated[int, Meta(ge=1, le=10**6)] = 10_000  # of all models together
    # seconds between rows of an entity after which it warms anew; None: as the model says
    stream_gap: Annotated[float, Meta(gt=0)] | None = None
    # false events that open in a day of one entity, at most and on average
    events_per_day: Annotated[float, Meta(gt=0, le=10**6)] = 1.0
    webhook: str = ""  # URLs by commas, which are told of events
    # signs what webhooks are told; a file's content or, without one, the environment's alone
    webhook_secret_file: Path | None = None
    webhook_secret: str = ""
    alertmanager: str = ""  # URLs by commas, to which /api/v2/alerts is added
    public_url: str = ""  # where people reach the service; else http://HOST:PORT
    azure: bool = False  # speak the multivariate API of the retired Azure Anomaly Detector
    # folders and URLs of object storage, by commas, below which its clients' data may lie
    azure_data: str = ""
    read_only: bool = False  # only score: no PATCH, no reload
    keys: Path | None = None  # a file of keys, of which requests must bring one
    # what needs none all the same, by commas
    without_key: Annotated[str, Meta(pattern="^((metrics|docs)(,(metrics|docs))*)?$")] = ""
    insecure: bool = False  # without keys listen on addresses that are not loopback's all the same
    learn: bool = True  # serve the small models of the console's view Learn


def read_settings(environ: Mapping[str, str], **flags: object) -> Settings:
    """The settings; flags that are not None win.

    InvalidSettings names the variable or flag that is wrong.
    """
    known = variables()
    given = {
        variable: value
        for variable, value in environ.items()
        if variable.startswith(PREFIX) and variable != CLIENT_KEY
    }
    if unknown := sorted(given.keys() - known.keys()):
        raise InvalidSettings(
            f"{unknown[0]} is not a setting; the settings are {', '.join(sorted(known))}"
        )
    values: dict[str, object] = {}
    sources: dict[str, str] = {}
    for variable, text in given.items():
        values[known[variable]], sources[known[variable]] = text, variable
    for name, flag in flags.items():
        if flag is not None:
            values[name], sources[name] = flag, "--" + name.replace("_", "-")
    for name, value in values.items():
        try:
            msgspec.convert({name: value}, Settings, strict=False, dec_hook=_decode_path)
        except msgspec.ValidationError as error:
            what = str(error).partition(" - at")[0].replace("`", "")
            raise InvalidSettings(
                f"{sources[name]} is {value!r}: {what[0].lower()}{what[1:]}"
            ) from error
    return msgspec.convert(values, Settings, strict=False, dec_hook=_decode_path)


def variables() -> dict[str, str]:
    """Environment variable -> field of Settings."""
    return {PREFIX + name.upper(): name for name in Settings.__struct_fields__}


def _decode_path(_: type, value: object) -> Path:
    return Path(str(value))
