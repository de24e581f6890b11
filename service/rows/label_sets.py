"""Label sets: what a Prometheus answers to several expressions, joined to rows of entities.

An entity is a set of values of the labels that all expressions have in common. An expression
whose series have none of these labels, as those of `sum(...)`, is of all entities. Nothing is asked
here.

Shapes: T times of a grid, E entities, D expressions.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hourglass.service.rows.tables import FLOAT32_MAX

Float64 = NDArray[np.float64]
Labels = Mapping[str, str]  # of a series
LabelSet = tuple[str, ...]  # the values of an entity's labels

NAME = "__name__"  # a label of plain selectors that tells nobody's rows apart
_TOKEN = re.compile(
    r"""
    (?P<other>
        \#[^\n]*                                                        # a comment
      | "(?:\\.|[^"\\])*" | '(?:\\.|[^'\\])*' | `[^`]*`                 # text
      | \[[^\]]*\]                                                      # a range, [5m]
      | \d[\w.]*                                                        # a number or a time
      | \b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\) # names of labels
    )
  | (?P<name>[a-zA-Z_:][\w:]*)? \s*
    (?P<matchers>\{(?:"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|`[^`]*`|[^}"'`])*\})
  | (?P<word>[a-zA-Z_:][\w:]*) (?P<call>\s*\()?
    """,
    re.VERBOSE,
)
_WORDS = frozenset(  # that are no metrics, although no parenthesis follows
    "and or unless bool offset by without on ignoring group_left group_right inf nan atan2 sum min"
    " max avg group stddev stdvar count count_values bottomk topk quantile limitk limit_ratio"
    " start end step".split()
)


class Series(NamedTuple):
    """One series of an answer: its labels, and its values at the times of a grid."""

    labels: Labels
    value_T: Float64  # NaN where it has none


class Several(NamedTuple):
    """Two series of one expression that an entity would have at the same time."""

    expression: int
    entity: LabelSet
    one: Labels
    other: Labels


class Joined(NamedTuple):
    """Rows of entities; a row is there where one of its own expressions has a value."""

    entities: tuple[LabelSet, ...]
    values_ETD: Float64  # NaN is missing, also what float32 does not hold, and what is several
    is_own_D: NDArray[np.bool_]  # whether an expression tells entities apart, or is of all
    several: tuple[Several, ...]  # the first of each expression and entity

    @property
    def is_row_ET(self) -> NDArray[np.bool_]:
        """Whether an entity has a row at a time."""
        is_missing_ETD = np.isnan(self.values_ETD[:, :, self.is_own_D])
        return np.logical_not(is_missing_ETD.all(axis=2))


def shared_labels(answers: Sequence[Sequence[Series]]) -> tuple[str, ...]:
    """The names of labels that all series have which have any, in order of the alphabet."""
    names: set[str] | None = None
    for series in answers:
        for each in series:
            own = each.labels.keys() - {NAME}
            if own:
                names = own if names is None else names & own
    return tuple(sorted(names or ()))


def name_of(labels: Sequence[str], values: LabelSet) -> str:
    """An entity, as Prometheus writes a label set."""
    pairs = zip(labels, values, strict=True)
    return "{" + ", ".join(f"{label}={json.dumps(value)}" for label, value in pairs) + "}"


def join(answers: Sequence[Sequence[Series]], labels: Sequence[str], times: int) -> Joined:
    """The rows of the entities that these labels make; `answers` has the series of each
    expression.
    """
    own: dict[LabelSet, int] = {}
    of_all = [
        bool(labels) and not any(shared_places(each, labels) for each in series)
        for series in answers
    ]
    for series, is_of_all in zip(answers, of_all, strict=True):
        for each in () if is_of_all else series:
            own.setdefault(_key(each.labels, labels), len(own))
    values_ETD = np.full((len(own), times, len(answers)), np.nan)
    from_series: dict[tuple[int, LabelSet], list[Series]] = {}
    several: dict[tuple[int, LabelSet], Several] = {}
    for place, (series, is_of_all) in enumerate(zip(answers, of_all, strict=True)):
        for each in series:
            for key in own if is_of_all else (_key(each.labels, labels),):
                cell_T = values_ETD[own[key], :, place]
                before = from_series.setdefault((place, key), [])
                both_T = np.zeros(times, np.bool_)
                for other in before:
                    clash_T = ~np.isnan(other.value_T) & ~np.isnan(each.value_T)
                    if clash_T.any():
                        found = Several(place, key, other.labels, each.labels)
                        several.setdefault((place, key), found)
                        both_T |= clash_T
                cell_T[:] = np.where(np.isnan(each.value_T), cell_T, each.value_T)
                cell_T[both_T] = np.nan
                before.append(each)
    is_own_D = ~np.array(of_all, np.bool_)
    values_ETD[np.abs(values_ETD) > FLOAT32_MAX] = np.nan
    order = sorted(own)
    places = [own[key] for key in order]
    return Joined(tuple(order), values_ETD[places], is_own_D, tuple(several.values()))


def selectors(expression: str) -> list[str]:
    """The series that an expression reads, each as a selector of its own, without range or offset.

    By PromQL's tokens, without its grammar: what is no PromQL is for Prometheus to refuse.
    """
    found: dict[str, None] = {}
    for token in _TOKEN.finditer(expression):
        if token["matchers"]:
            found[f"{token['name'] or ''}{token['matchers']}"] = None
        elif token["word"] and not token["call"] and token["word"].lower() not in _WORDS:
            found[token["word"]] = None
    return list(found)


def are_late(
    late: Sequence[Series],
    fresh: Sequence[Series],
    entities: Sequence[LabelSet],
    labels: Sequence[str],
    times: int,
) -> NDArray[np.bool_]:
    """[E, T] whether samples that an expression reads are late: those of a series that shares
    labels with the entity, or those of all series that share none. `late` has the series whose
    samples are, `fresh` those whose are not and that share no label with any entity.
    """
    late_ET = np.zeros((len(entities), times), np.bool_)
    by_shared: dict[tuple[tuple[int, ...], LabelSet], NDArray[np.bool_]] = {}
    for each in late:
        places = shared_places(each, labels)
        key = places, tuple(each.labels[labels[place]] for place in places)
        by_shared.setdefault(key, np.zeros(times, np.bool_))
        by_shared[key] |= ~np.isnan(each.value_T)
    if ((), ()) in by_shared:
        for each in fresh:
            by_shared[(), ()] &= np.isnan(each.value_T)
    for row, entity in enumerate(entities if late else ()):
        for places in {places for places, _ in by_shared}:
            key = places, tuple(entity[place] for place in places)
            if key in by_shared:
                late_ET[row] |= by_shared[key]
    return late_ET


def shared_places(series: Series, labels: Sequence[str]) -> tuple[int, ...]:
    """Which of the labels that make an entity a series has."""
    return tuple(place for place, label in enumerate(labels) if series.labels.get(label))


def written(labels: Labels) -> str:
    """The labels of a series, for a sentence."""
    return "{" + ", ".join(_pairs(labels)) + "}"


def _pairs(labels: Labels) -> Iterator[str]:
    for name, value in sorted(labels.items()):
        if name != NAME:
            yield f"{name}={json.dumps(value)}"


def _key(labels: Labels, names: Sequence[str]) -> LabelSet:
    """A label that a series lacks is one without a value, as it is in PromQL."""
    return tuple(labels.get(name, "") for name in names)
