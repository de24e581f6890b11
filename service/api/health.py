"""Whether the process lives, and whether it has a model to answer with."""

import msgspec
from litestar import Router, get
from litestar.di import NamedDependency

from hourglass.service.api.entrance import NEEDS_NO_KEY
from hourglass.service.api.parts import Parts
from hourglass.service.api.problems import problems
from hourglass.service.errors import NotReady


class Live(msgspec.Struct, frozen=True):
    """The process answers."""

    status: str


class Ready(msgspec.Struct, frozen=True):
    """At least one model is in service, and passed its self-test; where keys are needed, no model
    is named.
    """

    status: str
    models: list[str]


@get("/live", summary="Is the process alive?", responses=problems(), sync_to_thread=False)
def live() -> Live:
    return Live("live")


@get("/ready", summary="Can it score?", responses=problems(503), sync_to_thread=False)
def ready(parts: NamedDependency[Parts]) -> Ready:
    named = parts.settings.keys is None  # whoever has no key learns no name
    if not parts.registry.served:
        problems = parts.registry.errors.items() if named else ()
        raise NotReady(
            "no model is in service" + "".join(f"; {name}: {why}" for name, why in problems)
        )
    return Ready("ready", [each.name for each in parts.registry.summaries if named])


router = Router("/health", route_handlers=[live, ready], opt=NEEDS_NO_KEY, tags=["health"])
