"""Challenger: a version that is scored beside that in service and answers nobody.

It sees rows as the champion encodes them. It must take the same features, and look at no more rows;
a category that the champion does not know is unknown to it, too.

Shapes: N rows, W rows that the champion looks at, D features.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hourglass.service.errors import InvalidArtifact
from hourglass.service.model.artifact import UNSEEN, Manifest
from hourglass.service.model.served import Served
from hourglass.service.serving.loading import Problem, problem_of, served_from, with_threshold
from hourglass.service.serving.store import ModelFolder

Float32 = NDArray[np.float32]
Booleans = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Challenger:
    """One that is to be scored, with the budget that it would have in service; without a `served`
    the problem says why it cannot be.
    """

    version: str
    served: Served | None
    problem: Problem | None

    def alarms(
        self, champion: Served, windows_NWD: Float32, entities: Sequence[str | None]
    ) -> tuple[Booleans, Booleans]:
        """[N] each: which rows it would alarm at, and which it can judge; each row comes after
        those that the champion looked back at, and may be of an entity.
        """
        assert self.served is not None
        detector = self.served.detector
        recoded_NWD = _recode(champion, self.served, windows_NWD[:, -detector.window :])
        judged_N = self.served.schema.has_enough(recoded_NWD[:, -1])
        score_N = np.full(len(windows_NWD), np.nan, np.float32)
        if detector.window == 1:
            score_N[judged_N] = detector.score(recoded_NWD[judged_N, 0]).score
        else:
            own: dict[str | None, list[int]] = {}
            has_baselines = detector.manifest.baseline is not None
            for place in np.flatnonzero(judged_N).tolist():
                own.setdefault(entities[place] if has_baselines else None, []).append(place)
            for entity, places in own.items():
                score_N[places] = detector.of(entity).score_windows(recoded_NWD[places]).score
        return self.served.threshold.is_anomaly(score_N), judged_N & np.isfinite(score_N)


def read_challenger(
    folder: ModelFolder, champion: Served, before: Challenger | None, *, max_bytes: int
) -> Challenger | None:
    """What a model's folder names beside the version in service; None where it names none, or that
    version itself. `before` is not read again where it is of the same version.
    """
    try:
        version = folder.challenger()
    except InvalidArtifact as error:
        return Challenger("", None, problem_of(error))
    if version is None or version == champion.detector.version:
        return None
    try:
        if before and before.served and before.version == version:
            served = before.served
        else:
            file = folder.read(version, max_bytes=max_bytes)
            served = served_from(file, folder.name, max_bytes=max_bytes)
        require_comparable(champion.detector.manifest, served.detector.manifest)
        with_budget, problem = with_threshold(served, folder.threshold())
    except Exception as error:  # a file from elsewhere breaks its readers in ways without a name
        return Challenger(version, None, problem_of(error))
    return Challenger(version, with_budget, problem)


def require_comparable(champion: Manifest, challenger: Manifest) -> None:
    """InvalidArtifact where the challenger cannot be asked about the champion's rows."""
    before, now = (
        [(feature.name, feature.kind) for feature in each.features]
        for each in (champion, challenger)
    )
    if before != now:
        differing = sorted({name for name, _ in set(before) ^ set(now)}) or ["their order"]
        raise InvalidArtifact(
            "it has other features than the version in service (differing:"
            f" {', '.join(differing[:5])}), and cannot be asked about the same rows"
        )
    looked, others = (each.window.rows if each.window else 1 for each in (champion, challenger))
    if others > looked:
        raise InvalidArtifact(
            f"it looks at {others} rows, and the version in service at {looked}: of what comes"
            " there are not enough rows for it"
        )


def _recode(champion: Served, challenger: Served, windows_NWD: Float32) -> Float32:
    """The same with the challenger's codes of categories."""
    recoded_NWD = windows_NWD.copy()
    pairs = zip(champion.schema.features, challenger.schema.features, strict=True)
    for d, (feature, other) in enumerate(pairs):
        if feature.categories == other.categories:
            continue
        code_of = challenger.schema.codes[d]
        # the last is that of what the champion does not know, whose code is -1
        codes = [*(code_of.get(category, UNSEEN) for category in feature.categories), UNSEEN]
        column_NW = windows_NWD[:, :, d]
        known_NW = ~np.isnan(column_NW)
        recoded_NWD[:, :, d][known_NW] = np.array(codes)[column_NW[known_NW].astype(int)]
    return recoded_NWD
