"""Builds the Dockerfile's images without an engine or a registry, and runs them: buildah, on a base
that mmdebstrap makes, and namespaces. All of it needs root, and Debian's packages for this machine.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import httpx

TRUST = {"default": [{"type": "insecureAcceptAnything"}]}  # the base is one of ours
PIP = "#!/usr/bin/python3\nimport sys\nfrom pip._internal.cli.main import main\nsys.exit(main())\n"
AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"


def why_not() -> str | None:
    """What this machine lacks; None where images can be built."""
    if os.geteuid() != 0:
        return "images are built and run by root alone"
    for tool in ("buildah", "mmdebstrap", "unshare", "nsenter"):
        if shutil.which(tool) is None:
            return f"{tool} is not installed (Debian: apt-get install buildah mmdebstrap)"
    return None


def run(*command: str | Path, **options: object) -> str:
    done = subprocess.run(
        [str(each) for each in command], stdout=-1, stderr=subprocess.STDOUT, text=True, **options
    )
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout[-5000:]}"
    return done.stdout


def make_base(folder: Path, suite: str) -> None:
    """What stands in for Docker's slim Python: Debian's, of the same version on the same Debian,
    with pip, setuptools and wheel where Docker's has them.
    """
    packages = "ca-certificates,python3,python-is-python3,libpython3-dev"
    run("mmdebstrap", "--mode=root", "--variant=minbase", f"--include={packages}", suite, folder)
    (packages_of_python,) = (folder / "usr/local/lib").glob("python3.*/dist-packages")
    (folder / f"usr/lib/{packages_of_python.parent.name}/EXTERNALLY-MANAGED").unlink(
        missing_ok=True
    )
    run(sys.executable, "-m", "pip", "install", "--quiet", "--target", packages_of_python,
        "pip", "setuptools", "wheel")  # fmt: skip
    (folder / "usr/local/bin/pip").write_text(PIP)
    (folder / "usr/local/bin/pip").chmod(0o755)
    shutil.copy("/etc/resolv.conf", folder / "etc/resolv.conf")


class Image(NamedTuple):
    files: Path  # its root, as it is mounted
    user: str
    environment: dict[str, str]
    command: list[str]
    health_check: list[str]


class Builder:
    """buildah with a store of its own, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "policy.json").write_text(json.dumps(TRUST))

    def buildah(self, *arguments: str | Path) -> str:
        places = ("--root", self.folder / "root", "--runroot", self.folder / "run")
        isolated = os.environ | {"BUILDAH_ISOLATION": "chroot"}
        store = ("--storage-driver", "vfs")  # by others files stay mounted, which nobody can remove
        return run("buildah", *places, *store, *arguments, env=isolated).strip()

    def close(self) -> None:
        """Unmount what was built, so that its folder can go."""
        self.buildah("umount", "--all")
        self.buildah("rm", "--all")

    def import_base(self, files: Path, name: str) -> None:
        container = self.buildah("from", "scratch")
        self.buildah("copy", "--quiet", container, files, "/")
        self.buildah("commit", "--quiet", container, f"docker.io/library/{name}")
        self.buildah("rm", container)

    def build(self, context: Path, target: str, arguments: Mapping[str, str]) -> Image:
        """The image of a target of the Dockerfile; pip goes where it goes outside."""
        given = {"PIP_CERT": "/run/secrets/ca", **arguments}
        self.buildah(
            "bud", "--pull-never", "--layers=false", "--format", "docker", "--target", target,
            "--signature-policy", self.folder / "policy.json", "--tag", target,
            "--secret", f"id=ca,src={os.environ.get('PIP_CERT', AUTHORITIES)}",
            *(f"--build-arg={name}={value}" for name, value in given.items()), context,
        )  # fmt: skip
        container = self.buildah(
            "from", "--pull-never", "--signature-policy", self.folder / "policy.json", target
        )
        described = json.loads(self.buildah("inspect", container))
        config = described["Docker"]["config"]
        return Image(
            files=Path(self.buildah("mount", container)),
            user=config["User"],
            environment=dict(pair.split("=", 1) for pair in config["Env"]),
            command=[*config["Entrypoint"], *(config["Cmd"] or ())],
            health_check=(config.get("Healthcheck") or {}).get("Test", [])[1:],
        )


def size_bytes(files: Path) -> int:
    """What lies on disk, each hard link once."""
    found = {}
    for folder, _, names in os.walk(files):
        for name in names:
            status = os.lstat(os.path.join(folder, name))
            found[status.st_ino] = status.st_blocks * 512
    return sum(found.values())


# In namespaces of its own: the image's files, read-only, the volumes, /proc and an empty /tmp.
START = """
set -e
mount --bind "$1" "$1"; mount -o remount,ro,bind "$1"
mount -t tmpfs tmpfs "$1/tmp"; mount -t proc proc "$1/proc"; mount --rbind /dev "$1/dev"
mount --bind "$2" "$1/models"
root=$1; user=$3; shift 3
exec chroot --userspec="$user" "$root" /usr/bin/env -i "$@"
"""


class Container:
    """An image that runs as its user on a read-only root, as the first process of its own."""

    def __init__(self, image: Image, models: Path, *arguments: str, **environment: str) -> None:
        self.image = image
        self.environment = [
            f"{name}={value}" for name, value in (image.environment | environment).items()
        ]
        command = [*image.command[:1], *arguments] if arguments else image.command
        self.popen = subprocess.Popen(
            ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", START, "sh",
             image.files, models, image.user, *self.environment, *command],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        self.log: list[str] = []
        self._reading = threading.Thread(target=self._read)
        self._reading.start()

    def wait_for(self, url: str) -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self.popen.poll() is None:
            with suppress(httpx.TransportError):
                if httpx.get(url).status_code == 200:
                    return
            time.sleep(0.1)
        raise AssertionError("it did not start:\n" + "".join(self.log))

    @property
    def pid(self) -> int:
        """Of its first process, as it is seen from outside."""
        children = Path(f"/proc/{self.popen.pid}/task/{self.popen.pid}/children").read_text()
        (pid,) = map(int, children.split())
        return pid

    def execute(self, *command: str) -> subprocess.CompletedProcess[str]:
        """As docker exec does it."""
        user, group = self.image.user.split(":")
        enter = ["nsenter", "--target", str(self.pid), "--mount", "--pid", "--root", "--wd=/"]
        return subprocess.run(
            [*enter, f"--setuid={user}", f"--setgid={group}", "/usr/bin/env", "-i",
             *self.environment, *command],
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    def stop(self) -> int:
        os.kill(self.pid, signal.SIGTERM)
        return self.wait(30)

    def wait(self, timeout: float | None = None) -> int:
        status = self.popen.wait(timeout)
        self._reading.join()
        return status

    def __enter__(self) -> "Container":
        return self

    def __exit__(self, *_: object) -> None:
        self.popen.kill()
        self.wait()

    def _read(self) -> None:
        assert self.popen.stdout is not None
        with self.popen.stdout:
            self.log.extend(self.popen.stdout)


def suite_of(dockerfile: str) -> tuple[str, str]:
    """The name of the Python that the images come from, and of the Debian that it is made of."""
    (found,) = re.finditer(
        r"^ARG PYTHON_IMAGE=(python:[\d.]+-slim-(\w+))", dockerfile, re.MULTILINE
    )
    return found[1], found[2]
