"""The models that ship with the service are those that the code makes, with stated errors."""

import re

import numpy as np
import pytest

from hourglass.service.model.detector import Detector
from hourglass.service.serving.exhibits import FOLDER
from hourglass.training import pictures
from hourglass.training.__main__ import main
from hourglass.training.exhibits import (
    EXHIBITS,
    fit_exhibit,
    fit_rows,
    fitted_error,
    presets,
    principal_plane,
    write_exhibits,
)

PRESETS = FOLDER.parent / "console" / "learn" / "presets.js"
SAME = 0.001  # relative, of an error that is stated with four digits
AGAIN = 0.1  # another processor rounds in another way, and a fit goes another way from there


def shipped(name: str) -> Detector:
    return Detector.from_bytes((FOLDER / f"{name}.onnx").read_bytes())


def held_out(name: str) -> np.ndarray:
    return EXHIBITS[name].rows()[-600:-300]


def test_every_exhibit_ships_and_nothing_else() -> None:
    assert {file.stem for file in FOLDER.glob("*.onnx")} == set(EXHIBITS)


@pytest.mark.parametrize("name", EXHIBITS)
def test_a_shipped_model_has_the_error_that_is_stated(name: str) -> None:
    rows_ND = held_out(name)
    error = float(np.square(shipped(name).reconstruct(rows_ND) - rows_ND).mean())
    assert error == pytest.approx(EXHIBITS[name].error, rel=SAME)


@pytest.mark.parametrize("name", ["patches-linear", "curve-free"])
def test_a_quick_fit_ends_at_the_stated_error_again(name: str) -> None:
    trial, prepared = fit_exhibit(name)
    assert fitted_error(trial, prepared) == pytest.approx(EXHIBITS[name].error, rel=AGAIN)


@pytest.mark.heavy
@pytest.mark.parametrize("name", EXHIBITS)
def test_every_fit_ends_at_the_stated_error_again(name: str, tmp_path) -> None:
    ((_, size, error),) = write_exhibits(tmp_path, (name,))
    assert error == pytest.approx(EXHIBITS[name].error, rel=AGAIN)
    assert size < 200_000


def test_the_linear_plane_is_the_principal_one() -> None:
    zero, *ends = (
        shipped("patches-linear")
        .decode(np.array([[0, 0], [1, 0], [0, 1]], np.float32))
        .astype(np.float64)
    )
    own, _ = np.linalg.qr((np.array(ends) - zero).T)
    principal, _ = np.linalg.qr(principal_plane(fit_rows("patches-linear"))[1].T.astype(float))
    sine = np.linalg.norm(own - principal @ (principal.T @ own), 2)
    assert sine < 1e-5


def test_the_tied_model_has_far_fewer_weights() -> None:
    count = {
        name: shipped(f"digits-{name}").manifest.model.parameter_count
        for name in ("undercomplete", "tied")
    }
    assert count["tied"] < 0.7 * count["undercomplete"]


def test_a_code_wider_than_the_picture_copies_noise() -> None:
    clean_ND = pictures.typical_digits()
    rng = np.random.default_rng(0)
    noisy_ND = np.clip(clean_ND + rng.normal(0, 0.3, clean_ND.shape), 0, 1).astype(np.float32)
    noise_ND = noisy_ND - clean_ND
    copied = {}
    for name in ("undercomplete", "overcomplete"):
        model = shipped(f"digits-{name}")
        back_ND = model.reconstruct(noisy_ND) - model.reconstruct(clean_ND)
        copied[name] = float((back_ND * noise_ND).sum() / np.square(noise_ND).sum())
    assert copied["undercomplete"] < 0.35
    assert copied["overcomplete"] > 2 * copied["undercomplete"]


def test_the_dearer_a_unit_the_more_fall_silent() -> None:
    heard = []
    for which in range(4):
        code_NK = shipped(f"patches-sparse-{which}").encode(held_out(f"patches-sparse-{which}"))
        heard.append(int((code_NK > 0.01 * code_NK.max()).any(axis=0).sum()))
    assert heard[0] > heard[2] > heard[3]


def test_the_contractive_code_moves_least_across_the_curve() -> None:
    along = np.linspace(-0.9, 0.9, 37)
    bend, slope = (
        pictures.BEND * np.sin(np.pi * along),
        np.pi * pictures.BEND * np.cos(np.pi * along),
    )
    on_N2 = np.stack([along - bend, along + bend], axis=1) / np.sqrt(2)
    tangent_N2 = np.stack([1 - slope, 1 + slope], axis=1)
    tangent_N2 *= 0.05 / np.linalg.norm(tangent_N2, axis=1, keepdims=True)
    normal_N2 = tangent_N2[:, ::-1] * [-1, 1]

    def ratio(name: str) -> float:
        model = shipped(name)
        here, on, off = (
            model.encode(points.astype(np.float32))
            for points in (on_N2, on_N2 + tangent_N2, on_N2 + normal_N2)
        )
        across = np.linalg.norm(off - here, axis=1).mean()
        return float(across / np.linalg.norm(on - here, axis=1).mean())

    assert ratio("curve-contractive") < 0.75 * ratio("curve-free")


def test_beta_buys_silence() -> None:
    def divergence(name: str) -> float:
        codes = shipped(name).encode_with_deviation(held_out(name))
        mean_NK, sd_NK = codes.code, codes.deviation
        nats_NK = 0.5 * (mean_NK**2 + sd_NK**2 - 1) - np.log(sd_NK)
        return float(nats_NK.sum(axis=1).mean())

    assert divergence("digits-variational") > 2 > divergence("digits-variational-2")


def test_squared_error_leaves_the_range_of_ink_and_cross_entropy_does_not() -> None:
    rows_ND = held_out("digits-squared")
    assert shipped("digits-squared").reconstruct(rows_ND).min() < -0.05
    kept_ND = shipped("digits-undercomplete").reconstruct(rows_ND)
    assert 0 <= kept_ND.min() <= kept_ND.max() <= 1


def test_what_is_no_shape_passes_the_threshold() -> None:
    model = shipped("shapes-plain")
    shapes_ND = pictures.shapes(20, seed=99)
    normal = (model.score(shapes_ND).score > model.threshold.score).mean()
    rng = np.random.default_rng(0)
    scrambled_ND = rng.permuted(shapes_ND, axis=1)
    assert normal < 0.1
    assert (model.score(scrambled_ND).score > model.threshold.score).mean() > 0.95
    assert (model.score(1 - shapes_ND).score > model.threshold.score).all()


def test_the_denoiser_steps_where_the_best_possible_one_does() -> None:
    rng = np.random.default_rng(0)
    sd = 0.28  # what it was trained with: .4 standard deviations
    noisy_N2 = (pictures.ring(300, seed=5) + rng.normal(0, sd, (300, 2))).astype(np.float32)
    radius_N1 = np.linalg.norm(noisy_N2, axis=1, keepdims=True)
    cosines = np.cos(np.pi * (np.arange(720) + 0.5) / 720)
    weight = np.exp(radius_N1 / sd**2 * (cosines - 1))
    best_N2 = noisy_N2 / radius_N1 * ((weight * cosines).sum(1) / weight.sum(1))[:, None] - noisy_N2
    step_N2 = shipped("ring-denoising").reconstruct(noisy_N2) - noisy_N2
    norms = np.linalg.norm(step_N2, axis=1) * np.linalg.norm(best_N2, axis=1)
    assert ((step_N2 * best_N2).sum(axis=1) / norms).mean() > 0.9


def test_the_masked_model_fills_in_what_is_hidden() -> None:
    rows_ND = held_out("digits-masked").copy()
    hidden_ND = np.random.default_rng(0).random(rows_ND.shape) < 0.4
    seen_ND = np.where(hidden_ND, np.float32(np.nan), rows_ND)
    filled_ND = shipped("digits-masked").reconstruct(seen_ND)
    mean_D = fit_rows("digits-masked").mean(axis=0)
    error = np.square(filled_ND - rows_ND)[hidden_ND].mean()
    assert error < 0.5 * np.square(mean_D - rows_ND)[hidden_ND].mean()


def test_the_reference_of_a_quantized_model_is_its_codebook() -> None:
    model = shipped("patches-quantized")
    reference = model.manifest.reference
    assert reference is not None
    code_NK = model.encode(held_out("patches-quantized"))
    distance_NC = np.linalg.norm(code_NK[:, None] - np.array(reference.codes)[None], axis=2)
    assert distance_NC.min(axis=1).max() < 2e-3
    assert len(reference.codes) <= 32


def test_the_presets_are_those_that_the_code_draws() -> None:
    assert PRESETS.read_text() == presets()


def test_a_preset_reads_back_as_its_picture() -> None:
    inks = dict(re.findall(r'"(\w+)": "([0-9a-g]+)"', presets()))
    ring = np.array(["0123456789abcdefg".index(sign) for sign in inks["ring"]]) / 16
    np.testing.assert_allclose(ring, pictures.draw_shape("ring"), atol=1 / 32 + 1e-6)
    assert len(inks) == 22


def test_an_exhibit_that_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["exhibits", "nothing"]) == 2
    assert "there is no exhibit 'nothing'; there are shapes-plain" in capsys.readouterr().err
