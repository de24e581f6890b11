"""Sentences: why a row alarms, said in one sentence with the names and values of its client.

Shapes: N rows, D features.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from hourglass.service.model.artifact import UNSEEN, Feature
from hourglass.service.model.conditional import Expectation
from hourglass.service.model.reasons import Reasons

MOST_NAMED = 3  # of the values to blame; a sentence that names more is not read
FARTHEST = 1000  # standard deviations, beyond which the number says nothing more

Float32 = NDArray[np.float32]


def say_why(
    features: tuple[Feature, ...],
    rows_ND: Float32,
    reasons: Reasons,
    sent: Mapping[tuple[int, int], str] | None = None,
) -> list[str | None]:
    """One sentence for each row that alarms, None for the others; `sent` are strings that came in
    place of a known category.
    """
    sentences: list[str | None] = []
    sent = sent or {}
    for n, blamed in enumerate(reasons.blamed_N.tolist()):
        if reasons.as_a_whole_N[n]:
            sentences.append(_say_whole(features, rows_ND[n], reasons.groups[n]))
        elif blamed:
            said = [
                _say_cell(
                    features[d], rows_ND[n, d], reasons.expected, (n, d), (sent or {}).get((n, d))
                )
                for d in reasons.order_ND[n, : min(blamed, MOST_NAMED)].tolist()
            ]
            rest = f"; and {blamed - MOST_NAMED} more" if blamed > MOST_NAMED else ""
            sentences.append("; ".join(said) + rest)
        else:
            sentences.append(None)
    return sentences


def deviation(value: float, expected: Expectation, at: tuple[int, int]) -> float:
    """Standard deviations between a number and what was expected there, above it positive; NaN of
    what is no number or missing.
    """
    return float((value - expected.value_ND[at]) / expected.sd_ND[at])


def _say_cell(
    feature: Feature,
    value: np.float32,
    expected: Expectation,
    at: tuple[int, int],
    sent: str | None,
) -> str:
    should = float(expected.value_ND[at])
    if feature.kind == "numeric":
        unit = f" {feature.unit}" if feature.unit else ""
        far = deviation(float(value), expected, at)
        side = "high" if far > 0 else "low"
        by = f"{abs(far):.2g}" if abs(far) < 10 else f"{min(abs(far), FARTHEST):.0f}"
        over = "over " if abs(far) > FARTHEST else ""
        return (
            f"{feature.name} is {value:.4g}{unit} where {should:.4g} ± {expected.sd_ND[at]:.2g}"
            f"{unit} was expected ({over}{by} sd too {side})"
        )
    probability = float(expected.probability_ND[at])
    if feature.kind == "boolean":
        meant, probability = ("true", should) if should >= 0.5 else ("false", 1 - should)
        came = "true" if value >= 0.5 else "false"
    else:
        meant = feature.categories[int(should)] if feature.categories else "nothing"
        came = sent or ("unknown" if value == UNSEEN else feature.categories[int(value)])
    return f"{feature.name} is {came} where {meant} was expected ({probability:.0%})"


def _say_whole(features: tuple[Feature, ...], row_D: Float32, group: tuple[int, ...]) -> str:
    if not group:
        return "differs as a whole"
    lead, *others = group
    values = f"{features[lead].name} is {row_D[lead]:.4g}"
    if features[lead].unit:
        values += f" {features[lead].unit}"
    if not others:
        return f"differs as a whole, most of all in one value: {values}"
    names = [features[d].name for d in others]
    listed = " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
    return f"differs as a whole: {values}, and {listed} moved with it"
