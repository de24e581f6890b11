"""How much memory is left for a table: on the machine, and in the cgroup of the process."""

from collections.abc import Iterator
from pathlib import Path


def available_bytes(
    machine: Path = Path("/proc/meminfo"),
    cgroups: Path = Path("/sys/fs/cgroup"),
    mine: Path = Path("/proc/self/cgroup"),
) -> int | None:
    """The least that one of them has left; None where none says."""
    return min([*_on_machine(machine), *_in_cgroups(cgroups, mine)], default=None)


def _on_machine(machine: Path) -> Iterator[int]:
    for line in _read(machine).splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            yield 1024 * int(value.split()[0])


def _in_cgroups(cgroups: Path, mine: Path) -> Iterator[int]:
    """Of the process's cgroup and those above it; a container sees its own at the root. What the
    kernel caches of files counts as used there and can be had back.
    """
    for line in _read(mine).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        root = cgroups / controllers
        for folder in (root / path.lstrip("/"), *(root / path.lstrip("/")).parents):
            if not folder.is_relative_to(root):
                break
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes")
            limit, used = (
                _read(folder / name).strip()
                for name in (names if controllers else ("memory.max", "memory.current"))
            )
            if limit.isdigit() and used.isdigit():
                cached = sum(
                    int(value)
                    for name, _, value in (
                        line.partition(" ") for line in _read(folder / "memory.stat").splitlines()
                    )
                    if name in ("inactive_file", "active_file")
                )
                yield max(0, int(limit) - int(used) + cached)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
