"""The family: one member per file, each with its config, its network, its loss and its paper.

To add a member: write its file (a Config with a `variant` tag and a `build`, and the module it builds), and name the Config in the
union below. Nothing else changes: fitting, scoring, calibration, export and the service know members only by `Member`.
"""

from training.models.denoising import DenoisingConfig
from training.models.linear import LinearConfig

ModelConfig = DenoisingConfig | LinearConfig
