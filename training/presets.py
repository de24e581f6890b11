"""The named configurations: points on the measured front of quality against speed.

A run gives any of their fields another value.
"""

import msgspec

from hourglass.training.models import ModelConfig
from hourglass.training.models.associative import AssociativeConfig

PRESETS: dict[str, ModelConfig] = {
    # closed forms only
    "fast": AssociativeConfig(levels=(), components=64, joint_components=64, features=64),
    # a denoising network in each of two views, Gaussian mixtures and a ridge regression:
    # AssociativeConfig's defaults, with the sizes of each
    "balanced": AssociativeConfig(),
    # more of each, and memories
    "accurate": AssociativeConfig(
        width=256,
        components=512,
        joint_components=512,
        hidden_components=512,
        features=256,
        memory=8192,
        bags=16,
    ),
}
# The same of what is derived of windows: a ridge regression and a memory, in one view. There normal
# drifts, and much lies far out. The evidence that grows fastest then outshouts all other: with
# mixtures, the network or its hidden layers beside them VUS-PR on three families of public series
# is lower by .03 to .13, and with both views, or the other one, by .02. Neighbouring rows are
# alike, and fewer averages of them do better.
CLOSED_FORMS = AssociativeConfig(
    views=("range",),
    levels=(),
    components=0,
    joint_components=0,
    hidden_components=0,
    features=64,
    memory=512,
    rare_values=False,
    one_unit=False,
)
PRESETS_OF_WINDOWS: dict[str, ModelConfig] = {
    "fast": CLOSED_FORMS,
    "balanced": msgspec.structs.replace(CLOSED_FORMS, features=128),
    "accurate": msgspec.structs.replace(CLOSED_FORMS, features=256, memory=8192, bags=16),
}
DEFAULT = "balanced"  # of a run that names neither a preset nor a variant


def presets_of(window: int) -> dict[str, ModelConfig]:
    """Those of rows, or of windows of more than one row."""
    return PRESETS if window == 1 else PRESETS_OF_WINDOWS


def preset_of(model: msgspec.Struct) -> str | None:
    """The preset that this is, unchanged."""
    presets = (*PRESETS.items(), *PRESETS_OF_WINDOWS.items())
    return next((name for name, config in presets if config == model), None)


def title(model: msgspec.Struct) -> str:
    """`balanced (associative)`, or the variant alone."""
    preset, variant = preset_of(model), str(model.__struct_config__.tag)
    return f"{preset} ({variant})" if preset else variant
