"""Rows made up by models whose manifest says how codes are drawn."""

from collections.abc import Iterator

import httpx
import numpy as np
import pytest

from hourglass.service.errors import InvalidArtifact
from hourglass.service.model.artifact import Sampling
from hourglass.service.model.detector import Detector
from tests.artifacts import MIXED, make_artifact, publish
from tests.serving import serving

NORMAL = Sampling(kind="normal", noise=(0.5, 0.0, 0.0, 0.1))
BOOK = Sampling(
    kind="codebook",
    codes=((0.0, 0.0), (1.0, -1.0)),
    shares=(0.25, 0.75),
    noise=(0.0, 0.0, 0.0, 0.0),
)


@pytest.fixture(scope="module")
def sampler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("models")
    publish(folder, "drawing", make_artifact(MIXED, sampling=NORMAL))
    publish(folder, "book", make_artifact(MIXED, sampling=BOOK))
    publish(folder, "neither", make_artifact(MIXED))
    with serving(folder, max_rows=1000) as running:
        yield running


def drawn(sampler: httpx.Client, name: str, **wanted: int) -> list[list[object]]:
    answer = sampler.post(f"/v1/models/{name}/sample", json=wanted)
    assert answer.status_code == 200
    return answer.json()["rows"]


def test_the_same_seed_gives_the_same_rows_and_another_seed_others(sampler: httpx.Client) -> None:
    assert drawn(sampler, "drawing", count=20, seed=3) == drawn(
        sampler, "drawing", count=20, seed=3
    )
    assert drawn(sampler, "drawing", count=20, seed=3) != drawn(
        sampler, "drawing", count=20, seed=4
    )


def test_rows_are_of_the_features_kinds_and_can_be_scored(sampler: httpx.Client) -> None:
    rows = drawn(sampler, "drawing", count=50, seed=1)
    for load, opened, site, heat in rows:
        assert isinstance(load, float)
        assert isinstance(opened, bool)
        assert site in MIXED[2].categories
        assert isinstance(heat, float)
    assert sampler.post("/v1/models/drawing/score", json={"rows": rows}).status_code == 200


def test_codes_of_a_book_are_drawn_by_their_shares(sampler: httpx.Client) -> None:
    heats = [row[3] for row in drawn(sampler, "book", count=1000, seed=0)]
    decoded = Detector.from_bytes(make_artifact(MIXED, sampling=BOOK)).decode(
        np.array(BOOK.codes, dtype=np.float32)
    )
    assert set(np.round(heats, 5)) == set(np.round(decoded[:, 3].tolist(), 5))
    # 3.6 standard errors
    assert np.isclose(heats, decoded[1, 3]).mean() == pytest.approx(0.75, abs=0.05)


def test_noise_is_added_around_what_a_code_decodes_to() -> None:
    def load(noise: float) -> np.ndarray:
        sampling = Sampling(
            kind="codebook", codes=((0.0, 0.0),), shares=(1.0,), noise=(noise, 0.0, 0.0, 0.0)
        )
        return Detector.from_bytes(make_artifact(MIXED, sampling=sampling)).sample(20_000, seed=0)[
            :, 0
        ]

    assert load(0.0).std() == 0
    assert load(0.5).std() == pytest.approx(0.5, rel=0.02)
    assert load(0.5).mean() == pytest.approx(load(0.0)[0], abs=0.02)


def test_a_boolean_is_true_as_often_as_its_decoded_probability() -> None:
    sampling = Sampling(
        kind="codebook", codes=((0.4, 0.2),), shares=(1.0,), noise=(0.0, 0.0, 0.0, 0.0)
    )
    detector = Detector.from_bytes(make_artifact(MIXED, sampling=sampling))
    expected = float(np.clip(detector.decode(np.array([[0.4, 0.2]], dtype=np.float32))[0, 1], 0, 1))
    assert detector.sample(20_000, seed=0)[:, 1].mean() == pytest.approx(expected, abs=0.015)


def test_a_model_whose_manifest_says_nothing_answers_409_with_the_reason(
    sampler: httpx.Client,
) -> None:
    answer = sampler.post("/v1/models/neither/sample", json={"count": 1})
    assert answer.status_code == 409
    assert answer.headers["content-type"] == "application/problem+json"
    assert (
        answer.json()["detail"]
        == "model neither cannot make up rows: the code space of the variant handmade has holes,"
        " and what lies in them decodes to nothing real"
    )


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"count": 0}, 400, "Expected `int` >= 1"),
        ({"count": 1001}, 413, "expected a count of at most 1000, got 1001"),
        ({"seed": -1}, 400, "Expected `int` >= 0"),
        ({"rows": 3}, 400, "unknown field `rows`"),
    ],
)
def test_what_cannot_be_drawn_is_refused(
    sampler: httpx.Client, body: dict[str, int], status: int, words: str
) -> None:
    answer = sampler.post("/v1/models/drawing/sample", json=body)
    assert answer.status_code == status
    assert words in answer.json()["detail"]


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(kind="normal", noise=(0.1,)),
        Sampling(kind="normal", noise=(0.1, 0.1, 0.1, -0.1)),
        Sampling(kind="codebook", noise=(0.0,) * 4),
        Sampling(kind="codebook", codes=((0.0,),), shares=(1.0,), noise=(0.0,) * 4),
        Sampling(kind="codebook", codes=((0.0, 1.0),), shares=(0.5,), noise=(0.0,) * 4),
    ],
)
def test_a_manifest_whose_sampling_does_not_fit_the_model_is_refused(sampling: Sampling) -> None:
    with pytest.raises(InvalidArtifact, match="sampling does not fit"):
        Detector.from_bytes(make_artifact(MIXED, sampling=sampling))
