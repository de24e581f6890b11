"""A month in fast motion: thirty nights of deploy/README.md's commands on a plant's rows, while
clients post and a person does in the morning what the README says.
"""

import json
import re
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest

from tests.buckets import Buckets
from tests.deploy.month import (
    MODEL,
    ROWS,
    Client,
    Float64,
    InBucket,
    Plant,
    faulty_rows,
    normal_rows,
)
from tests.serving import wait_until

pytestmark = pytest.mark.heavy

CALENDAR = """
good good late good contaminated
good empty zeroed good two-at-once
good rescaled contaminated good full-disk
good drifted good late zeroed
empty contaminated good two-at-once rescaled
good full-disk drifted good good
""".split()
MORNINGS = {7: "prune", 12: "rotate_key", 14: "prune", 21: "prune", 25: "back_up", 28: "prune"}
FIT = ".venv/bin/hourglass-train fit data/pumps.csv --name pumps --variant linear --alpha 0.05 --folds 0"
FAULTS = 12  # of a contaminated day's rows, 3 %
MOVED = 3.0  # standard deviations, of all columns, more after each drift
FULL = 40 * 1024  # bytes that a file may have while the disk is full; SQLite needs 32 KiB to read
FOUND, FALSE = 0.9, 0.15  # of faults that alarm, at least, and of normal rows, at most
QUICK = {
    "HOURGLASS_DRIFT_ROWS": "300",
    "HOURGLASS_DRIFT_SECONDS": "1",
    "HOURGLASS_POLL_SECONDS": "1",  # of a bucket, too
}


class Month:
    """The plant, a client of its model, and what is true from one night to the next."""

    def __init__(self, plant: Plant, client: Client) -> None:
        self.plant, self.client = plant, client
        self.nightly = plant.commands("--journal journal.sqlite\n")
        self.moved = 0.0  # what is normal now
        self.published, self.confirmed = 0, 0
        self.backed_up = "", 0  # the version, and how many alarms at least

    def night(self, kind: str, day: int) -> None:
        """One of this kind, and what holds after each."""
        before = self.plant.version_on_disk()
        getattr(self, kind.replace("-", "_"))(day)
        now = self.plant.version_on_disk()
        self.plant.wait_for_version()
        assert self.client.failures == []
        with self.client.resting():
            assert self.plant.metric("hourglass_vectors_total", model=MODEL) == self.client.rows
            assert self.plant.metric("hourglass_anomalies_total", model=MODEL) == self.client.alarms
        assert self.plant.metric("hourglass_model_error", model=MODEL) == 0
        assert self.plant.metric("hourglass_model_info", model=MODEL, version=now) == 1
        faults_ND = faulty_rows(500, (day, 8), moved=self.moved)
        normal_ND = normal_rows(500, (day, 9), moved=self.moved)
        assert self.plant.alarm_rate(faults_ND) > FOUND
        assert self.plant.alarm_rate(normal_ND) < FALSE
        self.published += now != before

    def do(self, containing: str) -> str:
        """What the README's commands print, all of which succeed."""
        code, printed, err = self.plant.run(self.plant.commands(containing))
        assert code == 0, err
        return printed

    def prune(self) -> None:
        printed = self.do("versions tumour\n")
        (line,) = (line for line in printed.splitlines() if "in service" in line)
        assert line.startswith(self.plant.version_on_disk()[:12])

    def rotate_key(self) -> None:
        """In the README's order, while the client posts."""
        add, remove = self.plant.commands("gateway-next.key").splitlines()
        assert self.plant.run(add)[0] == 0
        old, new = self.client.headers, self.plant.key("client-next")
        wait_until(lambda: self.plant.knows(new))
        self.client.headers = new
        assert self.plant.knows(old)
        with self.client.resting():
            assert self.plant.run(remove)[0] == 0
        wait_until(lambda: not self.plant.knows(old))
        (self.plant.folder / "client-next.key").replace(self.plant.folder / "client.key")

    def back_up(self) -> None:
        """While the service writes."""
        alarms = self.plant.ask(f"/v1/models/{MODEL}/alarms")["alarms"]
        self.do("backup/models.tgz --exclude")
        self.backed_up = self.plant.version_on_disk(), alarms

    def retrain(self, *flags: str, code: int, said: str = "", before: str = "") -> None:
        """The README's line of a night, and that what it says of its end is so."""
        champion = self.plant.version_on_disk()
        script = " ".join([before, self.nightly.strip(), *flags, "--quiet"])
        found, _, err = self.plant.run(script)
        assert found == code, err
        if code == 0:
            assert self.plant.decision()["published"] is True
            return
        assert self.plant.version_on_disk() == champion
        assert re.search(said, err), err
        if code == 3:
            decision = self.plant.decision()
            assert (decision["published"], decision["champion"]) == (False, champion)
            assert decision["reason"] in err

    def today(self, day: int) -> Float64:
        """What is normal now."""
        return normal_rows(ROWS, (day, 7), moved=self.moved)

    def bring(self, day: int, rows_ND: Float64, *, spoilt_ND: Float64 | None = None) -> None:
        """Clients send rows of the day; the export has them, or what was made of them."""
        self.client.send(rows_ND)
        self.plant.export.add(day, rows_ND if spoilt_ND is None else spoilt_ND)
        self.plant.export.write()

    def good(self, day: int) -> None:
        champion = self.plant.version_on_disk()
        self.bring(day, self.today(day))
        self.retrain(code=0)
        assert self.plant.version_on_disk() != champion

    def late(self, day: int) -> None:
        """The file is yesterday's: the same rows make a model that may take its place."""
        self.client.send(self.today(day))
        self.retrain(code=0)
        self.plant.export.add(day, self.today(day))

    def empty(self, day: int) -> None:
        self.client.send(self.today(day))
        self.plant.export.put("" if day % 2 else "speed,flow,pressure,current,heat\n")
        self.retrain(code=2, said=r"pumps\.csv")
        self.plant.export.add(day, self.today(day))

    def zeroed(self, day: int) -> None:
        rows_ND = self.today(day)
        self.bring(day, rows_ND, spoilt_ND=np.zeros_like(rows_ND))
        self.retrain(code=3, said="constant columns|repeated values|distributions|ranges")
        self.plant.export.add(day, rows_ND)  # it is repaired

    def rescaled(self, day: int) -> None:
        rows_ND = self.today(day)
        self.bring(day, rows_ND, spoilt_ND=rows_ND * 1000)
        self.retrain(code=3, said="ranges|scales|distributions")
        self.plant.export.add(day, rows_ND)

    def contaminated(self, day: int) -> None:
        """Some of the day's rows are faults, which a person confirms every other time."""
        rows_ND = self.today(day)
        rows_ND[:FAULTS] = faulty_rows(FAULTS, (day, 1), moved=self.moved)
        raised = self.client.alarms
        self.bring(day, rows_ND)
        wait_until(lambda: self.client.alarms > raised + FAULTS)
        if day % 2:
            self.confirm(rows_ND[:FAULTS])
        found, _, err = self.plant.run(f"{self.nightly.strip()} --quiet")
        assert found in (0, 3), err
        if found == 3:
            self.plant.export.add(day, rows_ND[FAULTS:])

    def confirm(self, faults_ND: Float64) -> None:
        """A person says that these were faults."""
        for row in faults_ND.tolist():
            httpx.post(
                f"{self.plant.url}/v1/models/{MODEL}/feedback",
                headers=self.plant.key("operator"),
                json={"verdict": "real", "row": row},
            ).raise_for_status()
            self.confirmed += 1

    def drifted(self, day: int) -> None:
        """Rows are others from now on, which a person has to say."""
        self.moved += MOVED
        self.bring(day, self.today(day))
        self.retrain(code=3, said="distributions|ranges|another population|score quantiles")
        deadline = time.monotonic() + 60
        while (found := json.loads(self.do("tumour/drift")))["state"] != "drifting":
            assert time.monotonic() < deadline, found
            time.sleep(1)
        assert found["findings"]
        self.plant.export.forget(before=day)
        self.plant.export.write()
        self.do("--force")
        assert "by force, although" in self.do("versions tumour\n")

    def full_disk(self, day: int) -> None:
        """No file may grow beyond what a journal and a model have: of the service and of the job."""
        rows_ND = self.today(day)
        rows_ND[:FAULTS] = faulty_rows(FAULTS, (day, 1), moved=self.moved)
        self.plant.export.add(day, self.today(day))
        self.plant.export.write()
        raised = self.client.alarms
        with full(self.plant.server_pid()):
            self.client.send(rows_ND)
            wait_until(lambda: self.client.alarms > raised + FAULTS)
            self.retrain(
                code=2,
                said="cannot be written",
                before=f"ulimit -f {FULL // 1024};",
            )
        self.client.send(self.today(day))

    def two_at_once(self, day: int) -> None:
        champion = self.plant.version_on_disk()
        self.bring(day, self.today(day))
        both = [self.plant.start(f"{self.nightly.strip()} --quiet") for _ in range(2)]
        ends = sorted((each.communicate(timeout=600)[1], each.returncode) for each in both)
        assert sorted(code for _, code in ends) == [0, 2]
        (said,) = (err for err, code in ends if code == 2)
        assert "another run of 'pumps' is under way" in said
        assert self.plant.version_on_disk() != champion

    def bucket_away(self, day: int) -> None:
        """From the night on until the morning: what is served is served on."""
        assert isinstance(self.plant, InBucket)
        version, posted = self.plant.version_on_disk(), self.client.requests
        self.bring(day, self.today(day))
        self.plant.buckets.stop()
        try:
            code, _, err = self.plant.run(f"{self.nightly.strip()} --quiet")
            wait_until(lambda: self.plant.metric("hourglass_store_reachable") == 0)
            assert (code, "does not answer" in err) == (2, True)
            assert self.plant.ask(f"/v1/models/{MODEL}")["version"] == version
            wait_until(lambda: self.client.requests > posted + 20)
        finally:
            self.plant.buckets.start()
        wait_until(lambda: self.plant.metric("hourglass_store_reachable") == 1)
        assert self.plant.version_on_disk() == version


@contextmanager
def full(pid: int) -> Iterator[None]:
    """A process that may make no file larger: what it does then is what it does on a full disk."""
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (FULL, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, before)


@pytest.fixture
def plant(tmp_path: Path) -> Iterator[Plant]:
    plant = Plant(tmp_path)
    try:
        yield plant
    finally:
        plant.stop()


@pytest.fixture
def in_bucket(tmp_path: Path, s3: Buckets) -> Iterator[InBucket]:
    plant = InBucket(tmp_path, s3)
    try:
        yield plant
    finally:
        plant.stop()


def begin(plant: Plant, fit: str = FIT) -> None:
    """A model of five days, in service."""
    for day in range(-4, 1):
        plant.export.add(day, normal_rows(ROWS, (5 + day, 6)))
    plant.export.write()
    code, _, err = plant.run(fit)
    assert code == 0, err
    plant.serve(plant.commands("keys add operator"), **QUICK)


def test_the_calendar_has_thirty_nights_and_each_kind_twice_at_least() -> None:
    assert len(CALENDAR) == 30
    assert {kind for kind in CALENDAR if CALENDAR.count(kind) > 1} == {
        "good", "late", "empty", "zeroed", "rescaled", "contaminated", "drifted", "full-disk",
        "two-at-once",
    }  # fmt: skip


def test_a_month_loses_nothing_and_publishes_nothing_blind(plant: Plant) -> None:
    begin(plant)
    with Client(plant) as client:
        month = Month(plant, client)
        for day, kind in enumerate(CALENDAR, start=1):
            started = time.monotonic()
            month.night(kind, day)
            if morning := MORNINGS.get(day):
                getattr(month, morning)()
            print(
                f"{day:2d} {kind:13s} {time.monotonic() - started:5.1f} s  {plant.decision()['reason'][:110]}"
            )
    assert client.failures == []
    found = plant.ask(f"/v1/models/{MODEL}/alarms")
    lost = plant.metric("hourglass_journal_lost_total")
    assert found["alarms"] + lost == client.alarms
    assert len(plant.ask(f"/v1/models/{MODEL}/feedback")["feedback"]) == month.confirmed
    plant.stop()
    month.do("cp backup/journal.sqlite restored/")
    plant.serve(plant.commands("--journal restored/journal.sqlite"))
    version, alarms = month.backed_up
    assert plant.ask(f"/v1/models/{MODEL}")["version"] == version
    assert plant.ask(f"/v1/models/{MODEL}/alarms")["alarms"] >= alarms


def test_a_bucket_that_is_away_for_a_night_costs_no_request_and_no_version(
    in_bucket: InBucket,
) -> None:
    begin(in_bucket, f"{FIT} {in_bucket.place}")
    with Client(in_bucket) as client:
        month = Month(in_bucket, client)
        for day, kind in enumerate(("good", "bucket-away", "good"), start=1):
            month.night(kind, day)
    assert client.failures == []
    assert month.published == 2
