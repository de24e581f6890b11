"""What importing and starting the app does, and does not do."""

import subprocess
import sys

from tests.serving import ROOT, serving


def in_a_fresh_process(code: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *arguments],
        cwd=ROOT,
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_the_service_loads_no_torch_and_no_training():
    code = "import sys, hourglass.service.app, hourglass.service.__main__; print(*sys.modules)"
    names = in_a_fresh_process(code).split()
    assert not [name for name in names if name.startswith("hourglass.training")]
    modules = {name.partition(".")[0] for name in names}
    assert not modules & {"torch", "onnxscript", "sklearn", "rich", "pytest"}
    assert {"litestar", "onnxruntime"} <= modules


def test_only_with_azure_is_anything_of_it_loaded(tmp_path):
    code = (
        "import sys; from pathlib import Path; from hourglass.service.app import create_app; from"
        " hourglass.service.settings import Settings;"
        " create_app(Settings(models=Path(sys.argv[1]), azure={azure}, azure_data=sys.argv[1]));"
        " print([name for name in sys.modules if name.endswith('.azure')])"
    )
    loaded = ["hourglass.service.adapters.azure", "hourglass.service.api.azure"]
    assert in_a_fresh_process(code.format(azure=False), str(tmp_path)) == "[]"
    assert in_a_fresh_process(code.format(azure=True), str(tmp_path)) == str(loaded)


def test_importing_the_service_sets_up_no_logging_and_touches_no_default_metrics():
    code = (
        "import logging, prometheus_client as p; before ="
        " set(p.REGISTRY._names_to_collectors)\nimport hourglass.service.app; from"
        " hourglass.service.settings import Settings;"
        " hourglass.service.app.create_app(Settings())\nprint(logging.root.handlers,"
        " set(p.REGISTRY._names_to_collectors) - before)"
    )
    assert in_a_fresh_process(code) == "[] set()"


def test_two_apps_live_side_by_side_in_one_process(models, tmp_path_factory):
    with serving(models) as one, serving(tmp_path_factory.mktemp("empty")) as other:
        one.post("/v1/models/plain/score", json={"rows": [[1, 2, 3, 4]]}).raise_for_status()
        assert 'hourglass_vectors_total{model="plain"} 1.0' in one.get("/metrics").text
        assert "hourglass_vectors_total{" not in other.get("/metrics").text


def test_the_poll_goes_on_after_an_error_that_nobody_foresaw(models, monkeypatch, caplog):
    from hourglass.service.serving.registry import Registry

    looks = []
    look = Registry.look

    async def fails_once(self, name=None):
        looks.append(name)
        if len(looks) == 2:
            raise OSError("the disk is on fire")
        return await look(self, name)

    monkeypatch.setattr(Registry, "look", fails_once)
    with serving(models, poll_seconds=0.02) as client:
        while len(looks) < 4:
            client.get("/health/live").raise_for_status()
    assert "the disk is on fire" in caplog.text
