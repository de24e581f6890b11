"""The versions of a model, and which of them is in service."""

from datetime import datetime
from typing import Any

import msgspec
from litestar import Request, Router, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath

from hourglass.service.api.body import read_body
from hourglass.service.api.entrance import CHANGES, NEEDS_ADMIN, NEEDS_READ
from hourglass.service.api.models import ModelDetail, detail_of
from hourglass.service.api.parts import Parts
from hourglass.service.api.problems import problems
from hourglass.service.model.artifact import GuaranteeKind, Manifest
from hourglass.service.rows.decoding import decode_request
from hourglass.service.rows.times import time_of
from hourglass.service.serving.versions import Version


class VersionSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One version that lies in the model's folder, with the budget that it was fitted for."""

    version: str
    written_at: datetime
    fitted_at: datetime  # the time of the newest row, or of the file of rows, or else of this file
    variant: str
    rows: int  # that it was fitted to
    features: list[str]
    guarantee: GuaranteeKind
    alpha: float
    delta: float
    size: int  # bytes
    auroc: float | None  # of the fit's labelled anomalies, where there were any
    report: bool  # whether there is one, as a page


class BrokenVersion(msgspec.Struct, frozen=True):
    """A version whose file cannot be read."""

    version: str
    problem: str


class Versions(msgspec.Struct, frozen=True):
    """The versions of a model, those written last first."""

    model: str
    current: str | None  # in service
    versions: list[VersionSummary]
    broken: list[BrokenVersion]


class Promotion(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The version to bring into service, whole or an unambiguous beginning."""

    version: str


@get(
    "/{name:str}/versions",
    summary="List the versions",
    responses=problems(404, 409),
    opt=NEEDS_READ,
)
async def list_versions(parts: NamedDependency[Parts], name: FromPath[str]) -> Versions:
    versions = await parts.registry.versions(name)
    return Versions(
        name,
        parts.registry.version(name),
        [_summary(each, each.manifest) for each in versions if each.manifest],
        [BrokenVersion(each.version, each.problem) for each in versions if each.problem],
    )


@post(
    "/{name:str}/promote",
    summary="Bring a version into service",
    responses=problems(400, 403, 404, 409, 413, 415),
    opt={**NEEDS_ADMIN, CHANGES: True},
    status_code=200,
)
async def promote(
    request: Request[Any, Any, Any], parts: NamedDependency[Parts], name: FromPath[str]
) -> ModelDetail:
    wanted = decode_request(*await read_body(request), Promotion)
    served = await parts.registry.promote(name, wanted.version)
    if parts.peers:
        await parts.peers.tell(name)
    return detail_of(served, parts)


router = Router("/v1/models", route_handlers=[list_versions, promote], tags=["models"])


def _summary(version: Version, manifest: Manifest) -> VersionSummary:
    fitted_at, record = manifest.fitted_at, manifest.calibration
    return VersionSummary(
        version=version.version,
        written_at=time_of(version.written_at),
        fitted_at=time_of(version.written_at if fitted_at is None else fitted_at),
        variant=manifest.model.variant,
        rows=manifest.rows.fit,
        features=[feature.name for feature in manifest.features],
        guarantee=record.guarantee,
        alpha=record.alpha,
        delta=record.delta,
        size=version.size_bytes,
        auroc=version.auroc,
        report=version.has_report,
    )
