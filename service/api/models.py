"""What is served, and what may be changed about it while it is served."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

import msgspec
from litestar import Request, Response, Router, get, patch, post, route
from litestar.di import NamedDependency
from litestar.params import FromPath, QueryParameter
from msgspec import UNSET, UnsetType

from hourglass.service.api.body import read_body
from hourglass.service.api.entrance import (
    CHANGES,
    FOUND,
    NEEDS_ADMIN,
    NEEDS_SCORE_OR_READ,
    OF_NO_MODEL,
)
from hourglass.service.api.parts import Parts
from hourglass.service.api.problems import problems
from hourglass.service.errors import Fault, InvalidArtifact
from hourglass.service.keys.guard import Pass
from hourglass.service.model.artifact import (
    EXHIBIT_PREFIX,
    Feature,
    GuaranteeKind,
    Model,
    Producer,
    Queries,
    ReferenceCodes,
    RowCounts,
    Window,
)
from hourglass.service.model.calibration import nearest_alpha
from hourglass.service.model.served import Served, Summary
from hourglass.service.rows.decoding import decode_request
from hourglass.service.rows.times import time_of
from hourglass.service.serving.store import ThresholdChange


class ModelSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One model in service."""

    name: str
    version: str
    variant: str
    alpha: float
    delta: float
    certified: bool
    guarantee: GuaranteeKind
    guarantee_reason: str  # why it is this one, in one sentence
    threshold: float
    expected_false_alarm_rate: float
    calibration_rows: int
    feature_count: int
    fitted_at: datetime  # the time of the newest row it was fitted to, or of the file of rows
    ready: bool  # whether it is in memory; if not, the first request for it has it loaded
    last_error: str | None  # why the newest state of its folder is not, or not wholly, in service
    fault: Fault | None  # the same in one word
    warning: str | None  # why the budget in force is not the one that was set


class BrokenModel(msgspec.Struct, frozen=True):
    """A model's folder of which nothing could be brought into service."""

    name: str
    last_error: str
    fault: Fault


class Models(msgspec.Struct, frozen=True):
    """The models in service, those that could not be brought into it, and the names of those that
    have not been read yet.
    """

    models: list[ModelSummary]
    broken: list[BrokenModel]
    waiting: list[str]


class FeatureSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One feature, as the fit rows had it."""

    name: str
    kind: Literal["numeric", "boolean", "categorical"]
    unit: str | None
    categories: list[str]
    minimum: float | None
    maximum: float | None
    missing_rate: float


class WindowSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What a model of rows in order looks at."""

    rows: int  # the judged one and those before it
    representation: Literal["residual", "multi"]
    interval: float | None  # median seconds between rows; null where their time is no time
    gap: float | None  # of a longer step between two rows the second begins anew; null: never


class BaselineSummary(msgspec.Struct, frozen=True, kw_only=True):
    """Of a model whose entities have a level and a spread of their own."""

    entities: int  # that it knows; rows of others are judged by the fleet's


class ModelDetail(ModelSummary, frozen=True, kw_only=True):
    """One model in service, and what its manifest says of it."""

    model: Model
    producer: Producer
    rows: RowCounts
    features: list[FeatureSummary]
    latent_width: int
    can_decode: bool
    has_deviation: bool  # whether encode answers with a standard deviation beside each number
    reference: ReferenceCodes | None  # where codes lie; of models that ship with the service
    min_observed_fraction: float  # rows with fewer observed values are refused
    nearest_certifiable_alpha: float  # at this delta
    window: WindowSummary | None  # null of a model of single rows
    baseline: BaselineSummary | None  # null where one level and spread are of all rows
    queries: Queries | None  # what a Prometheus is asked; null of a model of other rows


class ChangedModel(ModelSummary, frozen=True, kw_only=True):
    """The model with its new budget."""

    # with several workers: until then some may answer by the old one; absent where all have it
    until: datetime | UnsetType = UNSET


class Reloaded(msgspec.Struct, frozen=True):
    """What came of looking at the model's folder."""

    model: str
    version: str
    outcome: Literal["unchanged", "loaded", "swapped"]


@get(
    "/",
    summary="List the models",
    responses=problems(400),
    opt={**NEEDS_SCORE_OR_READ, OF_NO_MODEL: True},
    sync_to_thread=False,
)
def list_models(
    request: Request[Any, Any, Any],
    parts: NamedDependency[Parts],
    exhibits: Annotated[
        bool, QueryParameter(description="Also list the models that ship with the service.")
    ] = False,
) -> Models:
    summaries, problems = parts.registry.summaries, parts.registry.problems
    known = {each.name for each in summaries}
    shipped = parts.registry.exhibits if exhibits else None
    if shipped:
        summaries = [*summaries, *(each.summary for each in shipped.served)]
    waiting = [
        *sorted(parts.registry.unloaded - known - problems.keys()),
        *(shipped.unloaded if shipped else ()),
    ]
    found: Pass | None = request.scope["state"][FOUND]

    def covered(name: str) -> bool:
        return found is None or found.covers(name)

    return Models(
        [ModelSummary(**_summary(each, parts)) for each in summaries if covered(each.name)],
        [
            BrokenModel(name, sentence, fault)
            for name, (fault, sentence) in problems.items()
            if name not in known and covered(name)
        ],
        list(filter(covered, waiting)),
    )


@route(
    "/{name:str}",
    http_method="OPTIONS",
    status_code=204,
    include_in_schema=False,
    sync_to_thread=False,
)
def model_options() -> Response[None]:
    """In place of Litestar's own, which would tell of the first handler at a path only."""
    return Response(None, headers={"Allow": "GET, OPTIONS, PATCH"})


@get(
    "/{name:str}",
    summary="Show a model",
    responses=problems(404),
    opt=NEEDS_SCORE_OR_READ,
)
async def show_model(parts: NamedDependency[Parts], name: FromPath[str]) -> ModelDetail:
    return detail_of(await parts.registry.get(name), parts)


@patch(
    "/{name:str}",
    summary="Change alpha and delta",
    responses=problems(400, 403, 404, 409, 413, 415),
    opt={**NEEDS_ADMIN, CHANGES: True},
)
async def change_threshold(
    request: Request[Any, Any, Any], parts: NamedDependency[Parts], name: FromPath[str]
) -> ChangedModel:
    change = decode_request(*await read_body(request), ThresholdChange)
    if change == ThresholdChange():
        return ChangedModel(**_summary((await parts.registry.get(name)).summary, parts))
    served = await parts.registry.change_threshold(name, change)
    until: datetime | UnsetType = UNSET
    if parts.settings.workers > 1 and not (parts.peers and await parts.peers.tell(name)):
        store = parts.registry.store
        seconds = (parts.settings.poll_seconds or store.poll_seconds) + store.look_seconds
        until = datetime.now(UTC) + timedelta(seconds=seconds)
    return ChangedModel(**_summary(served.summary, parts), until=until)


@post(
    "/{name:str}/reload",
    summary="Look at the folder now",
    responses=problems(403, 404, 409),
    opt={**NEEDS_ADMIN, CHANGES: True},
    status_code=200,
)
async def reload_model(parts: NamedDependency[Parts], name: FromPath[str]) -> Reloaded:
    (load,) = await parts.registry.look(name)
    if load.outcome == "failed" or load.outcome == "retired" or load.version is None:
        stays = (
            f"version {load.version} stays in service"
            if load.version
            else "nothing of it is in service"
        )
        raise InvalidArtifact(f"{load.reason}; {stays}")
    return Reloaded(name, load.version, load.outcome)


router = Router(
    "/v1/models",
    # options before the others
    route_handlers=[
        list_models,
        model_options,
        show_model,
        change_threshold,
        reload_model,
    ],
    tags=["models"],
)


def detail_of(served: Served, parts: Parts) -> ModelDetail:
    """One model, as its route shows it."""
    manifest = served.detector.manifest
    return ModelDetail(
        **_summary(served.summary, parts),
        model=manifest.model,
        producer=manifest.producer,
        rows=manifest.rows,
        features=[_feature(feature) for feature in manifest.features],
        latent_width=served.detector.latent_width,
        can_decode=served.detector.can_decode,
        has_deviation=served.detector.has_deviation,
        reference=manifest.reference,
        min_observed_fraction=manifest.min_observed_fraction,
        nearest_certifiable_alpha=nearest_alpha(served.detector.table.n, served.threshold.delta),
        window=_window(manifest.window),
        baseline=(
            BaselineSummary(entities=len(manifest.baseline.entities)) if manifest.baseline else None
        ),
        queries=manifest.queries,
    )


def _summary(summary: Summary, parts: Parts) -> dict[str, Any]:
    problem = parts.registry.problems.get(summary.name)
    return {
        **summary._asdict(),
        "certified": summary.guarantee.kind == "certified",
        "guarantee": summary.guarantee.kind,
        "guarantee_reason": summary.guarantee.reason,
        "fitted_at": time_of(summary.fitted_at),
        "ready": summary.name in parts.registry.served or summary.name.startswith(EXHIBIT_PREFIX),
        "last_error": problem.sentence if problem else None,
        "fault": problem.fault if problem else None,
    }


def _window(window: Window | None) -> WindowSummary | None:
    if window is None:
        return None
    names = WindowSummary.__struct_fields__
    return msgspec.convert({name: getattr(window, name) for name in names}, WindowSummary)


def _feature(feature: Feature) -> FeatureSummary:
    names = FeatureSummary.__struct_fields__
    return msgspec.convert({name: getattr(feature, name) for name in names}, FeatureSummary)
