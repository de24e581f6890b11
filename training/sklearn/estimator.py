"""Hourglass: the training's run on rows in memory, and the service's detector on its file.

Shapes: N rows, D features.
"""

import tempfile
from numbers import Real
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.utils import Tags, check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted, validate_data

from hourglass.service.errors import InvalidTable
from hourglass.service.model.detector import Detector, Scores
from hourglass.service.model.schema import Schema
from hourglass.service.rows.frames import frame_of, is_mixed
from hourglass.service.rows.tables import encode_table
from hourglass.service.serving.disk import write_atomically
from hourglass.service.serving.store import Store
from hourglass.training.config import load_config
from hourglass.training.errors import RunError
from hourglass.training.run import run

NAME = "model"  # of the model in the folder that a fit publishes into and throws away
Float64 = NDArray[np.float64]


class Hourglass(OutlierMixin, BaseEstimator):  # type: ignore[misc]
    """Denoising autoencoder with a calibrated threshold, for numbers, categories and gaps.

    X is an array or a frame of pandas or polars, [N, D], NaN and None missing; of a frame text and
    categories are features, too. At least 20 rows. What it learns should be normal rows, give or
    take `contamination`.

    Parameters
    ----------
    preset : the settings, as `hourglass-train fit --preset`: "fast", "balanced" or "accurate".
    variant : a member of the family instead, such as "linear".
    alpha : share of normal rows that may raise an alarm; None lets the rows decide.
    delta : the chance that this does not hold.
    contamination : "auto" leaves the threshold to alpha. A share leaves so many of the strangest
        rows out of the fit and marks so many of X.
    folds : models in one file; 0 is one, None five below 600 rows.
    epochs : at most, of a network.
    random_state : a seed, or numpy's RandomState that draws one.

    Attributes
    ----------
    offset_ : `decision_function` is `score_samples` less this.
    onnx_ : the file that the service loads, as bytes.
    guarantee_ : what holds of alpha: "certified", "marginal", "blocks" or "none".
    n_features_in_, feature_names_in_ : as scikit-learn has them.
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "preset": [StrOptions({"fast", "balanced", "accurate"}), None],
        "variant": [str, None],
        "alpha": [Interval(Real, 0, 0.5, closed="right"), None],
        "delta": [Interval(Real, 0, 0.5, closed="right")],
        "contamination": [StrOptions({"auto"}), Interval(Real, 0, 0.5, closed="right")],
        "folds": [int, None],
        "epochs": [int, None],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        *,
        preset: str | None = None,
        variant: str | None = None,
        alpha: float | None = None,
        delta: float = 0.05,
        contamination: float | Literal["auto"] = "auto",
        folds: int | None = None,
        epochs: int | None = None,
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.preset = preset
        self.variant = variant
        self.alpha = alpha
        self.delta = delta
        self.contamination = contamination
        self.folds = folds
        self.epochs = epochs
        self.random_state = random_state

    def fit(self, X: Any, y: object = None) -> Self:  # noqa: ARG002
        """Fit on rows; ValueError for what training refuses, in its sentence."""
        self._validate_params()
        self.__dict__.pop("onnx_", None)  # a fit that fails leaves no model behind
        X = self._checked(X, reset=True)
        frame = frame_of(X, self._names())
        seed = self.random_state
        if not isinstance(seed, int | np.integer):
            seed = check_random_state(seed).randint(2**31)
        flags = {
            "name": NAME,
            "preset": self.preset,
            "variant": self.variant,
            "alpha": self.alpha,
            "delta": self.delta,
            "folds": self.folds,
            "epochs": self.epochs,
            "seed": int(seed),
            "keep": list(frame.columns),  # X has features, and nothing else
            "uncertified": True,
            "report": False,
            "device": "cpu",
        }
        if self.contamination != "auto":
            flags["contamination"] = min(float(self.contamination), 0.49)
        flags = {name: value for name, value in flags.items() if value is not None}
        with tempfile.TemporaryDirectory() as folder:
            data, models = Path(folder) / "rows.parquet", Path(folder) / "models"
            frame.write_parquet(data)
            try:
                config = load_config(None, {**flags, "data": str(data), "models": str(models)})
                report = run(config)
            except RunError as error:
                raise ValueError(
                    f"{str(error).replace(f'{data}: ', '')} (n_samples={frame.height},"
                    f" n_features={frame.width})"
                ) from error
            self.onnx_ = Store(models).model(NAME).file(report.version).read_bytes()
        self.guarantee_ = report.guarantee
        self._detector = Detector.from_bytes(self.onnx_)
        self.offset_ = -float(report.threshold)
        if self.contamination != "auto":
            scores = self._score(X, may_lack=True)
            self.offset_ = float(np.nanpercentile(scores, 100 * self.contamination))
        return self

    def score_samples(self, X: Any) -> Float64:
        """Scores [N], the higher the more normal: the service's with the sign turned."""
        check_is_fitted(self, "onnx_")
        return self._score(self._checked(X, reset=False))

    def decision_function(self, X: Any) -> Float64:
        """Scores [N], below 0 of anomalies."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: Any) -> NDArray[np.int64]:
        """-1 of anomalies, 1 of the rest, [N]."""
        return np.where(self.decision_function(X) < 0, -1, 1)

    def p_values(self, X: Any) -> Float64:
        """Share of held-out normal rows at least so strange, [N]."""
        check_is_fitted(self, "onnx_")
        return self._scored(self._checked(X, reset=False)).p_value.astype(np.float64)

    def to_onnx(self, path: str | Path) -> Path:
        """Write the file that the service loads, and return where: at PATH.onnx, or published into
        a model's folder MODELS/NAME, where a running service takes it up.
        """
        check_is_fitted(self, "onnx_")
        path = Path(path)
        if path.suffix != ".onnx":
            folder = Store(path.parent).model(path.name)
            return folder.file(folder.publish(self.onnx_, {}))
        write_atomically(path, self.onnx_)
        return path

    def __getstate__(self) -> dict[str, Any]:
        """Without the session that scores: the file has it all."""
        state: dict[str, Any] = super().__getstate__()
        return {name: value for name, value in state.items() if name != "_detector"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "onnx_" in state:
            self._detector = Detector.from_bytes(self.onnx_)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.categorical = True
        return tags

    def _checked(self, X: Any, *, reset: bool) -> Any:
        """X with its width and names compared; numbers as an array, a mixed frame as it is."""
        if is_mixed(X):
            validate_data(self, X, reset=reset, skip_check_array=True)
            return X
        return validate_data(
            self,
            X,
            reset=reset,
            dtype=[np.float64, np.float32],
            ensure_all_finite="allow-nan",
            ensure_min_samples=1,
        )

    def _names(self) -> list[str]:
        """Of the features; without names x0, x1, ..., as scikit-learn has them."""
        if hasattr(self, "feature_names_in_"):
            return [str(name) for name in self.feature_names_in_]
        return [f"x{d}" for d in range(self.n_features_in_)]

    def _score(self, X: Any, *, may_lack: bool = False) -> Float64:
        return -self._scored(X, may_lack=may_lack).score.astype(np.float64)

    def _scored(self, X: Any, *, may_lack: bool = False) -> Scores:
        """ValueError where a row holds too few values for a score, or NaN if it `may_lack` it."""
        detector = self._detector
        try:
            rows_ND = encode_table(frame_of(X, self._names()), detector.manifest.features)
        except InvalidTable as error:
            raise ValueError(str(error)) from error
        schema = Schema.of(detector.manifest)
        few_N = ~schema.has_enough(rows_ND)
        if few_N.any() and not may_lack:
            row = int(np.argmax(few_N))
            observed = int((~np.isnan(rows_ND[row])).sum())
            raise ValueError(
                f"row {row}: expected at least {schema.min_observed} of {schema.width} values, got"
                f" {observed}"
            )
        scores = detector.score(rows_ND)
        if few_N.any():
            return scores._replace(score=np.where(few_N, np.nan, scores.score))
        return scores
