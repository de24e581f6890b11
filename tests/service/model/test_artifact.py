"""The contract's text form: canonical, forgiving to the newer minor, strict to the newer major."""

import json

import pytest

from hourglass.service.errors import InvalidArtifact
from hourglass.service.model import artifact
from hourglass.service.model.detector import Detector
from tests.artifacts import MIXED, make_artifact


@pytest.fixture(scope="module")
def text():
    return artifact.encode_manifest(Detector.from_bytes(make_artifact(MIXED)).manifest)


def test_a_manifest_survives_the_way_through_text_and_its_text_is_canonical(text):
    assert artifact.encode_manifest(artifact.decode_manifest(text)) == text
    assert text == artifact.encode_manifest(
        artifact.decode_manifest(json.dumps(json.loads(text), indent=2))
    )
    assert list(json.loads(text)) == sorted(json.loads(text))


def test_unknown_fields_of_a_newer_minor_are_ignored(text):
    newer = json.loads(text) | {"format": f"{artifact.FORMAT_MAJOR}.99", "mood": "hopeful"}
    newer["features"][0]["colour"] = "red"
    assert artifact.decode_manifest(json.dumps(newer)).features[0].name == "load"


@pytest.mark.parametrize("written", ["2.0", "0.9", "10.0", "", "one"])
def test_another_major_is_refused_with_a_way_out(text, written):
    with pytest.raises(
        InvalidArtifact,
        match=r"this service reads format 1\.x; fit the model again with this version",
    ):
        artifact.decode_manifest(json.dumps(json.loads(text) | {"format": written}))


def test_another_major_is_refused_before_its_fields_are_looked_at():
    with pytest.raises(InvalidArtifact, match=r"has format 2\.0"):
        artifact.decode_manifest('{"format": "2.0"}')


def test_what_an_artifact_requires_must_be_known(text):
    with pytest.raises(
        InvalidArtifact, match="requires dreams, telepathy, which this service does not know"
    ):
        artifact.decode_manifest(
            json.dumps(json.loads(text) | {"requires": ["telepathy", "dreams"]})
        )


@pytest.mark.parametrize("broken", ["", "{", "[]", "{}", '{"format": 1}', '{"format": "1.0"}'])
def test_what_is_no_manifest_is_refused(broken):
    with pytest.raises(InvalidArtifact, match="the manifest cannot be read"):
        artifact.decode_manifest(broken)


def test_the_version_of_a_model_is_the_sha_256_of_its_file():
    assert (
        artifact.version_of(b"")
        == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    )


@pytest.mark.parametrize(
    ("name", "is_one"),
    [("tumour", True), ("a", True), ("0-_", True), ("a" * 63, True), ("a" * 64, False), ("", False), ("A", False), ("-a", False),
     ("a/b", False), ("..", False), ("a b", False), ("ä", False), ("a\n", False)],
)  # fmt: skip
def test_names_of_models_are_fit_for_paths_and_labels(name, is_one):
    assert (artifact.MODEL_NAME.fullmatch(name) is not None) == is_one
