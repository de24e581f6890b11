"""The detectors that can be asked for by name.

One of ours is one line: what `hourglass-train fit` is told.
"""

from pathlib import Path

from hourglass.training.models import VARIANTS
from hourglass.training.presets import PRESETS
from tests.benchmarks.adbench.baselines import BASELINES
from tests.benchmarks.adbench.outcome import Baseline, Hourglass

OURS = {
    **{preset: Hourglass(flags={"preset": preset}) for preset in PRESETS},
    **{variant: Hourglass(flags={"variant": variant}) for variant in VARIANTS},
}
DETECTORS: dict[str, Hourglass | Baseline] = {
    **OURS,
    **{name: Baseline(name=name) for name in BASELINES},
}
GROUPS = {
    "presets": tuple(PRESETS),
    "variants": tuple(VARIANTS),
    "ours": tuple(OURS),
    "baselines": tuple(BASELINES),
    "all": tuple(DETECTORS),
}


def choose(asked: str) -> dict[str, Hourglass | Baseline]:
    """`linear,knn-mean,baselines,my/run.toml` -> name -> detector, in that order; ValueError for a
    name that is none.
    """
    chosen: dict[str, Hourglass | Baseline] = {}
    for word in filter(None, (word.strip() for word in asked.split(","))):
        if word.endswith(".toml"):
            path = Path(word).resolve()
            if not path.is_file():
                raise ValueError(f"there is no file {word}")
            if path.stem in DETECTORS or path.stem in chosen:
                raise ValueError(
                    f"{word} would be called {path.stem!r}, as another detector is; rename the file"
                )
            chosen[path.stem] = Hourglass(config=str(path))
        elif word in GROUPS:
            chosen |= {name: DETECTORS[name] for name in GROUPS[word]}
        elif word in DETECTORS:
            chosen[word] = DETECTORS[word]
        else:
            raise ValueError(
                f"there is no detector {word!r}; there are {', '.join((*GROUPS, *DETECTORS))}, and"
                " files of type .toml"
            )
    if not chosen:
        raise ValueError("no detector is asked for")
    return chosen
