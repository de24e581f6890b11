"""The registry: what is on disk comes into service, whole; what is wrong there does not, and is
visible.
"""

import asyncio
import errno
import fcntl
import itertools
import logging
import os
import shutil
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from hourglass.service.errors import (
    FAULTS,
    InvalidArtifact,
    NotLoaded,
    ThresholdNotStored,
    UncertifiableAlpha,
    UnknownModel,
)
from hourglass.service.model import artifact
from hourglass.service.model.artifact import Feature
from hourglass.service.serving.loading import load, served_from
from hourglass.service.serving.registry import Load, Registry
from hourglass.service.serving.store import ModelFolder, Store, ThresholdChange, read_file
from tests.artifacts import NUMERIC, make_artifact, point, publish, sample_rows


def registry_of(folder: Path, **options: int) -> Registry:
    return Registry(Store(folder), threads=1, max_bytes=options.get("max_bytes", 2**20))


def look(registry: Registry, name: str | None = None) -> dict[str, str]:
    return {each.name: each.outcome for each in asyncio.run(registry.look(name))}


def close(monkeypatch: pytest.MonkeyPatch, *folders: Path) -> None:
    """What is in these folders can no longer be reached, as for a user without permission; root
    could.
    """

    def refusing(function: Callable[..., object]) -> Callable[..., object]:
        def refuse(path: object, *arguments: object, **options: object) -> object:
            if isinstance(path, str | Path):
                entered = Path(path) if function.__name__ == "scandir" else Path(path).parent
                if any(folder == entered or folder in entered.parents for folder in folders):
                    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
            return function(path, *arguments, **options)

        return refuse

    for name in ("stat", "open", "scandir"):
        real = getattr(os, name)
        monkeypatch.setattr(f"hourglass.service.serving.store.os.{name}", refusing(real))


def version_in_service(registry: Registry, name: str = "pump") -> str:
    return registry.find(name).detector.version


@pytest.fixture
def folder(tmp_path):
    publish(tmp_path, "pump", make_artifact())
    return tmp_path


@pytest.fixture
def registry(folder):
    registry = registry_of(folder)
    assert look(registry) == {"pump": "loaded"}
    return registry


class TestLooking:
    def test_a_model_is_loaded_once_and_left_alone_while_nothing_changes(self, registry):
        before = registry.find("pump")
        assert look(registry) == {"pump": "unchanged"}
        assert registry.find("pump") is before

    def test_a_moved_pointer_swaps_the_model(self, registry, folder):
        version = publish(folder, "pump", make_artifact(shift=1))
        assert look(registry) == {"pump": "swapped"}
        assert version_in_service(registry) == version

    def test_moving_the_pointer_back_is_rolling_back(self, registry, folder):
        first = version_in_service(registry)
        publish(folder, "pump", make_artifact(shift=1))
        look(registry)
        point(folder, "pump", first)
        assert look(registry) == {"pump": "swapped"}
        assert version_in_service(registry) == first

    def test_a_model_that_was_swapped_out_leaves_no_session_behind(self, registry, folder):
        sessions = [weakref.ref(registry.find("pump").detector._scoring)]
        for shift in range(1, 6):
            publish(folder, "pump", make_artifact(shift=shift))
            assert look(registry) == {"pump": "swapped"}
            sessions.append(weakref.ref(registry.find("pump").detector._scoring))
        look(registry)  # the thread lets go of what it did last when it is given something else
        assert [session() is None for session in sessions] == [True] * 5 + [False]

    def test_models_are_always_loaded_in_the_same_thread_so_that_only_one_keeps_the_room_it_took(
        self, registry, folder, monkeypatch
    ):
        threads = set()

        def noted(*arguments, **options):
            threads.add(threading.current_thread())
            return load(*arguments, **options)

        monkeypatch.setattr("hourglass.service.serving.registry.load", noted)
        for shift in range(1, 6):
            publish(folder, "pump", make_artifact(shift=shift))
            asyncio.run(registry.look())
        assert len(threads) == 1
        assert threading.current_thread() not in threads

    def test_a_new_models_folder_appears_without_a_restart(self, registry, folder):
        publish(folder, "fan", make_artifact(shift=2))
        assert look(registry) == {"fan": "loaded", "pump": "unchanged"}
        assert list(registry.served) == ["fan", "pump"]

    def test_a_folder_without_a_pointer_is_no_model_yet(self, registry, folder):
        (folder / "fan" / "0").mkdir(parents=True)
        assert look(registry) == {"pump": "unchanged"}
        assert registry.errors == {}

    def test_a_folder_that_is_closed_to_the_service_hides_no_other(self, folder, monkeypatch):
        """A volume's lost+found, and a model's folder of another user."""
        publish(folder, "fan", make_artifact())
        (folder / "lost+found").mkdir()
        close(monkeypatch, folder / "lost+found", folder / "fan")
        registry = registry_of(folder)
        assert look(registry) == {"fan": "failed", "pump": "loaded"}
        assert registry.errors == {
            "fan": f"{folder / 'fan' / 'current'} cannot be read: Permission denied"
        }

    def test_a_models_folder_that_cannot_be_looked_into_is_said_once_and_what_is_in_service_stays(
        self, registry, folder, monkeypatch, caplog
    ):
        close(monkeypatch, folder)
        assert look(registry) == {"pump": "failed"}
        look(registry)
        assert [line for line in caplog.messages if "current" not in line] == [
            f"{folder} cannot be read: Permission denied"
        ]
        assert list(registry.served) == ["pump"]

    def test_a_folder_whose_name_is_no_models_name_is_ignored_and_said_so_once(
        self, registry, folder, caplog
    ):
        publish(folder, "Pump 2", make_artifact())
        with caplog.at_level(logging.WARNING, "hourglass.service.serving.registry"):
            assert look(registry) == look(registry) == {"pump": "unchanged"}
        assert [record.message for record in caplog.records] == [
            f"{folder / 'Pump 2'} is ignored: a model's name matches [a-z0-9][a-z0-9_-]{{0,62}}"
        ]

    @pytest.mark.parametrize("gone", ["current", "everything"])
    def test_a_model_that_vanishes_from_disk_stays_in_service_and_is_reported(
        self, registry, folder, gone
    ):
        before = registry.find("pump")
        if gone == "current":
            (folder / "pump" / "current").unlink()
        else:
            folder.rename(folder.with_name("elsewhere"))
        assert look(registry) == {"pump": "failed"}
        assert registry.find("pump") is before
        assert "cannot be read" in registry.errors["pump"]
        assert look(registry) == {"pump": "unchanged"}

    def test_the_time_of_fitting_is_what_the_manifest_says(self, registry, folder):
        publish(folder, "pump", make_artifact(fitted_at=1.5e9))
        look(registry)
        assert registry.find("pump").fitted_at == registry.summaries[0].fitted_at == 1.5e9

    def test_the_time_of_fitting_of_a_file_that_does_not_say_it_is_the_file_s(
        self, registry, folder
    ):
        path = next(folder.glob("pump/*/model.onnx"))
        assert registry.find("pump").fitted_at == path.stat().st_mtime
        assert abs(registry.find("pump").fitted_at - time.time()) < 60


class TestFinding:
    def test_without_a_name_the_only_model_is_found(self, registry):
        assert registry.find(None) is registry.find("pump")

    def test_without_a_name_several_models_are_an_error_that_names_them(self, registry, folder):
        publish(folder, "fan", make_artifact())
        look(registry)
        with pytest.raises(UnknownModel, match="exactly one to be served; served are: fan, pump"):
            registry.find(None)

    def test_an_unknown_name_is_an_error_that_names_the_known_ones(self, registry):
        with pytest.raises(UnknownModel, match="no model 'fan' is served; served are: pump"):
            registry.find("fan")

    def test_an_empty_folder_serves_nothing(self, tmp_path):
        registry = registry_of(tmp_path)
        assert look(registry) == {}
        with pytest.raises(UnknownModel, match="no model is served"):
            registry.find(None)


def truncated(data: bytes) -> bytes:
    return data[: len(data) // 2]


def newer_major(data: bytes) -> bytes:
    return make_artifact(format=f"{artifact.FORMAT_MAJOR + 1}.0")


def requiring(data: bytes) -> bytes:
    return make_artifact(requires=("time-travel",))


def foreign(data: bytes) -> bytes:
    return b"PK\x03\x04" + bytes(1000)


def failing_its_self_test(data: bytes) -> bytes:
    return make_artifact(self_test_scale=1.01)


class TestDistrust:
    @pytest.mark.parametrize(
        ("spoil", "reason"),
        [
            (truncated, "not ONNX, or is cut short"),
            (foreign, "not ONNX"),
            (newer_major, "has format 2.0, this service reads format 1.x"),
            (requiring, "requires time-travel, which this service does not know"),
            (failing_its_self_test, "the self-test failed: score differs"),
        ],
    )
    def test_a_file_that_is_refused_leaves_the_model_in_service(
        self, registry, folder, spoil, reason
    ):
        before = registry.find("pump")
        publish(folder, "pump", spoil(make_artifact()))
        assert look(registry) == {"pump": "failed"}
        assert registry.find("pump") is before
        assert reason in registry.errors["pump"]

    def test_a_file_that_is_not_of_its_version_is_refused(self, registry, folder):
        version = publish(folder, "pump", make_artifact(shift=1))
        (folder / "pump" / version / "model.onnx").write_bytes(make_artifact(shift=2))
        assert look(registry) == {"pump": "failed"}
        assert "has the SHA-256" in registry.errors["pump"]

    def test_a_file_over_the_size_cap_is_not_even_read(self, folder):
        registry = registry_of(folder, max_bytes=100)
        assert look(registry) == {"pump": "failed"}
        assert "bytes, at most 100 are loaded" in registry.errors["pump"]
        with pytest.raises(UnknownModel, match=r"no model 'pump' is served \(.*bytes, at most"):
            registry.find("pump")

    @pytest.mark.parametrize(
        "text", ["", "latest", "../../../etc/passwd", "0" * 63, "g" * 64, "0" * 1000]
    )
    def test_a_pointer_that_is_no_version_is_refused(self, registry, folder, text):
        point(folder, "pump", text)
        assert look(registry) == {"pump": "failed"}
        assert "expected a version (64 hexadecimal digits)" in registry.errors["pump"]

    def test_a_failure_is_not_tried_again_until_the_pointer_moves_or_a_reload_asks(
        self, registry, folder
    ):
        good = version_in_service(registry)
        version = publish(folder, "pump", truncated(make_artifact(shift=1)))
        assert [look(registry), look(registry)] == [{"pump": "failed"}, {"pump": "unchanged"}]
        assert "pump" in registry.errors
        assert look(registry, "pump") == {"pump": "failed"}
        point(folder, "pump", good)
        assert look(registry) == {"pump": "unchanged"}
        assert registry.errors == {}
        assert version != version_in_service(registry)

    def test_a_reload_of_a_model_that_is_nowhere_is_unknown(self, registry):
        with pytest.raises(UnknownModel):
            look(registry, "fan")

    def test_what_breaks_its_reader_in_a_way_without_a_name_is_refused_too(
        self, registry, folder, monkeypatch
    ):
        monkeypatch.setattr("hourglass.service.serving.loading.served_from", lambda *_, **__: [][0])
        publish(folder, "pump", make_artifact(shift=1))
        assert look(registry) == {"pump": "failed"}
        assert "IndexError" in registry.errors["pump"]

    def test_a_broken_model_does_not_keep_another_from_being_served(self, folder):
        publish(folder, "fan", truncated(make_artifact()))
        registry = registry_of(folder)
        assert look(registry) == {"fan": "failed", "pump": "loaded"}
        assert list(registry.served) == ["pump"]


class TestThresholds:
    def change(self, registry, alpha, delta=0.05, uncertified=False):
        return asyncio.run(
            registry.change_threshold("pump", ThresholdChange(alpha, delta, uncertified))
        )

    def test_another_alpha_holds_at_once_and_the_detector_stays(self, registry):
        before = registry.find("pump")
        after = self.change(registry, 0.1)
        assert after is registry.find("pump")
        assert after.detector is before.detector
        assert after.threshold == before.detector.table.threshold(0.1, 0.05)
        assert after.threshold.score < before.threshold.score

    def test_another_process_and_a_restart_find_it_on_disk(self, registry, folder):
        other = registry_of(folder)
        look(other)
        self.change(registry, 0.1)
        assert look(other) == {"pump": "unchanged"}
        restarted = registry_of(folder)
        look(restarted)
        assert (
            other.find("pump").threshold
            == restarted.find("pump").threshold
            == registry.find("pump").threshold
        )
        assert load(ModelFolder(folder / "pump"))[0].threshold == registry.find("pump").threshold

    def test_taking_it_back_is_taking_the_file_away_however_soon(self, registry, folder):
        before = registry.find("pump").threshold
        self.change(registry, 0.1)
        (folder / "pump" / "threshold.json").unlink()
        look(registry)
        assert registry.find("pump").threshold == before

    def test_what_cannot_be_certified_is_refused_and_changes_nothing(self, registry, folder):
        before = registry.find("pump")
        with pytest.raises(
            UncertifiableAlpha, match=r"it needs at least 2995; the nearest alpha .* is 0.0075"
        ):
            self.change(registry, 0.001)
        assert registry.find("pump") is before
        assert not (folder / "pump" / "threshold.json").exists()

    def test_uncertified_takes_the_marginal_rule_and_is_marked(self, registry):
        threshold = self.change(registry, 0.005, uncertified=True).threshold
        assert (threshold.certified, threshold.rank) == (False, 2)

    def test_a_folder_that_cannot_be_written_keeps_the_threshold(self, registry, folder):
        (folder / "pump" / "threshold.json").mkdir()
        before = registry.find("pump")
        with pytest.raises(ThresholdNotStored, match="so the threshold stays as it is"):
            self.change(registry, 0.1)
        assert registry.find("pump") is before
        assert [path.name for path in (folder / "pump").glob(".*")] == [".lock"]

    def test_it_survives_a_new_version(self, registry, folder):
        self.change(registry, 0.1)
        publish(folder, "pump", make_artifact(shift=1))
        assert look(registry) == {"pump": "swapped"}
        assert registry.find("pump").threshold.alpha == 0.1
        assert registry.errors == {}

    def test_where_a_new_version_cannot_have_it_the_models_own_is_in_force_and_that_is_said(
        self, registry, folder
    ):
        self.change(registry, 0.01)
        publish(folder, "pump", make_artifact(calibration_rows=100))
        assert look(registry) == {"pump": "swapped"}
        assert registry.find("pump").threshold.alpha == 0.05
        sentence = "the model's own alpha = 0.05 is in force: alpha = 0.01 cannot be certified"
        assert sentence in registry.errors["pump"]
        assert registry.problems["pump"].fault == "uncertifiable"
        assert sentence in registry.find("pump").facts()["warning"]
        assert sentence in registry.summaries[0].warning
        self.change(registry, 0.1)
        assert (registry.problems, registry.find("pump").warning) == ({}, None)

    @pytest.mark.parametrize(
        "text",
        ["", "{}", '{"alpha": 2, "delta": 0.05}', '{"alpha": 0.1, "delta": 0.05, "x": 1}', "\xff"],
    )
    def test_a_file_that_is_no_threshold_is_reported_and_the_models_own_is_in_force(
        self, registry, folder, text
    ):
        self.change(registry, 0.1)
        (folder / "pump" / "threshold.json").write_text(text, encoding="latin-1")
        look(registry)
        assert registry.find("pump").threshold.alpha == 0.05
        assert "threshold.json cannot be used" in registry.errors["pump"]


class TestWhatHangs:
    """A load that does not end: of a file system that stopped answering, say."""

    @pytest.fixture
    def over(self) -> Iterator[threading.Event]:
        """Until it is set, at the test's end at the latest, loads hang."""
        over = threading.Event()
        yield over
        over.set()

    @pytest.fixture
    def hanging(self, monkeypatch: pytest.MonkeyPatch, over: threading.Event) -> set[str]:
        """Models whose loads hang."""
        names: set[str] = set()

        def hang(model: ModelFolder, *arguments: object, **options: object) -> object:
            if model.name in names:
                over.wait()
            return load(model, *arguments, **options)

        monkeypatch.setattr("hourglass.service.serving.registry.load", hang)
        monkeypatch.setattr("hourglass.service.serving.registry.LOAD_SECONDS", 0.4)
        monkeypatch.setattr("hourglass.service.serving.patience.PATIENCE_SECONDS", 0.1)
        return names

    def test_it_is_let_go_and_other_models_are_looked_at(self, registry, folder, hanging):
        publish(folder, "fan", make_artifact())
        publish(folder, "pump", make_artifact(shift=1))
        hanging.add("fan")
        assert look(registry) == {"fan": "failed", "pump": "swapped"}
        assert registry.problems["fan"].fault == "timeout"

    def test_it_is_not_tried_again_while_it_hangs(self, registry, folder, hanging):
        publish(folder, "fan", make_artifact())
        hanging.add("fan")
        look(registry)
        before = threading.active_count()
        for shift in (1, 2, 3):
            publish(folder, "fan", make_artifact(shift=shift))
            assert look(registry)["fan"] == "unchanged"
        assert threading.active_count() <= before

    def test_another_models_threshold_and_reload_do_not_wait_for_it(
        self, registry, folder, hanging, over, monkeypatch
    ):
        monkeypatch.setattr("hourglass.service.serving.registry.LOAD_SECONDS", 60.0)
        publish(folder, "fan", make_artifact())
        hanging.add("fan")

        async def meanwhile() -> None:
            looking = asyncio.create_task(registry.look())
            await asyncio.sleep(0.05)
            await registry.change_threshold("pump", ThresholdChange(alpha=0.1))
            publish(folder, "pump", make_artifact(shift=1))
            (reloaded,) = await registry.look("pump")
            assert reloaded.outcome == "swapped"
            assert not looking.done()
            over.set()
            await looking

        asyncio.run(meanwhile())
        assert registry.find("pump").threshold.alpha == 0.1

    def test_a_threshold_of_the_model_itself_does_not_wait_and_is_not_lost(
        self, registry, folder, monkeypatch
    ):
        go_on = threading.Event()

        def late(model: ModelFolder, *arguments: object, **options: object) -> object:
            loaded = load(model, *arguments, **options)
            go_on.wait(5)
            return loaded

        monkeypatch.setattr("hourglass.service.serving.registry.load", late)
        publish(folder, "pump", make_artifact(shift=1))

        async def meanwhile() -> float:
            looking = asyncio.create_task(registry.look())
            await asyncio.sleep(0.1)
            after = await registry.change_threshold("pump", ThresholdChange(alpha=0.1))
            go_on.set()
            await looking
            return after.threshold.alpha

        assert asyncio.run(meanwhile()) == 0.1
        assert registry.find("pump").threshold.alpha == 0.1
        assert registry.find("pump").detector.manifest.model.hyper_parameters == {"shift": 1}

    def test_thresholds_that_never_stop_changing_do_not_hold_up_a_load(
        self, registry, folder, monkeypatch
    ):
        loop = asyncio.new_event_loop()
        alphas = iter(range(5, 50))

        def changing(model: ModelFolder, *arguments: object, **options: object) -> object:
            loaded = load(model, *arguments, **options)
            change = registry.change_threshold("pump", ThresholdChange(next(alphas) / 100))
            asyncio.run_coroutine_threadsafe(change, loop).result(5)
            return loaded

        monkeypatch.setattr("hourglass.service.serving.registry.load", changing)
        version = publish(folder, "pump", make_artifact(shift=1))
        (load_,) = loop.run_until_complete(registry.look("pump"))
        loop.close()
        assert (load_.outcome, load_.version, next(alphas)) == ("swapped", version, 6)
        assert registry.find("pump").threshold.alpha == 0.05

    def test_many_who_have_it_reloaded_at_once_wait_for_two_loads(
        self, registry, folder, monkeypatch
    ):
        loads = []

        def noted(model: ModelFolder, *arguments: object, **options: object) -> object:
            loads.append(time.sleep(0.05))
            return load(model, *arguments, **options)

        monkeypatch.setattr("hourglass.service.serving.registry.load", noted)

        async def reload_often() -> set[str]:
            first = asyncio.create_task(registry.look("pump"))
            await asyncio.sleep(0.03)
            version = publish(folder, "pump", make_artifact(shift=1))
            others = await asyncio.gather(*[registry.look("pump") for _ in range(20)])
            await first
            assert {each.version for (each,) in others} == {version}
            return {each.outcome for (each,) in others}

        assert asyncio.run(reload_often()) <= {"swapped", "unchanged"}
        assert len(loads) == 2

    def test_a_threshold_that_was_said_not_to_be_stored_is_not_stored_later(
        self, registry, folder, monkeypatch
    ):
        monkeypatch.setattr("hourglass.service.serving.registry.CHANGE_SECONDS", 0.2)
        monkeypatch.setattr("hourglass.service.serving.patience.PATIENCE_SECONDS", 0.05)
        others = set(threading.enumerate())
        lock = os.open(folder / "pump" / ".lock", os.O_RDWR | os.O_CREAT)
        fcntl.flock(lock, fcntl.LOCK_EX)

        async def change_twice() -> list[object]:
            changes = (registry.change_threshold("pump", ThresholdChange(a)) for a in (0.1, 0.2))
            return await asyncio.gather(*changes, return_exceptions=True)

        assert [type(each) for each in asyncio.run(change_twice())] == [ThresholdNotStored] * 2
        os.close(lock)
        wait = [
            each for each in threading.enumerate() if each.name == "changes" and each not in others
        ]
        for thread in wait:
            thread.join(5)
        assert wait
        assert registry.find("pump").threshold.alpha == 0.05
        assert not (folder / "pump" / "threshold.json").exists()

    def test_a_lock_that_another_process_holds_does_not_keep_others_from_being_looked_at(
        self, registry, folder
    ):
        lock = os.open(folder / "pump" / ".lock", os.O_RDWR | os.O_CREAT)
        fcntl.flock(lock, fcntl.LOCK_EX)

        async def meanwhile() -> float:
            change = registry.change_threshold("pump", ThresholdChange(0.1))
            changing = asyncio.create_task(change)
            await asyncio.sleep(0.05)
            started = time.monotonic()
            assert await registry.look() == [
                Load("pump", "unchanged", registry.find("pump").detector.version)
            ]
            took = time.monotonic() - started
            os.close(lock)
            assert (await changing).threshold.alpha == 0.1
            return took

        assert asyncio.run(meanwhile()) < 3  # the lock is waited for longer

    def test_the_folder_that_hangs_is_said_once_and_what_is_in_service_stays(
        self, registry, folder, monkeypatch, caplog
    ):
        over = threading.Event()
        monkeypatch.setattr(Store, "look_seconds", 0.1)
        monkeypatch.setattr("hourglass.service.serving.patience.PATIENCE_SECONDS", 0.05)
        monkeypatch.setattr(Store, "look", lambda _: over.wait())
        assert look(registry) == {"pump": "failed"}
        assert [look(registry) for _ in range(3)] == [{"pump": "unchanged"}] * 3
        over.set()
        assert caplog.messages == [f"{folder} cannot be read: the file system hangs"]
        assert list(registry.served) == ["pump"]

    def test_a_folder_that_hangs_when_it_is_first_asked_for_is_no_model(
        self, registry, monkeypatch
    ):
        over = threading.Event()
        monkeypatch.setattr(Store, "look_seconds", 0.1)
        monkeypatch.setattr("hourglass.service.serving.patience.PATIENCE_SECONDS", 0.05)
        monkeypatch.setattr(ModelFolder, "look", lambda _: over.wait())
        with pytest.raises(UnknownModel, match="no model 'fan' is served; served are: pump"):
            asyncio.run(registry.look("fan"))
        over.set()

    def test_a_failed_model_that_hangs_when_it_is_looked_at_again_keeps_no_other_waiting(
        self, registry, folder, monkeypatch
    ):
        publish(folder, "fan", truncated(make_artifact()))
        assert look(registry)["fan"] == "failed"
        over, state = threading.Event(), ModelFolder.state

        def hang(model: ModelFolder) -> object:
            return over.wait() if model.name == "fan" else state(model)

        monkeypatch.setattr(Store, "look_seconds", 0.5)
        monkeypatch.setattr("hourglass.service.serving.patience.PATIENCE_SECONDS", 0.1)
        monkeypatch.setattr(ModelFolder, "state", hang)
        publish(folder, "pump", make_artifact(shift=1))
        assert look(registry) == {"fan": "failed", "pump": "swapped"}
        assert registry.problems["fan"].fault == "timeout"
        assert look(registry) == {"fan": "unchanged", "pump": "unchanged"}
        over.set()

    def test_the_end_of_the_process_does_not_wait_for_it(self, folder):
        code = (
            "import asyncio, sys, threading\n"
            "from pathlib import Path\n"
            "from hourglass.service.serving import registry as r\n"
            "from hourglass.service.serving.store import Store\n"
            "r.load = lambda *_, **__: threading.Event().wait()\n"
            "r.LOAD_SECONDS, r.CLOSE_SECONDS = 0.1, 0.1\n"
            "registry = r.Registry(Store(Path(sys.argv[1])), threads=2, max_bytes=10**6)\n"
            "print(asyncio.run(registry.look())[0].outcome); registry.close()"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, folder],
            text=True, capture_output=True, check=True, timeout=30,
        )  # fmt: skip
        assert done.stdout == "failed\n"


class TestTryingAgain:
    @pytest.fixture(autouse=True)
    def later(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """What may pass is waited for as long as the test says."""
        self.now = 1000.0
        monkeypatch.setattr("hourglass.service.serving.registry.monotonic", lambda: self.now)

    def test_a_pointer_that_comes_before_its_file_is_taken_up_with_the_file(self, registry, folder):
        data = make_artifact(shift=1)
        version = artifact.version_of(data)
        point(folder, "pump", version)
        assert look(registry) == {"pump": "failed"}
        assert registry.problems["pump"].fault == "missing"
        (folder / "pump" / version).mkdir()
        assert look(registry) == {"pump": "failed"}
        (folder / "pump" / version / "model.onnx").write_bytes(data[:1000])
        assert look(registry) == {"pump": "failed"}
        assert registry.problems["pump"].fault == "damaged"
        (folder / "pump" / version / "model.onnx").write_bytes(data)
        assert look(registry) == {"pump": "swapped"}
        assert registry.problems == {}
        assert version_in_service(registry) == version

    def test_a_file_that_is_mended_in_place_is_taken_up_without_a_new_pointer(
        self, registry, folder
    ):
        data = make_artifact(shift=1)
        version = publish(folder, "pump", data)
        file = folder / "pump" / version / "model.onnx"
        file.write_bytes(b"x" * len(data))
        assert [look(registry)["pump"] for _ in range(3)] == ["failed", "unchanged", "unchanged"]
        file.write_bytes(data)
        assert look(registry) == {"pump": "swapped"}

    def test_what_may_pass_is_tried_again_later_and_later(self, registry, folder, monkeypatch):
        """Descriptors that were used up while a version was published."""
        publish(folder, "pump", make_artifact(shift=1))
        tries = []

        def used_up(*_: object, **__: object) -> None:
            tries.append(self.now)
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

        with monkeypatch.context() as patched:
            patched.setattr("hourglass.service.serving.registry.load", used_up)
            for _ in range(200):
                look(registry)
                self.now += 1.0
        assert [later - earlier for earlier, later in itertools.pairwise(tries)] == [
            1, 2, 4, 8, 16, 32, 60, 60,
        ]  # fmt: skip
        assert registry.problems["pump"].fault == "resources"
        self.now += 60
        assert look(registry) == {"pump": "swapped"}
        assert registry.problems == {}

    def test_what_cannot_pass_is_not_tried_again(self, registry, folder):
        publish(folder, "pump", truncated(make_artifact(shift=1)))
        assert look(registry) == {"pump": "failed"}
        for _ in range(100):
            self.now += 100
            assert look(registry) == {"pump": "unchanged"}

    def test_it_is_logged_once_however_often_it_is_tried(self, registry, folder, caplog):
        point(folder, "pump", "0" * 64)
        for _ in range(10):
            look(registry)
            self.now += 100
        assert len(caplog.messages) == 1

    @pytest.mark.parametrize(
        ("spoil", "fault"),
        [
            (lambda model, _: (model / "current").unlink(), "pointer"),
            (lambda model, _: (model / "current").write_text("latest"), "pointer"),
            (lambda _, file: file.unlink(), "missing"),
            (lambda _, file: (file.unlink(), os.mkfifo(file)), "unreadable"),
            (lambda _, file: file.write_bytes(b"another"), "damaged"),
            (lambda model, _: (model / "threshold.json").write_text("?"), "threshold"),
            (
                lambda model, _: (model / "threshold.json").write_text(
                    '{"alpha": 0.001, "delta": 0.05}'
                ),
                "uncertifiable",
            ),
        ],
    )
    def test_the_fault_is_one_of_a_closed_set(self, folder, spoil, fault):
        spoil(folder / "pump", next(folder.glob("pump/*/model.onnx")))
        registry = registry_of(folder)
        look(registry)
        found = {name: problem.fault for name, problem in registry.problems.items()}
        assert found == ({} if fault == "pointer" and not registry.names else {"pump": fault})
        assert fault in FAULTS


class TestRetiring:
    def test_a_folder_that_is_gone_for_two_looks_takes_the_model_out_of_service(
        self, registry, folder, caplog
    ):
        caplog.set_level(logging.INFO)
        shutil.rmtree(folder / "pump")
        assert look(registry) == {"pump": "failed"}
        assert registry.problems["pump"].fault == "gone"
        assert list(registry.served) == ["pump"]
        assert look(registry) == {"pump": "retired"}
        assert look(registry) == {}
        assert (dict(registry.served), registry.names, registry.problems) == ({}, frozenset(), {})
        assert caplog.messages == ["model pump: its folder is gone, it is out of service"]
        with pytest.raises(UnknownModel, match="no model 'pump' is served; no model is served"):
            registry.find("pump")

    def test_a_folder_that_is_replaced_in_between_is_not_retired(self, registry, folder):
        before = registry.find("pump")
        (folder / "pump").rename(folder / ".pump")
        look(registry)
        (folder / ".pump").rename(folder / "pump")
        assert look(registry) == {"pump": "unchanged"}
        assert registry.find("pump") is not None
        assert registry.find("pump").detector is before.detector
        assert registry.problems == {}
        shutil.rmtree(folder / "pump")
        assert look(registry) == {"pump": "failed"}

    def test_a_model_that_comes_back_is_new(self, registry, folder):
        shutil.rmtree(folder / "pump")
        look(registry), look(registry)
        publish(folder, "pump", make_artifact())
        assert look(registry) == {"pump": "loaded"}


class TestManyModels:
    @pytest.fixture
    def few(self, tmp_path):
        """Three models, of which two are kept in memory; the newest is c."""
        for number, name in enumerate("abc"):
            publish(tmp_path, name, make_artifact(shift=number))
            os.utime(tmp_path / name / "current", (1000 + number,) * 2)
        registry = Registry(Store(tmp_path), threads=1, max_bytes=2**20, max_loaded=2)
        look(registry)
        return registry

    def test_those_published_last_are_loaded_first(self, few):
        assert (list(few.served), few.unloaded) == (["b", "c"], {"a"})

    def test_one_that_is_asked_for_is_loaded_and_the_one_unused_longest_is_let_go(self, few):
        few.find("b")
        with pytest.raises(NotLoaded, match="model 'a' is not loaded yet"):
            few.find("a")
        assert asyncio.run(few.get("a")).name == "a"
        assert (list(few.served), few.unloaded) == (["a", "b"], {"c"})
        asyncio.run(few.get("c"))
        assert (list(few.served), few.unloaded) == (["a", "c"], {"b"})

    def test_one_that_others_push_out_while_it_is_loaded_answers_all_the_same(self, few, tmp_path):
        registry = Registry(Store(tmp_path), threads=1, max_bytes=2**20, max_loaded=1)
        look(registry)

        async def ask_for_all() -> list[str]:
            return [each.name for each in await asyncio.gather(*map(registry.get, "abcabc"))]

        assert asyncio.run(ask_for_all()) == list("abcabc")
        assert len(registry.served) == 1

    def test_all_are_told_of_whether_in_memory_or_not(self, few):
        asyncio.run(few.get("a"))
        assert [each.name for each in few.summaries] == ["a", "b", "c"]
        assert few.names == {"a", "b", "c"}

    def test_without_a_name_one_of_several_is_not_taken_for_the_only_one(self, few):
        with pytest.raises(UnknownModel, match="served are: a, b, c"):
            few.find(None)

    def test_one_that_is_not_in_memory_comes_back_as_the_pointer_then_says(self, few, tmp_path):
        version = publish(tmp_path, "a", make_artifact(shift=5))
        look(few)
        assert asyncio.run(few.get("a")).detector.version == version

    def test_its_threshold_can_be_changed_all_the_same(self, few, tmp_path):
        asyncio.run(few.change_threshold("a", ThresholdChange(alpha=0.1)))
        asyncio.run(few.get("b")), asyncio.run(few.get("c"))
        assert asyncio.run(few.get("a")).threshold.alpha == 0.1

    def test_two_who_ask_at_once_have_it_loaded_once(self, few, monkeypatch):
        loads = []

        def noted(model: ModelFolder, *arguments: object, **options: object) -> object:
            loads.append(model.name)
            return load(model, *arguments, **options)

        monkeypatch.setattr("hourglass.service.serving.registry.load", noted)

        async def both() -> None:
            await asyncio.gather(few.get("a"), few.get("a"))

        asyncio.run(both())
        assert loads == ["a"]

    def test_one_whose_file_has_gone_meanwhile_says_so_and_is_tried_again(self, few, tmp_path):
        file = next((tmp_path / "a").glob("*/model.onnx"))
        data = file.read_bytes()
        file.unlink()
        with pytest.raises(UnknownModel, match=r"model 'a' is served .*cannot be read: No such"):
            asyncio.run(few.get("a"))
        file.write_bytes(data)
        assert look(few)["a"] == "loaded"

    def test_a_model_that_rests_answers_as_before(self, few):
        detector = few.find("b").detector
        rows_ND = sample_rows(NUMERIC, 20)
        before = detector.score(rows_ND), detector.explain(rows_ND), detector.encode(rows_ND)
        detector.rest()
        after = detector.score(rows_ND), detector.explain(rows_ND), detector.encode(rows_ND)
        for one, other in zip(before, after, strict=True):
            assert np.array_equal(np.concatenate(one, None), np.concatenate(other, None))


@pytest.mark.slow
def test_a_large_model_is_not_kept_in_memory_more_often_than_it_is_run(folder):
    """Three parts of a model are run by themselves; copies made while loading, six times its size
    once, go back to the system.
    """
    wide = tuple(
        Feature(name=f"x{d}", kind="numeric", minimum=-3.0, maximum=3.0) for d in range(1200)
    )
    data = make_artifact(wide, latent=300, calibration_rows=60)
    publish(folder, "wide", data)
    code = (
        "import sys; from pathlib import Path\n"
        "from hourglass.service.machine.heap import give_back_freed\n"
        "from hourglass.service.serving.loading import load\n"
        "from hourglass.service.serving.store import ModelFolder\n"
        "def resident(): return int(Path('/proc/self/statm').read_text().split()[1]) * 4096\n"
        "one = load(ModelFolder(Path(sys.argv[1]) / 'pump')); give_back_freed(); before = resident()\n"
        "two = load(ModelFolder(Path(sys.argv[1]) / 'wide')); give_back_freed()\n"
        "print(resident() - before)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, folder], text=True, capture_output=True, check=True
    )
    assert len(data) > 12_000_000
    assert int(done.stdout) < 3.5 * len(data)


def test_one_file_can_be_loaded_by_itself(folder):
    path = next(folder.glob("pump/*/model.onnx"))
    assert (
        served_from(read_file(path, max_bytes=2**20), "pump").detector.version == path.parent.name
    )
    with pytest.raises(InvalidArtifact, match="cannot be read: No such file"):
        read_file(folder / "nothing", max_bytes=2**20)
