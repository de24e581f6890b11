"""`from hourglass.sklearn import Hourglass`: a fit as an estimator of scikit-learn.

An outlier detector as scikit-learn has them: higher scores are more normal, and -1 is an anomaly.
"""

try:
    from .estimator import Hourglass
except ModuleNotFoundError as error:
    raise ImportError(
        f"hourglass.sklearn needs the package {error.name}: pip install 'hourglass[training]'"
    ) from error

__all__ = ["Hourglass"]
