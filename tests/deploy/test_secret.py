"""The keys in Kubernetes: what deploy/README.md says makes a Secret, a pod has it as a kubelet
lays it out, and a key is rotated while the service answers by it.
"""

import base64
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from itertools import count
from pathlib import Path

import httpx
import pytest
import yaml

from tests.artifacts import make_artifact, publish
from tests.deploy.conftest import OVERLAYS, Objects
from tests.deploy.test_kubernetes import of_kind, pods
from tests.serving import Process, wait_until
from tests.test_readmes import blocks, run

ROW = {"rows": [[1, 2, 3, 4]]}
SCORE = "/v1/models/plain/score"
ADD = ".venv/bin/hourglass keys add gateway --scope score --keys keys.jsonl > gateway.key"
ADD_ANOTHER = ADD.replace("gateway.key", "gateway-next.key")
QUICK = {"HOURGLASS_POLL_SECONDS": "0.05"}


class Volume:
    """A Secret's files as pods have them: links through `..data`, which a change replaces."""

    def __init__(self, path: Path) -> None:
        self.path, self._numbers = path, count()

    def bring(self, secret: Path) -> None:
        """What `kubectl apply` and then the kubelet do."""
        (held,) = yaml.safe_load_all(secret.read_text())
        assert held["metadata"] == {
            "name": "hourglass-keys", "namespace": "hourglass", "creationTimestamp": None,
        }  # fmt: skip
        folder = self.path / f"..{next(self._numbers)}"
        folder.mkdir()
        for name, value in held["data"].items():
            (folder / name).write_bytes(base64.b64decode(value))
            (folder / name).chmod(0o440)
            if not (self.path / name).is_symlink():
                (self.path / name).symlink_to(Path("..data", name))
        (self.path / "..next").symlink_to(folder.name)
        (self.path / "..next").rename(self.path / "..data")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder in which the README's commands run."""
    (tmp_path / ".venv").symlink_to(sys.prefix)
    return tmp_path


@pytest.fixture
def pod_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By where a pod has them, folders of this machine; one with a model."""
    folder = tmp_path_factory.mktemp("pod")
    found = {path: folder / path.strip("/") for path in ("/models", "/keys", "/tmp")}
    for each in found.values():
        each.mkdir()
    publish(found["/models"], "plain", make_artifact())
    return found


def commands(beginning: str) -> str:
    """Those of deploy/README.md's only block that begins so."""
    (found,) = (each.text for each in blocks("deploy/README.md") if each.text.startswith(beginning))
    return found


def secret_of(checkout: Path) -> Path:
    """What the README pipes into `kubectl apply`."""
    text = re.sub(r"\\\n", " ", commands("kubectl apply -k"))
    (line,) = re.findall(
        r"^(kubectl .*create secret .*) \| kubectl apply -f -$", text, re.MULTILINE
    )
    file = checkout / "secret.yaml"
    file.write_text(run(line, checkout))
    return file


def environment_of(objects: Objects, paths: Mapping[str, Path]) -> dict[str, str]:
    """Of the pod that serves, with folders of this machine in place of its own."""
    ((_, _, pod),) = (found for found in pods(objects) if found[0] != "CronJob")
    (container,) = pod["containers"]
    assert paths.keys() == {mount["mountPath"] for mount in container["volumeMounts"]}
    return {
        each["name"]: re.sub(r"^/\w+(?=/)", lambda found: str(paths[found[0]]), each["value"])
        for each in container["env"]
    }


@pytest.mark.slow
def test_a_key_is_rotated_in_the_secret_and_no_request_is_refused(
    overlays: dict[str, Objects], kubectl: str, pod_folders: dict[str, Path], checkout: Path
) -> None:
    assert shutil.which("kubectl") == kubectl
    environment = environment_of(overlays["production"], pod_folders)
    volume = Volume(pod_folders["/keys"])
    run(commands(ADD), checkout)
    volume.bring(secret_of(checkout))
    add, remove = commands(ADD_ANOTHER).splitlines()
    with (
        Process(pod_folders["/models"], **environment | QUICK) as process,
        httpx.Client(base_url=process.url) as client,
    ):
        old = {"authorization": f"Bearer {(checkout / 'gateway.key').read_text().strip()}"}
        assert client.post(SCORE, json=ROW).status_code == 401
        assert client.post(SCORE, json=ROW, headers=old).is_success
        run(add, checkout)
        new = {"x-api-key": (checkout / "gateway-next.key").read_text().strip()}
        volume.bring(secret_of(checkout))
        wait_until(lambda: client.post(SCORE, json=ROW, headers=new).is_success)
        assert client.post(SCORE, json=ROW, headers=old).is_success
        run(remove, checkout)
        volume.bring(secret_of(checkout))
        wait_until(lambda: client.post(SCORE, json=ROW, headers=old).status_code == 401)
        assert client.post(SCORE, json=ROW, headers=new).is_success
        assert process.stop() == 0
    assert not [line for line in process.log if "anybody may read" in line or "ERROR" in line]


@pytest.mark.slow
@pytest.mark.parametrize("overlay", ["single-node", "production", "kserve"])
def test_probes_and_the_monitor_need_no_key_and_the_rest_does(
    overlay: str,
    overlays: dict[str, Objects],
    kubectl: str,
    pod_folders: dict[str, Path],
    checkout: Path,
) -> None:
    objects = overlays[overlay]
    ((_, _, pod),) = (found for found in pods(objects) if found[0] != "CronJob")
    (container,) = pod["containers"]
    open_paths = {
        container[probe]["httpGet"]["path"]
        for probe in ("startupProbe", "readinessProbe", "livenessProbe")
    }
    monitored = {
        endpoint["path"]
        for monitor in of_kind(objects, "ServiceMonitor")
        for endpoint in monitor["spec"]["endpoints"]
        if "authorization" not in endpoint
    }
    assert monitored == ({"/metrics"} if overlay == "production" else set())
    run(commands(ADD), checkout)
    Volume(pod_folders["/keys"]).bring(secret_of(checkout))
    with (
        Process(pod_folders["/models"], **environment_of(objects, pod_folders)) as process,
        httpx.Client(base_url=process.url) as client,
    ):
        for path in open_paths | monitored:
            assert client.get(path).status_code == 200, path
        for path in {"/v1/models", "/v2/models/plain/ready", "/docs", "/metrics"} - monitored:
            assert client.get(path).status_code == 401, path


def test_a_digest_under_images_pins_what_a_pod_runs(
    kubectl: str, root: Path, tmp_path: Path
) -> None:
    shutil.copytree(root / "deploy/kubernetes", tmp_path / "kubernetes")
    digest = f"sha256:{'5' * 64}"
    for overlay in OVERLAYS:
        file = tmp_path / "kubernetes/overlays" / overlay / "kustomization.yaml"
        file.write_text(file.read_text().replace("newTag: 0.1.0", f"digest: {digest}"))
        command = [kubectl, "kustomize", str(file.parent)]
        made = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        used = {
            container["image"]
            for _, _, pod in pods(list(yaml.safe_load_all(made)))
            for container in pod["containers"]
        }
        assert used == {f"hourglass-service@{digest}", f"hourglass-training@{digest}"}
