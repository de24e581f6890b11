"""Models of MLflow's registry, as MLflow itself keeps it in SQLite."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from hourglass.service.errors import InvalidSettings, ReadOnly
from hourglass.service.model.artifact import version_of
from hourglass.service.serving.mlflow_registry import MlflowStore
from hourglass.service.serving.places import open_store
from hourglass.service.serving.registry import Registry
from hourglass.service.serving.signatures import SIGNATURE_FILE, SigningKey, make_keys
from tests.artifacts import make_artifact
from tests.serving import Process, free_port, wait_until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # of MLflow, SQLAlchemy and Alembic
]

FIRST, SECOND = make_artifact(seed=1), make_artifact(seed=2)
V1, V2 = version_of(FIRST), version_of(SECOND)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("mlflow")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        patched.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        yield str(folder)


@pytest.fixture
def client(database: str) -> Iterator[Any]:
    from mlflow import MlflowClient

    client = MlflowClient()
    yield client
    for each in client.search_registered_models():
        client.delete_registered_model(each.name)


def register(client: Any, folder: Path, name: str, data: bytes, **beside: bytes) -> str:
    """A version as `mlflow.log_artifacts` and `create_model_version` make it; its number."""
    source = folder / f"{name}-{version_of(data)[:8]}"
    source.mkdir(parents=True)
    (source / "model.onnx").write_bytes(data)
    for suffix, content in beside.items():
        (source / f"model.onnx.{suffix}").write_bytes(content)
    if name not in {each.name for each in client.search_registered_models()}:
        client.create_registered_model(name)
    return str(client.create_model_version(name, source=str(source)).version)


def registry_of(cache: Path, **options: Any) -> Registry:
    store = open_store("mlflow://champion", cache=cache, **options)
    assert isinstance(store, MlflowStore)
    return Registry(store, threads=1, max_bytes=2**20)


def look(registry: Registry) -> dict[str, str]:
    return {each.name: each.outcome for each in asyncio.run(registry.look())}


def test_the_version_that_an_alias_names_is_served(client: Any, tmp_path: Path):
    first = register(client, tmp_path, "pump", FIRST)
    second = register(client, tmp_path, "pump", SECOND)
    register(client, tmp_path, "valve", FIRST)  # without the alias
    registry = registry_of(tmp_path / "cache")
    assert registry.store.check() == (
        "mlflow://champion: no registered model has this alias yet; they are served as they come"
    )
    assert look(registry) == {}

    client.set_registered_model_alias("pump", "champion", first)
    assert registry.store.check() is None
    assert look(registry) == {"pump": "loaded"}
    assert registry.find("pump").detector.version == V1
    assert look(registry) == {"pump": "unchanged"}

    client.set_registered_model_alias("pump", "champion", second)
    assert look(registry) == {"pump": "swapped"}
    assert registry.find("pump").detector.version == V2

    client.delete_registered_model_alias("pump", "champion")
    assert look(registry) == {"pump": "failed"}
    assert look(registry) == {"pump": "retired"}


def test_a_version_is_fetched_once(client: Any, tmp_path: Path):
    number = register(client, tmp_path, "pump", FIRST)
    client.set_registered_model_alias("pump", "champion", number)
    look(registry_of(tmp_path / "cache"))
    (tmp_path / f"pump-{V1[:8]}" / "model.onnx").unlink()  # a second fetch would fail
    again = registry_of(tmp_path / "cache")
    assert look(again) == {"pump": "loaded"}


def test_a_model_that_is_registered_anew_is_another_one(client: Any, tmp_path: Path):
    registry = registry_of(tmp_path / "cache")
    number = register(client, tmp_path, "pump", FIRST)
    client.set_registered_model_alias("pump", "champion", number)
    assert look(registry) == {"pump": "loaded"}
    client.delete_registered_model("pump")
    number = register(client, tmp_path, "pump", SECOND)
    client.set_registered_model_alias("pump", "champion", number)
    assert number == "1"
    assert look(registry) == {"pump": "swapped"}
    assert registry.find("pump").detector.version == V2


def test_a_version_without_a_model_of_ours_is_refused_and_the_other_stays(
    client: Any, tmp_path: Path
):
    first = register(client, tmp_path, "pump", FIRST)
    client.set_registered_model_alias("pump", "champion", first)
    registry = registry_of(tmp_path / "cache")
    look(registry)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "MLmodel").write_text("flavors: {}")
    other = client.create_model_version("pump", source=str(tmp_path / "other"))
    client.set_registered_model_alias("pump", "champion", other.version)
    assert look(registry) == {"pump": "failed"}
    assert registry.errors["pump"] == (
        "models:/pump/2 of MLflow has 0 files model.onnx, expected one"
    )
    assert registry.find("pump").detector.version == V1


def test_nothing_is_written_into_the_registry(client: Any, tmp_path: Path):
    number = register(client, tmp_path, "pump", FIRST)
    client.set_registered_model_alias("pump", "champion", number)
    registry = registry_of(tmp_path / "cache")
    look(registry)
    with pytest.raises(ReadOnly, match="MLflow says which version of 'pump' is in service"):
        asyncio.run(registry.promote("pump", V1))
    model = registry.store.model("pump")
    for refused in (
        model.require_writable,
        lambda: model.keep(SECOND, {}),
        lambda: model.retire(0),
    ):
        with pytest.raises(ReadOnly, match="register it there, and set its alias 'champion'"):
            refused()


def test_trust_is_asked_for_as_of_a_folder(client: Any, tmp_path: Path):
    key = tmp_path / "signing.pem"
    public = make_keys(key)
    assert SIGNATURE_FILE == "model.onnx.sig"
    signed = register(client, tmp_path, "pump", FIRST, sig=SigningKey(key).sign(FIRST))
    unsigned = register(client, tmp_path, "pump", SECOND)
    client.set_registered_model_alias("pump", "champion", signed)
    registry = registry_of(tmp_path / "cache", trust=public)
    assert look(registry) == {"pump": "loaded"}
    client.set_registered_model_alias("pump", "champion", unsigned)
    assert look(registry) == {"pump": "failed"}
    assert registry.problems["pump"].fault == "untrusted"


@pytest.mark.heavy
def test_a_service_follows_the_alias(client: Any, tmp_path: Path):
    first = register(client, tmp_path, "pump", FIRST)
    second = register(client, tmp_path, "pump", SECOND)
    client.set_registered_model_alias("pump", "champion", first)
    flags = ("--cache", str(tmp_path / "cache"))

    def version(server: Process) -> str:
        return httpx.get(f"{server.url}/v1/models/pump").json().get("version", "")

    with Process(
        "mlflow://champion", *flags, HOURGLASS_POLL_SECONDS="0.2", PYTHONWARNINGS="ignore"
    ) as server:
        wait_until(lambda: version(server) == V1)
        client.set_registered_model_alias("pump", "champion", second)
        wait_until(lambda: version(server) == V2)
        assert server.stop() == 0


def test_a_server_that_is_away_leaves_what_is_here(
    client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    number = register(client, tmp_path, "pump", FIRST)
    client.set_registered_model_alias("pump", "champion", number)
    registry = registry_of(tmp_path / "cache")
    look(registry)

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    again = registry_of(tmp_path / "cache")
    again.store.path.rmdir()  # of another server: it gets the copies of the first
    registry.store.path.rename(again.store.path)
    assert look(again) == {"pump": "loaded"}
    assert again.away is not None
    assert again.away.startswith("mlflow://champion does not answer: API request to http://127.0.")
    problem = again.store.check()
    assert problem is not None
    assert problem.endswith("; the copies of its models are served meanwhile")


@pytest.mark.parametrize("url", ["mlflow://", "mlflow://host:5000/champion"])
def test_a_url_without_an_alias_says_what_is_expected(url: str, tmp_path: Path):
    with pytest.raises(InvalidSettings, match="names no alias, expected mlflow://ALIAS"):
        open_store(url, cache=tmp_path)
