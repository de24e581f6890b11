"""deploy/kubernetes, as kustomize makes it: what one object says of another holds, the service can
start with what a pod gives it, and no pod has more rights than it needs.
"""

import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from hourglass.service.__main__ import GRACEFUL_SECONDS
from hourglass.service.errors import InvalidSettings
from hourglass.service.settings import read_settings
from hourglass.training.__main__ import _parser as train_parser
from tests.artifacts import make_artifact, publish
from tests.deploy.conftest import OVERLAYS, Objects
from tests.environment import ensure
from tests.serving import serving

IN_IMAGE = {"HOURGLASS_MODELS": "/models", "HOURGLASS_HOST": "0.0.0.0", "HOURGLASS_PORT": "8000"}
PORT = 8000


def of_kind(objects: Objects, kind: str) -> Objects:
    return [each for each in objects if each["kind"] == kind]


def pods(objects: Objects) -> Iterator[tuple[str, dict[str, str], dict[str, Any]]]:
    """Kind, labels and specification of each kind of pod."""
    for each in objects:
        match each["kind"]:
            case "Deployment":
                template = each["spec"]["template"]
            case "CronJob":
                template = each["spec"]["jobTemplate"]["spec"]["template"]
            case "InferenceService":
                template = {"metadata": each["metadata"], "spec": each["spec"]["predictor"]}
            case _:
                continue
        yield each["kind"], template["metadata"]["labels"], template["spec"]


def test_a_pod_has_no_rights_and_bounds_on_all_that_it_uses(overlays: dict[str, Objects]) -> None:
    seen = set()
    for objects in overlays.values():
        for kind, _, pod in pods(objects):
            seen.add(kind)
            assert pod["automountServiceAccountToken"] is False
            assert pod["serviceAccountName"] in {
                each["metadata"]["name"] for each in of_kind(objects, "ServiceAccount")
            }
            assert pod["securityContext"]["runAsNonRoot"] is True
            assert {
                pod["securityContext"][key] for key in ("runAsUser", "runAsGroup", "fsGroup")
            } == {
                10001  # the image's user, whom the folder of models belongs to
            }
            assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
            (container,) = pod["containers"]
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            for bound in ("requests", "limits"):
                assert {"cpu", "memory", "ephemeral-storage"} == set(container["resources"][bound])
    assert seen == {"Deployment", "CronJob", "InferenceService"}


def test_the_namespace_admits_such_pods_only(overlays: dict[str, Objects]) -> None:
    for objects in overlays.values():
        (namespace,) = of_kind(objects, "Namespace")
        assert namespace["metadata"]["labels"] == {
            "pod-security.kubernetes.io/enforce": "restricted"
        }
        assert {
            each["metadata"]["namespace"] for each in objects if each["kind"] != "Namespace"
        } == {namespace["metadata"]["name"]}


def test_the_service_starts_with_the_environment_of_its_pod(overlays: dict[str, Objects]) -> None:
    """Which Kubernetes adds a Service's address to, by its name, unless it is told not to."""
    for objects in overlays.values():
        for kind, _, pod in pods(objects):
            (container,) = pod["containers"]
            given = {each["name"]: each["value"] for each in container.get("env", ())}
            assert pod["enableServiceLinks"] is False
            if kind != "CronJob":
                settings = read_settings(IN_IMAGE | given)
                assert settings.keys  # without keys it would listen on no address of the pod
                assert not settings.insecure
                folder = str(settings.cache or settings.models)
                assert folder in {mount["mountPath"] for mount in container["volumeMounts"]}
                assert [port["containerPort"] for port in container["ports"]] == [settings.port]
                # a worker with a small model has 106 MiB
                limit_bytes = (
                    float(container["resources"]["limits"]["memory"].removesuffix("Gi")) * 2**30
                )
                assert settings.workers * (settings.max_held_bytes + 128 * 2**20) < limit_bytes
                for path in filter(None, (settings.streams, settings.journal)):
                    assert str(path.parent) in {
                        mount["mountPath"]
                        for mount in container["volumeMounts"]
                        if not mount.get("readOnly")
                    }
    with pytest.raises(InvalidSettings, match="HOURGLASS_PORT"):
        read_settings(IN_IMAGE | {"HOURGLASS_PORT": "tcp://10.0.0.1:8000"})


def test_each_volume_that_is_mounted_is_there(overlays: dict[str, Objects]) -> None:
    for objects in overlays.values():
        claims = {each["metadata"]["name"] for each in of_kind(objects, "PersistentVolumeClaim")}
        for _, _, pod in pods(objects):
            (container,) = pod["containers"]
            volumes = {volume["name"]: volume for volume in pod["volumes"]}
            assert {mount["name"] for mount in container["volumeMounts"]} == volumes.keys()
            used = {
                volume["persistentVolumeClaim"]["claimName"]
                for volume in volumes.values()
                if "persistentVolumeClaim" in volume
            }
            assert used <= claims
            assert {"emptyDir", "secret"} >= {
                kind
                for volume in volumes.values()
                for kind in volume.keys() - {"name", "persistentVolumeClaim"}
            }


def test_the_keys_are_a_secret_that_their_user_alone_reads_and_that_changes_reach(
    overlays: dict[str, Objects],
) -> None:
    for objects in overlays.values():
        ((_, _, pod),) = (found for found in pods(objects) if found[0] != "CronJob")
        (container,) = pod["containers"]
        (keys,) = (each for each in pod["volumes"] if each["name"] == "keys")
        assert keys["secret"] == {"secretName": "hourglass-keys", "defaultMode": 0o440}
        (mount,) = (each for each in container["volumeMounts"] if each["name"] == "keys")
        assert mount == {"name": "keys", "mountPath": "/keys", "readOnly": True}  # and no subPath


def test_where_pods_are_on_several_nodes_they_can_share_the_volumes(
    overlays: dict[str, Objects],
) -> None:
    def modes(overlay: str) -> set[str]:
        claims = of_kind(overlays[overlay], "PersistentVolumeClaim")
        return {mode for claim in claims for mode in claim["spec"]["accessModes"]}

    assert modes("production") == modes("bucket") == modes("kserve") == {"ReadWriteMany"}
    (deployment,) = of_kind(overlays["single-node"], "Deployment")
    assert modes("single-node") == {"ReadWriteOnce"}
    assert deployment["spec"]["replicas"] == 1
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}


def test_whatever_selects_pods_selects_those_of_the_service(overlays: dict[str, Objects]) -> None:
    for overlay, objects in overlays.items():
        ((_, labels, pod),) = (found for found in pods(objects) if found[0] != "CronJob")
        others = [found[1] for found in pods(objects) if found[0] == "CronJob"]
        selectors = [each["spec"]["selector"] for each in of_kind(objects, "Service")]
        selectors += [
            each["spec"]["selector"]["matchLabels"]
            for kind in ("Deployment", "PodDisruptionBudget")
            for each in of_kind(objects, kind)
        ]
        selectors += [
            each["labelSelector"]["matchLabels"]
            for each in pod.get("topologySpreadConstraints", ())
        ]
        policies = {
            each["metadata"]["name"]: each["spec"] for each in of_kind(objects, "NetworkPolicy")
        }
        assert policies["nothing"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
        selectors += [policies["hourglass"]["podSelector"]["matchLabels"]]
        assert (
            len(selectors) == {"single-node": 3, "production": 6, "bucket": 6, "kserve": 1}[overlay]
        )
        for selector in selectors:
            assert selector.items() <= labels.items()
            assert all(not selector.items() <= other.items() for other in others)


def test_with_a_bucket_no_models_are_shared_and_service_and_jobs_reach_it(
    overlays: dict[str, Objects],
) -> None:
    objects = overlays["bucket"]
    claims = {each["metadata"]["name"] for each in of_kind(objects, "PersistentVolumeClaim")}
    assert claims == {"hourglass-data"}
    (policy,) = (
        each["spec"]
        for each in of_kind(objects, "NetworkPolicy")
        if each["metadata"]["name"] == "bucket"
    )
    models = set()
    for kind, labels, pod in pods(objects):
        assert policy["podSelector"]["matchLabels"].items() <= labels.items()
        (container,) = pod["containers"]
        given = {each["name"]: each["value"] for each in container["env"]}
        assert given["AWS_REGION"] == "eu-central-1"
        if kind == "Deployment":
            models.add(
                read_settings(
                    {name: value for name, value in given.items() if name.startswith("HOURGLASS_")}
                ).models
            )
        else:
            models.add(train_parser().parse_args(container["args"]).models)
        # a pod's copies count against what it may write
        (copies,) = (each["emptyDir"] for each in pod["volumes"] if each["name"] == "models")
        limits = [copies["sizeLimit"], container["resources"]["limits"]["ephemeral-storage"]]
        assert limits == ["1Gi", "2Gi"]
    assert models == {"s3://models/plant"}
    assert {443, 53} == {port["port"] for rule in policy["egress"] for port in rule["ports"]}


def test_replicas_are_spread_scaled_and_kept(overlays: dict[str, Objects]) -> None:
    objects = overlays["production"]
    (deployment,) = of_kind(objects, "Deployment")
    (scaler,) = of_kind(objects, "HorizontalPodAutoscaler")
    (budget,) = of_kind(objects, "PodDisruptionBudget")
    target = scaler["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", deployment["metadata"]["name"])
    assert "replicas" not in deployment["spec"]  # else each apply would undo the scaling
    assert scaler["spec"]["minReplicas"] > budget["spec"]["maxUnavailable"]
    assert deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    spread = deployment["spec"]["template"]["spec"]["topologySpreadConstraints"]
    assert {each["topologyKey"] for each in spread} == {
        "kubernetes.io/hostname", "topology.kubernetes.io/zone",
    }  # fmt: skip


@pytest.mark.slow
def test_probes_ask_for_what_the_service_answers(
    overlays: dict[str, Objects], tmp_path: Path
) -> None:
    asked: dict[str, dict[str, str]] = {}
    for overlay, objects in overlays.items():
        for _, _, pod in pods(objects):
            (container,) = pod["containers"]
            ports = {port["name"]: port["containerPort"] for port in container.get("ports", ())}
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                if probe in container:
                    to = container[probe]["httpGet"]
                    assert ports.get(to["port"], to["port"]) == PORT
                    asked.setdefault(overlay, {})[probe] = to["path"]
    assert {len(paths) for paths in asked.values()} == {3}
    assert all(path.startswith("/v2/") for path in asked["kserve"].values())
    paths = {path for each in asked.values() for path in each.values()}
    with serving(tmp_path) as client:  # without a model it lives, and is not ready
        for each in asked.values():
            statuses = {probe: client.get(path).status_code for probe, path in each.items()}
            assert statuses["livenessProbe"] == statuses["startupProbe"] == 200
            assert statuses["readinessProbe"] == 503
    publish(tmp_path, "plain", make_artifact())
    with serving(tmp_path) as client:
        assert {path: client.get(path).status_code for path in paths} == dict.fromkeys(paths, 200)


def test_a_pod_has_time_to_leave_and_then_to_answer_what_has_come(
    overlays: dict[str, Objects],
) -> None:
    for objects in overlays.values():
        for kind, _, pod in pods(objects):
            if kind != "CronJob":
                (container,) = pod["containers"]
                sleep, seconds = container["lifecycle"]["preStop"]["exec"]["command"]
                assert sleep == "sleep"
                assert int(seconds) + GRACEFUL_SECONDS + 2 < pod["terminationGracePeriodSeconds"]


def test_images_are_those_that_compose_builds(overlays: dict[str, Objects], root: Path) -> None:
    services = yaml.safe_load((root / "deploy/compose.yaml").read_text())["services"]
    built = {service["image"] for service in services.values() if "build" in service}
    used = {
        container["image"]
        for objects in overlays.values()
        for _, _, pod in pods(objects)
        for container in pod["containers"]
    }
    assert used == built
    version = tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"]
    for overlay in OVERLAYS:
        path = root / "deploy/kubernetes/overlays" / overlay / "kustomization.yaml"
        images = yaml.safe_load(path.read_text())["images"]
        assert {f"{image['name']}:{image['newTag']}" for image in images} == built
        assert {image["newTag"] for image in images} == {version}


def test_a_refused_challenger_ends_the_job_at_once_and_a_drained_node_starts_it_again(
    overlays: dict[str, Objects],
) -> None:
    for objects in overlays.values():
        for job in of_kind(objects, "CronJob"):
            spec = job["spec"]["jobTemplate"]["spec"]
            pod = spec["template"]["spec"]
            (container,) = pod["containers"]
            refused, drained = spec["podFailurePolicy"]["rules"]
            assert refused["action"] == "FailJob"
            assert refused["onExitCodes"] == {
                "containerName": container["name"], "operator": "In", "values": [2, 3],
            }  # fmt: skip
            assert drained["action"] == "Ignore"
            assert drained["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
            assert pod["restartPolicy"] == "Never"  # a podFailurePolicy needs it
            assert job["spec"]["concurrencyPolicy"] == "Forbid"


def test_jobs_read_rows_and_write_models_where_the_service_looks(
    overlays: dict[str, Objects],
) -> None:
    for overlay, objects in overlays.items():
        jobs = {job["metadata"]["name"]: job["spec"] for job in of_kind(objects, "CronJob")}
        commands = {}
        for name, spec in jobs.items():
            pod = spec["jobTemplate"]["spec"]["template"]["spec"]
            (container,) = pod["containers"]
            mounts = {
                mount["mountPath"]: mount.get("readOnly", False)
                for mount in container["volumeMounts"]
            }
            assert (mounts["/data"], mounts["/models"]) == (True, False)
            commands[name] = container["args"]
        fit, retrain = commands["hourglass-fit"], commands["hourglass-retrain"]
        options = train_parser().parse_args(fit)
        models = "s3://models/plant" if overlay == "bucket" else "/models"
        assert (options.models, options.data) == (models, "/data/pumps.csv")
        again = train_parser().parse_args(retrain)
        assert again.run is not options.run
        assert (again.name, str(again.data)) == (options.name, options.data)
        assert (again.models, str(again.cache)) == (options.models, str(options.cache))
        # the first fit is started by a person, retraining by the clock
        assert jobs["hourglass-fit"]["suspend"] is True
        assert not jobs["hourglass-retrain"].get("suspend", False)


def test_the_operators_rules_are_those_of_prometheus(
    overlays: dict[str, Objects], root: Path
) -> None:
    (rule,) = of_kind(overlays["production"], "PrometheusRule")
    alerts = yaml.safe_load((root / "deploy/prometheus/alerts.yml").read_text())
    assert rule["spec"] == alerts, "deploy/prometheus/alerts.yml has changed: make prometheus-rule"


def test_prometheus_finds_the_service_under_the_name_that_alerts_select(
    overlays: dict[str, Objects], root: Path
) -> None:
    (monitor,) = of_kind(overlays["production"], "ServiceMonitor")
    (service,) = of_kind(overlays["production"], "Service")
    labels = service["metadata"]["labels"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= labels.items()
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
    job = labels[monitor["spec"]["jobLabel"]]
    asked = (root / "deploy/prometheus/alerts.yml").read_text()
    assert set(re.findall(r'job="(\w+)"', asked)) == {job}


def test_kserve_runs_the_service_in_place_of_the_deployment(overlays: dict[str, Objects]) -> None:
    objects = overlays["kserve"]
    assert of_kind(objects, "Deployment") == of_kind(objects, "Service") == []
    ((kind, _, pod),) = (found for found in pods(objects) if found[0] != "CronJob")
    (container,) = pod["containers"]
    assert (kind, container["name"]) == ("InferenceService", "kserve-container")


def test_every_file_is_part_of_an_overlay_or_a_component(root: Path) -> None:
    folder = root / "deploy/kubernetes"
    used: set[Path] = set()
    for path in folder.rglob("kustomization.yaml"):
        what = yaml.safe_load(path.read_text())
        named = [
            *what["resources"],
            *(patch["path"] for patch in what.get("patches", ()) if "path" in patch),
        ]
        used |= {(path.parent / name).resolve() for name in [*named, *what.get("components", ())]}
        used.add(path.resolve())
    assert {path.resolve() for path in folder.rglob("*.yaml")} <= used


@pytest.fixture(scope="module")
def tools(root: Path) -> Path:
    """The folder of kubernetes-validate and checkov, in an environment of their own."""
    requirements = Path(__file__).with_name("manifests.txt")
    return ensure(root / "build/manifests", requirements, "the manifests'").parent


@pytest.fixture(scope="module")
def predictor(overlays: dict[str, Objects], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pod in the InferenceService, as a Pod, which the tools know."""
    (service,) = of_kind(overlays["kserve"], "InferenceService")
    own = {"minReplicas", "maxReplicas"}  # KServe's; the rest is Kubernetes' PodSpec
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "predictor", "namespace": "hourglass"},
        "spec": {
            name: value for name, value in service["spec"]["predictor"].items() if name not in own
        },
    }
    (file := tmp_path_factory.mktemp("kserve") / "pod.yaml").write_text(yaml.safe_dump(pod))
    return file


@pytest.mark.heavy
def test_every_object_is_one_of_kubernetes_without_a_field_too_many(
    overlays: dict[str, Objects], predictor: Path, tools: Path, tmp_path: Path
) -> None:
    known = [yaml.safe_load(predictor.read_text())]
    known += [
        each
        for objects in overlays.values()
        for each in objects
        if not re.match(r"monitoring\.coreos\.com/|serving\.kserve\.io/", each["apiVersion"])
    ]
    assert len(known) > 20
    file = tmp_path / "objects.yaml"
    command = [tools / "kubernetes-validate", "--strict", file]
    file.write_text(yaml.safe_dump_all(known))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    known[0]["spec"]["enableServiceLink"] = False  # misspelt
    file.write_text(yaml.safe_dump_all(known))
    assert subprocess.run(command, capture_output=True, check=False).returncode != 0


@pytest.mark.heavy
def test_checkov_finds_nothing_but_what_is_left_out_with_a_reason(
    files: dict[str, Path], predictor: Path, tools: Path
) -> None:
    settings = Path(__file__).with_name("checkov.yaml")
    skipped = re.findall(r"^ +- CKV.*", settings.read_text(), re.MULTILINE)
    assert skipped
    assert all(re.search(r"# \w+ \w+", line) for line in skipped)
    named = [part for file in (*files.values(), predictor) for part in ("--file", str(file))]
    command = [tools / "checkov", "--config-file", settings, "--compact", *named]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (passed,) = re.findall(r"Passed checks: (\d+), Failed checks: 0", done.stdout)
    assert int(passed) > 400
