"""Exhibits: the small models that ship with the service, for the console's view Learn.

Each is one file of the package, read when somebody first asks for it and never written. They are
served beside an operator's models, and are none of these: no list, no readiness, no metric and no
`--max-loaded` counts them. `hourglass-train exhibits` makes them.
"""

import asyncio
from functools import partial
from pathlib import Path

from hourglass.service.errors import UnknownModel
from hourglass.service.model.artifact import EXHIBIT_PREFIX
from hourglass.service.model.detector import DEFAULT_MAX_BYTES
from hourglass.service.model.served import Served
from hourglass.service.serving.loading import served_from
from hourglass.service.serving.store import read_file

FOLDER = Path(__file__).parents[1] / "exhibits"


class Exhibits:
    """The models of FOLDER/NAME.onnx, served as learn.NAME, which no other model can be called."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self._files = {EXHIBIT_PREFIX + file.stem: file for file in sorted(folder.glob("*.onnx"))}
        self._served: dict[str, Served] = {}
        self._loading = asyncio.Lock()

    @property
    def served(self) -> list[Served]:
        """Those that somebody has asked for."""
        return list(self._served.values())

    @property
    def unloaded(self) -> list[str]:
        """The names of the others."""
        return [name for name in self._files if name not in self._served]

    async def get(self, name: str) -> Served:
        """The exhibit of that name, read first where nobody has asked for it yet; UnknownModel
        where there is none.
        """
        if name not in self._files:
            raise UnknownModel(
                f"no model {name!r} ships with the service; there are {', '.join(self._files)}"
            )
        async with self._loading:
            if name not in self._served:
                load = partial(_load, self._files[name], name)
                self._served[name] = await asyncio.to_thread(load)
        return self._served[name]


def _load(path: Path, name: str) -> Served:
    return served_from(read_file(path, max_bytes=DEFAULT_MAX_BYTES), name)
