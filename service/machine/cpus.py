"""How many CPUs this process may use: by its affinity and its cgroup's quota, which a container on
a large host has less of.
"""

import math
import os
from collections.abc import Iterator
from pathlib import Path


def available_cpus(
    cgroups: Path = Path("/sys/fs/cgroup"),
    mine: Path = Path("/proc/self/cgroup"),
    affinity: int | None = None,
) -> int:
    """Whole CPUs, at least one: half a CPU more does not carry another thread through, it has it
    throttled.
    """
    if affinity is None:
        affinity = (
            len(os.sched_getaffinity(0))
            if hasattr(os, "sched_getaffinity")
            else os.cpu_count() or 1
        )
    return max(1, math.floor(min([affinity, *_quotas(cgroups, mine)])))


def _quotas(cgroups: Path, mine: Path) -> Iterator[float]:
    """CPUs granted to the process's cgroups and to those above them; a container sees its own at
    the root.
    """
    for line in _read(mine).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        # of version 2, whose line names no controller, the root itself
        root = cgroups / controllers
        for folder in (root / path.lstrip("/"), *(root / path.lstrip("/")).parents):
            if not folder.is_relative_to(root):
                break
            # version 2: "quota period" or "max period"; version 1: a file each, -1 for none
            quota, _, period = _read(folder / "cpu.max").strip().partition(" ")
            if controllers:
                quota, period = (
                    _read(folder / "cpu.cfs_quota_us").strip(),
                    _read(folder / "cpu.cfs_period_us").strip(),
                )
            if quota.isdigit() and period.isdigit() and int(period) > 0:
                yield int(quota) / int(period)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
