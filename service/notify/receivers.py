"""Who is told, by the settings."""

from collections.abc import Callable

from hourglass.service.errors import InvalidSettings
from hourglass.service.notify.alertmanager import Alertmanager
from hourglass.service.notify.posting import Outcome, addresses_of
from hourglass.service.notify.webhook import Webhook, read_secret
from hourglass.service.settings import Settings


def receivers_of(
    settings: Settings, count: Callable[[str, Outcome], None] = lambda _, __: None
) -> list[Webhook | Alertmanager]:
    """All of them; `count` is told of the kind of receiver and the outcome.

    InvalidSettings is one sentence about what is wrong.
    """
    webhooks = addresses_of(settings.webhook, "--webhook")
    alertmanagers = addresses_of(settings.alertmanager, "--alertmanager")
    if not webhooks and not alertmanagers:
        return []
    if settings.workers > 1:
        raise InvalidSettings(
            "--webhook and --alertmanager need --workers 1: one process has the streams"
        )
    if len(addresses_of(settings.public_url, "--public-url")) > 1:
        raise InvalidSettings(f"--public-url: expected one URL, got {settings.public_url!r}")
    here = f"http://{settings.host}:{settings.port}{settings.root_path}"
    link = settings.public_url.rstrip("/") or here
    receivers: list[Webhook | Alertmanager] = []
    if webhooks:
        secret = read_secret(settings.webhook_secret_file, settings.webhook_secret)
        receivers += [
            Webhook(each, secret, lambda outcome: count("webhook", outcome)) for each in webhooks
        ]
    receivers += [
        Alertmanager(each, link, lambda outcome: count("alertmanager", outcome))
        for each in alertmanagers
    ]
    return receivers
