"""The store: what is read from a models folder is regular files of bounded size, and what several
processes write there at once comes out whole.
"""

import errno
import fcntl
import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hourglass.service.errors import InvalidArtifact, InvalidSettings
from hourglass.service.serving.store import (
    MAX_TEXT_BYTES,
    ModelFolder,
    Store,
    StoredThreshold,
    ThresholdChange,
    locate,
    read_file,
    require_models,
)
from tests.artifacts import make_artifact, publish


def fifo(path: Path) -> None:
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.mkdir()


def listening(path: Path) -> None:
    os.mknod(path, stat.S_IFSOCK | 0o600)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def terminal(path: Path) -> None:
    path.symlink_to("/dev/tty")


def huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**40)


def endless(path: Path) -> None:
    """It says that it is empty, and is not."""
    path.symlink_to("/proc/self/maps")


ADD_TO_ALPHA = """
def more(stored):
    time.sleep(0.002)
    return StoredThreshold((stored.alpha if stored else 0.01) + 0.001, 0.05)
for _ in range(10):
    model.change_threshold(more)
"""
PUBLISH_EQUAL_BYTES = """
for number in range(40):
    last = model.publish(b"equal bytes %d" % number, {"run.toml": "x = 1"})
print(last)  # the pointer may be at what a slower process has just published
"""


def at_once(code: str, path: Path) -> list[str]:
    """What four processes print that do this to one model's folder."""
    begin = (
        "import sys, time; from pathlib import Path\n"
        "from hourglass.service.serving.store import ModelFolder, StoredThreshold\n"
        "model = ModelFolder(Path(sys.argv[1]))\n"
    )
    command = [sys.executable, "-c", begin + code, str(path)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    printed = [process.communicate(timeout=60)[0] for process in running]
    assert [process.returncode for process in running] == [0] * 4
    return "".join(printed).split()


KINDS = [fifo, folder, listening, device, terminal, huge]


@pytest.fixture
def model(tmp_path: Path) -> ModelFolder:
    publish(tmp_path, "pump", make_artifact())
    return ModelFolder(tmp_path / "pump")


@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize("place", ["pointer", "model", "threshold"])
def test_what_is_no_regular_file_of_bounded_size_is_refused_at_once(
    model: ModelFolder, make: Callable[[Path], None], place: str
):
    version = model.current()
    path = {
        "pointer": model.path / "current",
        "model": model.file(version),
        "threshold": model.path / "threshold.json",
    }[place]
    path.unlink(missing_ok=True)
    make(path)
    started = time.monotonic()
    with pytest.raises(InvalidArtifact) as refused:
        {
            "pointer": model.current,
            "model": lambda: model.read(version, max_bytes=2**20),
            "threshold": model.threshold,
        }[place]()
    assert time.monotonic() - started < 1
    assert str(path) in str(refused.value)
    expected = {"threshold": {"threshold"}}.get(place, {"unreadable", "refused"})
    assert refused.value.fault in expected


def test_a_file_that_is_longer_than_it_says_is_not_read_to_its_end(model: ModelFolder):
    (model.path / "current").unlink()
    endless(model.path / "current")
    with pytest.raises(InvalidArtifact, match="leads out of the folder"):
        model.current()
    with pytest.raises(InvalidArtifact, match="at most 0 are loaded"):
        read_file(Path("/proc/self/maps"), max_bytes=0)


def test_a_pointer_or_a_threshold_is_no_way_out_of_the_folder(model: ModelFolder, tmp_path: Path):
    secret = tmp_path / "secret"
    secret.write_text("the password")
    for name, read in (("current", model.current), ("threshold.json", model.threshold)):
        (model.path / name).unlink(missing_ok=True)
        (model.path / name).symlink_to(secret)
        with pytest.raises(InvalidArtifact, match="leads out of the folder") as refused:
            read()
        assert "password" not in str(refused.value)


def test_links_within_the_folder_are_followed_as_kubernetes_makes_them(model: ModelFolder):
    version = model.current()
    (model.path / "..data").mkdir()
    (model.path / "current").rename(model.path / "..data" / "current")
    (model.path / "current").symlink_to("..data/current")
    assert model.current() == version


def test_a_pointer_longer_than_a_version_could_be_is_not_read(model: ModelFolder):
    (model.path / "current").write_text("0" * (MAX_TEXT_BYTES + 1))
    with pytest.raises(InvalidArtifact, match=f"at most {MAX_TEXT_BYTES} are loaded"):
        model.current()


@pytest.mark.parametrize("meant", ["the file", "the version's folder", "the model's folder"])
def test_a_version_is_held_to_its_hash_by_whichever_path_it_is_meant(
    model: ModelFolder, meant: str
):
    file = model.file(model.current())
    file.write_bytes(make_artifact(shift=1))
    path = {"the file": file, "the version's folder": file.parent, "the model's folder": model.path}
    with pytest.raises(InvalidArtifact, match="has the SHA-256"):
        read_file(locate(path[meant]), max_bytes=2**20)


class TestThresholdsOfSeveralProcesses:
    def test_changes_merge_into_what_is_stored(self, model: ModelFolder):
        own = StoredThreshold(0.05, 0.05)
        model.change_threshold(lambda stored: ThresholdChange(alpha=0.1).of(stored or own))
        model.change_threshold(lambda stored: ThresholdChange(delta=0.2).of(stored or own))
        assert model.threshold() == StoredThreshold(0.1, 0.2)

    def test_of_changes_at_once_none_is_lost(self, model: ModelFolder):
        at_once(ADD_TO_ALPHA, model.path)
        stored = model.threshold()
        assert stored is not None
        assert stored.alpha == pytest.approx(0.01 + 40 * 0.001)

    def test_a_lock_that_is_never_let_go_is_an_error_after_a_while(
        self, model: ModelFolder, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr("hourglass.service.serving.store.LOCK_SECONDS", 0.05)
        with (model.path / ".lock").open("w") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            with pytest.raises(OSError, match="another process holds its lock") as raised:
                model.change_threshold(lambda _: StoredThreshold(0.1, 0.1))
        assert raised.value.errno == errno.ETIMEDOUT
        assert model.threshold() is None


class TestPublishing:
    def test_equal_bytes_published_at_once_by_several_processes_are_no_error(self, tmp_path: Path):
        (version,) = set(at_once(PUBLISH_EQUAL_BYTES, tmp_path / "pump"))
        model = ModelFolder(tmp_path / "pump")
        assert model.current() == version
        assert len(model.versions()) == 40
        assert all(model.is_intact(each) for each in model.versions())
        assert {path.name for path in model.path.iterdir()} == {*model.versions(), "current"}

    @pytest.mark.parametrize("make", [fifo, folder, listening, huge])
    def test_a_version_whose_file_is_none_is_written_anew(
        self, model: ModelFolder, make: Callable[[Path], None]
    ):
        version = model.current()
        model.file(version).unlink()
        if make is huge:
            model.file(version).write_bytes(b"much")
        else:
            make(model.file(version))
        assert model.publish(make_artifact(), {}) == version
        assert model.is_intact(version)

    def test_what_a_killed_process_left_goes_after_a_day_and_no_sooner(self, model: ModelFolder):
        names = [".publishing-abc", ".replaced-abc", ".current-abc", ".threshold.json-abc"]
        for age_seconds, suffix in ((90_000, "old"), (3_600, "new")):
            for name in names:
                path = model.path / f"{name}{suffix}"
                if "-abc" in name and name.startswith((".publishing", ".replaced")):
                    path.mkdir()
                    (path / "model.onnx").write_bytes(b"half")
                else:
                    path.write_bytes(b"half")
                os.utime(path, (time.time() - age_seconds,) * 2)
        model.publish(make_artifact(shift=1), {})
        left = sorted(path.name for path in model.path.glob(".*"))
        assert left == sorted(f"{name}new" for name in names)

    def test_scratch_names_are_not_of_the_process(self, model: ModelFolder, monkeypatch):
        """Two containers are both process 1."""
        names = []
        rename = Path.rename

        def noted(path: Path, target: Path) -> Path:
            names.append(path.name)
            return rename(path, target)

        monkeypatch.setattr(Path, "rename", noted)
        for shift in (1, 2):
            model.publish(make_artifact(shift=shift), {})
        assert len(set(names)) == 2
        assert not any(str(os.getpid()) in name for name in names)


class TestFoldersThatAreNoneOfModels:
    def test_a_model_s_own_folder_is_named_with_the_folder_that_is_meant(self, model: ModelFolder):
        with pytest.raises(InvalidSettings) as refused:
            require_models(model.path)
        assert str(refused.value) == (
            f"{model.path} is the folder of one model, since it holds current; --models"
            f" {model.path.parent} serves that as pump, and all others in there"
        )

    def test_so_is_a_version_s(self, model: ModelFolder):
        path = model.path / model.current()
        with pytest.raises(
            InvalidSettings, match=f"since it holds model.onnx.*{model.path.parent} may be meant"
        ):
            require_models(path)

    def test_a_file_and_nothing_are_no_folders(self, model: ModelFolder, tmp_path: Path):
        with pytest.raises(InvalidSettings, match="is a file, expected a folder of models"):
            require_models(model.file(model.current()))
        with pytest.raises(InvalidSettings, match="there is no folder"):
            require_models(tmp_path / "nowhere")

    def test_of_an_empty_folder_it_is_said_what_belongs_there(
        self, model: ModelFolder, tmp_path: Path
    ):
        empty = tmp_path / "empty"
        (empty / "no model").mkdir(parents=True)
        assert require_models(empty) == (
            f"{empty} holds no model yet, expected {empty}/NAME/current; they are served as they"
            " come"
        )
        assert require_models(model.path.parent) is None


def test_a_look_sees_each_folder_and_whether_it_has_a_pointer(model: ModelFolder, tmp_path: Path):
    (tmp_path / "lost+found").mkdir()
    (tmp_path / "notes.txt").write_text("")
    looked = Store(tmp_path).look()
    assert sorted(looked) == ["lost+found", "pump"]
    assert looked["lost+found"] == (None, None)
    assert looked["pump"][0] is not None
