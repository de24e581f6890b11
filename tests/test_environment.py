"""Environments of others: made once, again when what they are made from changes, and a reason when
they cannot be.
"""

from pathlib import Path

import pytest

from tests.environment import EnvironmentFailed, ensure


@pytest.mark.slow
def test_what_cannot_be_had_fails_with_the_reason(tmp_path: Path) -> None:
    (requirements := tmp_path / "nobody.txt").write_text("./is-not-there.whl\n")
    with pytest.raises(
        EnvironmentFailed, match=r"^nobody's environment cannot be made: ERROR: .*not-there"
    ):
        ensure(tmp_path / "env", requirements, "nobody's")


@pytest.mark.slow
def test_it_is_kept_until_the_requirements_change(tmp_path: Path) -> None:
    (requirements := tmp_path / "nobody.txt").write_text("# nothing\n")
    made = ensure(tmp_path / "env", requirements, "nobody's")
    (kept := tmp_path / "env" / "kept").touch()
    assert ensure(tmp_path / "env", requirements, "nobody's") == made
    assert kept.exists()
    requirements.write_text("# nothing more\n")
    assert ensure(tmp_path / "env", requirements, "nobody's").exists()
    assert not kept.exists()
