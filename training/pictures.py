"""Pictures: the rows that the exhibits are fitted to. One row is one picture, pixel by pixel, ink
from 0 to 1; or a patch of one; or a point of a plane.

Shapes: N rows, D pixels.
"""

import math
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits

Float32 = NDArray[np.float32]
Plane = NDArray[np.float64]

SIDE = 12  # pixels of a shape
PATCH = 4
SPREAD = 0.02  # of points around their circle or curve, standard deviation
BEND = 0.12  # of the curve


def _box(x: Plane, y: Plane, half_width: float, half_height: float) -> Plane:
    return np.maximum(np.abs(x) - half_width, np.abs(y) - half_height)


def _bar(x: Plane, y: Plane) -> Plane:
    return _box(x, y, 0.9, 4.4)


def _plus(x: Plane, y: Plane) -> Plane:
    return np.minimum(_bar(x, y), _bar(y, x))


def _turned(shape: Callable[[Plane, Plane], Plane], degrees: float) -> Callable[..., Plane]:
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return lambda x, y: shape(c * x + s * y, c * y - s * x)


# name -> signed distance in pixels from the edge, below 0 inside; x to the right, y down
SHAPES: Mapping[str, Callable[[Plane, Plane], Plane]] = {
    "bar": _bar,
    "beam": lambda x, y: _bar(y, x),
    "slash": _turned(_bar, 45),
    "plus": _plus,
    "cross": _turned(_plus, 45),
    "disc": lambda x, y: np.hypot(x, y) - 3.6,
    "ring": lambda x, y: np.abs(np.hypot(x, y) - 3.6) - 0.85,
    "square": lambda x, y: _box(x, y, 3.4, 3.4),
    "frame": lambda x, y: np.abs(_box(x, y, 3.6, 3.6)) - 0.8,
    "triangle": lambda x, y: np.maximum(y - 3.2, 0.88 * np.abs(x) - 0.47 * y - 1.8),
    "corner": lambda x, y: np.minimum(_box(x + 2.7, y, 0.9, 4.2), _box(x, y - 3.3, 3.6, 0.9)),
    "tee": lambda x, y: np.minimum(_box(x, y + 3.2, 4.2, 0.9), _box(x, y, 0.9, 4.1)),
}


def draw_shape(
    name: str, *, right: float = 0.0, down: float = 0.0, size: float = 1.0, degrees: float = 0.0
) -> Float32:
    """[D] one shape, moved, scaled and turned; an edge that crosses a pixel leaves it grey."""
    centre = np.arange(SIDE) - (SIDE - 1) / 2
    x, y = np.meshgrid((centre - right) / size, (centre - down) / size)
    distance = _turned(SHAPES[name], degrees)(x, y) * size
    return np.clip(0.5 - distance, 0, 1).astype(np.float32).ravel()


def shapes(each: int, seed: int) -> Float32:
    """[N, D] so many of each shape, no two alike, in random order."""
    rng = np.random.default_rng(seed)
    rows = [
        draw_shape(
            name,
            right=rng.uniform(-0.8, 0.8),
            down=rng.uniform(-0.8, 0.8),
            size=rng.uniform(0.85, 1.15),
            degrees=rng.normal(0, 4),
        )
        for name in SHAPES
        for _ in range(each)
    ]
    return np.stack(rows)[rng.permutation(len(rows))]


def digits() -> Float32:
    """[N, D] handwritten digits of 8 x 8 pixels (Alpaydin and Kaynak, 1998), as scikit-learn
    carries them.
    """
    return _digits()[0]


def typical_digits() -> Float32:
    """[10, D] of each digit the picture that is nearest to its mean."""
    rows_ND, digit_N = _digits()
    found = []
    for digit in range(10):
        rows = rows_ND[digit_N == digit]
        found.append(rows[np.square(rows - rows.mean(axis=0)).sum(axis=1).argmin()])
    return np.stack(found)


def _digits() -> tuple[Float32, NDArray[np.int64]]:
    data, target = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(data))
    return (data[order] / 16).astype(np.float32), target[order]


def patches(each: int, seed: int) -> Float32:
    """[N, 16] the nine patches of 4 x 4 pixels of every shape."""
    tiles = SIDE // PATCH
    pictures = shapes(each, seed).reshape(-1, tiles, PATCH, tiles, PATCH)
    rows = pictures.transpose(0, 1, 3, 2, 4).reshape(-1, PATCH * PATCH)
    return rows[np.random.default_rng(seed).permutation(len(rows))]


def ring(count: int, seed: int) -> Float32:
    """[N, 2] points of a circle of radius 1, hardly spread."""
    rng = np.random.default_rng(seed)
    angle, radius = rng.uniform(0, 2 * np.pi, count), rng.normal(1, SPREAD, count)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).astype(np.float32)


def curve(count: int, seed: int) -> Float32:
    """[N, 2] points of a slightly bent line from the lower left to the upper right."""
    rng = np.random.default_rng(seed)
    along = rng.uniform(-1, 1, count)
    across = BEND * np.sin(np.pi * along) + rng.normal(0, SPREAD, count)
    return (np.stack([along - across, along + across], axis=1) / math.sqrt(2)).astype(np.float32)
