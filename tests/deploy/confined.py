"""Runs a command with what a systemd unit leaves it: its system calls, no memory that is written
and run, and of /proc its own processes. In a mount namespace of its own, by root:

    unshare --mount python confined.py UNIT COMMAND...
"""

import ctypes
import errno
import os
import subprocess
import sys
from pathlib import Path

ALLOW, ERRNO = 0x7FFF0000, 0x00050000  # of libseccomp
SET_NO_NEW_PRIVS, SET_MDWE, REFUSE_EXEC_GAIN = 38, 65, 1  # of prctl


def main(unit: Path, command: list[str]) -> None:
    settings = [
        line.partition("=")[::2]
        for line in unit.read_text().splitlines()
        if "=" in line and not line.startswith("#")
    ]
    given = dict(settings)
    assert given["MemoryDenyWriteExecute"] == "yes"
    assert "ProcSubset" not in given  # without /proc/stat there are no metrics of the process
    hidden = f"hidepid={given['ProtectProc']}"
    subprocess.run(["mount", "-t", "proc", "-o", hidden, "proc", "/proc"], check=True)
    filters = [value for name, value in settings if name == "SystemCallFilter"]
    allowed = {call for each in filters if each[0] != "~" for call in calls(each)}
    allowed -= {call for each in filters if each[0] == "~" for call in calls(each[1:])}
    assert len(allowed) > 100
    libc, seccomp = ctypes.CDLL(None), ctypes.CDLL("libseccomp.so.2")
    seccomp.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(seccomp.seccomp_init(ERRNO | errno.EPERM))
    for name in sorted(allowed):
        number = seccomp.seccomp_syscall_resolve_name(name.encode())
        if number >= 0:  # some are of other machines
            assert seccomp.seccomp_rule_add(context, ALLOW, number, 0) == 0, name
    assert libc.prctl(SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    assert libc.prctl(SET_MDWE, REFUSE_EXEC_GAIN, 0, 0, 0) == 0
    assert seccomp.seccomp_load(context) == 0
    os.execv(command[0], command)


def calls(names: str) -> set[str]:
    """Of groups, as @system-service, what systemd takes them for."""
    found: set[str] = set()
    for name in names.split():
        if name.startswith("@"):
            listed = subprocess.run(
                ["systemd-analyze", "--no-pager", "syscall-filter", name],
                check=True, capture_output=True, text=True,
            ).stdout  # fmt: skip
            lines = [line.strip() for line in listed.splitlines()[1:]]
            found |= calls(" ".join(line for line in lines if line and line[0] != "#"))
        else:
            found.add(name)
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
