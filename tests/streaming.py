"""`hourglass stream` as a process of its own, by the command of the README."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.readme_commands import command_with


class Streaming:
    """The command that has the flag, with other words instead and more; it logs to the file's end."""

    def __init__(
        self,
        flag: str,
        instead: Mapping[str, str],
        *more: str,
        log: Path,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self._log = log.open("a")
        command = [sys.executable, "-m", "hourglass.service", *command_with(flag, instead)]
        self.process = subprocess.Popen(
            [*command, *more], stderr=self._log, env={**os.environ, **(environ or {})}
        )

    def kill(self) -> None:
        """As a machine that fails does it."""
        self.process.kill()
        self.process.wait(60)

    def stop(self) -> int:
        """Its exit status, once it has ended by itself."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(120)

    def __enter__(self) -> "Streaming":
        return self

    def __exit__(self, *_: object) -> None:
        self._log.close()
        if self.process.poll() is None:
            self.kill()
