"""Everything that a run depends on, as one TOML file; a flag is one of its fields."""

import math
import tomllib
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
import tomli_w

from hourglass.service.model.artifact import LAST_SECOND, MAX_WINDOW, MODEL_NAME
from hourglass.service.rows.dialect import Dialect
from hourglass.training.errors import RunError
from hourglass.training.features import Loss
from hourglass.training.models import VARIANTS, ModelConfig
from hourglass.training.models.associative import AssociativeConfig
from hourglass.training.presets import DEFAULT, PRESETS, presets_of
from hourglass.training.prometheus import ENTITY, TIME, PrometheusConfig, is_address
from hourglass.training.recorded import is_recording

MOST_FOLDS = 20  # models in one file
MAX_THREADS = 1024
DEFAULT_WINDOW = 30  # rows, of what comes in order of time
AUTO = "auto"  # in the place of a variant: fit several


class SplitConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Shares of the normal rows; what is left fits the network.

    The caps keep large data from being wasted on a threshold. A row's values and the seed decide
    where it goes, so that a run's own seed moves only the network.
    """

    validation: float = 0.12
    # what a fifth costs in average precision (.008) is more than it buys; this costs .001
    calibration: float = 0.15
    validation_cap: int = 10_000
    calibration_cap: int = 20_000
    # models that calibrate on all rows together, each on those that it was not fitted on; 0: one
    # model with calibration rows of its own; None: 5 of a preset, or of several variants to choose
    # from, below 600 rows that are drawn singly
    folds: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not (
            0 < self.validation < 1
            and 0 < self.calibration < 1
            and self.validation + self.calibration < 1
        ):
            raise ValueError(
                "split.validation and split.calibration must be above 0 and below 1 together"
            )
        if self.validation_cap < 1 or self.calibration_cap < 1:
            raise ValueError("split.validation_cap and split.calibration_cap must be at least 1")
        if self.folds is not None and self.folds != 0 and not 2 <= self.folds <= MOST_FOLDS:
            raise ValueError(f"split.folds must be 0, or from 2 to {MOST_FOLDS}, got {self.folds}")
        if not 0 <= self.seed < 2**64:
            raise ValueError(f"split.seed must be from 0 to 2^64 - 1, got {self.seed}")


class AutoConfig(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="variant",
    tag=AUTO,
):
    """Fit several members and publish the one that finds most injected anomalies; labels play no
    part in it.
    """

    variants: tuple[str, ...] = tuple(VARIANTS)  # or presets
    epochs: int | None = None  # of every candidate

    def __post_init__(self) -> None:
        check_candidates(self.variants)


class Columns(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a run was told of a file's columns, by the names of RunConfig."""

    label: str | None = None
    time: str | None = None
    entity: str | None = None
    normal: str | None = None
    ignore: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    categorical: tuple[str, ...] = ()
    null: tuple[str, ...] = ()

    @classmethod
    def of(cls, config: "RunConfig") -> "Columns":
        return cls(**{name: getattr(config, name) for name in cls.__struct_fields__})


class RunConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything a run depends on.

    Written beside the model with every choice filled in, it gives the same bytes again.
    """

    # a file, a folder of Parquet files or of rows that the service has recorded, or the address of
    # a Prometheus
    data: str
    name: str
    models: str = "models"  # a folder, or a URL of a bucket
    cache: str | None = None  # where copies of a URL's models lie; None: ~/.cache/hourglass
    sign_with: str | None = None  # a private key, whose signature what is published gets
    label: str | None = (
        None  # rows where it is not zero are anomalies, kept out of fitting and calibration
    )
    time: str | None = None  # orders the rows; whole blocks of it calibrate. No feature
    # seconds since 1970, told of the model; None: the newest row's time, or the data file's
    fitted_at: float | None = None
    group: str | None = None  # whole groups calibrate. No feature
    # whose rows come in an order of their own, such as a machine; no window crosses two. No feature
    entity: str | None = None
    # rows that an answer looks at, the judged one last; 1: single rows; None: 30 with `time`
    window: int | None = None
    representation: Literal["residual", "multi"] = "residual"  # of windows: windows.py
    # whose level and spread rows are judged by: the fleet's, or each entity's own; baselines.py
    baseline: Literal["fleet", "entity"] = "fleet"
    # of a longer step of time the next row begins a window of its own; None: 10 times the median
    gap: float | None = None
    normal: str | None = None  # the label of normal rows, where it is not plain
    ignore: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()  # features, although they look like an index, a time or the label
    categorical: tuple[str, ...] = ()  # categories, although they look like numbers
    # of a run on rows that the service recorded: by what the next file is read; retrain.py
    file_columns: Columns | None = None
    # what a Prometheus is asked where `data` is its address; kept when the next rows are a file's
    prometheus: PrometheusConfig | None = None
    # how the CSV is written
    separator: str = ","
    decimal: Literal[".", ","] = "."
    thousands: str | None = None
    null: tuple[str, ...] = ()  # cells that mean a missing value
    comment: str | None = None
    header: bool = True
    exclude: str | None = None  # a file of row numbers, from 1, that are left out of everything
    # of `time`, or of when rows were recorded: from so long before the newest on, such as 30d, or
    # in the column's own unit
    recent: str | None = None
    exclude_times: tuple[str, ...] = ()  # of `time`: spans FROM/TO, without TO itself
    # share of the normal rows, by out-of-fold score, that is left out of fitting and calibration
    contamination: float = 0.0
    screen: bool = True  # a model in service leaves out new rows beyond its false alarms
    units: dict[str, str] = {}  # feature -> unit, shown to whoever reads an explanation
    alpha: float | None = (
        None  # None: the first of 1, 2, 5, 10, 20 % of which the threshold leaves half in use
    )
    delta: float = 0.05
    uncertified: bool = False  # the marginal rule instead of the guaranteed one
    seed: int = 0
    threads: int = 1
    device: Literal["auto", "cpu", "cuda"] = "auto"  # auto: a GPU where there is one
    # squared error for numbers, cross-entropy for the rest; bce takes numbers as probabilities
    loss: Loss = "auto"
    max_categories: int = 100  # a text column with more distinct values is refused
    max_rows: int = 200_000  # normal rows that are used; of more so many are drawn at random
    report: bool = True  # report.html and card.md beside the model, and their facts in report.json
    rows_per_day: float | None = None  # that will be scored; None: as the times of the rows say
    # have the version in service followed by nobody: this one is scored beside it
    shadow: bool = False
    force: bool = False  # publish although the features differ from those of the model in service
    split: SplitConfig = SplitConfig()
    model: ModelConfig | AutoConfig = PRESETS[DEFAULT]

    def __post_init__(self) -> None:
        if not MODEL_NAME.fullmatch(self.name):
            raise ValueError(
                f"name must be lower-case letters, digits, - and _, at most 63, got {self.name!r}"
            )
        for field, value in (("alpha", self.alpha), ("delta", self.delta)):
            if value is not None and not 0 < value <= 0.5:
                raise ValueError(f"{field} must be above 0 and at most 0.5, got {value:g}")
        if self.fitted_at is not None and not 0 <= self.fitted_at <= LAST_SECOND:
            raise ValueError(
                f"fitted_at must be from 0 to {LAST_SECOND}, the end of 9999, got {self.fitted_at}"
            )
        if not 0 <= self.contamination < 0.5:
            raise ValueError(
                f"contamination must be at least 0 and below 0.5, got {self.contamination:g}"
            )
        if not 1 <= self.threads <= MAX_THREADS or not 0 <= self.seed < 2**63:
            raise ValueError(
                f"threads must be from 1 to {MAX_THREADS} and seed from 0 to 2**63 - 1"
            )
        if self.window is not None and not 1 <= self.window <= MAX_WINDOW:
            raise ValueError(f"window must be from 1 to {MAX_WINDOW} rows, got {self.window}")
        if self.gap is not None and not 0 < self.gap < math.inf:
            raise ValueError(f"gap must be above 0, got {self.gap:g}")
        for field in ("window", "entity", "gap"):
            if getattr(self, field) not in (None, 1) and self.time is None:
                raise ValueError(f"{field} is of rows in order of time: name their time column")
        for field in ("recent", "exclude_times"):
            if getattr(self, field) and self.time is None and not is_recording(self.data):
                raise ValueError(f"{field} is of rows that have a time: name their time column")
        if self.window_rows > 1 and self.group is not None:
            raise ValueError(
                "windows are held out by time, and whole groups cannot be; entity keeps the windows"
                " of each apart, and window = 1 scores single rows"
            )
        if self.window_rows > 1 and isinstance(self.model, AutoConfig):
            raise ValueError(
                "members are compared on single rows, and not on windows: name a preset, or window"
                " = 1"
            )
        if self.baseline == "entity" and (self.entity is None or self.window_rows < 2):
            raise ValueError(
                'baseline = "entity" is of windows of several entities: name their column as'
                " entity, and a window of at least 2 rows"
            )
        if self.max_rows < 1:
            raise ValueError(f"max_rows must be at least 1, got {self.max_rows}")
        if self.rows_per_day is not None and not 0 < self.rows_per_day < math.inf:
            raise ValueError(f"rows_per_day must be above 0, got {self.rows_per_day:g}")
        if is_address(self.data) and self.prometheus is None:
            raise ValueError(
                f"{self.data[:80]} is an address: expected a file, or what to ask a Prometheus"
                " (--query NAME='PROMQL')"
            )
        self.dialect()

    @property
    def asks_prometheus(self) -> bool:
        """Whether the rows are a Prometheus's."""
        return self.prometheus is not None and is_address(self.data)

    @property
    def window_rows(self) -> int:
        """W, the rows that an answer looks at."""
        return _window_rows(self.window, self.time, self.group)

    def dialect(self) -> Dialect:
        """How the data is written; ValueError where two signs mean the same."""
        return Dialect(**{name: getattr(self, name) for name in Dialect.__struct_fields__})


def load_config(path: Path | None, flags: dict[str, Any]) -> RunConfig:
    """A TOML file, if any, overridden by flags; RunError names the field that is wrong.

    `preset`, in the file or as a flag, stands for the model it names, and fields under [model]
    override its own. The flags `variant`, `epochs`, `folds` and `memory` stand for model.variant,
    model.fit.epochs, split.folds and what `AssociativeConfig.remembering` makes of model;
    `prometheus` is the address of one, `query`, `range`, `step` and `late` what it is asked.
    """
    values = _read(path) if path else {}
    values, flags = _asking(values, flags)
    preset, variant, epochs, memory = (
        flags.pop(flag, None) for flag in ("preset", "variant", "epochs", "memory")
    )
    model = _table(values, "model")
    if (folds := flags.pop("folds", None)) is not None:
        values["split"] = {**_table(values, "split"), "folds": folds}
    source = f"{path}: " if path else ""
    try:
        written, asked = (
            _choice(values.pop("preset", None), model.pop("variant", None)),
            _choice(preset, variant),
        )
        if asked and not _means(written, asked):
            model = {}  # another model's settings
        values = {**values, **flags}
        window = _window_rows(*(values.get(field) for field in ("window", "time", "group")))
        model = _model_table(asked or written or DEFAULT, window, model, epochs)
        values["model"] = model
        if missing := [field for field in ("data", "name") if field not in values]:
            raise RunError(f"{missing[0]} is needed, as a flag or in the configuration file")
        config = msgspec.convert(values, RunConfig)
        if memory is None:
            return config
        if not isinstance(config.model, AssociativeConfig):
            raise ValueError(
                "memory is for associative, which remembers rows;"
                f" {config.model.__struct_config__.tag} does not"
            )
        return msgspec.structs.replace(config, model=config.model.remembering(memory))
    except (msgspec.ValidationError, ValueError) as error:
        # msgspec's path in the words of the file: `$.model.fit.epochs` -> 'model.fit.epochs'
        message = str(error).replace("$.", "").replace("`", "'")
        raise RunError(f"{source}{message}") from error


def write_config(config: RunConfig) -> str:
    """The TOML text that load_config reads back as an equal config."""
    return tomli_w.dumps(_without_none(msgspec.to_builtins(config)))


def named(name: str, window: int = 1) -> ModelConfig:
    """The configuration of a preset for windows of so many rows, or a variant's default one."""
    return presets_of(window)[name] if name in PRESETS else VARIANTS[name]()


def check_candidates(names: Sequence[str]) -> None:
    """ValueError naming the first that is neither a member of the family nor a preset."""
    for name in names:
        if name not in PRESETS:
            _check("variant", name, VARIANTS)


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(
            f"{path} cannot be read: {getattr(error, 'strerror', None) or error}"
        ) from error
    except tomllib.TOMLDecodeError as error:
        raise RunError(f"{path} is not TOML: {error}") from error
    except RecursionError as error:
        raise RunError(f"{path} nests arrays or tables too deep to be read") from error


def _asking(values: dict[str, Any], flags: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The values and flags of a run with what a Prometheus is asked in its own table, and its
    times and entities as those of the rows.
    """
    flags = dict(flags)
    url, queries = flags.pop("prometheus", None), flags.pop("query", None)
    given = [each for each in ("range", "step", "late") if each in flags]
    asked: dict[str, Any] = {each: flags.pop(each) for each in given}
    table = _table(values, "prometheus")
    if url is not None:
        if "data" in flags:
            raise RunError(f"expected DATA or --prometheus, got both ({flags['data']!r}, {url!r})")
        if not is_address(url):
            raise RunError(
                f"--prometheus: expected an address such as http://127.0.0.1:9090, got {url!r}"
            )
        flags["data"] = url
    if queries is not None:
        table["queries"] = {}
        for each in queries:
            name, equals, text = each.partition("=")
            if not equals:
                raise RunError(f"--query: expected NAME='PROMQL', got {each!r}")
            if name in table["queries"]:
                raise RunError(f"--query: {name!r} is named twice")
            table["queries"][name] = text
    table |= asked
    address = flags.get("data", values.get("data"))
    if not (isinstance(address, str) and is_address(address)):
        if url is None and (queries is not None or asked):
            flag = "query" if queries is not None else next(iter(asked))
            raise RunError(f"--{flag} is of what a Prometheus is asked; --prometheus URL names it")
        return values, flags
    for field, column in (("time", TIME), ("entity", ENTITY)):
        if flags.get(field, values.get(field, column)) != column:
            raise RunError(
                f"--{field} names a column of a file; what a Prometheus answers has a {field} of"
                " its own"
            )
        values = {**values, field: column}
    return ({**values, "prometheus": table} if table else values), flags


def _table(values: dict[str, Any], key: str) -> dict[str, Any]:
    table = values.get(key, {})
    if not isinstance(table, dict):
        raise RunError(f"expected a table [{key}], got {key} = {table!r}")
    return dict(table)


def _choice(preset: Any, variant: Any) -> str | None:
    """The one that is given; presets and variants have no name in common."""
    if preset is not None and variant is not None:
        raise ValueError(
            f"expected a preset or a variant, got both (preset {preset!r}, variant {variant!r}): a"
            " preset has a variant already"
        )
    if preset is not None:
        return _check("preset", preset, PRESETS)
    return None if variant is None else _check("variant", variant, (*VARIANTS, AUTO))


def _check(noun: str, name: Any, known: Collection[str]) -> str:
    if not isinstance(name, str) or name not in known:
        names = ", ".join(each for each in known if each != AUTO)
        raise ValueError(f"there is no {noun} {name!r}; the {noun}s are {names}")
    return name


def _means(written: str | None, asked: str) -> bool:
    """Whether the settings written for one model are settings of the one that is asked for
    instead.
    """
    if asked in PRESETS:
        return written in (None, asked)
    written = written or DEFAULT
    return asked == (PRESETS[written].__struct_config__.tag if written in PRESETS else written)


def _window_rows(window: int | None, time: str | None, group: str | None) -> int:
    return window or (DEFAULT_WINDOW if time is not None and not group else 1)


def _model_table(
    name: str, window: int, model: dict[str, Any], epochs: int | None
) -> dict[str, Any]:
    """The table [model] with every field that it leaves to the preset or variant."""
    given: dict[str, Any] = {} if epochs is None else {"epochs": epochs}
    if name == AUTO:
        return {"variant": AUTO, **model, **given}
    base: dict[str, Any] = msgspec.to_builtins(named(name, window))
    return {**base, **model, "fit": {**base["fit"], **_table(model, "fit"), **given}}


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    return value
