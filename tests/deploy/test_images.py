"""Dockerfile and compose.yaml: what they name exists, and nothing runs with more rights than it
needs.
"""

import http.server
import json
import os
import re
import shlex
import subprocess
import sys
import threading
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from hourglass.service.__main__ import GRACEFUL_SECONDS
from hourglass.service.settings import read_settings
from hourglass.training.__main__ import main as train


class Stage(NamedTuple):
    base: str
    instructions: list[tuple[str, str]]

    def values(self, keyword: str) -> list[str]:
        return [value for word, value in self.instructions if word == keyword]


@pytest.fixture(scope="module")
def stages(root: Path) -> dict[str, Stage]:
    """The Dockerfile's stages by name, in order."""
    text = re.sub(r"^#.*\n", "", (root / "Dockerfile").read_text(), flags=re.MULTILINE).replace(
        "\\\n", " "
    )
    found: dict[str, Stage] = {}
    chosen: dict[str, str] = {}  # before the first stage
    for line in filter(None, map(str.strip, text.splitlines())):
        keyword, value = line.split(None, 1)
        if keyword == "FROM":
            base, name = value.split(" AS ")
            argument = base.removeprefix("${").removesuffix("}")
            found[name] = stage = Stage(chosen.get(argument, base), [])
        elif not found:
            assert keyword == "ARG"
            chosen |= [value.split("=")]
        else:
            stage.instructions.append((keyword, " ".join(value.split())))
    return found


@pytest.fixture(scope="module")
def services(root: Path) -> dict[str, dict[str, Any]]:
    return yaml.safe_load((root / "deploy/compose.yaml").read_text())["services"]


def environment(stage: Stage) -> dict[str, str]:
    pairs = [pair.split("=", 1) for value in stage.values("ENV") for pair in shlex.split(value)]
    return dict(pairs)


def test_the_service_is_what_is_built_when_no_target_is_named(stages: dict[str, Stage]) -> None:
    assert list(stages)[-2:] == ["training", "service"]


@pytest.mark.parametrize("target", ["service", "training"])
def test_an_image_runs_a_console_script_as_a_numeric_user_that_is_not_root(
    stages: dict[str, Stage], root: Path, target: str
) -> None:
    (user,), (entrypoint,) = stages[target].values("USER"), stages[target].values("ENTRYPOINT")
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)
    assert (
        json.loads(entrypoint)[0]
        in tomllib.loads((root / "pyproject.toml").read_text())["project"]["scripts"]
    )


@pytest.mark.parametrize("target", ["service", "training"])
def test_an_image_is_installed_from_its_own_lock(stages: dict[str, Stage], target: str) -> None:
    (copied,) = [value for value in stages[target].values("COPY") if value.startswith("--from=")]
    assert copied == f"--from={target}-environment /opt/hourglass /opt/hourglass"
    built = stages[f"{target}-environment"]
    assert f"deploy/requirements/{target}.txt /tmp/" in built.values("COPY")
    install = f"pip --python /opt/hourglass install --requirement /tmp/{target}.txt"
    assert any(install in command for command in built.values("RUN"))


def test_every_image_comes_from_one_pinned_python_that_the_project_supports(
    stages: dict[str, Stage],
) -> None:
    (base,) = {stage.base for stage in stages.values() if stage.base not in stages}
    assert re.fullmatch(r"python:3\.1[1-9]-slim-[a-z]+", base)


def test_an_index_and_an_authority_of_ones_own_reach_pip_and_no_image(
    stages: dict[str, Stage], services: dict[str, dict[str, Any]]
) -> None:
    builder = stages["builder"]
    offered = builder.values("ARG")
    assert {"PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_CERT"} == set(offered)
    assert {name: environment(builder)[name] for name in offered} == {
        name: f"${{{name}}}" for name in offered
    }
    for name, stage in stages.items():
        ancestors = [name]
        while stages[ancestors[-1]].base in stages:
            ancestors.append(stages[ancestors[-1]].base)
        assert ("builder" in ancestors) is (name not in ("base", "runtime", "training", "service"))
        for command in stage.values("RUN"):
            if re.search(r"\bpip (--python \S+ )?install\b(?!.*--no-deps)", command):
                assert command.startswith("--mount=type=secret,id=ca pip "), command
    for service in services.values():
        if "build" in service:
            args = service["build"]["args"]
            assert args == {"PIP_INDEX_URL": None, "PIP_EXTRA_INDEX_URL": None}  # as it is around


def test_compose_waits_for_the_service_to_end_by_itself(
    services: dict[str, dict[str, Any]],
) -> None:
    assert int(services["service"]["stop_grace_period"].removesuffix("s")) > GRACEFUL_SECONDS + 2


def test_what_is_copied_into_an_image_exists_and_reaches_the_build(
    stages: dict[str, Stage], root: Path
) -> None:
    let_in = [
        line[1:]
        for line in (root / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    ]
    copied = [
        value
        for stage in stages.values()
        for value in stage.values("COPY")
        if "--from" not in value
    ]
    for source in (source for value in copied for source in value.split()[:-1]):
        assert (root / source).exists()
        assert any(source == path or source.startswith(path + "/") for path in let_in), source


def test_onnxruntime_may_not_report_to_its_maker(stages: dict[str, Stage]) -> None:
    assert stages["training"].base == stages["service"].base == "runtime"
    assert environment(stages["runtime"])["ORT_DISABLE_TELEMETRY"] == "1"


def test_the_settings_of_image_and_compose_are_real_ones(
    stages: dict[str, Stage], services: dict[str, dict[str, Any]]
) -> None:
    settings = read_settings(
        {**environment(stages["service"]), **services["service"]["environment"]}
    )
    assert settings.models == "/models"
    assert settings.host == "0.0.0.0"
    assert read_settings(environment(stages["service"])).insecure is False  # it asks for keys
    assert settings.insecure  # of compose, which publishes the port on loopback alone
    assert stages["service"].values("EXPOSE") == [str(settings.port)]
    assert services["service"]["ports"] == [f"127.0.0.1:{settings.port}:{settings.port}"]
    assert "models:/models" in services["service"]["volumes"]


@pytest.mark.parametrize(("status", "healthy"), [(200, True), (503, False)])
def test_the_health_check_asks_the_service(
    stages: dict[str, Stage], status: int, healthy: bool
) -> None:
    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/health/live" else 404)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    (check,) = stages["service"].values("HEALTHCHECK")
    _, *command = json.loads(check.partition(" CMD ")[2])
    with http.server.HTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        port = {"HOURGLASS_PORT": str(server.server_port), "NO_PROXY": "127.0.0.1"}
        done = subprocess.run(
            [sys.executable, *command], env=os.environ | port, capture_output=True, check=False
        )
    assert (done.returncode == 0) is healthy


def test_compose_builds_targets_of_the_dockerfile(
    services: dict[str, dict[str, Any]], stages: dict[str, Stage]
) -> None:
    targets = {
        name: service["build"]["target"] for name, service in services.items() if "build" in service
    }
    assert targets == {"service": "service", "fit": "training"}
    assert set(targets.values()) <= set(stages)


def test_the_fit_job_starts_only_when_asked_and_its_command_is_one(
    services: dict[str, dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    fit = services["fit"]
    assert fit["profiles"] == ["fit"]
    assert {"./data:/data:ro", "models:/models"} <= set(fit["volumes"])
    script, *arguments = fit["entrypoint"]
    assert script == "hourglass-train"
    with pytest.raises(SystemExit) as end:
        train([*arguments, *fit["command"]])
    assert end.value.code == 0
    assert "--models" in capsys.readouterr().out


def test_no_container_can_write_to_its_image_gain_rights_or_be_reached_from_outside(
    services: dict[str, dict[str, Any]],
) -> None:
    for name, service in services.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ())), name


def test_every_image_is_pinned_to_a_version_that_is_the_projects_own_where_it_is_ours(
    services: dict[str, dict[str, Any]], stages: dict[str, Stage], root: Path
) -> None:
    assert all(re.search(r":v?\d+\.\d+\.\d+$", service["image"]) for service in services.values())
    version = tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"]
    assert services["service"]["image"] == f"hourglass-service:{version}"
    assert services["fit"]["image"] == f"hourglass-training:{version}"
    assert any(
        f'org.opencontainers.image.version="{version}"' in label
        for label in stages["runtime"].values("LABEL")
    )


def test_every_file_that_compose_mounts_is_in_the_repository(
    services: dict[str, dict[str, Any]], root: Path
) -> None:
    mounts = [volume.split(":") for service in services.values() for volume in service["volumes"]]
    for source, _, *mode in mounts:
        if source.startswith("./") and source != "./data":  # the user's own rows
            assert (root / "deploy" / source).exists(), source
            assert mode == ["ro"], source
