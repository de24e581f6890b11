"""How much memory is left, as the machine and a container say."""

from hourglass.service.rows.memory import available_bytes

MEMINFO = "MemTotal:       16000000 kB\nMemAvailable:    8000000 kB\n"


def test_the_least_of_machine_and_cgroup_is_what_is_left(tmp_path):
    machine, mine, group = tmp_path / "meminfo", tmp_path / "cgroup", tmp_path / "fs" / "a"
    machine.write_text(MEMINFO)
    assert available_bytes(machine, tmp_path / "fs", mine) == 8_000_000 * 1024
    mine.write_text("0::/a\n")
    group.mkdir(parents=True)
    (group / "memory.max").write_text("3000\n")
    (group / "memory.current").write_text("2500\n")
    (group / "memory.stat").write_text("anon 1000\ninactive_file 300\nactive_file 100\n")
    assert available_bytes(machine, tmp_path / "fs", mine) == 900
    (group / "memory.max").write_text("max\n")
    assert available_bytes(machine, tmp_path / "fs", mine) == 8_000_000 * 1024


def test_cgroups_of_version_1_are_read(tmp_path):
    mine, group = tmp_path / "cgroup", tmp_path / "fs" / "memory" / "a"
    mine.write_text("4:cpu:/a\n3:memory:/a\n")
    group.mkdir(parents=True)
    (group / "memory.limit_in_bytes").write_text("3000\n")
    (group / "memory.usage_in_bytes").write_text("1000\n")
    assert available_bytes(tmp_path / "no", tmp_path / "fs", mine) == 2000


def test_where_nothing_says_nothing_is_known(tmp_path):
    assert available_bytes(tmp_path / "no", tmp_path / "fs", tmp_path / "cgroup") is None
