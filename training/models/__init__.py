"""The family: one member per file, each with its config, its network, its loss and its paper.

To add a member: write its file (a Config with a `variant` tag, `resolve` and `build`, and the
module it builds), and name the Config in the union below. Nothing else changes: fitting, scoring,
calibration, export and the service know members only by `Member`.
"""

from typing import get_args

from hourglass.training.models.associative import AssociativeConfig
from hourglass.training.models.contractive import ContractiveConfig
from hourglass.training.models.denoising import DenoisingConfig
from hourglass.training.models.linear import LinearConfig
from hourglass.training.models.masked import MaskedConfig
from hourglass.training.models.plain import PlainConfig
from hourglass.training.models.quantized import QuantizedConfig
from hourglass.training.models.sparse import SparseConfig
from hourglass.training.models.tied import TiedConfig
from hourglass.training.models.variational import VariationalConfig

ModelConfig = (
    PlainConfig
    | LinearConfig
    | TiedConfig
    | DenoisingConfig
    | SparseConfig
    | ContractiveConfig
    | VariationalConfig
    | QuantizedConfig
    | MaskedConfig
    | AssociativeConfig
)

VARIANTS: dict[str, type[ModelConfig]] = {
    config.__struct_config__.tag: config for config in get_args(ModelConfig)
}
