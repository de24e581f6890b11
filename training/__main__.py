"""`hourglass-train fit | retrain | compare | evaluate | report | versions | promote | challenge |
prune | retire | sign | work | demo | exhibits`, also `python -m hourglass.training`.
"""

import argparse
import os
import re
import sys
from pathlib import Path
from typing import NoReturn

from hourglass.service.errors import HourglassError
from hourglass.service.rows.dialect import add_dialect_arguments
from hourglass.training import commands
from hourglass.training.errors import Refused, RunError

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


def main(arguments: list[str] | None = None) -> int:
    """Exit codes: 0 done, 2 not done for the reason on standard error, 3 fitted and refused by the
    gate, or rows that it refused, 130 interrupted.
    """
    options = _parser().parse_args(arguments)
    try:
        if options.run is not commands.fit and int(os.environ.get("WORLD_SIZE", "1")) > 1:
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
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_Parser)

    fit = subparsers.add_parser(
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
    fit.set_defaults(run=commands.fit)

    retrain = subparsers.add_parser(
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
    retrain.set_defaults(run=commands.retrain)

    compare = subparsers.add_parser(
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
    compare.set_defaults(run=commands.compare)

    evaluate = subparsers.add_parser(
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
    evaluate.set_defaults(run=commands.evaluate)

    report = subparsers.add_parser(
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
    report.set_defaults(run=commands.report)

    promote = subparsers.add_parser(
        "promote", help="point a model at another of its versions", allow_abbrev=False
    )
    promote.add_argument("name", metavar="NAME")
    promote.add_argument("version", metavar="VERSION", help="or its unambiguous beginning")
    _add_models(promote)
    promote.set_defaults(run=commands.promote)

    challenge = subparsers.add_parser(
        "challenge",
        help="have a version scored beside that in service, answering nobody",
        allow_abbrev=False,
    )
    challenge.add_argument("name", metavar="NAME")
    which = challenge.add_mutually_exclusive_group(required=True)
    which.add_argument("version", nargs="?", metavar="VERSION", help="or its unambiguous beginning")
    which.add_argument("--clear", action="store_true", help="have none")
    _add_models(challenge)
    challenge.set_defaults(run=commands.challenge)

    versions = subparsers.add_parser(
        "versions",
        help="list the versions of a model, and why each is where it is",
        allow_abbrev=False,
    )
    versions.add_argument("name", metavar="NAME")
    _add_models(versions)
    versions.add_argument("--json", action="store_true", help="print JSON")
    versions.set_defaults(run=commands.versions)

    prune = subparsers.add_parser(
        "prune", help="delete old versions of a model", allow_abbrev=False
    )
    prune.add_argument("name", metavar="NAME")
    prune.add_argument(
        "--keep", type=int, required=True, metavar="N", help="with the one in service, newest first"
    )
    _add_models(prune)
    prune.set_defaults(run=commands.prune)

    retire = subparsers.add_parser(
        "retire", help="take a model out of service, with all versions", allow_abbrev=False
    )
    retire.add_argument("name", metavar="NAME")
    _add_models(retire)
    retire.set_defaults(run=commands.retire)

    sign = subparsers.add_parser(
        "sign", help="sign a version for services that --trust a key", allow_abbrev=False
    )
    sign.add_argument("name", nargs="?", metavar="NAME")
    sign.add_argument("--version", metavar="VERSION", help="or its beginning (the one in service)")
    sign.add_argument("--key", type=Path, metavar="KEY", help="the private key")
    sign.add_argument(
        "--new-key", type=Path, metavar="FILE", help="make a key, and FILE.pub for --trust"
    )
    _add_models(sign)
    sign.set_defaults(run=commands.sign)

    work = subparsers.add_parser(
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
    work.set_defaults(run=commands.work)

    demo = subparsers.add_parser(
        "demo", help="real data, a fitted model, and lines to paste", allow_abbrev=False
    )
    demo.add_argument("--models", type=Path, default=Path("models"))
    demo.add_argument("--folder", type=Path, default=Path("demo"), help="where the data goes")
    demo.add_argument("--port", type=int, default=8000, help="of the service that will be started")
    demo.add_argument(
        "--stream", action="store_true", help="a plant that is simulated, for `make demo-stream`"
    )
    demo.set_defaults(run=commands.demo)

    exhibits = subparsers.add_parser(
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
    exhibits.set_defaults(run=commands.exhibits)
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


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds <= 3600:
        raise argparse.ArgumentTypeError(f"expected seconds up to 3600, got {text!r}")
    return seconds


if __name__ == "__main__":
    sys.exit(main())
