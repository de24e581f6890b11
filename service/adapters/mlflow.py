"""A model as MLflow logs, loads and serves models of any kind: its flavour `python_function`.

    <artifact>/MLmodel                what goes in and comes out, and that this module reads it
    <artifact>/data/model/model.onnx  the model file, with what training wrote beside it

Nothing is pickled: MLmodel names this module as its `loader_module`, and MLflow calls
`_load_pyfunc` with the folder of the file. So the module's name is part of every logged model, and
stays.
"""

import shutil
import sys
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from hourglass.service import VERSION
from hourglass.service.adapters import files
from hourglass.service.errors import HourglassError, InvalidSettings
from hourglass.service.model.artifact import version_of
from hourglass.service.rows.frames import frame_of
from hourglass.service.serving.signatures import SIGNATURE_FILE
from hourglass.service.serving.store import MODEL_FILE, locate

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    from mlflow.models import Model, ModelSignature
    from mlflow.models.model import ModelInfo

FLAVOR = "hourglass"
NEEDED = "models in MLflow need mlflow, pandas and polars: pip install 'hourglass[mlflow]'"
REQUIREMENT = f"hourglass[mlflow]=={VERSION}"
ENVIRONMENT = frozenset({"pip_requirements", "extra_pip_requirements", "conda_env"})


def log_model(model: bytes | str | Path, name: str, **options: Any) -> "ModelInfo":
    """Log a model to MLflow's tracking server, and with `registered_model_name` register it.

    `options` are those of `save_model`, and of MLflow's own `log_model`.
    """
    _require()
    from mlflow.models import Model

    # the flavour is a module with `save_model`; MLflow passes on what is not its own
    logged: ModelInfo = Model.log(
        None, sys.modules[__name__], name=name, flavor_name=FLAVOR, model=model, **options
    )
    return logged


def save_model(
    model: bytes | str | Path,
    path: str | Path,
    *,
    alpha: float | None = None,
    time: str | None = None,
    entity: str | None = None,
    signature: "ModelSignature | None" = None,
    mlflow_model: "Model | None" = None,
    **options: Any,
) -> None:
    """Write a model as MLflow's folder.

    `model` is the bytes of a file, as `onnx_` of the estimator, or where it lies: the file, the
    folder of a version, or MODELS/NAME. `alpha` is another budget than the file's; `time` and
    `entity` are columns that say which rows follow each other, of a windowed model. All three are
    the `model_config` that `mlflow.pyfunc.load_model` may change. `signature` is in place of the
    model's own, whose columns are of any type. `options` are those of `mlflow.pyfunc.save_model`.
    InvalidArtifact, UncertifiableAlpha or InvalidSettings where this
    cannot be.
    """
    _require()
    import mlflow.pyfunc
    from mlflow.models import Model

    with TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        _stage(model, folder)
        scorer = _Scorer(folder, alpha=alpha, time=time, entity=entity)
        manifest = scorer.served.detector.manifest
        made = Model() if mlflow_model is None else mlflow_model
        made.add_flavor(
            FLAVOR,
            version=scorer.served.detector.version,
            variant=manifest.model.variant,
            guarantee=scorer.served.guarantee.kind,
            features={feature.name: feature.kind for feature in manifest.features},
        )
        if not ENVIRONMENT & options.keys():
            options["pip_requirements"] = [REQUIREMENT]
        mlflow.pyfunc.save_model(
            path=str(path),
            loader_module=__name__,
            data_path=str(folder),
            mlflow_model=made,
            signature=scorer.signature(signature),
            model_config={"alpha": alpha, "time": time, "entity": entity},
            **options,
        )


def _load_pyfunc(path: str, model_config: dict[str, Any] | None = None) -> "_Scorer":
    """What MLflow calls to have a model; `path` is the folder of the file."""
    return _Scorer(Path(path), **(model_config or {}))


class _Scorer:
    """One model, which MLflow asks to `predict`."""

    def __init__(
        self,
        folder: Path,
        *,
        alpha: float | None = None,
        time: str | None = None,
        entity: str | None = None,
    ) -> None:
        self.served, _ = files.open_model(folder / MODEL_FILE, alpha=alpha)
        files.require_order(self.served, time=time, entity=entity)
        self.time, self.entity = time, entity

    def predict(self, rows: "pd.DataFrame") -> "pd.DataFrame":
        """Of each row what the model says of it, `blamed` the features that are to blame; None of a
        row with too few values. MlflowException names column and row of what is no such value.
        """
        import pandas as pd
        from mlflow.exceptions import MlflowException

        columns = [str(column) for column in rows.columns]
        try:
            told = files.score_frame(
                self.served, frame_of(rows, columns), time=self.time, entity=self.entity
            )
        except HourglassError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from error
        return pd.DataFrame({each.name: _pandas(each) for each in told}).set_index(rows.index)

    def signature(self, asked: "ModelSignature | None" = None) -> "ModelSignature":
        """What goes in and comes out; of another one that is asked for, what it leaves open.
        InvalidSettings where MLflow would read another value than there is.
        """
        from mlflow.models import ModelSignature
        from mlflow.types import ColSpec, DataType, Schema
        from mlflow.types.schema import AnyType, Array

        order = [name for name in (self.time, self.entity) if name is not None]
        names = dict.fromkeys([*(each.name for each in self.served.schema.features), *order])
        flags = ["extrapolated", "is_anomaly"]
        if self.served.detector.window > 1:
            flags.append(files.WARMING)
        if self.served.detector.manifest.baseline:
            flags.append(files.KNOWN_ENTITY)
        anything = AnyType()  # type: ignore[no-untyped-call]
        numbers = [name for name in files.COLUMNS if name not in (*flags, "reason")]
        outputs = Schema(
            [
                *(ColSpec(DataType.float, name, required=False) for name in numbers),
                *(ColSpec(DataType.boolean, name, required=False) for name in flags),
                ColSpec(DataType.string, "reason", required=False),
                ColSpec(Array(DataType.string), files.BLAMED, required=False),
            ]
        )
        if asked is None or asked.inputs is None:
            # Of another type MLflow turns a missing boolean into False, and refuses whole numbers
            # where fractions are expected, and pandas' categories. The file checks each cell.
            inputs = Schema([ColSpec(anything, name) for name in names])
            return ModelSignature(inputs=inputs, outputs=outputs)
        for each in asked.inputs.inputs:
            if each.name in names and each.type == DataType.boolean:
                raise InvalidSettings(
                    f"signature: of {each.name!r} MLflow would take a missing value for false;"
                    " expected AnyType(), or double where rows have 1 and 0"
                )
        return ModelSignature(inputs=asked.inputs, outputs=asked.outputs or outputs)


def _pandas(column: "pl.Series") -> "pd.Series[Any]":
    """None stands for what is missing: of NaN the scoring server would write no JSON."""
    import pandas as pd

    if column.null_count() or column.dtype.is_nested():
        return pd.Series(column.to_list(), dtype=object)
    return pd.Series(column.to_numpy())


def _stage(model: bytes | str | Path, folder: Path) -> None:
    """Have a model's file in a folder, with its signature, and of a version all that lies there."""
    folder.mkdir()
    if isinstance(model, bytes):
        (folder / MODEL_FILE).write_bytes(model)
        return
    file = locate(Path(model))
    data = file.read_bytes()
    is_version = file.parent.name == version_of(data)
    for each in file.parent.iterdir():
        if each.name == SIGNATURE_FILE or (is_version and each.is_file()):
            shutil.copyfile(each, folder / each.name)
    (folder / MODEL_FILE).write_bytes(data)


def _require() -> None:
    """InvalidSettings where the extra is not there."""
    try:
        for name in ("mlflow.pyfunc", "pandas", "polars"):
            import_module(name)
    except ImportError as error:
        raise InvalidSettings(NEEDED) from error
