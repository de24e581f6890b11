"""From outcomes with missing cells to a table: by detector, by what the fit rows lacked, by what
the test rows lack.
"""

from collections.abc import Sequence
from statistics import fmean

import msgspec

from tests.benchmarks.adbench.missing import ALPHA
from tests.benchmarks.adbench.outcome import Missing, Outcome
from tests.benchmarks.adbench.report import Grid

FALLS = {0.1: 0.01, 0.3: 0.035}  # of the mean AUROC, at most
FALSE_ALARMS = 0.08  # below


class MissingRow(msgspec.Struct, frozen=True, kw_only=True):
    """Means over sets of means over seeds.

    What falls, falls from complete test rows after fitting complete rows.
    """

    detector: str
    hidden_in_training: float
    share: float
    sets: int
    complete_auroc: float
    auroc: float
    imputed_auroc: float
    complete_average_precision: float
    average_precision: float
    imputed_average_precision: float
    complete_false_alarm_rate: float
    false_alarm_rate: float
    imputed_false_alarm_rate: float
    refused: float
    certified: float  # share of fits
    per_set: dict[str, dict[str, float]]  # set -> figure -> mean over seeds

    @property
    def fall(self) -> float:
        return self.complete_auroc - self.auroc

    @property
    def met(self) -> bool:
        return self.fall <= FALLS[self.share] + 1e-9 and self.false_alarm_rate < FALSE_ALARMS


FIGURES = [name for name in Missing.__struct_fields__ if name not in ("share", "alpha")]


def make_missing_table(outcomes: Sequence[Outcome]) -> list[MissingRow]:
    """By detector, in the order of the outcomes; what was fitted complete first."""
    found: dict[tuple[str, float, float], dict[str, list[dict[str, float]]]] = {}
    complete = {
        (each.detector, each.set, each.seed): each.measured
        for each in outcomes
        if each.measured and not each.hidden_in_training
    }
    for each in outcomes:
        for missing in each.measured.missing if each.measured else ():
            figures = {name: float(getattr(missing, name)) for name in FIGURES}
            if each.hidden_in_training:
                reference = complete.get((each.detector, each.set, each.seed))
                if reference is None:
                    continue
                figures["complete_auroc"] = reference.auroc
                figures["complete_average_precision"] = reference.average_precision
            key = each.detector, each.hidden_in_training, missing.share
            found.setdefault(key, {}).setdefault(each.set, []).append(figures)
    rows = []
    for (detector, hidden, share), seeds_of in found.items():
        per_set = {
            name: {figure: fmean(seed[figure] for seed in seeds) for figure in FIGURES}
            for name, seeds in seeds_of.items()
        }
        means = {figure: fmean(each[figure] for each in per_set.values()) for figure in FIGURES}
        rows.append(
            MissingRow(
                detector=detector,
                hidden_in_training=hidden,
                share=share,
                sets=len(per_set),
                per_set=per_set,
                **means,
            )
        )
    order = list(dict.fromkeys(each.detector for each in outcomes))
    return sorted(
        rows, key=lambda row: (order.index(row.detector), row.hidden_in_training > 0, row.share)
    )


def missing_grids(rows: Sequence[MissingRow]) -> list[Grid]:
    header = [
        "detector",
        "fit rows",
        "test cells missing",
        "sets",
        "AUROC complete",
        "AUROC",
        "falls by",
        "target",
    ]
    header += [
        "false alarms",
        f"target at {ALPHA:.0%}",
        "both",
        "means: AUROC",
        "means: false alarms",
    ]
    header += ["AP complete", "AP", "means: AP", "false alarms complete", "refused", "certified"]
    lines = [
        [
            row.detector,
            f"{row.hidden_in_training:.0%} missing" if row.hidden_in_training else "complete",
            f"{row.share:.0%}",
            str(row.sets),
            f"{row.complete_auroc:.3f}",
            f"{row.auroc:.3f}",
            f"{row.fall:.4f}",
            f"{FALLS[row.share]:g}",
            f"{row.false_alarm_rate:.1%}",
            f"< {FALSE_ALARMS:.0%}",
            "met" if row.met else "missed",
            f"{row.imputed_auroc:.3f}",
            f"{row.imputed_false_alarm_rate:.1%}",
            f"{row.complete_average_precision:.3f}",
            f"{row.average_precision:.3f}",
            f"{row.imputed_average_precision:.3f}",
            f"{row.complete_false_alarm_rate:.1%}",
            f"{row.refused:.1%}",
            f"{row.certified:.0%}",
        ]
        for row in rows
    ]
    grids = [Grid("Missing cells: means over sets", header, lines)]
    names = list(dict.fromkeys(name for row in rows for name in row.per_set))
    columns = [
        f"{row.detector}, {'as tested' if row.hidden_in_training else 'complete'}, {row.share:.0%}"
        for row in rows
    ]
    per_set = [[name, *(_cell(row.per_set.get(name)) for row in rows)] for name in names]
    return [
        *grids,
        Grid("Per set: the fall of AUROC, and false alarms", ["set", *columns], per_set),
    ]


def _cell(figures: dict[str, float] | None) -> str:
    if figures is None:
        return "–"
    return f"{figures['complete_auroc'] - figures['auroc']:.3f}, {figures['false_alarm_rate']:.1%}"
