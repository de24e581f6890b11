"""Exhibits: the small models that ship with the service, one for each idea of an autoencoder that
the console's view Learn lets one touch.

Each is fitted, calibrated, exported and verified as any model is, but for two things: its file
leaves out what a picture has no use for, and holds codes of its rows, which are made up or public.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from hourglass.service.model.artifact import (
    DriftReference,
    Feature,
    Manifest,
    ReferenceCodes,
    SelfTest,
)
from hourglass.service.model.detector import Detector
from hourglass.service.model.guarantee import Guarantee
from hourglass.service.serving.disk import write_atomically
from hourglass.training import pictures
from hourglass.training.calibrate import attach_table, calibrate, choose_threshold
from hourglass.training.config import RunConfig
from hourglass.training.core import Core
from hourglass.training.data import Data, describe
from hourglass.training.export import export_core, run_graph, to_bytes
from hourglass.training.features import Loss
from hourglass.training.manifest import make_manifest
from hourglass.training.models import ModelConfig
from hourglass.training.models.contractive import ContractiveConfig
from hourglass.training.models.denoising import DenoisingConfig
from hourglass.training.models.linear import LinearConfig
from hourglass.training.models.masked import MaskedConfig
from hourglass.training.models.member import FitConfig
from hourglass.training.models.plain import PlainConfig
from hourglass.training.models.quantized import Quantized, QuantizedConfig
from hourglass.training.models.sparse import SparseConfig
from hourglass.training.models.tied import TiedConfig
from hourglass.training.models.variational import VariationalConfig
from hourglass.training.split import Prepared, Split
from hourglass.training.trial import Trial, fit_trial
from hourglass.training.verify import verify

Float32 = NDArray[np.float32]

ALPHA = DELTA = 0.05
HELD_OUT = 300  # rows that calibrate, and as many that tell the error
REFERENCES = 500  # codes in a file
MADE = 1_767_225_600.0  # 2026-01-01, so that the same code gives the same bytes
SELF_TEST_ROWS = 2  # the last of which lacks values
DIGITS = 4  # of a reference code
GUARANTEE = Guarantee("certified", "rows drawn singly from one population")


class Exhibit(NamedTuple):
    """One model: its rows, its member, and the mean squared error of what it makes of held-out
    rows.
    """

    rows: Callable[[], Float32]
    model: ModelConfig
    error: float
    loss: Loss = "bce"  # ink is a probability of ink


def _fit(steps: int, learning_rate: float = 3e-3) -> FitConfig:
    """No early stopping, so that a refit ends where the first fit ended."""
    return FitConfig(steps=steps, learning_rate=learning_rate, schedule="one_cycle", patience=0)


_shapes = cache(partial(pictures.shapes, 250, 0))
_digits = cache(pictures.digits)
_patches = cache(partial(pictures.patches, 60, 0))
_ring = cache(partial(pictures.ring, 3000, 0))
_curve = cache(partial(pictures.curve, 3000, 0))

DEEP = (32, 16)
NARROW = (24,)

EXHIBITS: Mapping[str, Exhibit] = {
    "shapes-plain": Exhibit(_shapes, PlainConfig(hidden=DEEP, latent=2, fit=_fit(8000)), 0.01768),
    "shapes-variational": Exhibit(
        _shapes, VariationalConfig(hidden=DEEP, latent=2, fit=_fit(8000)), 0.01711
    ),
    "digits-plain": Exhibit(
        _digits, PlainConfig(hidden=DEEP, latent=2, activation="tanh", fit=_fit(8000)), 0.0331
    ),
    "digits-variational": Exhibit(
        _digits, VariationalConfig(hidden=DEEP, latent=2, fit=_fit(6000)), 0.03595
    ),
    "digits-variational-2": Exhibit(
        _digits, VariationalConfig(hidden=DEEP, latent=2, beta=2.0, fit=_fit(6000)), 0.05824
    ),
    "digits-undercomplete": Exhibit(
        _digits, PlainConfig(hidden=NARROW, latent=8, fit=_fit(4000)), 0.01683
    ),
    "digits-squared": Exhibit(
        _digits, PlainConfig(hidden=NARROW, latent=8, fit=_fit(4000)), 0.02243, "mse"
    ),
    "digits-tied": Exhibit(_digits, TiedConfig(hidden=NARROW, latent=8, fit=_fit(4000)), 0.02116),
    "digits-overcomplete": Exhibit(
        _digits, PlainConfig(hidden=(), latent=72, fit=_fit(4000)), 0.00212
    ),
    "patches-linear": Exhibit(_patches, LinearConfig(latent=2, tied=True), 0.05917, "mse"),
    "digits-denoising": Exhibit(
        _digits,
        DenoisingConfig(hidden=(48,), latent=20, noise=0.4, mask_rate=0.0, fit=_fit(6000)),
        0.01282,
    ),
    "digits-masked": Exhibit(
        _digits, MaskedConfig(hidden=(48,), latent=20, max_rate=0.7, fit=_fit(6000)), 0.01589
    ),
    "patches-quantized": Exhibit(
        _patches, QuantizedConfig(hidden=NARROW, latent=4, codes=32, fit=_fit(4000)), 0.02516
    ),
    **{
        f"patches-sparse-{name}": Exhibit(
            _patches, SparseConfig(hidden=(), latent=32, weight=weight, fit=_fit(4000)), error
        )
        for name, weight, error in (
            ("0", 0.0, 0.002717),
            ("1", 0.001, 0.002529),
            ("2", 0.003, 0.003795),
            ("3", 0.01, 0.009423),
        )
    },
    "curve-contractive": Exhibit(
        _curve, ContractiveConfig(latent=24, weight=1.0, fit=_fit(4000, 1e-2)), 0.001424, "mse"
    ),
    "curve-free": Exhibit(
        _curve, ContractiveConfig(latent=24, weight=0.0, fit=_fit(4000, 1e-2)), 3.915e-05, "mse"
    ),
    "ring-denoising": Exhibit(
        _ring,
        DenoisingConfig(hidden=(32, 32), latent=8, noise=0.4, mask_rate=0.0, fit=_fit(6000)),
        0.001165,
        "mse",
    ),
}


def write_exhibits(folder: Path, names: tuple[str, ...] = ()) -> Iterator[tuple[str, int, float]]:
    """Fit the exhibits of these names, or all, and write FOLDER/NAME.onnx; of each its name, its
    bytes and its error.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in names or EXHIBITS:
        trial, prepared = fit_exhibit(name)
        data = _export(name, trial, prepared)
        write_atomically(folder / f"{name}.onnx", data)
        yield name, len(data), error_of(Detector.from_bytes(data), prepared)


def fit_exhibit(name: str) -> tuple[Trial, Prepared]:
    """The fitted member of an exhibit, and the rows it was fitted to."""
    exhibit = EXHIBITS[name]
    rows_ND = exhibit.rows()
    split = Split(*np.split(rows_ND, [len(rows_ND) - 2 * HELD_OUT, len(rows_ND) - HELD_OUT]))
    unnamed = tuple(Feature(name=f"p{i}", kind="numeric") for i in range(rows_ND.shape[1]))
    prepared = Prepared(
        data=Data(unnamed, rows_ND, rows_ND[:0], np.arange(1, len(rows_ND) + 1)),
        split=split,
        features=describe(unnamed, split.fit_ND),
        min_observed_fraction=0.25,  # the view hides pixels
        rows_ND=rows_ND,
        time_N=None,
        group_N=None,
        block_N=None,
        copies=0,
        place_N=np.arange(len(rows_ND) - HELD_OUT, len(rows_ND)),
    )
    return fit_trial(prepared, _run(name), exhibit.model), prepared


def error_of(detector: Detector, prepared: Prepared) -> float:
    """The mean squared error of what the file makes of held-out rows, in ink."""
    rows_ND = prepared.split.validation_ND
    return float(np.square(detector.reconstruct(rows_ND) - rows_ND).mean())


@torch.no_grad()
def fitted_error(trial: Trial, prepared: Prepared) -> float:
    """The same of the fitted network."""
    rows_ND = torch.from_numpy(prepared.split.validation_ND)
    return float((trial.core(rows_ND).reconstruction_ND - rows_ND).square().mean())


def principal_plane(rows_ND: Float32) -> tuple[Float32, Float32]:
    """Mean [D] and two directions [2, D] of the principal plane of standardised rows, in ink, by
    singular values: what the linear exhibit has to find.
    """
    scale_D = rows_ND.std(axis=0, dtype=np.float64)
    scale_D[scale_D == 0] = 1.0
    centre_D = rows_ND.mean(axis=0, dtype=np.float64)
    directions_DD = np.linalg.svd((rows_ND - centre_D) / scale_D, full_matrices=False)[2]
    return centre_D.astype(np.float32), (directions_DD[:2] * scale_D).astype(np.float32)


def presets() -> str:
    """The JavaScript module with the pictures to begin with: ink in sixteenths, a digit each."""
    shown = {
        "SHAPES": {name: _ink(pictures.draw_shape(name)) for name in pictures.SHAPES},
        "DIGITS": {str(i): _ink(row) for i, row in enumerate(pictures.typical_digits())},
    }
    fit_ND = fit_rows("patches-linear")
    directions = [
        [float(f"{value:.6g}") for value in row] for row in principal_plane(fit_ND)[1].tolist()
    ]
    lines = ["// Written by `hourglass-train exhibits`: ink in sixteenths, one digit a pixel.\n"]
    for name, rows in shown.items():
        text = "".join(f'  "{key}": "{ink}",\n' for key, ink in rows.items())
        lines.append(f"export const {name} = {{\n{text}}};\n")
    lines.append("// The first two principal directions of the patches.\n")
    text = "".join(f"  {msgspec.json.encode(row).decode()},\n" for row in directions)
    lines.append(f"export const PRINCIPAL = [\n{text}];\n")
    return "".join(lines)


def fit_rows(name: str) -> Float32:
    """The rows that an exhibit is fitted to."""
    rows_ND = EXHIBITS[name].rows()
    return rows_ND[: len(rows_ND) - 2 * HELD_OUT]


def _ink(row_D: Float32) -> str:
    return "".join("0123456789abcdefg"[round(16 * float(ink))] for ink in row_D)


def _run(name: str) -> RunConfig:
    exhibit = EXHIBITS[name]
    return RunConfig(
        data=f"{name}.csv",
        name=name,
        fitted_at=MADE,
        model=exhibit.model,
        loss=exhibit.loss,
        alpha=ALPHA,
        delta=DELTA,
        device="cpu",
    )


def _export(name: str, trial: Trial, prepared: Prepared) -> bytes:
    graph = export_core(trial.core)
    table = calibrate(graph, prepared.split.calibration_ND)
    threshold = choose_threshold(table, ALPHA, DELTA, uncertified=False)
    attach_table(graph, table)
    manifest = make_manifest(graph, trial, prepared, threshold, GUARANTEE, _run(name))
    code_NK = run_graph(graph, ["latent"], prepared.split.fit_ND)[0]
    data = to_bytes(graph, _slim(manifest, _reference(trial, code_NK)))
    verify(Detector.from_bytes(data), trial.core, prepared.split.validation_ND)
    return data


def _reference(trial: Trial, code_NK: Float32) -> ReferenceCodes | None:
    """Of a code that can be drawn on a plane some of the codes, of a codebook all of it."""
    assert isinstance(trial.core, Core)
    shown = code_NK[:REFERENCES]
    if isinstance(trial.core.member, Quantized):
        shown = np.unique(code_NK, axis=0)
    elif code_NK.shape[1] != 2:
        return None
    return ReferenceCodes(
        minimum=_short(code_NK.min(axis=0)),
        maximum=_short(code_NK.max(axis=0)),
        codes=tuple(map(_short, shown)),
    )


def _short(code_K: Float32) -> tuple[float, ...]:
    return tuple(float(f"{value:.{DIGITS}g}") for value in code_K.tolist())


def _slim(manifest: Manifest, reference: ReferenceCodes | None) -> Manifest:
    """Without what nobody asks an exhibit for: drift, most rows of the self-test, long numbers."""
    test = msgspec.structs.asdict(manifest.self_test)
    features = tuple(
        msgspec.structs.replace(each, residual_variance=float(f"{each.residual_variance:.6g}"))
        for each in manifest.features
    )
    return msgspec.structs.replace(
        manifest,
        features=features,
        drift=tuple(DriftReference() for _ in features),
        self_test=SelfTest(
            **{name: rows and rows[-SELF_TEST_ROWS:] for name, rows in test.items()}
        ),
        reference=reference,
    )
