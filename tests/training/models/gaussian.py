"""The world the members are held against: x = W f + noise of known covariance, where every optimum
has a closed form.

Shapes: N rows, D = 16 features, K = 4 factors. Every feature has variance one, of which
NOISE_VARIANCE is its own.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hourglass.service.model.artifact import Feature
from hourglass.training.features import Encoded, Encoding
from hourglass.training.fit import fit
from hourglass.training.models import ModelConfig

WIDTH = 16
FACTORS = 4
NOISE_VARIANCE = 0.1


def loadings() -> NDArray[np.float64]:
    """[D, K] W: what each feature takes from each factor."""
    loadings_DK = np.random.default_rng(7).normal(size=(WIDTH, FACTORS))
    return loadings_DK * np.sqrt((1 - NOISE_VARIANCE) / (loadings_DK**2).sum(axis=1, keepdims=True))


def draw(count: int, seed: int) -> Tensor:
    """[N, D] rows."""
    rng = np.random.default_rng(seed)
    factors_NK = rng.normal(size=(count, FACTORS))
    noise_ND = np.sqrt(NOISE_VARIANCE) * rng.normal(size=(count, WIDTH))
    return torch.from_numpy((factors_NK @ loadings().T + noise_ND).astype(np.float32))


def pure_noise(count: int, seed: int, width: int = WIDTH) -> Tensor:
    """[N, D] rows without any structure: independent, mean zero and variance one."""
    return torch.randn((count, width), generator=torch.Generator().manual_seed(seed))


def covariance(encoding: Encoding) -> Tensor:
    """[D, D] the true covariance, in encoded units."""
    covariance_DD = torch.from_numpy(loadings() @ loadings().T + NOISE_VARIANCE * np.eye(WIDTH))
    return covariance_DD / torch.outer(encoding.scale_E, encoding.scale_E)


def mean(encoding: Encoding) -> Tensor:
    """[D] the true mean, zero in raw units, in encoded ones."""
    return (-encoding.center_E / encoding.scale_E).double()


def encode(member: Any, rows_ND: Tensor) -> Encoded:
    """The rows as the member's own encoding has them."""
    encoded: Encoded = member.encoding.encode(rows_ND)
    return encoded


def fitted(config: ModelConfig, rows_ND: Tensor | None = None, *, seed: int = 0) -> Any:
    """The config's member, fitted to 2,000 rows of this world or to those given; a fifth of them is
    held out.
    """
    rows_ND = draw(2000, seed=1) if rows_ND is None else rows_ND
    features = tuple(Feature(name=f"x{i}", kind="numeric") for i in range(rows_ND.shape[1]))
    torch.manual_seed(seed)
    encoding = Encoding(features, rows_ND.numpy())
    resolved = config.resolve(encoding)
    member = resolved.build(encoding)
    held_out = len(rows_ND) // 5
    fit(member, rows_ND[held_out:], rows_ND[:held_out], resolved.fit, seed=seed)
    return member
