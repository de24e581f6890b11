"""`from hourglass.sklearn import Hourglass`: a fit as an estimator of scikit-learn.

An outlier detector as scikit-learn has them: higher scores are more normal, and -1 is an anomaly.
"""

from .estimator import Hourglass

__all__ = ["Hourglass"]
