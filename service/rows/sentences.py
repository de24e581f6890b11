"""Sentences: why a row alarms, said in one sentence with the names and values of its client.

Shapes: N rows, D features.
"""

import json
import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from hourglass.service.model.artifact import UNSEEN, Feature
from hourglass.service.model.conditional import Expectation
from hourglass.service.model.reasons import Reasons

MOST_NAMED = 3  # of the values to blame; a sentence that names more is not read
FARTHEST = 1000  # standard deviations, beyond which the number says nothing more
LONGEST = 60  # characters of a category as it came

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
                _say_cell(features[d], rows_ND[n, d], reasons.expected, (n, d), sent.get((n, d)))
                for d in reasons.order_ND[n, : min(blamed, MOST_NAMED)].tolist()
            ]
            rest = f"; and {blamed - MOST_NAMED} more" if blamed > MOST_NAMED else ""
            sentences.append("; ".join(said) + rest)
        else:
            sentences.append(None)
    return sentences


def say_why_without_values(
    features: tuple[Feature, ...], rows_ND: Float32, reasons: Reasons
) -> list[str | None]:
    """The same without the rows' values, nor what they let expect of each other."""
    sentences: list[str | None] = []
    for n, blamed in enumerate(reasons.blamed_N.tolist()):
        columns = reasons.order_ND[n].tolist()
        if reasons.as_a_whole_N[n]:
            lead, *others = (features[d].name for d in reasons.groups[n] or columns[:1])
            with_it = f", and {len(others)} others moved with it" if others else ""
            sentences.append(f"differs as a whole, most of all in {lead}{with_it}")
        elif blamed:
            said = [
                f"{features[d].name} is {_say_how_far(features[d], rows_ND[n, d], reasons, (n, d))}"
                for d in columns[: min(blamed, MOST_NAMED)]
            ]
            rest = f"; and {blamed - MOST_NAMED} more" if blamed > MOST_NAMED else ""
            sentences.append("; ".join(said) + rest)
        else:
            sentences.append(None)
    return sentences


def _say_how_far(feature: Feature, value: np.float32, reasons: Reasons, at: tuple[int, int]) -> str:
    far = deviation(float(value), reasons.expected, at)
    if feature.kind != "numeric" or math.isnan(far):
        return "not what was expected"
    if abs(far) < 1:
        return "by itself as expected"
    return f"{_times(far)} sd too {'high' if far > 0 else 'low'}"


def _times(far: float) -> str:
    by = f"{abs(far):.2g}" if abs(far) < 9.95 else f"{min(abs(far), FARTHEST):.0f}"
    return f"{'over ' if abs(far) > FARTHEST else ''}{by}"


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
        return _say_number(feature, _shortest(value), expected, at)
    probability = float(expected.probability_ND[at])
    if feature.kind == "boolean":
        meant, probability = ("true", should) if should >= 0.5 else ("false", 1 - should)
        came = "true" if value >= 0.5 else "false"
    elif not feature.categories:
        came = _quote("unknown" if sent is None else sent)
        return f"{feature.name} is {came} where none was ever met"
    else:
        meant = _quote(feature.categories[int(should)])
        known = "unknown" if value == UNSEEN else feature.categories[int(value)]
        came = _quote(known if sent is None else sent)
    likely = " (over 99%)" if probability > 0.995 else f" ({probability:.0%})"
    if math.isnan(probability):  # of a category that the rows before say nothing of
        likely = ""
    if came == meant:
        return f"{feature.name} is {came}, which by itself was expected{likely}"
    return f"{feature.name} is {came} where {meant} was expected{likely}"


def _say_number(feature: Feature, value: float, expected: Expectation, at: tuple[int, int]) -> str:
    """The expected value has as many decimals as two digits of its standard deviation, and the
    value no more.
    """
    sd = float(expected.sd_ND[at])
    decimals = 1 - math.floor(math.log10(sd)) if 0 < sd < math.inf else 3
    unit = f" {feature.unit}" if feature.unit else ""
    came = f"{feature.name} is {_digits(value, max(decimals, 0))}{unit}"
    should = _digits(float(expected.value_ND[at]), decimals)
    if math.isnan(sd):
        return f"{came} where {should}{unit} was expected"
    should = f"{should} ± {_digits(sd, decimals)}{unit}"
    far = deviation(value, expected, at)
    if abs(far) < 1:
        return f"{came}, which by itself was expected ({should})"
    side = "high" if far > 0 else "low"
    return f"{came} where {should} was expected ({_times(far)} sd too {side})"


def _digits(value: float, decimals: int) -> str:
    return f"{round(value, decimals) + 0.0:.10g}"  # + 0.0, since -0 is 0


def _shortest(value: np.float32) -> float:
    """0.1 of the float32 that is 0.1 and a little more."""
    return float(str(value))


def _quote(category: str) -> str:
    """A string of a client's in a sentence: what is blank or would break the line is quoted."""
    text = category if len(category) <= LONGEST else category[: LONGEST - 1] + "…"
    plain = text.isprintable() and text.strip() == text != ""
    return text if plain else json.dumps(text, ensure_ascii=False)


def _say_whole(features: tuple[Feature, ...], row_D: Float32, group: tuple[int, ...]) -> str:
    if not group:
        return "differs as a whole"
    lead, *others = group
    if features[lead].kind == "boolean":
        said = f"{features[lead].name} is {'true' if row_D[lead] >= 0.5 else 'false'}"
    else:
        said = f"{features[lead].name} is {_shortest(row_D[lead]):.10g}"
        if features[lead].unit:
            said += f" {features[lead].unit}"
    if not others:
        return f"differs as a whole, most of all in one value: {said}"
    names = [features[d].name for d in others[:MOST_NAMED]]
    if len(others) > MOST_NAMED:
        names.append(f"{len(others) - MOST_NAMED} more")
    listed = " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
    return f"differs as a whole: {said}, and {listed} moved with it"
