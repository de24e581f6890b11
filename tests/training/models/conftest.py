"""Every member once through a whole run, on a table with every kind of column: fitting and
exporting is paid for once a session.
"""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import msgspec
import pytest

from hourglass.service.model.detector import Detector
from hourglass.training.config import RunConfig
from hourglass.training.models import VARIANTS
from hourglass.training.report import Report
from hourglass.training.run import run
from hourglass.training.split import Prepared
from tests.training import tables
from tests.training.stages import prepare_rows

TINY = {"hidden": (16,), "latent": 4}
EPOCHS = 10


class Published(NamedTuple):
    config: RunConfig
    prepared: Prepared  # the rows it was made from
    report: Report
    data: bytes
    detector: Detector


@pytest.fixture(scope="session")
def publish(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Published]:
    """variant -> its tiny model, made by `run` when it is first asked for."""
    folder = tmp_path_factory.mktemp("family")
    path = tables.write(tables.mixed(1600, anomalies=100), folder / "mixed.parquet")

    @cache
    def publish_variant(variant: str) -> Published:
        defaults = VARIANTS[variant]()
        sizes = {
            field: size
            for field, size in TINY.items()
            if field in VARIANTS[variant].__struct_fields__
        }
        model = msgspec.structs.replace(
            defaults, fit=msgspec.structs.replace(defaults.fit, epochs=EPOCHS), **sizes
        )
        config = RunConfig(
            data=str(path), name=variant, models=str(folder / "models"), label="fault", model=model
        )
        report = run(config)
        with open(report.path, "rb") as file:
            data = file.read()
        return Published(config, prepare_rows(config), report, data, Detector.from_bytes(data))

    return publish_variant
