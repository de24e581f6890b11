"""Commands: what each one of `hourglass-train` does with its options.

Torch takes seconds to load, and `promote` and wrong flags need not wait for it: what imports it is
imported by the commands that fit.
"""

import argparse
import signal
import socket
import sys
from functools import partial
from pathlib import Path
from time import sleep
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec
from rich.console import Console

from hourglass.service.errors import InvalidTable, printable
from hourglass.service.rows.dialect import dialect_of
from hourglass.service.serving.disk import write_atomically
from hourglass.service.serving.store import Store, locate
from hourglass.training.bars import progress_bar
from hourglass.training.errors import RunError

if TYPE_CHECKING:
    from hourglass.training.ranks import Ranks

NOT_OF_THE_RUN = ("run", "config", "quiet", "variants", "publish", "output")


def fit(options: argparse.Namespace) -> None:
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


def work(options: argparse.Namespace) -> None:
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
            watch=partial(progress_bar, options.quiet),
        )
    finally:
        signal.signal(signal.SIGTERM, before)


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

    with progress_bar(quiet, title(config.model)) as progress:
        report = run(config, progress, ranks=ranks)
    _warn(report.warnings)
    print_report(report, Console(quiet=quiet))


def retrain(options: argparse.Namespace) -> None:
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
    with progress_bar(options.quiet, options.name) as progress:
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


def compare(options: argparse.Namespace) -> None:
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
    with progress_bar(options.quiet, "") as progress:
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


def evaluate(options: argparse.Namespace) -> None:
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


def report(options: argparse.Namespace) -> None:
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


def promote(options: argparse.Namespace) -> None:
    from hourglass.training.publish import promote

    version = promote(options.models, options.name, options.version, options.cache)
    print(f"{options.name} now points at {version}")


def challenge(options: argparse.Namespace) -> None:
    from hourglass.training.versions import challenge

    version = challenge(options.models, options.name, options.version, options.cache)
    said = "no challenger any more" if version is None else f"the challenger {version}"
    print(f"{options.name} has {said}")


def sign(options: argparse.Namespace) -> None:
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


def versions(options: argparse.Namespace) -> None:
    from hourglass.training.report import print_versions
    from hourglass.training.versions import list_versions

    lines = list_versions(options.models, options.name, options.cache)
    if options.json:
        print(msgspec.json.encode(lines).decode())
        return
    print_versions(lines, Console(highlight=False))


def prune(options: argparse.Namespace) -> None:
    from hourglass.training.versions import prune

    gone = prune(options.models, options.name, options.keep, options.cache)
    print(f"{options.name}: {len(gone)} versions are gone{''.join(f', {v[:12]}' for v in gone)}")


def retire(options: argparse.Namespace) -> None:
    from hourglass.training.versions import retire

    back = retire(options.models, options.name, options.cache)
    print(f"{options.name} is out of service; {back}")


def demo(options: argparse.Namespace) -> None:
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


def exhibits(options: argparse.Namespace) -> None:
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
