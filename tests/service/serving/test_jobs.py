"""Jobs as files, which workers claim one by one, and lose when they die."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import chain
from pathlib import Path

import pytest

from hourglass.service.errors import JobRefused, UnknownDetection, UnknownModel
from hourglass.service.serving import jobs as module
from hourglass.service.serving.jobs import (
    MOST_ATTEMPTS,
    Detections,
    Failure,
    Job,
    Jobs,
    TrainRequest,
)


def request(number: int = 0) -> TrainRequest:
    return TrainRequest(
        source=f"/data/{number}.csv",
        is_multi_table=False,
        start=0.0,
        end=1.0,
        display_name=None,
        window=28,
        align_mode="Outer",
        fill_method="Linear",
        padding=0.0,
    )


def make(jobs: Jobs, count: int = 1) -> list[Job]:
    return [jobs.create({}, request(i), ("/data",)) for i in range(count)]


@contextmanager
def worker(models: Path, script: str) -> Iterator[subprocess.Popen[str]]:
    """A process of its own that has `jobs`."""
    begin = "import sys, time; from pathlib import Path\n"
    begin += "from hourglass.service.serving.jobs import Jobs; jobs = Jobs(Path(sys.argv[1]))\n"
    command = [sys.executable, "-c", begin + script, str(models)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        yield process


def test_the_oldest_job_is_claimed_first_and_by_one_alone(tmp_path: Path):
    jobs = Jobs(tmp_path)
    first, second = make(jobs, 2)
    assert jobs.all() == [first, second]
    one, two = jobs.claim(), jobs.claim()
    assert one is not None
    assert two is not None
    assert [one.job.id, two.job.id] == [first.id, second.id]
    assert (one.job.status, one.job.attempts) == ("RUNNING", 1)
    assert jobs.claim() is None  # although both are open
    one.release()  # as a worker that ends without a word
    again = jobs.claim()
    assert again is not None
    assert (again.job.id, again.job.attempts) == (first.id, 2)
    jobs.update(again.job.id, status="READY")
    for each in (two, again):
        each.release()
    jobs.update(second.id, status="FAILED", errors=(Failure("X", "so it is"),))
    assert jobs.claim() is None
    assert jobs.get(second.id).errors == (Failure("X", "so it is"),)


@pytest.mark.slow
def test_the_job_of_a_worker_that_is_killed_is_another_ones(tmp_path: Path):
    jobs = Jobs(tmp_path)
    (job,) = make(jobs)
    with worker(tmp_path, "print(jobs.claim().job.id, flush=True); time.sleep(600)") as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == job.id
        assert jobs.claim() is None
        assert jobs.get(job.id).status == "RUNNING"
        process.kill()
    claim = jobs.claim()
    assert claim is not None
    assert (claim.job.id, claim.job.attempts) == (job.id, 2)
    claim.release()


@pytest.mark.slow
def test_many_workers_take_each_job_once(tmp_path: Path):
    made = make(Jobs(tmp_path), 30)
    script = """
while claim := jobs.claim():
    print(claim.job.id)
    jobs.update(claim.job.id, status="READY")
    claim.release()
"""
    with ExitStack() as held:
        workers = [held.enter_context(worker(tmp_path, script)) for _ in range(3)]
        taken = [process.communicate(timeout=60)[0].split() for process in workers]
    assert sorted(chain.from_iterable(taken)) == sorted(job.id for job in made)


def test_a_job_that_takes_workers_with_it_is_given_up(tmp_path: Path):
    jobs = Jobs(tmp_path)
    (job,) = make(jobs)
    for attempt in range(MOST_ATTEMPTS):
        claim = jobs.claim()
        assert claim is not None
        assert claim.job.attempts == attempt + 1
        claim.release()
    assert jobs.claim() is None
    given_up = jobs.get(job.id)
    assert given_up.status == "FAILED"
    assert given_up.errors == (Failure("WorkerLost", "3 workers ended before they had trained it"),)


def test_the_same_request_is_taken_again_once_the_one_before_is_done(tmp_path: Path):
    jobs = Jobs(tmp_path)
    (job,) = make(jobs)
    for status in ("CREATED", "RUNNING"):
        jobs.update(job.id, status=status)
        with pytest.raises(JobRefused, match=f"is {status} as model {job.id}") as refused:
            make(jobs)
        assert refused.value.job == job.id
    jobs.update(job.id, status="READY")
    assert make(jobs)[0].id != job.id


def test_there_are_so_many_jobs_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "MOST_JOBS", 3)
    made = make(Jobs(tmp_path), 3)
    with pytest.raises(JobRefused, match="there are 3 models, the most that are kept"):
        Jobs(tmp_path).create({}, request(9), ())
    Jobs(tmp_path).delete(made[0].id)
    Jobs(tmp_path).create({}, request(9), ())


def test_a_deleted_job_does_not_come_back(tmp_path: Path):
    jobs = Jobs(tmp_path)
    (job,) = make(jobs)
    claim = jobs.claim()
    assert claim is not None
    jobs.delete(job.id)
    for call in (
        lambda: jobs.update(job.id, status="READY"),
        lambda: jobs.get(job.id),
        lambda: jobs.delete(job.id),
    ):
        with pytest.raises(UnknownModel):
            call()
    claim.release()
    assert jobs.all() == []
    assert jobs.claim() is None


@pytest.mark.parametrize("identifier", ["", "..", "../lock", "lock", "x" * 36, "a/b"])
def test_only_ids_are_looked_for(tmp_path: Path, identifier: str):
    make(Jobs(tmp_path))
    (tmp_path / ".jobs/x.json").write_text("{}")
    with pytest.raises(UnknownModel, match="there is no model"):
        Jobs(tmp_path).get(identifier)
    with pytest.raises(UnknownDetection, match="there is no detection"):
        Detections(tmp_path).get(identifier)


def test_a_file_that_is_no_job_hides_no_other(tmp_path: Path):
    jobs = Jobs(tmp_path)
    broken, whole = make(jobs, 2)
    (tmp_path / ".jobs" / f"{broken.id}.json").write_bytes(b'{"id":')
    assert jobs.all() == [whole]
    with pytest.raises(UnknownModel, match="is no job"):
        jobs.get(broken.id)


def test_a_detection_is_seen_to_be_at_work_until_it_ends(tmp_path: Path):
    detections = Detections(tmp_path)
    with detections.begun() as identifier:
        detections.keep(identifier, b"1")
        assert detections.is_at_work(identifier)
    assert not detections.is_at_work(identifier)
    assert detections.get(identifier) == b"1"


def test_old_detections_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "MOST_DETECTIONS", 3)
    detections, kept = Detections(tmp_path), []
    for number in range(5):
        with detections.begun() as identifier:
            detections.keep(identifier, b"1")
            os.utime(detections.path / f"{identifier}.json", (2e9 + number, 2e9 + number))
        kept.append(identifier)
    with detections.begun():
        pass
    left = {file.stem for file in detections.path.glob("*.json")}
    assert left == set(kept[-2:])
    os.utime(detections.path / f"{kept[-1]}.json", (1e9, 1e9))
    with detections.begun():
        pass
    assert {file.stem for file in detections.path.glob("*.json")} == {kept[-2]}
