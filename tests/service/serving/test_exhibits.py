"""The models that ship with the service: served, and none of the operator's."""

import asyncio

import numpy as np
import pytest

from hourglass.service.errors import UnknownModel
from hourglass.service.model.artifact import EXHIBIT_PREFIX, MODEL_NAME
from hourglass.service.model.detector import Detector
from hourglass.service.serving.exhibits import FOLDER, Exhibits
from tests.artifacts import make_artifact, publish
from tests.serving import serving

FILES = sorted(FOLDER.glob("*.onnx"))
RING = "learn.curve-free"
POINT = {"rows": [[1.0, 0.0]]}


def test_there_is_one_for_every_idea() -> None:
    kinds = {file.stem.split("-")[1] for file in FILES}
    assert kinds == {
        "plain", "variational", "undercomplete", "overcomplete", "linear", "tied", "denoising",
        "sparse", "contractive", "free", "quantized", "masked", "squared",
    }  # fmt: skip


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_each_is_small_and_passes_the_checks_of_any_model(file) -> None:
    assert file.stat().st_size < 200_000
    detector = Detector.from_bytes(file.read_bytes())
    assert detector.can_decode
    assert detector.has_deviation == ("variational" in file.stem)
    assert MODEL_NAME.fullmatch(file.stem)


def test_together_they_are_smaller_than_a_megabyte_and_a_half() -> None:
    assert sum(file.stat().st_size for file in FILES) < 1_500_000


def test_no_other_model_can_have_such_a_name() -> None:
    assert not any(MODEL_NAME.fullmatch(EXHIBIT_PREFIX + file.stem) for file in FILES)


def test_they_are_read_once_when_somebody_asks() -> None:
    async def ask():
        exhibits = Exhibits()
        assert exhibits.served == []
        assert RING in exhibits.unloaded
        both = await asyncio.gather(exhibits.get(RING), exhibits.get(RING))
        assert both[0] is both[1]
        assert [each.name for each in exhibits.served] == [RING]
        assert RING not in exhibits.unloaded
        with pytest.raises(
            UnknownModel, match=r"no model 'learn\.nothing' ships.*learn\.curve-contractive"
        ):
            await exhibits.get("learn.nothing")

    asyncio.run(ask())


def test_neither_list_nor_readiness_nor_metrics_know_of_them(tmp_path) -> None:
    with serving(tmp_path) as client:
        for what in ("score", "explain", "encode", "reconstruct"):
            assert client.post(f"/v1/models/{RING}/{what}", json=POINT).status_code == 200
        assert client.get("/health/ready").status_code == 503
        assert client.get("/v1/models").json() == {"models": [], "broken": [], "waiting": []}
        counted = client.get("/metrics").text
        assert "learn." not in counted
        assert client.post("/v1/score", json=POINT).status_code == 404


def test_they_are_listed_for_who_asks(tmp_path) -> None:
    publish(tmp_path, "pump", make_artifact())
    with serving(tmp_path) as client:
        client.post(f"/v1/models/{RING}/encode", json=POINT)
        listed = client.get("/v1/models?exhibits=true").json()
        assert [model["name"] for model in listed["models"]] == ["pump", RING]
        assert listed["models"][1]["ready"]
        assert len(listed["waiting"]) == len(FILES) - 1


def test_a_model_of_the_operator_does_not_collide(tmp_path) -> None:
    publish(tmp_path, "curve-free", make_artifact())
    publish(tmp_path, RING, make_artifact())  # a name that no model has
    with serving(tmp_path, max_loaded=1) as client:
        own = client.get("/v1/models/curve-free").json()
        shipped = client.get(f"/v1/models/{RING}").json()
        assert (own["feature_count"], shipped["feature_count"]) == (4, 2)
        assert client.get("/health/ready").json()["models"] == ["curve-free"]
        assert client.get("/v1/models/curve-free").json()["ready"]  # not let go for it


def test_nothing_of_them_can_be_changed(tmp_path) -> None:
    with serving(tmp_path) as client:
        before = FILES[0].stat().st_mtime_ns
        changed = client.patch(f"/v1/models/{RING}", json={"alpha": 0.1})
        reloaded = client.post(f"/v1/models/{RING}/reload")
        promoted = client.post(f"/v1/models/{RING}/promote", json={"version": "ab"})
        for refused in (changed, reloaded, promoted):
            assert refused.status_code == 403
            assert "'learn.curve-free' ships with the service" in refused.json()["detail"]
        assert client.get(f"/v1/models/{RING}").json()["alpha"] == 0.05
        assert FILES[0].stat().st_mtime_ns == before


@pytest.mark.parametrize("what", ["alarms", "versions", "replay", "ordinary"])
def test_what_is_kept_of_traffic_and_versions_is_empty_of_them(tmp_path, what: str) -> None:
    with serving(tmp_path) as client:
        client.post(f"/v1/models/{RING}/score", json={"rows": [[9.0, -9.0]]}).raise_for_status()
        answer = client.get(f"/v1/models/{RING}/{what}")
        assert answer.status_code == 200
        told = answer.json()
        assert [told[each] for each in ("groups", "versions", "rows") if told.get(each)] == []


def test_the_operator_may_serve_none(tmp_path) -> None:
    with serving(tmp_path, learn=False) as client:
        assert client.post(f"/v1/models/{RING}/encode", json=POINT).status_code == 404
        assert client.get("/v1/models?exhibits=true").json()["waiting"] == []


def test_the_info_has_the_codes_of_known_pictures_and_their_range(tmp_path) -> None:
    with serving(tmp_path) as client:
        reference = client.get("/v1/models/learn.digits-plain").json()["reference"]
        codes = np.array(reference["codes"])
        assert codes.shape == (500, 2)
        assert (codes >= np.array(reference["minimum"]) - 1e-3).all()
        assert (codes <= np.array(reference["maximum"]) + 1e-3).all()
        assert client.get(f"/v1/models/{RING}").json()["reference"] is None


def test_the_protocol_of_inference_serves_them_too(tmp_path) -> None:
    with serving(tmp_path) as client:
        tensor = {"name": "features", "datatype": "FP32", "shape": [1, 2], "data": [1.0, 0.0]}
        answer = client.post(f"/v2/models/{RING}/infer", json={"inputs": [tensor]})
        assert answer.status_code == 200
        assert answer.json()["model_name"] == RING
