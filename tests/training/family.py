"""Every member once through a whole run, on a table with every kind of column: fitting and
exporting is paid for once, whoever asks.
"""

import tempfile
from functools import cache
from pathlib import Path
from typing import NamedTuple

import msgspec

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


@cache
def publish(variant: str) -> Published:
    """The variant's tiny model, made by `run` when it is first asked for."""
    folder = Path(_folder().name)
    path = folder / "mixed.parquet"
    if not path.exists():
        tables.write(tables.mixed(1600, anomalies=100), path)
    defaults = VARIANTS[variant]()
    sizes = {
        field: size for field, size in TINY.items() if field in VARIANTS[variant].__struct_fields__
    }
    model = msgspec.structs.replace(
        defaults, fit=msgspec.structs.replace(defaults.fit, epochs=EPOCHS), **sizes
    )
    config = RunConfig(
        data=str(path), name=variant, models=str(folder / "models"), label="fault", model=model
    )
    report = run(config)
    data = Path(report.path).read_bytes()
    return Published(config, prepare_rows(config), report, data, Detector.from_bytes(data))


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    """Gone when the process ends."""
    return tempfile.TemporaryDirectory(prefix="family-")
