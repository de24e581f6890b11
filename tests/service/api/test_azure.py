"""The retired Azure service's API, driven by its own client, azure-ai-anomalydetector, as it is."""

import asyncio
import json
import math
import time
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import httpx
import numpy as np
import polars as pl
import pytest
from azure.ai.anomalydetector import AnomalyDetectorClient
from azure.ai.anomalydetector import aio as azure_aio
from azure.ai.anomalydetector.models import (
    AlignPolicy,
    ModelInfo,
    MultivariateBatchDetectionOptions,
    MultivariateDetectionResult,
    MultivariateLastDetectionOptions,
    UnivariateDetectionOptions,
    VariableValues,
)
from azure.core.credentials import AzureKeyCredential
from azure.core.exceptions import (
    ClientAuthenticationError,
    HttpResponseError,
    ResourceExistsError,
    ResourceNotFoundError,
)
from azure.core.pipeline.transport import AsyncioRequestsTransport

from hourglass.service.adapters.azure import azure_of
from hourglass.service.api.azure import PREFIX
from hourglass.service.errors import InvalidSettings
from hourglass.service.keys.file import add_key
from hourglass.service.rows.aligned import VariableState
from hourglass.service.serving.jobs import EpochState, Jobs, Pair, Pairs
from hourglass.service.settings import Settings
from tests.artifacts import NUMERIC, make_windowed_artifact, publish, sample_rows
from tests.serving import Process, serving, wait_until

W, ROWS = 28, 120
NAMES = tuple(feature.name for feature in NUMERIC)
START = datetime(2021, 1, 1, tzinfo=UTC)
ODD = 100  # the row that is strange


def at(row: int) -> datetime:
    return START + timedelta(minutes=row)


def stamp(row: int) -> str:
    return f"{at(row):%Y-%m-%dT%H:%M:%SZ}"


def rows() -> np.ndarray:
    rows_ND = sample_rows(NUMERIC, ROWS, seed=9).astype(np.float64)
    rows_ND[ODD] = (40.0, -30.0, 20.0, 0.0)
    return rows_ND


class Place(NamedTuple):
    """A service, its folders, and a model that is trained, as far as anybody can see."""

    http: httpx.Client
    client: AnomalyDetectorClient
    models: Path
    data: Path
    model: str


def a_client(http: httpx.Client, key: str = "any", **options: object) -> AnomalyDetectorClient:
    return AnomalyDetectorClient(str(http.base_url), AzureKeyCredential(key), **options)


def info(data: Path, **changes: object) -> ModelInfo:
    asked = {
        "data_source": str(data / "one.csv"),
        "start_time": at(0),
        "end_time": at(ROWS - 1),
        "sliding_window": W,
    }
    return ModelInfo(**{**asked, **changes})


def trained(models: Path, identifier: str, **changes: object) -> None:
    """What a worker leaves, but for the fit: tests/training/test_work.py has a real one."""
    publish(models, identifier, make_windowed_artifact(rows=W, **changes))
    jobs = Jobs(models)
    jobs.keep_pairs(
        identifier,
        Pairs(variables=NAMES, mean=(0.0,) * 4, sd=(1.0,) * 4, pairs=(Pair(0, 1, 0.8),)),
    )
    first, last = at(0).timestamp(), at(ROWS - 1).timestamp()
    jobs.update(
        identifier,
        status="READY",
        epochs=(EpochState(1, 0.5, 0.6, 1.5),),
        variables=tuple(VariableState(name, 0.0, ROWS, first, last) for name in NAMES),
    )


def write(data: Path) -> None:
    data.mkdir(exist_ok=True)
    columns = {name: rows()[:, place] for place, name in enumerate(NAMES)}
    pl.DataFrame({"timestamp": [stamp(i) for i in range(ROWS)], **columns}).write_csv(
        data / "one.csv"
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """For tests that add models of their own at most."""
    root = tmp_path_factory.mktemp("azure")
    models, data = root / "models", root / "data"
    models.mkdir()
    write(data)
    with serving(models, azure=True, azure_data=str(data)) as http, a_client(http) as client:
        model = client.train_multivariate_model(info(data, display_name="pumps")).model_id
        trained(models, model)
        yield Place(http, client, models, data, model)


def options(data: Path, first: int, last: int, **changes: object) -> object:
    asked = {
        "data_source": str(data / "one.csv"),
        "start_time": at(first),
        "end_time": at(last),
        "top_contributor_count": 10,
    }
    return MultivariateBatchDetectionOptions(**{**asked, **changes})


def detected(
    place: Place, wanted: object, client: AnomalyDetectorClient | None = None
) -> MultivariateDetectionResult:
    """As Azure's samples poll."""
    client = client or place.client
    result = client.detect_multivariate_batch_anomaly(place.model, wanted)
    deadline = time.monotonic() + 120
    while result.summary.status.lower() not in ("ready", "failed"):
        assert time.monotonic() < deadline
        time.sleep(0.02)
        result = client.get_multivariate_batch_detection_result(result.result_id)
    return result


def values(until: int, count: int = W, **changes: object) -> list[VariableValues]:
    rows_ND = rows()
    stamps = [stamp(i) for i in range(until - count + 1, until + 1)]
    return [
        VariableValues(
            variable=name,
            timestamps=stamps,
            values=changes.get(name, rows_ND[until - count + 1 : until + 1, i].tolist()),
        )
        for i, name in enumerate(NAMES)
    ]


def last(place: Place, variables: list[VariableValues], top: int = 10) -> object:
    return place.client.detect_multivariate_last_anomaly(
        place.model,
        MultivariateLastDetectionOptions(variables=variables, top_contributor_count=top),
    )


def test_a_training_is_taken_as_a_job_and_echoed(place: Place):
    policy = AlignPolicy(align_mode="inner", fill_n_a_method="FIXED", padding_value=1.5)
    headers: dict[str, str] = {}
    model = place.client.train_multivariate_model(
        info(place.data, display_name="new", align_policy=policy),
        raw_response_hook=lambda got: headers.update(got.http_response.headers),
    )
    try:
        assert headers["location"] == f"{place.http.base_url}{PREFIX}/models/{model.model_id}"
        assert model.model_info.status == "CREATED"
        assert model.created_time == model.last_updated_time
        assert model.created_time.tzinfo is not None
        assert (model.model_info.start_time, model.model_info.end_time) == (at(0), at(ROWS - 1))
        echoed = place.http.get(f"{PREFIX}/models/{model.model_id}").json()["modelInfo"]
        assert {name: echoed[name] for name in list(echoed)[:-3]} == {
            "dataSource": str(place.data / "one.csv"),
            "dataSchema": "OneTable",
            "startTime": "2021-01-01T00:00:00Z",
            "endTime": "2021-01-01T01:59:00Z",
            "displayName": "new",
            "slidingWindow": W,
            "alignPolicy": {"alignMode": "Inner", "fillNAMethod": "Fixed", "paddingValue": 1.5},
        }
    finally:
        place.client.delete_multivariate_model(model.model_id)


def test_a_model_tells_of_its_training(place: Place):
    model = place.client.get_multivariate_model(place.model)
    told = model.model_info.diagnostics_info
    assert (model.model_info.status, model.model_info.errors) == ("READY", [])
    assert told.model_state.epoch_ids == [1]
    assert told.model_state.train_losses == [0.5]
    assert told.model_state.validation_losses == [0.6]
    assert told.model_state.latencies_in_seconds == [1.5]
    assert [each.variable for each in told.variable_states] == list(NAMES)
    state = told.variable_states[0]
    assert (state.filled_n_a_ratio, state.effective_count) == (0, ROWS)
    assert (state.first_timestamp, state.last_timestamp) == (at(0), at(ROWS - 1))


def test_a_repeated_training_is_a_conflict_that_names_the_one_under_way(place: Place):
    asked = info(place.data, display_name="again")
    model = place.client.train_multivariate_model(asked)
    with pytest.raises(ResourceExistsError, match=model.model_id) as refused:
        place.client.train_multivariate_model(asked)
    assert refused.value.status_code == 409
    location = refused.value.response.headers["location"]
    assert location == f"{PREFIX}/models/{model.model_id}"
    place.client.delete_multivariate_model(model.model_id)
    anew = place.client.train_multivariate_model(asked)  # of one that is gone, or done, it is none
    assert anew.model_id != model.model_id
    place.client.delete_multivariate_model(anew.model_id)


def test_models_are_listed_page_by_page_the_newest_first(place: Place):
    made = [
        place.client.train_multivariate_model(info(place.data, display_name=f"m{i}")).model_id
        for i in range(4)
    ]
    every = [*made[::-1], place.model]
    try:
        pages = [
            [each.model_id for each in page]
            for page in place.client.list_multivariate_models(top=2).by_page()
        ]
        assert pages == [every[:2], every[2:4], every[4:]]
        listed = place.client.list_multivariate_models(skip=3)
        assert [each.model_id for each in listed] == every[3:]
        page = place.http.get(f"{PREFIX}/models?$skip=1&$top=2").json()
        assert [each["modelId"] for each in page["models"]] == every[1:3]
        assert (page["currentCount"], page["maxCount"]) == (5, 1000)
        assert page["nextLink"] == f"{place.http.base_url}{PREFIX}/models?skip=3&top=2"
        whole = place.http.get(f"{PREFIX}/models?top=5").json()
        assert "nextLink" not in whole
    finally:
        for model in made:
            place.client.delete_multivariate_model(model)


def test_a_deleted_model_is_nowhere(place: Place):
    model = place.client.train_multivariate_model(info(place.data, display_name="gone")).model_id
    trained(place.models, model, seed=3)
    wait_until(lambda: place.http.get(f"/v1/models/{model}").status_code == 200)
    assert place.client.delete_multivariate_model(model) is None
    assert not (place.models / model).exists()
    assert not list((place.models / ".jobs").glob(f"{model}*"))
    for call in (
        lambda: place.client.get_multivariate_model(model),
        lambda: place.client.delete_multivariate_model(model),
        lambda: place.client.detect_multivariate_batch_anomaly(model, options(place.data, 50, 60)),
        lambda: place.client.get_multivariate_batch_detection_result(model),
    ):
        with pytest.raises(ResourceNotFoundError, match=f"there is no .*{model}"):
            call()
    wait_until(lambda: place.http.get(f"/v1/models/{model}").status_code == 404)


def test_a_detection_is_polled_and_tells_of_every_row(place: Place):
    begun: dict[str, str] = {}
    result = place.client.detect_multivariate_batch_anomaly(
        place.model,
        options(place.data, 60, 110, top_contributor_count=3),
        raw_response_hook=lambda got: begun.update(got.http_response.headers),
    )
    assert begun["operation-id"] == result.result_id
    where = f"{place.http.base_url}{PREFIX}/detect-batch/{result.result_id}"
    assert begun["operation-location"] == where
    assert (result.summary.status, result.results) == ("CREATED", [])

    result = detected(place, options(place.data, 60, 110, top_contributor_count=3))
    assert (result.summary.status, result.summary.errors) == ("READY", [])
    assert result.summary.setup_info.top_contributor_count == 3
    assert result.summary.setup_info.start_time == at(60)
    assert [each.timestamp for each in result.results] == [at(i) for i in range(60, 111)]
    assert result.summary.variable_states[0].effective_count == 51
    # the same model's own words, with the rows that its windows look back at
    table = pl.read_csv(place.data / "one.csv").select(NAMES).to_numpy()[60 - W + 1 : 111]
    own = place.http.post(f"/v1/models/{place.model}/score", json={"rows": table.tolist()}).json()
    alarms = [each.value.is_anomaly for each in result.results]
    assert alarms == own["is_anomaly"][W - 1 :]
    assert [each.value.score for each in result.results] == pytest.approx(
        [1 - 10**-severity for severity in own["severity"][W - 1 :]]
    )
    odd = result.results[ODD - 60].value
    assert odd.is_anomaly
    assert 0.9 < odd.severity <= 1
    assert odd.interpretation[0].variable in NAMES
    for each in result.results:
        value = each.value
        assert 0 <= value.severity <= 1
        assert 0 <= value.score <= 1
        assert (value.severity > 0) == value.is_anomaly == (value.interpretation is not None)
        if value.is_anomaly:
            shares = [part.contribution_score for part in value.interpretation]
            assert len(shares) <= 3
            assert shares == sorted(shares, reverse=True)
            assert sum(shares) == pytest.approx(1)


def test_many_tables_are_judged_as_the_one_that_they_make_up(place: Place):
    (place.data / "many").mkdir()
    table = pl.read_csv(place.data / "one.csv")
    for name in NAMES:
        one = table.select("timestamp", pl.col(name).alias("value"))
        one.write_csv(place.data / "many" / f"{name}.csv")
    with zipfile.ZipFile(place.data / "many.zip", "w") as packed:
        for name in NAMES[::-1]:
            packed.write(place.data / "many" / f"{name}.csv", f"{name}.csv")
    asked = info(place.data, data_source=str(place.data / "many"), data_schema="multitable")
    model = place.client.train_multivariate_model(asked)
    trained(place.models, model.model_id)
    assert model.model_info.data_schema == "MultiTable"
    expected = detected(place, options(place.data, 60, 110)).results
    for source in ("many", "many.zip"):
        wanted = options(place.data, 60, 110, data_source=str(place.data / source))
        assert detected(place._replace(model=model.model_id), wanted).results == expected
    place.client.delete_multivariate_model(model.model_id)


def test_variables_that_no_longer_go_together_are_named(place: Place):
    (result,) = detected(place, options(place.data, ODD, ODD)).results
    changes = {
        each.variable: each.correlation_changes.changed_variables
        for each in result.value.interpretation
    }
    assert (changes["a"], changes["b"], changes["c"]) == (["b"], ["a"], [])


def test_rows_without_a_window_before_them_say_so(place: Place):
    result = detected(place, options(place.data, 20, 40))
    early = [each for each in result.results if each.value is None]
    assert [each.timestamp for each in early] == [at(i) for i in range(20, W - 1)]
    assert early[0].errors[0].code == "NotEnoughInput"
    assert early[0].errors[0].message == "a window has 28 rows, and 20 are before this one"
    assert all(each.value and not each.errors for each in result.results[W - 1 - 20 :])


@pytest.mark.parametrize(
    ("first", "last_row", "changes", "code", "message"),
    [
        (0, 10, {}, "NotEnoughInput", "a window has 28 rows, and the source holds 11 up to"),
        (500, 510, {}, "NotEnoughInput", "there are no rows from 2021-01-01T08:20:00Z to"),
        (
            50,
            60,
            {"data_source": "none.csv"},
            "InvalidData",
            "none.csv is not a file that is there",
        ),
        (50, 60, {"data_source": "two.csv"}, "InvalidData", "got none named 'd'"),
        (50, 60, {"data_source": "gaps.csv"}, "TooManyMissingValues", "variable 'b': expected at"),
    ],
)
def test_a_detection_that_cannot_be_made_fails_with_its_reason(
    place: Place, first: int, last_row: int, changes: dict[str, str], code: str, message: str
):
    table = pl.read_csv(place.data / "one.csv")
    table.drop("d").write_csv(place.data / "two.csv")
    nothing = pl.when(pl.int_range(pl.len()) < 55).then(None).otherwise(pl.col("b"))
    table.with_columns(nothing.alias("b")).write_csv(place.data / "gaps.csv")
    changed = {name: str(place.data / value) for name, value in changes.items()}
    result = detected(place, options(place.data, first, last_row, **changed))
    assert (result.summary.status, result.results) == ("FAILED", [])
    (error,) = result.summary.errors
    assert error.code == code
    assert message in error.message


def test_the_last_row_is_judged_at_once_as_a_detection_judges_it(place: Place):
    answer = last(place, values(ODD))
    (of_batch,) = detected(place, options(place.data, ODD, ODD)).results
    (of_last,) = answer.results
    assert of_last.timestamp == at(ODD)
    assert of_last == of_batch
    assert [each.variable for each in answer.variable_states] == list(NAMES)
    # more rows than a window changes nothing, fewer contributors are fewer
    longer = last(place, values(ODD, count=60), top=2).results[0]
    assert longer.value.score == of_last.value.score
    assert [each.variable for each in longer.value.interpretation] == [
        each.variable for each in of_last.value.interpretation[:2]
    ]
    assert sum(each.contribution_score for each in longer.value.interpretation) == pytest.approx(1)
    normal = last(place, values(80)).results[0].value
    assert (normal.is_anomaly, normal.severity, normal.interpretation) == (False, 0, None)


def test_nan_and_null_are_missing_and_variables_may_be_named_as_in_the_samples(place: Place):
    b = rows()[53:81, 1].tolist()
    whole = last(place, values(80)).results[0].value.score
    gaps = [b[0], math.nan, *b[2:5], None, *b[6:]]
    answer = last(place, values(80, b=gaps))
    state = answer.variable_states[1]
    assert (state.variable, state.effective_count) == ("b", W - 2)
    assert state.filled_n_a_ratio == pytest.approx(2 / W)
    line = [b[0], (b[0] + b[2]) / 2, *b[2:5], (b[4] + b[6]) / 2, *b[6:]]
    assert answer.results[0].value.score == last(place, values(80, b=line)).results[0].value.score
    named = [
        {"variableName": each.variable, "timestamps": each.timestamps, "values": each.values}
        for each in values(80)
    ]
    sent = {"variables": named, "topContributorCount": 10}
    for body in (sent, json.dumps(sent).encode()):
        got = place.client.detect_multivariate_last_anomaly(place.model, body)
        assert got.results[0].value.score == whole


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        (values(80, count=20), "a window has 28 rows, and the variables have 20 timestamps"),
        (values(80)[:3], "got none named 'd'"),
        ([], "variables: expected 1 to 300, got 0"),
        (values(80, a=[1.0]), "variable 'a': expected as many timestamps as values"),
        (values(80, a=[math.inf] * W), "variable 'a', row 0: expected a number"),
        (values(80, a=["1"] * W), "variable 'a', row 0: expected a number that float32 can hold"),
        ([*values(80), values(80)[0]], "expected one series of each variable, got two of 'a'"),
    ],
)
def test_a_last_detection_that_cannot_be_made_is_refused(
    place: Place, variables: list[VariableValues], message: str
):
    with pytest.raises(HttpResponseError, match=message) as refused:
        last(place, variables)
    assert refused.value.status_code == 400
    assert refused.value.model.message in str(refused.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data_source": "/etc/passwd"}, "lies below none of the places"),
        ({"data_source": "DATA/../models/x.csv"}, "lies below none of the places"),
        (
            {"data_source": "https://a.blob.core.windows.net/x?sig=1"},
            "lies below none of the places",
        ),
        ({"sliding_window": 27}, "slidingWindow: expected 28 to 2880 rows, got 27"),
        ({"sliding_window": 2881}, "slidingWindow: expected 28 to 2880 rows, got 2881"),
        ({"display_name": "x" * 25}, "displayName: expected at most 24 characters, got 25"),
        ({"data_schema": "Cube"}, "dataSchema: expected one of OneTable, MultiTable, got 'Cube'"),
        (
            {"align_policy": AlignPolicy(align_mode="Left")},
            "alignMode: expected one of Inner, Outer",
        ),
        ({"end_time": at(-1)}, "expected a startTime before the endTime"),
        ({"start_time": "0001-01-01T00:00:00+05:00"}, "of the years 1 to 9999"),
        ({"start_time": "soon"}, "Invalid RFC3339 encoded datetime"),
        ({"align_policy": AlignPolicy(padding_value=1e39)}, "paddingValue: expected what float32"),
    ],
)
def test_a_training_that_cannot_be_asked_for_is_refused(
    place: Place, changes: dict[str, object], message: str
):
    if str(changes.get("data_source", "")).startswith("DATA"):
        changes = {"data_source": str(changes["data_source"]).replace("DATA", str(place.data))}
    with pytest.raises(HttpResponseError, match=message) as refused:
        place.client.train_multivariate_model(info(place.data, **changes))
    assert refused.value.status_code == 400
    assert refused.value.model.code in ("InvalidBody", "InvalidData", "InvalidJson")


def test_what_is_asked_wrongly_is_refused_in_a_form_that_the_client_reads(place: Place):
    for method, path, body, status, message in (
        ("POST", "/models", b"{", 400, "the request body is not what is expected: "),
        ("POST", "/models", b"{}", 400, "missing required field 'dataSource'"),
        ("POST", f"/models/{place.model}:detect-last", b"[", 400, "the request body is not"),
        ("POST", f"/models/{place.model}:guess", b"{}", 404, "expected MODEL:detect-batch or"),
        ("POST", "/models/..%2F..:detect-last", b"{}", 404, "there is no"),
        ("GET", "/models/..%2fx", None, 404, "there is no"),
        ("GET", "/detect-batch/..%2f..%2fx", None, 404, "there is no"),
        ("GET", "/models?top=0", None, 400, "top: expected a number from 1 to 1000, got '0'"),
        ("GET", "/models?skip=x", None, 400, "skip: expected a number from 0 to"),
        ("PUT", "/models", b"{}", 405, "multivariate/models takes "),
    ):
        answer = place.http.request(method, PREFIX + path, content=body)
        assert answer.status_code == status, (path, answer.text)
        assert answer.headers["content-type"].startswith("application/json")
        assert answer.json().keys() == {"code", "message"}
        assert message in answer.json()["message"]


def test_a_model_that_is_not_trained_is_not_asked(place: Place):
    model = place.client.train_multivariate_model(info(place.data, display_name="young")).model_id
    with pytest.raises(HttpResponseError, match=r"model is not ready: .* is CREATED") as refused:
        place.client.detect_multivariate_batch_anomaly(model, options(place.data, 50, 60))
    assert (refused.value.status_code, refused.value.model.code) == (400, "ModelNotReady")
    place.client.delete_multivariate_model(model)


def test_the_univariate_calls_are_said_not_to_be_spoken(place: Place):
    points = [{"timestamp": stamp(i), "value": float(i)} for i in range(12)]
    with pytest.raises(ResourceNotFoundError, match=r"v1\.1/multivariate is spoken here"):
        place.client.detect_univariate_last_point(UnivariateDetectionOptions(series=points))


def test_a_detection_is_answered_by_any_process_and_one_that_was_lost_has_failed(place: Place):
    result = detected(place, options(place.data, 60, 70))
    kept = place.models / ".jobs/detections" / f"{result.result_id}.json"
    with (
        serving(place.models, azure=True, azure_data=str(place.data)) as other,
        a_client(other) as client,
    ):
        again = client.get_multivariate_batch_detection_result(result.result_id)
        assert again == result
        assert detected(place, options(place.data, 60, 70), client).results == result.results
        answer = json.loads(kept.read_bytes())
        answer["summary"]["status"], answer["results"] = "RUNNING", []
        kept.write_text(json.dumps(answer))  # of a service that was killed: nobody has its lock
        lost = client.get_multivariate_batch_detection_result(result.result_id)
    assert (lost.summary.status, lost.summary.errors[0].code) == ("FAILED", "ServiceRestarted")
    assert lost.summary.setup_info == result.summary.setup_info


def test_rows_of_detections_are_seen_as_any_other_rows(place: Place):
    def counted() -> float:
        text = place.http.get("/metrics").text
        name = f'hourglass_vectors_total{{model="{place.model}"'
        return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))

    before = counted()
    detected(place, options(place.data, 60, 69))
    last(place, values(80))
    wait_until(lambda: counted() == before + 11)


def test_the_asynchronous_client_gets_the_same_answers(place: Place):
    async def ask() -> tuple[list[str], object]:
        transport = AsyncioRequestsTransport()
        async with azure_aio.AnomalyDetectorClient(
            str(place.http.base_url), AzureKeyCredential("any"), transport=transport
        ) as client:
            models = [each.model_id async for each in client.list_multivariate_models()]
            wanted = MultivariateLastDetectionOptions(
                variables=values(ODD), top_contributor_count=10
            )
            return models, await client.detect_multivariate_last_anomaly(place.model, wanted)

    models, answer = asyncio.run(ask())
    assert models == [place.model]
    assert answer == last(place, values(ODD))


def test_keys_are_checked_by_what_they_open(tmp_path: Path):
    models, data, path = tmp_path / "models", tmp_path / "data", tmp_path / "keys.jsonl"
    models.mkdir()
    write(data)
    keys = {scope: add_key(path, scope, [scope]) for scope in ("admin", "score", "read")}
    with serving(models, keys=path, azure=True, azure_data=str(data)) as http:
        clients = {scope: a_client(http, key) for scope, key in keys.items()}
        asked = info(data)
        model = clients["admin"].train_multivariate_model(asked).model_id
        trained(models, model)
        mine = add_key(path, "mine", ["score", "read"], models=[model])
        other = add_key(path, "other", ["score", "read"], models=["other"])
        wait_until(
            lambda: (
                http.get(
                    f"{PREFIX}/models/{model}", headers={"Ocp-Apim-Subscription-Key": mine}
                ).status_code
                == 200
            )
        )
        wanted = MultivariateLastDetectionOptions(variables=values(80), top_contributor_count=1)
        calls = {
            "admin": lambda client: client.train_multivariate_model(asked),
            "score": lambda client: client.detect_multivariate_last_anomaly(model, wanted),
            "read": lambda client: client.get_multivariate_model(model),
        }
        for needed, call in calls.items():
            for scope, client in clients.items():
                if scope == needed:
                    call(client)
                else:
                    with pytest.raises(HttpResponseError, match=f"the scope {needed}") as refused:
                        call(client)
                    assert refused.value.status_code == 403
            with pytest.raises(ClientAuthenticationError, match="not known here") as unknown:
                call(a_client(http, "wrong"))
            assert unknown.value.status_code == 401
        assert calls["score"](a_client(http, mine)).results
        own = Place(http, a_client(http, mine), models, data, model)
        assert detected(own, options(data, ODD, ODD)).results
        with pytest.raises(HttpResponseError, match="is for the models other"):
            calls["score"](a_client(http, other))
        clients["admin"].delete_multivariate_model(model)


def test_the_client_tries_again_what_came_too_fast(place: Place, tmp_path: Path):
    path = tmp_path / "keys.jsonl"
    key, watching = add_key(path, "slow", ["read"], rate=1.0), add_key(path, "watch", ["read"])
    with (
        serving(place.models, keys=path, azure=True, azure_data=str(place.data)) as http,
        a_client(http, key) as client,
    ):
        for _ in range(2):
            model = client.get_multivariate_model(place.model)
        assert model.model_info.status == "READY"
        text = http.get("/metrics", headers={"x-api-key": watching}).text
    assert 'hourglass_key_requests_total{key="slow",outcome="limited"} 1.0' in text


def test_a_service_that_only_scores_takes_no_training(place: Place):
    flags = {"azure": True, "azure_data": str(place.data), "read_only": True}
    with serving(place.models, **flags) as http, a_client(http) as client:
        with pytest.raises(HttpResponseError, match="--read-only") as refused:
            client.train_multivariate_model(info(place.data, display_name="none"))
        assert refused.value.status_code == 403
        with pytest.raises(HttpResponseError, match="--read-only"):
            client.delete_multivariate_model(place.model)
        assert client.get_multivariate_model(place.model).model_info.status == "READY"


def test_addresses_are_those_that_people_reach(place: Place):
    flags = {"azure": True, "azure_data": str(place.data), "root_path": "/anomalies"}
    with serving(place.models, **flags) as http:
        page = http.get(f"/anomalies{PREFIX}/models?top=1&skip=0")
        assert page.status_code == 200
        client = AnomalyDetectorClient(f"{http.base_url}/anomalies", AzureKeyCredential("any"))
        where: list[str] = []
        model = client.train_multivariate_model(
            info(place.data, display_name="proxied"),
            raw_response_hook=lambda got: where.append(got.http_response.headers["location"]),
        )
        assert where == [f"{http.base_url}/anomalies{PREFIX}/models/{model.model_id}"]
        assert [each.model_id for each in client.list_multivariate_models(top=1)] == [
            model.model_id,
            place.model,
        ]
        client.delete_multivariate_model(model.model_id)


def test_without_the_flag_nothing_of_it_is_there(place: Place):
    with serving(place.models) as http:
        answer = http.get(f"{PREFIX}/models")
    assert answer.status_code == 404
    assert "where --azure is set" in answer.json()["message"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({}, "--azure needs --azure-data"),
        ({"azure_data": "ftp://x/y"}, "data cannot be taken from ftp://x/y"),
        (
            {"azure_data": "/data", "models": "s3://a/b"},
            "expected a folder of models, got s3://a/b",
        ),
    ],
)
def test_settings_that_cannot_be_had_are_refused(flags: dict[str, str], message: str):
    settings = Settings(azure=True, **flags)
    with pytest.raises(InvalidSettings, match=message):
        azure_of(settings.models, settings.azure_data)


def test_a_long_detection_holds_up_nobody(place: Place):
    """Of 20,000 rows, most of which alarm, answers to others come in between."""
    count = 20_000
    rng = np.random.default_rng(4)
    stamps = [(START + timedelta(seconds=i)).isoformat() for i in range(count)]
    columns = {name: 5 * rng.standard_normal(count) for name in NAMES}
    pl.DataFrame({"timestamp": stamps, **columns}).write_csv(place.data / "long.csv")
    wanted = options(
        place.data,
        0,
        0,
        data_source=str(place.data / "long.csv"),
        end_time=START + timedelta(seconds=count),
    )
    result = place.client.detect_multivariate_batch_anomaly(place.model, wanted)
    waited, rounds, began = 0.0, 0, time.monotonic()
    path = f"{PREFIX}/detect-batch/{result.result_id}"
    while True:
        started = time.monotonic()
        place.http.get("/health/live", timeout=120).raise_for_status()
        waited = max(waited, time.monotonic() - started)
        rounds += 1
        answer = place.http.get(path, timeout=120).content
        if b'"status":"READY"' in answer[:300]:
            break
        assert b"FAILED" not in answer[:300]
        time.sleep(0.01)
    results = json.loads(answer)["results"]
    assert len(results) == count
    assert sum(each["value"]["isAnomaly"] for each in results[W - 1 :]) > count / 2
    assert rounds > 5
    assert waited < (time.monotonic() - began) / 3  # also on a machine that is slow


@pytest.mark.slow
def test_the_command_serves_it_on_the_fast_way_too(tmp_path: Path):
    models, data = tmp_path / "models", tmp_path / "data"
    models.mkdir()
    write(data)
    flags = ("--azure", "--azure-data", str(data), "--workers", "2")
    with Process(models, *flags) as process:
        client = AnomalyDetectorClient(process.url, AzureKeyCredential("any"))
        model = client.train_multivariate_model(info(data)).model_id
        trained(models, model)
        place = Place(httpx.Client(base_url=process.url), client, models, data, model)
        with place.http:
            for _ in range(4):  # answered by either process
                assert detected(place, options(data, ODD, ODD)).results[0].value.is_anomaly
                assert last(place, values(ODD)).results[0].value.is_anomaly
        client.close()
        assert process.stop() == 0
    log = "".join(process.log)
    assert "Traceback" not in log, log
