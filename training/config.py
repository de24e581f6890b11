"""A run is one complete TOML file; flags are the same fields said on the command line."""

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
import tomli_w

from service.artifact import MODEL_NAME
from training.errors import RunError
from training.features import Loss
from training.models import VARIANTS, ModelConfig
from training.models.denoising import DenoisingConfig


class SplitConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Shares of the normal rows; what is left fits the network. The caps keep large data from being wasted on a threshold."""

    validation: float = 0.12
    calibration: float = 0.15
    validation_cap: int = 10_000
    calibration_cap: int = 20_000

    def __post_init__(self) -> None:
        if not (0 < self.validation < 1 and 0 < self.calibration < 1 and self.validation + self.calibration < 1):
            raise ValueError("split.validation and split.calibration must be above 0 and below 1 together")
        if self.validation_cap < 1 or self.calibration_cap < 1:
            raise ValueError("split.validation_cap and split.calibration_cap must be at least 1")


class AutoConfig(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="variant", tag="auto"
):
    """Fit several members and publish the one that finds most injected anomalies; labels play no part in it."""

    variants: tuple[str, ...] = tuple(VARIANTS)
    epochs: int | None = None  # of every candidate

    def __post_init__(self) -> None:
        check_variants(self.variants)


class RunConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything a run depends on. Written beside the model with every choice filled in, it gives the same bytes again."""

    data: str
    name: str
    models: str = "models"
    label: str | None = None  # rows where it is not zero are anomalies, kept out of fitting and calibration
    ignore: tuple[str, ...] = ()
    units: dict[str, str] = {}  # feature -> unit, shown to whoever reads an explanation
    alpha: float | None = None  # None: the first of 1, 2, 5, 10, 20 % that the calibration rows can certify
    delta: float = 0.05
    uncertified: bool = False  # the marginal rule instead of the guaranteed one
    seed: int = 0
    threads: int = 1
    device: Literal["auto", "cpu", "cuda"] = "auto"  # auto: a GPU where there is one
    loss: Loss = "auto"  # squared error for numbers, cross-entropy for the rest; bce takes numbers as probabilities
    max_categories: int = 100  # a text column with more distinct values is refused
    force: bool = False  # publish although the features differ from those of the model in service
    split: SplitConfig = SplitConfig()
    model: ModelConfig | AutoConfig = DenoisingConfig()

    def __post_init__(self) -> None:
        if not MODEL_NAME.fullmatch(self.name):
            raise ValueError(f"name must be lower-case letters, digits, - and _, at most 63, got {self.name!r}")
        for field, value in (("alpha", self.alpha), ("delta", self.delta)):
            if value is not None and not 0 < value <= 0.5:
                raise ValueError(f"{field} must be above 0 and at most 0.5, got {value:g}")
        if self.threads < 1 or not 0 <= self.seed < 2**63:
            raise ValueError("threads must be at least 1 and seed from 0 to 2**63 - 1")


def load_config(path: Path | None, flags: dict[str, Any]) -> RunConfig:
    """A TOML file, if any, overridden by flags; RunError names the field that is wrong.

    The flags `variant` and `epochs` stand for model.variant and model.fit.epochs.
    """
    values = _read(path) if path else {}
    flags = dict(flags)
    variant, epochs = flags.pop("variant", None), flags.pop("epochs", None)
    model = _table(values, "model")
    if variant and variant != model.get("variant", "denoising"):
        model = {}
    model["variant"] = variant or model.get("variant", "denoising")
    if model["variant"] != "auto":
        model = _with_fit_defaults(
            {**model, "fit": {**_table(model, "fit"), **({} if epochs is None else {"epochs": epochs})}}
        )
    elif epochs is not None:
        model["epochs"] = epochs
    values = {**values, **flags, "model": model}
    if missing := [field for field in ("data", "name") if field not in values]:
        raise RunError(f"{missing[0]} is needed, as a flag or in the configuration file")
    try:
        if isinstance(model["variant"], str) and model["variant"] != "auto":
            check_variants([model["variant"]])
        return msgspec.convert(values, RunConfig)
    except (msgspec.ValidationError, ValueError) as error:
        source = f"{path}: " if path else ""
        raise RunError(f"{source}{_readable(str(error))}") from error


def write_config(config: RunConfig) -> str:
    """The TOML text that load_config reads back as an equal config."""
    return tomli_w.dumps(_without_none(msgspec.to_builtins(config)))


def check_variants(variants: Sequence[str]) -> None:
    """ValueError naming the first that is no member of the family."""
    for variant in variants:
        if variant not in VARIANTS:
            raise ValueError(f"there is no variant {variant!r}; the variants are {', '.join(VARIANTS)}")


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    except tomllib.TOMLDecodeError as error:
        raise RunError(f"{path} is not TOML: {error}") from error


def _table(values: dict[str, Any], key: str) -> dict[str, Any]:
    table = values.get(key, {})
    if not isinstance(table, dict):
        raise RunError(f"expected a table [{key}], got {key} = {table!r}")
    return dict(table)


def _with_fit_defaults(model: dict[str, Any]) -> dict[str, Any]:
    """A member's own loop settings under those given: a partial [model.fit] must not lose the member's optimizer."""
    try:
        defaults = msgspec.to_builtins(msgspec.convert({"variant": model["variant"]}, ModelConfig).fit)
    except msgspec.ValidationError:
        return model  # the full conversion reports the unknown variant
    return {**model, "fit": {**defaults, **model["fit"]}}


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    return value


def _readable(message: str) -> str:
    """msgspec's path in the words of the file: `$.model.fit.epochs` -> model.fit.epochs."""
    return message.replace("$.", "").replace("`", "'")
