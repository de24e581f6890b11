"""Who is told, by the settings; what is wrong with them is one sentence."""

import pytest

from hourglass.service.errors import InvalidSettings
from hourglass.service.notify.alertmanager import Alertmanager
from hourglass.service.notify.receivers import receivers_of
from hourglass.service.notify.webhook import Webhook
from hourglass.service.settings import Settings

SECRET = "0123456789abcdef"


def test_without_settings_nobody_is_told():
    assert receivers_of(Settings()) == []


def test_each_address_is_a_receiver():
    settings = Settings(
        webhook="http://a/x, http://b/y", webhook_secret=SECRET, alertmanager="http://c:9093"
    )
    assert [type(each) for each in receivers_of(settings)] == [Webhook, Webhook, Alertmanager]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"webhook": "http://a"}, r"^--webhook needs a secret to sign with, "),
        ({"webhook": "a", "webhook_secret": SECRET}, r"^--webhook: expected http://HOST/PATH"),
        ({"alertmanager": "a"}, r"^--alertmanager: expected http://HOST/PATH"),
        (
            {"alertmanager": "http://a", "workers": 2},
            r"^--webhook and --alertmanager need --workers 1",
        ),
        (
            {"alertmanager": "http://a", "public_url": "here"},
            r"^--public-url: expected http://HOST",
        ),
        (
            {"alertmanager": "http://a", "public_url": "http://a,http://b"},
            r"^--public-url: expected one URL",
        ),
    ],
)
def test_what_is_wrong_is_one_sentence(settings, message):
    with pytest.raises(InvalidSettings, match=message):
        receivers_of(Settings(**settings))
