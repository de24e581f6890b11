"""Challenge: what the gate has to be told, gathered in the course of a run.

The champion meets the new rows before anything is fitted, and the challenger on the rows that
calibrate it, which neither was fitted on. Where there are enough they are those that are new to the
champion, too: of the last thirty days, fitted each night, the last night alone.

Shapes: N rows, D features, C held-out rows, M windows.
"""

import time
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from hourglass.service.model.detector import Detector
from hourglass.training.config import RunConfig
from hourglass.training.core import Core
from hourglass.training.data import Data, describe
from hourglass.training.fingerprints import Fingerprints
from hourglass.training.folds import Folds
from hourglass.training.gate import (
    Confirmed,
    Decision,
    GateCheck,
    Pair,
    ask_champion,
    ask_of_journal,
    compare,
    decide,
    find_confirmed,
    is_new_to,
    look_at_columns,
    recode,
    scores_of,
    scores_of_series,
    weigh,
)
from hourglass.training.journal import Journal
from hourglass.training.models import ModelConfig
from hourglass.training.models.associative import AssociativeConfig
from hourglass.training.order import Part
from hourglass.training.screen import UNTAUGHT, Screened, screen
from hourglass.training.split import MIN_NORMAL_ROWS, Prepared, Split
from hourglass.training.trial import Trial, absorb_held_out, fit_folds, fit_trial
from hourglass.training.verify import Difference

CHUNK = 4096
TELLING = 200  # calibration rows of a champion

Float32 = NDArray[np.float32]
Booleans = NDArray[np.bool_]


class Champion(NamedTuple):
    """The model in service, and what it says of the rows of a run."""

    detector: Detector
    known: Fingerprints | None  # what it was made of
    rows_ND: Float32  # the normal rows, as it encodes them
    confirmed_N: Booleans  # of these, that the journal has as anomalies
    alarmed_N: Booleans  # of these, that it has as other alarms, and that are to be left out
    screened_N: Booleans  # of these, that the screen leaves out
    screened: Screened | None  # None where nothing was screened
    journal: Journal | None
    checks: tuple[GateCheck, ...]
    forced_at: float | None = None  # when it, or one before it, was published by force

    @property
    def left_out_N(self) -> Booleans:
        """[N] rows that are neither fitted nor calibrate."""
        left_out_N: Booleans = self.confirmed_N | self.alarmed_N | self.screened_N
        return left_out_N


class Challenger(NamedTuple):
    """A fitted model, and what its run knows of it."""

    detector: Detector
    trial: Trial
    prepared: Prepared
    score_C: Float32  # of the rows that calibrate it, in their order
    differences: Sequence[Difference]


def meet_rows(
    detector: Detector,
    known: Fingerprints | None,
    data: Data,
    config: RunConfig,
    journal: Journal | None = None,
) -> Champion:
    """Let the champion say what it thinks of the rows that are new to it, let the screen leave out
    what it may, and look at the columns of the rest. A confirmed anomaly is none of these rows.
    """
    rows_ND = recode(data.normal_ND, data.features, detector.manifest.features)
    confirmed_N = alarmed_N = screened_N = np.zeros(len(rows_ND), dtype=bool)
    if journal:
        confirmed_N, alarmed_N = journal.left_out(rows_ND)
    checks: tuple[GateCheck, ...] = ()
    said: Screened | None = None
    if detector.window == 1:  # a model of windows is not asked which single rows are strange to it
        asked_ND = rows_ND[~confirmed_N]
        new_ND = asked_ND[is_new_to(known, asked_ND)]
        checks = ask_champion(detector, scores_of(detector, new_ND))
        if config.screen:
            kept_N = ~(confirmed_N | alarmed_N)
            screened_N = np.zeros(len(rows_ND), dtype=bool)
            screened_N[kept_N], said = screen(detector, rows_ND[kept_N], known)
    rest_ND = rows_ND[~(confirmed_N | screened_N)]
    columns = look_at_columns(detector.manifest, rest_ND[is_new_to(known, rest_ND)])
    return Champion(
        detector, known, rows_ND, confirmed_N, alarmed_N, screened_N, said, journal,
        (*columns, *checks),
    )  # fmt: skip


def without_strange_fit_rows(champion: Champion, prepared: Prepared) -> Prepared:
    """The same, but rows that the champion flags at UNTAUGHT fit no model: screen.py says why. A
    champion of few calibration rows says little of them, and few rows are needed for the fit.
    """
    if champion.detector.table.n < TELLING or prepared.folds:
        return prepared

    def calm(rows_ND: Float32) -> Float32:
        recoded_ND = recode(rows_ND, prepared.features, champion.detector.manifest.features)
        score_N = scores_of(champion.detector, recoded_ND)
        kept_ND = rows_ND[~(champion.detector.table.p_value(score_N) <= UNTAUGHT)]
        return kept_ND if len(kept_ND) >= MIN_NORMAL_ROWS else rows_ND

    def thin(split: Split) -> Split:
        return split._replace(fit_ND=calm(split.fit_ND), validation_ND=calm(split.validation_ND))

    thinned = prepared._replace(split=thin(prepared.split))
    return thinned._replace(features=describe(prepared.data.features, thinned.split.fit_ND))


def judge_rows(champion: Champion, config: RunConfig) -> Decision:
    """The decision about the rows alone, before anything is fitted to them."""
    return _decide(champion, None, champion.checks, config)


def meet_challenger(champion: Champion, challenger: Challenger, config: RunConfig) -> Decision:
    """Let both score the same rows, and decide."""
    old, new = champion.detector, challenger.detector
    same = old.manifest.model.hyper_parameters == new.manifest.model.hyper_parameters
    pair, confirmed, checks = _scores(champion, challenger)
    twin_C = _twin(challenger, config)
    newest_C = is_new_to(champion.known, _held_out(champion, challenger))
    pair = Pair(
        pair.champion_C[newest_C],
        pair.challenger_C[newest_C],
        None if twin_C is None else twin_C[newest_C],
    )
    checks = (
        *champion.checks,
        *checks,
        compare(pair, same=same),
        *find_confirmed(old, new, confirmed, pair),
        *weigh(old, new, challenger.differences, champion.rows_ND, same=same),
    )
    return _decide(champion, new.version, checks, config)


def _scores(
    champion: Champion, challenger: Challenger
) -> tuple[Pair, Confirmed, tuple[GateCheck, ...]]:
    """Of the rows that calibrate the challenger, of the confirmed anomalies; and what the champion
    says of windows that are new to it.
    """
    prepared, old, new = challenger.prepared, champion.detector, challenger.detector
    ordered, features = prepared.ordered, old.manifest.features
    if ordered is None:
        held_out_CD = _held_out(champion, challenger)
        pair = Pair(scores_of(old, held_out_CD), challenger.score_C, None)
        anomalies_AD = prepared.data.anomalies_AD
        recoded_AD = recode(anomalies_AD, prepared.data.features, features)
        confirmed = Confirmed(scores_of(old, recoded_AD), scores_of(new, anomalies_AD))
        if (journal := champion.journal) is None:
            return pair, confirmed, ()

        def ask_new(rows_ND: Float32) -> Float32:
            return scores_of(new, recode(rows_ND, features, new.manifest.features))

        of_journal = scores_of(old, journal.confirmed_KD), ask_new(journal.confirmed_KD)
        both = zip(confirmed, of_journal, strict=True)
        confirmed = Confirmed(*map(np.concatenate, both))
        ordinary = Pair(scores_of(old, journal.ordinary_OD), ask_new(journal.ordinary_OD), None)
        return pair, confirmed, ask_of_journal(old, new, ask_new(journal.alarms_AD), ordinary)
    rows_NF = recode(ordered.rows_NF, ordered.features, features)
    where = ordered.segment_N, ordered.entity_N, prepared.data.entity_names
    old_M = scores_of_series(old, rows_NF, *where)
    new_M = scores_of_series(new, ordered.rows_NF, *where)
    held_out, anomalous = ordered.windows_of(Part.CALIBRATION), ordered.windows_of_anomalies()
    clean_M = ordered.is_clean_M
    are_new = is_new_to(champion.known, rows_NF[ordered.row_M[clean_M]])
    return (
        Pair(old_M[held_out], challenger.score_C, None),
        Confirmed(old_M[anomalous], new_M[anomalous]),
        ask_champion(old, old_M[clean_M][are_new]),
    )


def _held_out(champion: Champion, challenger: Challenger) -> Float32:
    """[C, D] the rows that calibrate the challenger, or that its windows end with, as the champion
    encodes them.
    """
    prepared, ordered = challenger.prepared, challenger.prepared.ordered
    features = champion.detector.manifest.features
    if ordered is not None:
        rows_CD = ordered.rows_NF[ordered.row_M[ordered.windows_of(Part.CALIBRATION)]]
        return recode(rows_CD, ordered.features, features)
    parts = prepared.folds or (prepared.split,)
    rows_CD = np.concatenate([split.calibration_ND for split in parts])
    return recode(rows_CD, prepared.features, features)


@torch.no_grad()
def _twin(challenger: Challenger, config: RunConfig) -> Float32 | None:
    """Scores of the same rows by a second fit of another seed; None where that is not cheap."""
    prepared, model = challenger.prepared, challenger.trial.config
    if not _is_cheap(model):
        return None
    other = msgspec.structs.replace(config, seed=(config.seed + 1) % 2**63)
    if prepared.folds:
        twin = fit_folds(prepared, other, model)
        assert isinstance(twin.core, Folds)
        return twin.core.out_of_fold()
    twin = fit_trial(prepared, other, model)
    absorb_held_out(twin, prepared.split, other.seed)
    assert isinstance(twin.core, Core)
    chunks = torch.split(torch.from_numpy(prepared.split.calibration_ND), CHUNK)
    score_C: Float32 = torch.cat([twin.core(chunk).score_N for chunk in chunks]).numpy()
    return score_C


def _is_cheap(model: ModelConfig) -> bool:
    """Whether it is of closed forms only, which take a second where a network takes minutes."""
    return isinstance(model, AssociativeConfig) and not model.levels


def _decide(
    champion: Champion,
    challenger: str | None,
    checks: Sequence[GateCheck],
    config: RunConfig,
) -> Decision:
    return decide(
        checks,
        champion=champion.detector.version,
        challenger=challenger,
        decided_at=time.time(),
        forced=config.force,
        forced_at=champion.forced_at,
        shadow=config.shadow,
    )


def say_refusal(name: str, decision: Decision) -> str:
    """Why the champion stays, and what a person may do about it, in one sentence."""
    way = "--force publishes all the same"
    if decision.challenger:
        way = (
            f"it is kept as {decision.challenger[:12]}, and hourglass-train promote {name}"
            f" {decision.challenger[:12]} brings it into service all the same"
        )
    return (
        f"{name}: {decision.reason}; the model in service, {decision.champion[:12]}, stays; {way}"
    )
