import os
from pathlib import Path

import pytest

from hourglass.service.model.artifact import version_of
from hourglass.service.serving.store import MODEL_FILE, POINTER, Store
from hourglass.training.errors import RunError
from hourglass.training.publish import promote
from tests.training.conftest import Outcome

OLD, NEW = b"the old model", b"the new model"


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A folder where the old model is in service."""
    Store(tmp_path / "models").model("pump").publish(OLD, {"run.toml": "old = 1\n"})
    return tmp_path / "models"


def contents(models: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(models)): path.read_bytes()
        for path in models.rglob("*")
        if path.is_file()
    }


def test_a_version_is_the_hash_of_its_file_and_lies_in_a_folder_of_that_name(models: Path) -> None:
    version = (
        Store(models).model("pump").publish(NEW, {"run.toml": "new = 1\n", "report.json": "{}"})
    )
    assert version == version_of(NEW)
    assert contents(models / "pump" / version) == {
        MODEL_FILE: NEW,
        "run.toml": b"new = 1\n",
        "report.json": b"{}",
    }
    assert (models / "pump" / POINTER).read_text() == f"{version}\n"
    assert (
        models / "pump" / version
    ).stat().st_mode & 0o055 == 0o055  # another user's service may read it


def test_the_old_version_stays(models: Path) -> None:
    Store(models).model("pump").publish(NEW, {})
    assert (models / "pump" / version_of(OLD) / MODEL_FILE).read_bytes() == OLD


def test_publishing_the_same_bytes_again_changes_only_the_pointer(models: Path) -> None:
    before = contents(models)
    Store(models).model("pump").publish(NEW, {})
    Store(models).model("pump").publish(OLD, {"run.toml": "other = 1\n"})
    after = contents(models)
    assert Store(models).model("pump").current() == version_of(OLD)
    assert {path: after[path] for path in before} == before


def test_what_is_missing_beside_a_version_comes_with_the_next_fit_of_it(models: Path) -> None:
    Store(models).model("pump").publish(OLD, {"run.toml": "old = 1\n", "report.json": "{}"})
    assert contents(models / "pump" / version_of(OLD)) == {
        MODEL_FILE: OLD,
        "run.toml": b"old = 1\n",
        "report.json": b"{}",
    }


def test_a_damaged_version_is_written_anew(models: Path) -> None:
    (models / "pump" / version_of(OLD) / MODEL_FILE).write_bytes(b"garbage")
    Store(models).model("pump").publish(OLD, {})
    assert (models / "pump" / version_of(OLD) / MODEL_FILE).read_bytes() == OLD


@pytest.mark.parametrize(
    "error", [OSError("disk full"), KeyboardInterrupt()], ids=["full disk", "interrupt"]
)
@pytest.mark.parametrize(
    ("owner", "call", "times"),
    [
        (os, "fsync", 1),
        (os, "fsync", 2),
        (os, "fsync", 3),
        (Path, "rename", 1),
        (Path, "chmod", 1),
        (Path, "replace", 1),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_a_crash_at_any_step_leaves_the_old_model_in_service_and_nothing_half_written(
    models: Path,
    monkeypatch: pytest.MonkeyPatch,
    owner: object,
    call: str,
    times: int,
    error: BaseException,
) -> None:
    before = contents(models)
    real, calls = getattr(owner, call), iter(range(1, 100))

    def crash(*arguments: object) -> object:
        if next(calls) == times:
            raise error
        return real(*arguments)

    monkeypatch.setattr(owner, call, crash)
    with pytest.raises(type(error)):
        Store(models).model("pump").publish(NEW, {"run.toml": "new = 1\n"})
    monkeypatch.undo()
    assert Store(models).model("pump").current() == version_of(OLD)
    after = contents(models)
    assert {path: after[path] for path in before} == before
    version = f"pump/{version_of(NEW)}"
    # the new version is there whole or not at all
    assert set(after) - set(before) in (set(), {f"{version}/{MODEL_FILE}", f"{version}/run.toml"})
    assert not list(models.rglob(".*"))


def test_the_version_is_whole_before_the_pointer_names_it(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    real = Path.replace

    def watch(self: Path, target: Path) -> Path:
        seen.append((models / "pump" / self.read_text().strip() / MODEL_FILE).read_bytes())
        return real(self, target)

    monkeypatch.setattr(Path, "replace", watch)
    Store(models).model("pump").publish(NEW, {})
    assert seen == [NEW]


def test_promoting_goes_back_and_forth_by_the_beginning_of_a_version(models: Path) -> None:
    Store(models).model("pump").publish(NEW, {})
    assert promote(models, "pump", version_of(OLD)[:6]) == version_of(OLD)
    assert Store(models).model("pump").current() == version_of(OLD)
    assert promote(models, "pump", version_of(NEW)) == version_of(NEW)
    assert Store(models).model("pump").current() == version_of(NEW)


def test_a_version_that_is_not_there_is_refused_and_those_that_are_named(models: Path) -> None:
    with pytest.raises(
        RunError, match=rf"'ffff' of 'pump' is not there; the versions are {version_of(OLD)[:12]}"
    ):
        promote(models, "pump", "ffff")


def test_an_ambiguous_beginning_is_refused(models: Path) -> None:
    Store(models).model("pump").publish(NEW, {})
    with pytest.raises(RunError, match="is ambiguous"):
        promote(models, "pump", "")


def test_a_model_that_is_not_there_is_refused(models: Path) -> None:
    with pytest.raises(RunError, match="there is no model 'fan'"):
        promote(models, "fan", "abc")


def test_a_damaged_file_is_not_promoted(models: Path) -> None:
    Store(models).model("pump").publish(NEW, {})
    (models / "pump" / version_of(OLD) / MODEL_FILE).write_bytes(OLD + b"!")
    with pytest.raises(
        RunError, match=rf"the file of version {version_of(OLD)[:12]} of 'pump' is damaged"
    ):
        promote(models, "pump", version_of(OLD)[:8])
    assert Store(models).model("pump").current() == version_of(NEW)


def test_a_half_written_folder_is_no_version(models: Path) -> None:
    (models / "pump" / ".publishing-x").mkdir()
    (models / "pump" / ".publishing-x" / MODEL_FILE).write_bytes(b"half")
    with pytest.raises(RunError, match="is not there"):
        promote(models, "pump", ".pub")


def test_the_command_says_where_the_pointer_went(models: Path, command) -> None:  # type: ignore[no-untyped-def]
    Store(models).model("pump").publish(NEW, {})
    outcome: Outcome = command("promote", "pump", version_of(OLD)[:8], "--models", models)
    assert outcome == (0, f"pump now points at {version_of(OLD)}\n", "")
    assert command("promote", "pump", "ffff", "--models", models).code == 2
