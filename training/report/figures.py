"""The figures of one run: what a run hands back, and the first half of report.json."""

from collections.abc import Mapping
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from hourglass.service.model.artifact import GuaranteeKind
from hourglass.training.evaluate import Evaluation
from hourglass.training.exchangeability import Exchangeability
from hourglass.training.screen import Screened
from hourglass.training.suspects import Suspect


class TimeAxis(msgspec.Struct, frozen=True, kw_only=True):
    """The time column, of the rows of each entity by themselves."""

    column: str
    step: float  # the median; seconds, unless the column holds other numbers
    gaps: int  # steps over 1.5 times as long
    longest_gap: float
    repeated: int  # rows of the same time as the one before
    entities: int = 1


class LeftOut(msgspec.Struct, frozen=True, kw_only=True):
    """Normal rows that neither fitted nor calibrated, by who left them out."""

    rows: int  # normal ones that were not excluded by number
    excluded: int  # by number, normal or not
    screened: int  # by the model in service
    contaminated: int  # the strangest, as --contamination asks
    alarmed: int = 0  # that raised an alarm, as --exclude-alarms asks
    confirmed: int = 0  # anomalies, as a person said; no normal rows, whatever the file says
    untaught: int = 0  # of the rows to fit, for being strange: screen.py says why

    def bias(self) -> str | None:
        """What that does to the guarantee: calibration rows chosen by their strangeness are calmer
        than normal rows are.
        """
        count = self.screened + self.contaminated + self.alarmed
        if not count:
            return None
        return (
            f"the {count} strangest of {self.rows} rows were left out of calibration: if all of"
            f" them were normal, the false-alarm rate may be up to {count / self.rows:.1%} above"
            " alpha"
        )


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """One run's figures; rates are shares, seconds are wall time."""

    name: str
    version: str
    path: str
    preset: str | None = None  # whose configuration the model has, unchanged
    variant: str
    stores_rows: Literal["none", "averages", "rows"] = (
        "none"  # what of the training rows the file contains
    )
    parameter_count: int
    features: int
    fit_rows: int
    validation_rows: int
    calibration_rows: int
    # models, each fitted on all rows but one fold, on which it calibrates; 0: one model
    folds: int = 0
    # normal rows with too few observed cells; of windows also those without as many normal ones
    # before them
    dropped_rows: int
    window: int = 1  # rows that an answer looks at
    gap_rows: int = 0  # left out between blocks of time
    copied_rows: int = 0  # repeat an earlier row; in a random split copies stay together
    time: TimeAxis | None = None
    anomalous_rows: int  # never fitted, never calibrated on
    epochs: int
    best_epoch: int
    held_out_loss: float
    alpha: float
    alpha_chosen: bool  # by us, not asked for
    delta: float
    certified: bool
    guarantee: GuaranteeKind
    guarantee_reason: str
    exchangeability: Exchangeability
    threshold: float
    expected_false_alarm_rate: float
    quality: Evaluation | None  # of the labelled anomalies against the calibration rows
    size_bytes: int
    seconds: float
    left_out: LeftOut | None = None
    screened: Screened | None = None  # None without a model in service
    warnings: tuple[str, ...] = ()  # about columns and rows of the file, each a sentence
    contamination_warning: str | None = None
    suspects_listed: int = 0  # in suspects.csv
    suspects: tuple[Suspect, ...] = ()  # the strangest of them
    shadow: bool = False  # published as a challenger
    summary: str | None = None  # the verdict of report.html; None without one


def write_report(report: Report, facts: msgspec.Struct | None = None) -> str:
    """The figures as JSON, and beside them the facts that report.html is made of."""
    return write_sections({} if facts is None else msgspec.to_builtins(facts), report)


def write_sections(facts: Mapping[str, object], figures: object) -> str:
    """A line for each field, since a point or a bin is no line of its own."""
    fields = {**msgspec.to_builtins(figures), **facts}
    lines = (
        f"  {msgspec.json.encode(name).decode()}: {msgspec.json.encode(value).decode()}"
        for name, value in fields.items()
    )
    return "{\n" + ",\n".join(lines) + "\n}\n"


def time_axis(
    column: str | None,
    time_N: NDArray[np.float64] | None,
    entity_N: NDArray[np.integer] | None = None,
) -> TimeAxis | None:
    """What a person should know of the time column of rows in any order, which may be of several
    entities; None without one.
    """
    if column is None or time_N is None:
        return None
    entity_N = np.zeros(len(time_N), dtype=np.int64) if entity_N is None else entity_N
    order_N = np.lexsort((time_N, entity_N))
    steps = np.diff(time_N[order_N])[np.diff(entity_N[order_N]) == 0]
    forward = steps[steps > 0]
    step = float(np.median(forward)) if len(forward) else 0.0
    return TimeAxis(
        column=column,
        step=step,
        gaps=int((steps > 1.5 * step).sum()),
        longest_gap=float(steps.max(initial=0.0)),
        repeated=int((steps == 0).sum()),
        entities=len(np.unique(entity_N)),
    )


def of_entities(axis: TimeAxis) -> str:
    """Whose steps are counted, where they are of several."""
    return f", within each of {axis.entities:,} entities" if axis.entities > 1 else ""
