"""Training writes, the service reads, and both mean the same."""

import json

import numpy as np
import onnx
import pytest
import torch

from hourglass.service.errors import InvalidArtifact
from hourglass.service.model import artifact
from hourglass.service.model.artifact import UNSEEN, version_of
from hourglass.service.model.detector import Detector
from tests.contract.conftest import Pair
from tests.training.tables import Float32


def odd_rows(pair: Pair) -> Float32:
    """Normal and anomalous rows, some with holes, unseen categories or values far out."""
    rows_ND = np.concatenate([pair.prepared.data.anomalies_AD, pair.prepared.data.normal_ND[:100]])
    rng = np.random.default_rng(0)
    rows_ND[20:60][rng.random((40, rows_ND.shape[1])) < 0.3] = np.nan
    rows_ND[60:70, 4] = UNSEEN
    rows_ND[70, 0], rows_ND[71, 1], rows_ND[72, 2] = 1e30, -1e38, 1e5
    return rows_ND


@torch.no_grad()
def test_torch_and_the_service_agree_on_every_answer(pair: Pair) -> None:
    rows_ND = odd_rows(pair)
    output = pair.core(torch.from_numpy(rows_ND))
    score_N, contributions_ND, reconstruction_ND, latent_NK = (
        tensor.numpy() for tensor in output[:4]
    )
    codes = pair.detector.encode_with_deviation(rows_ND)
    assert (codes.deviation is None) == (output.deviation_NK is None)
    if codes.deviation is not None:
        np.testing.assert_allclose(codes.deviation, output.deviation_NK, rtol=1e-4, atol=1e-5)
    explanation = pair.detector.explain(rows_ND)
    deviation_D = np.maximum(pair.core.member.encoding.scale_D.numpy(), 1e-30)
    np.testing.assert_allclose(explanation.score, score_N, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(explanation.contributions, contributions_ND, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(pair.detector.encode(rows_ND), latent_NK, rtol=1e-4, atol=1e-5)
    near_D = 1e-4 * np.abs(reconstruction_ND) + 1e-5 * np.maximum(
        deviation_D, 1.0 * (deviation_D < 1e-29)
    )
    assert (np.abs(explanation.reconstruction - reconstruction_ND) <= near_D).all()


def test_contributions_are_non_negative_and_sum_to_the_score(pair: Pair) -> None:
    explanation = pair.detector.explain(odd_rows(pair))
    assert (explanation.contributions >= 0).all()
    np.testing.assert_allclose(explanation.contributions.sum(axis=1), explanation.score, rtol=1e-5)


def test_a_missing_cell_contributes_nothing_and_is_expected_to_be_something(pair: Pair) -> None:
    rows_ND = odd_rows(pair)
    explanation = pair.detector.explain(rows_ND)
    assert not explanation.contributions[np.isnan(rows_ND)].any()
    assert np.isfinite(pair.detector.reconstruct(rows_ND)).all()


def test_the_short_path_to_a_score_is_the_long_one(pair: Pair) -> None:
    rows_ND = odd_rows(pair)
    scores, explanation = pair.detector.score(rows_ND), pair.detector.explain(rows_ND)
    np.testing.assert_allclose(scores.score, explanation.score, rtol=1e-6)
    assert np.array_equal(scores.p_value, pair.detector.table.p_value(scores.score))


def test_one_row_scores_as_it_does_among_others(pair: Pair) -> None:
    rows_ND = odd_rows(pair)
    together = pair.detector.score(rows_ND).score
    alone = np.concatenate([pair.detector.score(row[None]).score for row in rows_ND])
    np.testing.assert_allclose(alone, together, rtol=1e-4, atol=1e-5)


def test_a_row_with_nothing_observed_has_neither_score_nor_p_value(pair: Pair) -> None:
    scores = pair.detector.score(np.full((2, pair.detector.width), np.nan, dtype=np.float32))
    assert np.isnan(scores.score).all()
    assert np.isnan(scores.p_value).all()


def test_a_code_decodes_to_the_reconstruction_where_it_can(pair: Pair) -> None:
    if pair.detector.can_decode:
        rows_ND = odd_rows(pair)
        decoded_ND = pair.detector.decode(pair.detector.encode(rows_ND))
        np.testing.assert_allclose(
            decoded_ND, pair.detector.explain(rows_ND).reconstruction, rtol=1e-4, atol=1e-5
        )
        # gaps are filled by the conditional Gaussian instead, which needs the row
        filled_ND, seen_ND = pair.detector.reconstruct(rows_ND), ~np.isnan(rows_ND)
        np.testing.assert_allclose(decoded_ND[seen_ND], filled_ND[seen_ND], rtol=1e-4, atol=1e-5)
        assert np.isfinite(filled_ND).all()


def test_expected_values_are_values_of_their_feature(pair: Pair) -> None:
    reconstruction_ND = pair.detector.reconstruct(odd_rows(pair))
    for feature, column in zip(pair.detector.manifest.features, reconstruction_ND.T, strict=True):
        if feature.kind == "boolean":
            assert ((column >= 0) & (column <= 1)).all()
        if feature.kind == "categorical":
            assert set(column.tolist()) <= set(map(float, range(len(feature.categories))))


def test_an_unseen_category_is_more_surprising_than_any_known_one(pair: Pair) -> None:
    """What the linear model expects moves with the category that it is given, so that one in some
    twenty rows is a little less surprising.
    """
    rows_ND = pair.prepared.data.normal_ND[:20].copy()

    def contribution(code: float) -> Float32:
        rows_ND[:, 4] = code
        return pair.detector.explain(rows_ND).contributions[:, 4]

    if (
        pair.detector.manifest.model.hyper_parameters.get("score") != "distance"
    ):  # that of a code is no feature's own
        known_N = np.stack([contribution(code) for code in range(3)]).max(axis=0)
        unseen_N = contribution(UNSEEN)
        more_N = unseen_N >= known_N * (1 - 1e-5)
        if pair.detector.manifest.model.variant == "linear":
            assert more_N.mean() >= 0.95
            assert (unseen_N >= 0.9 * known_N).all()
        else:
            assert more_N.all()


def test_the_same_fit_gives_the_same_version(one_pair: Pair) -> None:
    assert one_pair.detector.version == version_of(one_pair.data)


def test_the_manifest_has_the_fields_of_the_design(one_pair: Pair) -> None:
    manifest = json.loads(manifest_text(one_pair.data))
    assert list(manifest) == sorted(manifest)
    assert set(manifest) >= {
        "format", "model", "producer", "rows", "features", "calibration", "drift", "self_test", "min_observed_fraction", "requires",
    }  # fmt: skip
    assert manifest["format"] == artifact.format_of(None)
    assert set(manifest["model"]) >= {"variant", "hyper_parameters", "seed", "parameter_count"}
    assert set(manifest["producer"]) >= {"hourglass", "torch", "onnx", "onnxruntime", "threads"}
    assert set(manifest["rows"]) == {"fit", "validation", "calibration"}
    assert set(manifest["calibration"]) >= {"method", "guarantee", "n", "alpha", "delta"}
    assert set(manifest["self_test"]) == {"inputs", "entity", *artifact.OUTPUTS}
    for feature in manifest["features"]:
        assert set(feature) >= {
            "name", "kind", "unit", "categories", "missing_rate", "minimum", "maximum", "residual_variance",
        }  # fmt: skip
    assert len(manifest["drift"]) == len(manifest["features"])
    assert all(set(reference) == {"edges", "counts", "missing"} for reference in manifest["drift"])


def test_a_row_of_the_data_is_nowhere_in_the_file(one_pair: Pair) -> None:
    cells = {float(cell) for cell in one_pair.prepared.split.fit_ND[5:, 1] if cell == cell}
    manifest = json.loads(manifest_text(one_pair.data))
    assert manifest["model"]["stores_rows"] == "none"
    stored = {cell for row in manifest["self_test"]["inputs"] for cell in row}
    assert not cells & stored


def test_every_tensor_is_named_and_shaped_as_the_contract_says(one_pair: Pair) -> None:
    model = onnx.load_model_from_string(one_pair.data)
    values = {
        value.name: value.type.tensor_type for value in (*model.graph.input, *model.graph.output)
    }
    assert list(values) == [artifact.INPUT, *artifact.OUTPUTS]
    assert {tensor.elem_type for tensor in values.values()} == {onnx.TensorProto.FLOAT}
    width, latent = one_pair.detector.width, one_pair.detector.latent_width
    widths = {
        name: [dim.dim_value for dim in tensor.shape.dim[1:]] for name, tensor in values.items()
    }
    assert widths == {
        artifact.INPUT: [width],
        artifact.SCORE: [],
        artifact.P_VALUE: [],
        artifact.SEVERITY: [],
        artifact.CONTRIBUTIONS: [width],
        artifact.RECONSTRUCTION: [width],
        artifact.LATENT: [latent],
    }


class TestOtherVersions:
    """What a service does with artifacts of versions it is not."""

    def changed(self, pair: Pair, **fields: object) -> bytes:
        model = onnx.load_model_from_string(pair.data)
        manifest = json.loads(model.metadata_props[0].value)
        manifest.update(fields)
        model.metadata_props[0].value = json.dumps(manifest)
        return model.SerializeToString(deterministic=True)

    def test_a_newer_minor_with_fields_it_does_not_know_is_read(self, one_pair: Pair) -> None:
        features = json.loads(manifest_text(one_pair.data))["features"]
        newer = self.changed(
            one_pair,
            format=f"{artifact.FORMAT_MAJOR}.{artifact.FORMAT_MINOR + 1}",
            weather={"tomorrow": ["rain", None, 1.5]},
            features=[{**feature, "colour": "red"} for feature in features],
        )
        rows_ND = one_pair.prepared.data.normal_ND[:20]
        assert np.array_equal(
            Detector.from_bytes(newer).score(rows_ND).score, one_pair.detector.score(rows_ND).score
        )

    def test_a_newer_major_is_refused_with_what_to_do(self, one_pair: Pair) -> None:
        newer = self.changed(
            one_pair, format=f"{artifact.FORMAT_MAJOR + 1}.0", model="of another shape"
        )
        with pytest.raises(
            InvalidArtifact,
            match=r"format 2\.0, this service reads format 1\.x; fit the model again",
        ):
            Detector.from_bytes(newer)

    def test_what_it_requires_and_the_service_does_not_know_is_named(self, one_pair: Pair) -> None:
        with pytest.raises(
            InvalidArtifact, match="requires telepathy, which this service does not know"
        ):
            Detector.from_bytes(self.changed(one_pair, requires=["telepathy"]))

    def test_an_absent_optional_field_has_its_default(self, one_pair: Pair) -> None:
        model = onnx.load_model_from_string(one_pair.data)
        manifest = json.loads(model.metadata_props[0].value)
        for field in ("min_observed_fraction", "requires", "sampling"):
            manifest.pop(field, None)
        model.metadata_props[0].value = json.dumps(manifest)
        detector = Detector.from_bytes(model.SerializeToString(deterministic=True))
        assert (detector.manifest.min_observed_fraction, detector.manifest.requires) == (0.5, ())


def manifest_text(data: bytes) -> str:
    (entry,) = onnx.load_model_from_string(data).metadata_props
    return str(entry.value)
