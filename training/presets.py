"""The named configurations: points on the measured front of quality against speed.

A run gives any of their fields another value.
"""

import msgspec

from hourglass.training.models import ModelConfig
from hourglass.training.models.associative import AssociativeConfig

PRESETS: dict[str, ModelConfig] = {
    # closed forms only
    "fast": AssociativeConfig(levels=(), components=64, joint_components=64, features=64, memory=0),
    # a denoising network in each of two views, Gaussian mixtures, a ridge regression and a memory:
    # AssociativeConfig's defaults, with the sizes of each
    "balanced": AssociativeConfig(),
    # more of each, and bagged memories
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
DEFAULT = "balanced"  # of a run that names neither a preset nor a variant


def preset_of(model: msgspec.Struct) -> str | None:
    """The preset that this is, unchanged."""
    return next((name for name, config in PRESETS.items() if config == model), None)


def title(model: msgspec.Struct) -> str:
    """`balanced (associative)`, or the variant alone."""
    preset, variant = preset_of(model), str(model.__struct_config__.tag)
    return f"{preset} ({variant})" if preset else variant
