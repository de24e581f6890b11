"""`hourglass-train fit | retrain | compare | evaluate | report | versions | promote | challenge |
prune | retire | sign | work | demo | exhibits`, also `python -m hourglass.training`.
"""

import argparse
import os
import re
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Event, Thread
from time import perf_counter, sleep
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from hourglass.service.errors import HourglassError, InvalidTable, printable
from hourglass.service.rows.dialect import add_dialect_arguments, dialect_of
from hourglass.service.serving.disk import write_atomically
from hourglass.service.serving.store import Store, locate
from hourglass.training.errors import Refused, RunError
from hourglass.training.progress import Epoch, Progress

if TYPE_CHECKING:
    from hourglass.training.ranks import Ranks

# what torch and onnxruntime say
OUT_OF_MEMORY = re.compile(
    "(?i)not enough memory|out of memory|can't allocate memory|failed to allocate|bad_alloc"
)
NORMAL_HELP = "the label of normal rows (0, false, or a word that plainly means normal)"
SHADOW_HELP = "publish what the gate lets through as a challenger, beside the version in service"
MODELS_HELP = "folder of models, or s3://BUCKET/PREFIX, gs:// or az:// (models)"
CACHE_HELP = "where copies of the models of a URL lie (~/.cache/hourglass)"
PROMETHEUS_HELP = "its address; PROMETHEUS_TOKEN is sent to it, where it is set"
SIGN_WITH_HELP = "a private key that signs what is published"
LINE_SECONDS = 30.0  # between lines of progress where there is no terminal
NOT_OF_THE_RUN = ("run", "config", "quiet", "variants", "publish", "output")


def main(arguments: list[str] | None = None) -> int:
    """Exit codes: 0 done, 2 not done for the reason on standard error, 3 fitted and refused by the
    gate, or rows that it refused, 130 interrupted.
    """
    options = _parser().parse_args(arguments)
    try:
        if options.run is not _fit and int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise RunError("torchrun starts several processes, of which only fit makes one run")
        options.run(options)
    except Refused as error:
        print(f"hourglass-train: {error}", file=sys.stderr)
        return 3
    except (RunError, HourglassError) as error:
        print(f"hourglass-train: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"hourglass-train: {where}{error.strerror or error}", file=sys.stderr)
        return 2
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not OUT_OF_MEMORY.search(str(error)):
            raise
        print(
            "hourglass-train: there is not enough memory for this; fewer rows (max_rows), columns"
            " or a smaller model need less",
            file=sys.stderr,
        )
        return 2
    except ModuleNotFoundError as error:
        if str(error.name).startswith("hourglass"):
            raise
        print(
            f"hourglass-train: this needs the package {error.name}: pip install"
            " 'hourglass[training]'",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        print("hourglass-train: interrupted; nothing was published", file=sys.stderr)
        return 130
    return 0


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One sentence, not a page of usage."""
        self.exit(2, f"{self.prog}: {message}\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="hourglass-train",
        description="Fit an anomaly detector on normal rows and publish it.",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_Parser)

    fit = commands.add_parser(
        "fit", help="fit, calibrate, export, verify and publish", allow_abbrev=False
    )
    _add_run_arguments(fit)
    fit.add_argument("--preset", help="fast, balanced or accurate: every setting of the model")
    fit.add_argument(
        "--variant",
        help="instead of a preset: a member of the family, or auto to fit all and publish the best",
    )
    memory = (
        "how many averages of training rows the model remembers; 0: no average of rows at all is in"
        " the file"
    )
    fit.add_argument("--memory", type=int, metavar="N", help=memory)
    fit.set_defaults(run=_fit)

    retrain = commands.add_parser(
        "retrain", help="fit the model in service anew on newer rows", allow_abbrev=False
    )
    retrain.add_argument("name", metavar="NAME")
    retrain.add_argument(
        "data",
        nargs="?",
        metavar="DATA",
        help="CSV or Parquet, or where the service has recorded rows; without it the Prometheus"
        " that the model in service was fitted from is asked again",
    )
    retrain.add_argument("--prometheus", metavar="URL", help=PROMETHEUS_HELP)
    _add_models(retrain)
    retrain.add_argument("--sign-with", type=Path, metavar="KEY", help=SIGN_WITH_HELP)
    retrain.add_argument(
        "--recent",
        metavar="SPAN",
        help="rows of the last 30d (s, m, h, d, w) by their time, counted from the newest",
    )
    retrain.add_argument(
        "--exclude",
        nargs="+",
        action="extend",
        default=[],
        metavar="FROM/TO",
        help="leave out rows from one time up to another, such as 2026-11-03/2026-11-04T12:00",
    )
    retrain.add_argument(
        "--time", metavar="COLUMN", help="of the rows, where the model in service was told none"
    )
    retrain.add_argument(
        "--journal", type=Path, metavar="FILE", help="where the service keeps alarms"
    )
    retrain.add_argument(
        "--exclude-alarms",
        action="store_true",
        help="leave out rows that raised one of the alarms in the journal",
    )
    retrain.add_argument(
        "--confirmed",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY",
        help="groups of alarms in the journal that were right: left out, and to be found again",
    )
    retrain.add_argument("--shadow", action="store_true", help=SHADOW_HELP)
    retrain.add_argument("--force", action="store_true", help="publish whatever the gate finds")
    retrain.add_argument("--quiet", action="store_true", help="no progress and no table")
    retrain.set_defaults(run=_retrain)

    compare = commands.add_parser(
        "compare", help="fit several members and say which to publish", allow_abbrev=False
    )
    _add_run_arguments(compare)
    compare.add_argument(
        "--variants",
        nargs="+",
        default=["all"],
        metavar="NAME",
        help="variants and presets (all variants)",
    )
    compare.add_argument("--publish", action="store_true", help="publish the one that is chosen")
    compare.add_argument(
        "--output",
        type=Path,
        metavar="FILE.json",
        help="where the table goes (NAME-comparison.json)",
    )
    compare.set_defaults(run=_compare)

    evaluate = commands.add_parser(
        "evaluate", help="measure a model on labelled rows", allow_abbrev=False
    )
    evaluate.add_argument(
        "model", type=Path, metavar="MODEL", help="model.onnx, or a folder such as models/NAME"
    )
    evaluate.add_argument("data", type=Path, metavar="DATA", help="CSV or Parquet")
    evaluate.add_argument(
        "--label",
        metavar="COLUMN",
        help="rows where it is not 0 are anomalies; without it, or without any, the alarm rates of"
        " ten parts of the file",
    )
    evaluate.add_argument("--normal", metavar="VALUE", help=NORMAL_HELP)
    evaluate.add_argument(
        "--time",
        metavar="COLUMN",
        help="orders the rows: events, false events a day, delay, VUS-PR, alarm rates by time",
    )
    evaluate.add_argument(
        "--entity", metavar="COLUMN", help="what each row is of (machine, client, ...), with --time"
    )
    evaluate.add_argument(
        "--events-per-day", type=float, metavar="N", help="the budget of false events (1)"
    )
    add_dialect_arguments(evaluate)
    evaluate.add_argument("--json", action="store_true", help="print JSON")
    evaluate.set_defaults(run=_evaluate)

    report = commands.add_parser(
        "report", help="make the report of a model anew, on other rows", allow_abbrev=False
    )
    report.add_argument(
        "model", type=Path, metavar="MODEL", help="model.onnx, or a folder such as models/NAME"
    )
    report.add_argument("data", type=Path, metavar="DATA", help="CSV or Parquet")
    report.add_argument("--label", metavar="COLUMN", help="rows where it is not 0 are anomalies")
    report.add_argument("--normal", metavar="VALUE", help=NORMAL_HELP)
    report.add_argument("--time", metavar="COLUMN", help="orders the rows, and tells rows a day")
    report.add_argument(
        "--entity",
        metavar="COLUMN",
        help="what each row is of (machine, client, ...), of a model of windows",
    )
    report.add_argument(
        "--group", metavar="COLUMN", help="whose values' alarm rates are told apart"
    )
    report.add_argument(
        "--rows-per-day", type=float, metavar="N", help="that will be scored (as --time says)"
    )
    report.add_argument(
        "--output", type=Path, metavar="FOLDER", help="where the files go (beside the model)"
    )
    add_dialect_arguments(report)
    report.set_defaults(run=_report)

    promote = commands.add_parser(
        "promote", help="point a model at another of its versions", allow_abbrev=False
    )
    promote.add_argument("name", metavar="NAME")
    promote.add_argument("version", metavar="VERSION", help="or its unambiguous beginning")
    _add_models(promote)
    promote.set_defaults(run=_promote)

    challenge = commands.add_parser(
        "challenge",
        help="have a version scored beside that in service, answering nobody",
        allow_abbrev=False,
    )
    challenge.add_argument("name", metavar="NAME")
    which = challenge.add_mutually_exclusive_group(required=True)
    which.add_argument("version", nargs="?", metavar="VERSION", help="or its unambiguous beginning")
    which.add_argument("--clear", action="store_true", help="have none")
    _add_models(challenge)
    challenge.set_defaults(run=_challenge)

    versions = commands.add_parser(
        "versions",
        help="list the versions of a model, and why each is where it is",
        allow_abbrev=False,
    )
    versions.add_argument("name", metavar="NAME")
    _add_models(versions)
    versions.add_argument("--json", action="store_true", help="print JSON")
    versions.set_defaults(run=_versions)

    prune = commands.add_parser("prune", help="delete old versions of a model", allow_abbrev=False)
    prune.add_argument("name", metavar="NAME")
    prune.add_argument(
        "--keep", type=int, required=True, metavar="N", help="with the one in service, newest first"
    )
    _add_models(prune)
    prune.set_defaults(run=_prune)

    retire = commands.add_parser(
        "retire", help="take a model out of service, with all versions", allow_abbrev=False
    )
    retire.add_argument("name", metavar="NAME")
    _add_models(retire)
    retire.set_defaults(run=_retire)

    sign = commands.add_parser(
        "sign", help="sign a version for services that --trust a key", allow_abbrev=False
    )
    sign.add_argument("name", nargs="?", metavar="NAME")
    sign.add_argument("--version", metavar="VERSION", help="or its beginning (the one in service)")
    sign.add_argument("--key", type=Path, metavar="KEY", help="the private key")
    sign.add_argument(
        "--new-key", type=Path, metavar="FILE", help="make a key, and FILE.pub for --trust"
    )
    _add_models(sign)
    sign.set_defaults(run=_sign)

    work = commands.add_parser(
        "work",
        help="train what clients of the retired Azure service ask hourglass serve --azure for",
        allow_abbrev=False,
    )
    work.add_argument("--models", type=Path, metavar="FOLDER", default=Path("models"))
    work.add_argument("--preset", help="fast, balanced or accurate: every setting of the models")
    work.add_argument("--variant", help="instead of a preset: a member of the family")
    work.add_argument("--threads", type=int, metavar="N", help="of a training (1)")
    work.add_argument(
        "--no-report",
        dest="report",
        action="store_false",
        default=None,
        help="no report.html and card.md beside the models",
    )
    work.add_argument("--once", action="store_true", help="end when no job waits any more")
    work.add_argument(
        "--every", type=_seconds, default=1.0, metavar="SECONDS", help="look for jobs (1)"
    )
    work.add_argument("--quiet", action="store_true", help="no progress and no lines of jobs")
    work.set_defaults(run=_work)

    demo = commands.add_parser(
        "demo", help="real data, a fitted model, and lines to paste", allow_abbrev=False
    )
    demo.add_argument("--models", type=Path, default=Path("models"))
    demo.add_argument("--folder", type=Path, default=Path("demo"), help="where the data goes")
    demo.add_argument("--port", type=int, default=8000, help="of the service that will be started")
    demo.add_argument(
        "--stream", action="store_true", help="a plant that is simulated, for `make demo-stream`"
    )
    demo.set_defaults(run=_demo)

    exhibits = commands.add_parser(
        "exhibits", help="fit the small models that ship with the service", allow_abbrev=False
    )
    exhibits.add_argument("names", nargs="*", metavar="NAME", help="these alone (all)")
    exhibits.add_argument(
        "--folder", type=Path, default=Path("service/exhibits"), help="where the models go"
    )
    exhibits.add_argument(
        "--presets",
        type=Path,
        default=Path("service/console/learn/presets.js"),
        help="where the pictures to begin with go",
    )
    exhibits.set_defaults(run=_exhibits)
    return parser


def _add_models(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--models", metavar="PLACE", default="models", help=MODELS_HELP)
    parser.add_argument("--cache", type=Path, metavar="FOLDER", help=CACHE_HELP)


def _add_run_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "data", nargs="?", metavar="DATA", help="CSV or Parquet, or a folder of Parquet files"
    )
    prometheus = parser.add_argument_group("rows of a Prometheus, in place of DATA")
    prometheus.add_argument("--prometheus", metavar="URL", help=PROMETHEUS_HELP)
    prometheus.add_argument(
        "--query",
        nargs="+",
        action="extend",
        metavar="NAME=PROMQL",
        help="a column and its expression; a table [prometheus.queries] in RUN.TOML says the same",
    )
    prometheus.add_argument(
        "--range", metavar="SPAN", help="of time that is asked, up to now (14d)"
    )
    prometheus.add_argument("--step", metavar="SPAN", help="between rows (30s)")
    prometheus.add_argument(
        "--late",
        type=int,
        metavar="STEPS",
        help="samples that are older than so many steps are missing (5)",
    )
    parser.add_argument("--name", help="of the model; lower-case letters, digits, - and _")
    parser.add_argument("--models", metavar="PLACE", help=MODELS_HELP)
    parser.add_argument("--cache", metavar="FOLDER", help=CACHE_HELP)
    parser.add_argument("--sign-with", metavar="KEY", help=SIGN_WITH_HELP)
    parser.add_argument(
        "--config", type=Path, metavar="RUN.TOML", help="a run's configuration; flags override it"
    )
    parser.add_argument(
        "--loss", help="auto (by the kind of each column), mse, or bce for numbers between 0 and 1"
    )
    parser.add_argument(
        "--label",
        metavar="COLUMN",
        help="rows where it is not 0 are anomalies: evaluated on, never fitted",
    )
    parser.add_argument(
        "--time",
        metavar="COLUMN",
        help="dates, times or numbers that order the rows: whole blocks of it calibrate",
    )
    parser.add_argument(
        "--entity",
        metavar="COLUMN",
        help="whose rows come in an order of their own (machine, sensor, ...): no window has two",
    )
    parser.add_argument(
        "--window",
        type=int,
        metavar="W",
        help="rows that an answer looks at (default: 30 with --time; 1: single rows)",
    )
    parser.add_argument(
        "--representation",
        choices=("residual", "multi"),
        help="what is derived of a window (default: residual)",
    )
    parser.add_argument(
        "--baseline",
        choices=("fleet", "entity"),
        help="whose level and spread rows are judged by: one of all, or each entity's (fleet)",
    )
    parser.add_argument(
        "--gap",
        type=float,
        metavar="SECONDS",
        help="a longer step of time begins a window anew (default: 10 times the median step)",
    )
    parser.add_argument(
        "--group",
        metavar="COLUMN",
        help="where rows come from (machine, client, ...): whole groups calibrate",
    )
    parser.add_argument(
        "--ignore",
        nargs="+",
        action="extend",
        metavar="COLUMN",
        help="columns that are not features",
    )
    parser.add_argument("--normal", metavar="VALUE", help=NORMAL_HELP)
    parser.add_argument(
        "--keep",
        nargs="+",
        action="extend",
        metavar="COLUMN",
        help="columns that are features, although they look like an index, a time or the label",
    )
    parser.add_argument(
        "--categorical",
        nargs="+",
        action="extend",
        metavar="COLUMN",
        help="columns of text, although they look like numbers",
    )
    add_dialect_arguments(parser)
    exclude = "row numbers, one a line from 1, or a CSV with a column row, such as suspects.csv"
    parser.add_argument("--exclude", metavar="FILE", help=exclude)
    parser.add_argument(
        "--contamination",
        type=float,
        metavar="SHARE",
        help="leave out that share of the rows, the strangest out of fold (0)",
    )
    no_screen = (
        "fit new rows as they are, although a model in service finds too many of them strange"
    )
    parser.add_argument(
        "--no-screen", dest="screen", action="store_false", default=None, help=no_screen
    )
    parser.add_argument(
        "--alpha",
        type=float,
        help="false-alarm budget (the first of .01 .02 .05 .1 .2 of which half is in use)",
    )
    parser.add_argument("--delta", type=float, help="chance that the budget does not hold (.05)")
    uncertified = "hold the budget on average only, without the guarantee"
    parser.add_argument("--uncertified", action="store_true", default=None, help=uncertified)
    folds = (
        "models that calibrate on all rows together, each on those it was not fitted on (5 below"
        " 600 rows); 0: one model, and rows of its own that certify"
    )
    parser.add_argument("--folds", type=int, metavar="N", help=folds)
    parser.add_argument(
        "--epochs", type=int, help="at most; fitting stops early when held-out rows stop improving"
    )
    parser.add_argument(
        "--seed", type=int, help="same data, configuration and seed give the same bytes (0)"
    )
    parser.add_argument(
        "--device", help="where the network is fitted: auto (a GPU where there is one), cpu or cuda"
    )
    parser.add_argument(
        "--no-report",
        dest="report",
        action="store_false",
        default=None,
        help="no report.html and card.md beside the model, and report.json with its figures alone",
    )
    parser.add_argument(
        "--rows-per-day",
        type=float,
        metavar="N",
        help="that will be scored, for alarms a day in the report (as the times of the rows say)",
    )
    parser.add_argument("--shadow", action="store_true", default=None, help=SHADOW_HELP)
    force = "publish whatever the gate finds, or if the features differ from those in service"
    parser.add_argument("--force", action="store_true", default=None, help=force)
    parser.add_argument("--quiet", action="store_true", help="no progress and no table")


def _fit(options: argparse.Namespace) -> None:
    # imported late: torch takes seconds to load, and `promote` and wrong flags need not wait for it
    from hourglass.training.config import load_config

    _run_by_all(load_config(options.config, _flags(options)), quiet=options.quiet)


def _run_by_all(config: Any, *, quiet: bool) -> None:
    """By this process, or those that torchrun started; one of them says what there is to say."""
    from hourglass.training.ranks import join
    from hourglass.training.trial import device_of

    ranks = join(gpu=device_of(config) == "cuda")
    try:
        _run(config, quiet=quiet or not ranks.is_first, ranks=ranks)
    except Exception:
        if ranks.is_first_to_fail():
            raise
        sys.exit(2)


def _work(options: argparse.Namespace) -> None:
    """Until it is told to stop; the job that it then has is another worker's."""
    from hourglass.training.config import load_config
    from hourglass.training.work import Done, work_on

    named = {name: getattr(options, name) for name in ("preset", "variant", "threads", "report")}
    flags = {name: value for name, value in named.items() if value is not None}
    load_config(None, {"data": "", "name": "job", **flags})  # what is wrong is said before a job

    def tell(done: Done) -> None:
        if not options.quiet:
            job, why = done.job, "".join(f": {each.message}" for each in done.job.errors)
            line = f"model {job.id} is {job.status}{why}, after {done.seconds:.1f} s"
            print(f"hourglass-train: {printable(line)}", file=sys.stderr, flush=True)

    def stop(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        work_on(
            options.models,
            flags,
            once=options.once,
            every_seconds=options.every,
            tell=tell,
            wait=sleep,
            watch=partial(_progress, options.quiet),
        )
    finally:
        signal.signal(signal.SIGTERM, before)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds <= 3600:
        raise argparse.ArgumentTypeError(f"expected seconds up to 3600, got {text!r}")
    return seconds


def _flags(options: argparse.Namespace) -> dict[str, Any]:
    """The flags that were given, as fields of a run."""
    return {
        field: value
        for field, value in vars(options).items()
        if value is not None and field not in NOT_OF_THE_RUN
    }


def _run(config: Any, *, quiet: bool, ranks: "Ranks | None" = None) -> None:
    from hourglass.training.presets import title
    from hourglass.training.report import print_report
    from hourglass.training.run import run

    with _progress(quiet, title(config.model)) as progress:
        report = run(config, progress, ranks=ranks)
    _warn(report.warnings)
    print_report(report, Console(quiet=quiet))


def _retrain(options: argparse.Namespace) -> None:
    from hourglass.training.report import print_report
    from hourglass.training.retrain import Rows, retrain

    if options.data and options.prometheus:
        raise RunError("expected DATA or --prometheus, got both")
    rows = Rows(
        options.data or options.prometheus,
        options.recent,
        tuple(options.exclude),
        options.time,
        options.journal,
        options.exclude_alarms,
        options.confirmed,
    )
    with _progress(options.quiet, options.name) as progress:
        report = retrain(
            options.name,
            rows,
            options.models,
            force=options.force,
            shadow=options.shadow,
            cache=options.cache,
            sign_with=options.sign_with,
            progress=progress,
        )
    _warn(report.warnings)
    print_report(report, Console(quiet=options.quiet))


def _compare(options: argparse.Namespace) -> None:
    from hourglass.training.compare import compare
    from hourglass.training.config import AutoConfig, check_candidates, load_config
    from hourglass.training.models import VARIANTS
    from hourglass.training.presets import PRESETS
    from hourglass.training.publish import check_writable
    from hourglass.training.report import print_comparison

    variants = tuple(VARIANTS) if options.variants == ["all"] else tuple(options.variants)
    try:
        check_candidates(variants)
    except ValueError as error:
        raise RunError(str(error)) from error
    config = load_config(options.config, {**_flags(options), "variant": "auto"})
    output = options.output or Path(f"{config.name}-comparison.json")
    check_writable(output.parent)
    with _progress(options.quiet, "") as progress:
        comparison = compare(config, AutoConfig(variants=variants, epochs=options.epochs), progress)
    write_atomically(output, msgspec.json.format(msgspec.json.encode(comparison), indent=2) + b"\n")
    _warn(comparison.warnings)
    print_comparison(comparison, Console(quiet=options.quiet))
    if options.publish:
        flag = "preset" if comparison.chosen in PRESETS else "variant"
        _run(
            load_config(options.config, {**_flags(options), flag: comparison.chosen}),
            quiet=options.quiet,
        )


def _warn(warnings: tuple[str, ...]) -> None:
    """On standard error, whatever is quiet: a column that was left out is no detail."""
    for warning in warnings:
        print(f"hourglass-train: {warning}", file=sys.stderr)


@contextmanager
def _progress(quiet: bool, title: str) -> Iterator[Progress]:
    """A bar on standard error that shows a run's stages and epochs; without a terminal a line every
    so often.
    """
    console = Console(stderr=True, quiet=quiet)
    if not (quiet or console.is_terminal):
        with _progress_lines(LINE_SECONDS) as progress:
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
def _progress_lines(every_seconds: float) -> Iterator[Progress]:
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


def _evaluate(options: argparse.Namespace) -> None:
    from hourglass.service.model.detector import Detector
    from hourglass.service.rows.tables import encode_table, read_table
    from hourglass.training.evaluate import AlarmRates, Evaluation, alarm_rates, evaluate
    from hourglass.training.evaluate_ordered import OrderedEvaluation, evaluate_table
    from hourglass.training.fingerprints import read_fingerprints
    from hourglass.training.labels import is_anomalous
    from hourglass.training.report import (
        print_alarm_rates,
        print_evaluation,
        print_ordered,
        print_seen,
    )

    dialect = dialect_of(options)
    file = locate(options.model)
    detector = Detector.from_bytes(file.read_bytes())
    if options.time is None:
        if options.entity is not None or options.events_per_day is not None:
            flag = "--entity" if options.entity is not None else "--events-per-day"
            raise RunError(f"{flag} is of rows in order of time; --time COLUMN names their time")
        if detector.window > 1:
            raise RunError(
                f"the model judges windows of {detector.window} rows in order of time; --time"
                " COLUMN names their time, and --entity COLUMN what each is of"
            )
    features = detector.manifest.features
    text = [feature.name for feature in features if feature.kind == "categorical"]
    frame = read_table(options.data, dialect, [*text, options.entity] if options.entity else text)
    rows_ND = encode_table(frame, features, dialect)
    fingerprints = read_fingerprints(file.parent)
    seen = fingerprints.seen(rows_ND) if fingerprints else None
    anomalous = is_anomalous(frame, options.label, options.normal) if options.label else None
    found: Evaluation | AlarmRates | OrderedEvaluation
    try:
        if options.time is not None:
            found = evaluate_table(
                detector,
                frame,
                rows_ND,
                anomalous,
                time=options.time,
                entity=options.entity,
                events_per_day=options.events_per_day,
            )
        elif anomalous is None or not anomalous.any():
            found = alarm_rates(detector, rows_ND)
        else:
            found = evaluate(detector, rows_ND[~anomalous], rows_ND[anomalous])
    except ValueError as error:
        raise InvalidTable(f"{options.data}: {error}") from error
    found = msgspec.structs.replace(found, seen=seen)
    if options.json:
        print(msgspec.json.encode(found).decode())
        return
    title = f"{options.model} on {options.data}"
    if isinstance(found, OrderedEvaluation):
        print_ordered(found, title, Console())
    elif isinstance(found, AlarmRates):
        print_alarm_rates(found, title, Console())
    else:
        print_evaluation(found, title, Console())
    print_seen(seen, Console())


def _report(options: argparse.Namespace) -> None:
    from hourglass.training.report.remake import Rows, remake, write_beside

    dialect = dialect_of(options)
    file = locate(options.model)
    rows = Rows(
        options.data,
        dialect,
        options.label,
        options.normal,
        options.time,
        options.entity,
        options.group,
        options.rows_per_day,
    )
    facts = remake(file, rows)
    page = write_beside(file, facts, options.output or file.parent)
    console = Console(highlight=False)
    console.print(facts.verdict.text, soft_wrap=True, markup=False)
    for check in facts.checks:
        if check.status != "pass":
            console.print(
                f"{check.status}: {check.name}: {check.text}", soft_wrap=True, markup=False
            )
    console.print(f"Report {page}", soft_wrap=True, markup=False)


def _promote(options: argparse.Namespace) -> None:
    from hourglass.training.publish import promote

    version = promote(options.models, options.name, options.version, options.cache)
    print(f"{options.name} now points at {version}")


def _challenge(options: argparse.Namespace) -> None:
    from hourglass.training.versions import challenge

    version = challenge(options.models, options.name, options.version, options.cache)
    said = "no challenger any more" if version is None else f"the challenger {version}"
    print(f"{options.name} has {said}")


def _sign(options: argparse.Namespace) -> None:
    from hourglass.service.serving.signatures import make_keys
    from hourglass.training.sign import sign

    if options.new_key:
        if options.name or options.key:
            raise RunError("--new-key makes a pair of keys, and signs nothing")
        public = make_keys(options.new_key)
        print(
            f"{options.new_key} signs, and stays secret; {public} goes to hourglass serve --trust"
        )
        return
    if not options.name or not options.key:
        raise RunError("expected NAME and --key KEY, or --new-key FILE alone")
    version = sign(options.models, options.name, options.version, options.key, options.cache)
    print(f"version {version[:12]} of {options.name} is signed")


def _versions(options: argparse.Namespace) -> None:
    from hourglass.training.report import print_versions
    from hourglass.training.versions import list_versions

    lines = list_versions(options.models, options.name, options.cache)
    if options.json:
        print(msgspec.json.encode(lines).decode())
        return
    print_versions(lines, Console(highlight=False))


def _prune(options: argparse.Namespace) -> None:
    from hourglass.training.versions import prune

    gone = prune(options.models, options.name, options.keep, options.cache)
    print(f"{options.name}: {len(gone)} versions are gone{''.join(f', {v[:12]}' for v in gone)}")


def _retire(options: argparse.Namespace) -> None:
    from hourglass.training.versions import retire

    back = retire(options.models, options.name, options.cache)
    print(f"{options.name} is out of service; {back}")


def _demo(options: argparse.Namespace) -> None:
    _check_port(options.port)
    if options.stream:
        _demo_stream(options)
        return
    from hourglass.training import demo
    from hourglass.training.config import load_config

    if (
        not Store(options.models).model(demo.NAME).has_current()
        or not (options.folder / f"{demo.NAME}.csv").exists()
    ):
        data = demo.write_data(options.folder)
        _run(
            load_config(
                None,
                {
                    "data": str(data),
                    "name": demo.NAME,
                    "models": str(options.models),
                    "label": demo.LABEL,
                    "folds": 0,  # a first look takes seconds, and shows a certified budget
                },
            ),
            quiet=False,
        )
    console = Console(highlight=False)
    console.print("\nWhile the service runs, open the console:\n", style="bold")
    console.print(f"http://127.0.0.1:{options.port}/\n")
    console.print("and in another terminal:\n", style="bold")
    for title, line in demo.curl_lines(options.folder, options.port):
        console.print(f"# {title}\n{line}\n", soft_wrap=True, markup=False)


def _demo_stream(options: argparse.Namespace) -> None:
    """The file of today, and a model of the days before."""
    from hourglass.training import plant
    from hourglass.training.config import load_config

    files = plant.write_plant(options.folder)
    if not Store(options.models).model(plant.NAME).has_current():
        flags = {"data": str(files.before), "name": plant.NAME, "models": str(options.models)}
        order = {"time": plant.TIME, "entity": plant.ENTITY, "preset": "fast"}
        _run(load_config(None, {**flags, **order}), quiet=False)
    Console(highlight=False).print(
        f"\n{plant.TODAY_HOURS} hours of three simulated pumps are in {files.today}:"
        " from 03:00 a bearing of pump-2 wears, from 05:30 a valve of pump-3 sticks\n",
        soft_wrap=True,
    )


def _exhibits(options: argparse.Namespace) -> None:
    from hourglass.training.exhibits import EXHIBITS, presets, write_exhibits

    if unknown := sorted(set(options.names) - EXHIBITS.keys()):
        raise RunError(f"there is no exhibit {unknown[0]!r}; there are {', '.join(EXHIBITS)}")
    for name, size, error in write_exhibits(options.folder, tuple(options.names)):
        print(f"{name:<22} {size / 1000:4.0f} kB  mean squared error {error:.5f}")
    write_atomically(options.presets, presets().encode())


def _check_port(port: int) -> None:
    """Say that the port is taken before minutes of fitting, not after."""
    if not 0 < port < 2**16:
        raise RunError(f"expected a port from 1 to 65535, got {port}")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise RunError(
                f"port {port} on 127.0.0.1 is taken; choose another: make demo PORT={port + 1}"
            ) from error


if __name__ == "__main__":
    sys.exit(main())
