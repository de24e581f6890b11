"""Bars: a run's progress on standard error, and lines of it where there is no terminal."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread
from time import perf_counter

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from hourglass.training.progress import Epoch, Progress

LINE_SECONDS = 30.0  # between lines


@contextmanager
def progress_bar(quiet: bool, title: str) -> Iterator[Progress]:
    """A bar on standard error that shows a run's stages and epochs; without a terminal a line every
    so often.
    """
    console = Console(stderr=True, quiet=quiet)
    if not (quiet or console.is_terminal):
        with progress_lines(LINE_SECONDS) as progress:
            yield progress
        return
    columns = (
        *([TextColumn(title, style="bold")] if title else []),
        TextColumn("{task.description:<23}"),
        BarColumn(),
        TextColumn("{task.fields[detail]}"),
        TimeElapsedColumn(),
    )
    with Bars(*columns, console=console, disable=quiet) as bars:
        task = bars.add_task("starting", total=None, detail="")

        def show_stage(stage: str) -> None:
            bars.update(task, description=stage, total=None, detail="")

        def show_epoch(epoch: Epoch) -> None:
            bars.update(task, total=epoch.of, completed=epoch.number, detail=_text(epoch))

        def show_rows(done: int, of: int) -> None:
            bars.update(task, total=of, completed=done, detail=_text_of_rows(done, of))

        yield Progress(show_stage, show_epoch, show_rows)
        bars.update(task, description="done", total=1, completed=1, detail="")


@contextmanager
def progress_lines(every_seconds: float) -> Iterator[Progress]:
    """For logs, a line that says what a run is doing, although it may be deep in one long step."""
    started, ended, said = perf_counter(), Event(), ["starting"]

    def speak() -> None:
        while not ended.wait(every_seconds):
            seconds = perf_counter() - started
            print(
                f"hourglass-train: {said[0]}, {seconds:.0f} s so far", file=sys.stderr, flush=True
            )

    def keep(text: str) -> None:
        said[0] = text

    speaker = Thread(target=speak, daemon=True)
    speaker.start()
    try:
        yield Progress(
            keep,
            lambda epoch: keep(f"fitting, {_text(epoch)}"),
            lambda done, of: keep(f"fitting, {_text_of_rows(done, of)}"),
        )
    finally:
        ended.set()
        speaker.join()


def _text(epoch: Epoch) -> str:
    return (
        f"epoch {epoch.number}/{epoch.of}  loss {epoch.loss:.4f}  held out"
        f" {epoch.held_out_loss:.4f} (best {epoch.best:.4f})"
    )


def _text_of_rows(done: int, of: int) -> str:
    return f"row {done:,} of {of:,}"
