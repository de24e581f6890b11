"""The CPUs a process may use are those of its cgroup and affinity, not those of the host."""

import os
from pathlib import Path

import pytest

from hourglass.service.machine.cpus import available_cpus


def cpus(tmp_path: Path, mine: str, files: dict[str, str], affinity: int = 64) -> int:
    """Of a machine on which these files of the cgroups hold these words."""
    (tmp_path / "mine").write_text(mine)
    for name, text in files.items():
        path = tmp_path / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return available_cpus(tmp_path / "cgroup", tmp_path / "mine", affinity)


@pytest.mark.parametrize(
    ("mine", "files", "expected"),
    [
        pytest.param("0::/\n", {"cpu.max": "200000 100000\n"}, 2, id="version 2, in a container"),
        pytest.param("0::/\n", {"cpu.max": "max 100000\n"}, 64, id="version 2, without a quota"),
        pytest.param("0::/\n", {}, 64, id="version 2, on the host, whose root has no such file"),
        pytest.param("0::/\n", {"cpu.max": "350000 100000\n"}, 3, id="three and a half are three"),
        pytest.param("0::/\n", {"cpu.max": "20000 100000\n"}, 1, id="a fifth is one"),
        pytest.param(
            "0::/pods/pod1/app\n",
            {
                "pods/pod1/app/cpu.max": "max 100000",
                "pods/pod1/cpu.max": "400000 100000",
                "pods/cpu.max": "max 100000",
            },
            4,
            id="version 2, a quota further up",
        ),
        pytest.param(
            "5:memory:/a\n4:cpu,cpuacct:/a\n0::/\n",
            {
                "cpu,cpuacct/a/cpu.cfs_quota_us": "600000\n",
                "cpu,cpuacct/a/cpu.cfs_period_us": "200000\n",
            },
            3,
            id="version 1",
        ),
        pytest.param(
            "4:cpu:/docker/0123\n",
            {"cpu/cpu.cfs_quota_us": "200000\n", "cpu/cpu.cfs_period_us": "100000\n"},
            2,
            id="version 1, in a container that sees its own at the root",
        ),
        pytest.param(
            "1:cpu:/\n",
            {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"},
            64,
            id="version 1, without a quota",
        ),
        pytest.param(
            "0::/\n", {"cpu.max": "of another kind\n"}, 64, id="a file that says something else"
        ),
        pytest.param("", {}, 64, id="no cgroups"),
    ],
)
def test_the_quota_of_the_cgroup_counts_not_the_cores_of_the_host(tmp_path, mine, files, expected):
    assert cpus(tmp_path, mine, files) == expected


def test_the_affinity_counts_where_it_is_less(tmp_path):
    assert cpus(tmp_path, "0::/\n", {"cpu.max": "800000 100000\n"}, affinity=3) == 3


def test_files_that_cannot_be_read_are_no_quota(tmp_path):
    assert available_cpus(tmp_path / "nothing", tmp_path / "neither", 5) == 5


def test_here_it_is_some():
    assert 1 <= available_cpus() <= (os.cpu_count() or 1)
