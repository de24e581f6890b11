"""What is served, and what may be changed about it while it is served."""

from datetime import UTC, datetime
from typing import Any, Literal

import msgspec
from litestar import Request, Response, Router, get, patch, post, route
from litestar.di import NamedDependency
from litestar.params import FromPath
from msgspec import UNSET, UnsetType

from hourglass.service.api.body import read_body
from hourglass.service.api.entrance import CHANGES
from hourglass.service.api.parts import Parts
from hourglass.service.api.problems import problems
from hourglass.service.errors import InvalidArtifact
from hourglass.service.model.artifact import Feature, GuaranteeKind, Model, Producer, RowCounts
from hourglass.service.model.calibration import nearest_alpha
from hourglass.service.model.served import Served
from hourglass.service.rows.decoding import decode_request
from hourglass.service.serving.store import Rate, StoredThreshold


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
    last_error: str | None  # why the newest state of its folder is not, or not wholly, in service


class BrokenModel(msgspec.Struct, frozen=True):
    """A model's folder of which nothing could be brought into service."""

    name: str
    last_error: str


class Models(msgspec.Struct, frozen=True):
    """The models in service, and those that could not be brought into it."""

    models: list[ModelSummary]
    broken: list[BrokenModel]


class FeatureSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One feature, as the fit rows had it."""

    name: str
    kind: Literal["numeric", "boolean", "categorical"]
    unit: str | None
    categories: list[str]
    minimum: float | None
    maximum: float | None
    missing_rate: float


class ModelDetail(ModelSummary, frozen=True, kw_only=True):
    """One model in service, and what its manifest says of it."""

    fitted_at: datetime | None  # null where its file has a date beyond the calendar's years
    model: Model
    producer: Producer
    rows: RowCounts
    features: list[FeatureSummary]
    latent_width: int
    can_decode: bool
    min_observed_fraction: float  # rows with fewer observed values are refused
    nearest_certifiable_alpha: float  # at this delta


class ThresholdChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Another false-alarm budget; what is left out stays as it is."""

    alpha: Rate | UnsetType = UNSET
    delta: Rate | UnsetType = UNSET
    uncertified: bool | UnsetType = (
        UNSET  # true: the marginal rule, alpha on average without the confidence 1 - delta
    )


class Reloaded(msgspec.Struct, frozen=True):
    """What came of looking at the model's folder."""

    model: str
    version: str
    outcome: Literal["unchanged", "loaded", "swapped"]


@get("/", summary="List the models", responses=problems(), sync_to_thread=False)
def list_models(parts: NamedDependency[Parts]) -> Models:
    served, errors = parts.registry.served, parts.registry.errors
    broken = [BrokenModel(name, error) for name, error in errors.items() if name not in served]
    return Models([ModelSummary(**_summary(each, parts)) for each in served.values()], broken)


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


@get("/{name:str}", summary="Show a model", responses=problems(404), sync_to_thread=False)
def show_model(parts: NamedDependency[Parts], name: FromPath[str]) -> ModelDetail:
    return _detail(parts.registry.find(name), parts)


@patch(
    "/{name:str}",
    summary="Change alpha and delta",
    responses=problems(400, 403, 404, 409, 413, 415),
    opt={CHANGES: True},
)
async def change_threshold(
    request: Request[Any, Any, Any], parts: NamedDependency[Parts], name: FromPath[str]
) -> ModelSummary:
    served = parts.registry.find(name)
    change = decode_request(*await read_body(request), ThresholdChange)
    if change != ThresholdChange():
        current = served.threshold
        alpha = current.alpha if change.alpha is UNSET else change.alpha
        delta = current.delta if change.delta is UNSET else change.delta
        uncertified = not current.certified if change.uncertified is UNSET else change.uncertified
        served = await parts.registry.set_threshold(
            name, StoredThreshold(alpha, delta, uncertified)
        )
    return ModelSummary(**_summary(served, parts))


@post(
    "/{name:str}/reload",
    summary="Look at the folder now",
    responses=problems(403, 404, 409),
    opt={CHANGES: True},
    status_code=200,
)
async def reload_model(parts: NamedDependency[Parts], name: FromPath[str]) -> Reloaded:
    (load,) = await parts.registry.look(name)
    parts.metrics.observe_load(load)
    if load.outcome == "failed" or load.version is None:
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


def _summary(served: Served, parts: Parts) -> dict[str, Any]:
    threshold, manifest = served.threshold, served.detector.manifest
    return {
        "name": served.name,
        "version": served.detector.version,
        "variant": manifest.model.variant,
        "alpha": threshold.alpha,
        "delta": threshold.delta,
        "certified": served.guarantee.kind == "certified",
        "guarantee": served.guarantee.kind,
        "guarantee_reason": served.guarantee.reason,
        "threshold": threshold.score,
        "expected_false_alarm_rate": threshold.expected_false_alarm_rate,
        "calibration_rows": served.detector.table.n,
        "feature_count": served.schema.width,
        "last_error": parts.registry.errors.get(served.name),
    }


def _detail(served: Served, parts: Parts) -> ModelDetail:
    manifest = served.detector.manifest
    return ModelDetail(
        **_summary(served, parts),
        fitted_at=_date(served.fitted_at),
        model=manifest.model,
        producer=manifest.producer,
        rows=manifest.rows,
        features=[_feature(feature) for feature in manifest.features],
        latent_width=served.detector.latent_width,
        can_decode=served.detector.can_decode,
        min_observed_fraction=manifest.min_observed_fraction,
        nearest_certifiable_alpha=nearest_alpha(served.detector.table.n, served.threshold.delta),
    )


def _date(seconds: float) -> datetime | None:
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError):  # of a file, from before the year 1 or after 9999
        return None


def _feature(feature: Feature) -> FeatureSummary:
    names = FeatureSummary.__struct_fields__
    return msgspec.convert({name: getattr(feature, name) for name in names}, FeatureSummary)
