"""Models in a bucket of a real S3 server."""

import asyncio
import errno
import logging
import shutil
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hourglass.service.errors import (
    InvalidArtifact,
    InvalidSettings,
    NotPromoted,
    UnknownVersion,
)
from hourglass.service.model.artifact import MODEL_NAME, version_of
from hourglass.service.serving.bucket import Bucket, BucketModel
from hourglass.service.serving.objects import Conflict, Objects
from hourglass.service.serving.places import open_store
from hourglass.service.serving.registry import Registry
from hourglass.service.serving.signatures import SIGNATURE_FILE, SigningKey, make_keys
from hourglass.service.serving.store import Store, StoredThreshold, ThresholdChange
from tests.artifacts import make_artifact
from tests.buckets import Buckets

FIRST, SECOND, THIRD = (make_artifact(seed=seed) for seed in (1, 2, 3))
V1, V2, V3 = map(version_of, (FIRST, SECOND, THIRD))


@pytest.fixture
def url(s3: Buckets) -> str:
    return s3.make()


def a_machine(url: str, folder: Path) -> Bucket:
    """The bucket as another machine sees it, whose cache is empty."""
    store = open_store(url, cache=folder)
    assert isinstance(store, Bucket)
    return store


@pytest.fixture
def trainer(url: str, tmp_path: Path) -> Bucket:
    return a_machine(url, tmp_path / "trainer")


@pytest.fixture
def server(url: str, tmp_path: Path) -> Bucket:
    return a_machine(url, tmp_path / "server")


def registry_of(store: Store) -> Registry:
    return Registry(store, threads=1, max_bytes=2**20)


def look(registry: Registry, name: str | None = None) -> dict[str, str]:
    return {each.name: each.outcome for each in asyncio.run(registry.look(name))}


class TestPublishing:
    def test_a_version_lies_there_with_what_is_beside_it_and_is_pointed_at(
        self, s3: Buckets, url: str, trainer: Bucket
    ):
        version = trainer.model("pump").publish(FIRST, {"run.toml": "a = 1\n"})

        assert s3.keys(url) == {
            "pump/current",
            f"pump/{version}/model.onnx",
            f"pump/{version}/run.toml",
        }
        assert s3.read(url, "pump/current") == f"{version}\n".encode()
        assert s3.read(url, f"pump/{version}/model.onnx") == FIRST
        assert s3.read(url, f"pump/{version}/run.toml") == b"a = 1\n"

    def test_the_model_comes_last_and_the_pointer_after_it(
        self, s3: Buckets, url: str, trainer: Bucket
    ):
        trainer.model("pump").publish(FIRST, {"run.toml": "a = 1\n"})

        puts = [path.rpartition("/")[2] for method, path, _ in s3.requests if method == "PUT"]
        assert puts[1:3] == ["run.toml", "model.onnx"]  # the first made the bucket
        assert puts[-1] == "current"

    def test_a_report_that_a_version_lacks_is_added(self, s3: Buckets, url: str, trainer: Bucket):
        trainer.model("pump").publish(FIRST, {"run.toml": "a = 1\n"})
        trainer.model("pump").keep(FIRST, {"run.toml": "a = 1\n", "report.json": "{}"})

        assert s3.read(url, f"pump/{V1}/report.json") == b"{}"

    def test_a_model_cut_short_there_is_written_anew(self, s3: Buckets, url: str, trainer: Bucket):
        s3.put(url, f"pump/{V1}/model.onnx", FIRST[:100])
        trainer.model("pump").publish(FIRST, {})
        assert s3.read(url, f"pump/{V1}/model.onnx") == FIRST

    def test_who_was_overtaken_is_told_and_its_version_is_kept(
        self, url: str, trainer: Bucket, tmp_path: Path
    ):
        trainer.model("pump").publish(FIRST, {})
        other = a_machine(url, tmp_path / "other").model("pump")
        other.pull()
        other.publish(SECOND, {})

        model = trainer.model("pump")
        model.keep(THIRD, {})
        with pytest.raises(
            NotPromoted,
            match=f"'pump' was brought to version {V2[:12]} meanwhile, and version {V3[:12]} was to"
            f" follow {V1[:12]}; it is kept, and not in service",
        ):
            model.point(V3, over=V1)
        model.pull()
        assert model.current() == V2
        assert model.versions() == sorted((V1, V2, V3))

    def test_of_many_who_publish_at_once_one_is_in_service_and_the_others_know(
        self, url: str, trainer: Bucket, tmp_path: Path
    ):
        """Each read the same pointer, so that only the swap itself can tell."""
        trainer.model("pump").publish(FIRST, {})
        machines = [a_machine(url, tmp_path / f"{n}").objects for n in range(6)]
        found = [each.get("plant", max_bytes=99) for each in machines]
        assert found == [None] * 6
        seen = [each.get("pump/current", max_bytes=99) for each in machines]

        def swap(n: int) -> bool:
            try:
                machines[n].swap("pump/current", f"{n}\n".encode(), seen[n])
            except Conflict:
                return False
            return True

        with ThreadPoolExecutor(6) as pool:
            won = list(pool.map(swap, range(6)))
        assert sum(won) == 1
        now = machines[0].get("pump/current", max_bytes=99)
        assert now is not None
        assert now.data == f"{won.index(True)}\n".encode()

    def test_of_two_first_models_of_a_name_one_is_told(
        self, url: str, trainer: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        model = trainer.model("pump")
        model.keep(FIRST, {})
        real = Objects.swap

        def overtaken(objects: Objects, key: str, *rest: object) -> object:
            monkeypatch.setattr(Objects, "swap", real)
            a_machine(url, tmp_path / "other").model("pump").publish(SECOND, {})
            return real(objects, key, *rest)

        monkeypatch.setattr(Objects, "swap", overtaken)
        with pytest.raises(NotPromoted, match=f"brought to version {V2[:12]} meanwhile"):
            model.point(V1)

    def test_an_answer_that_was_lost_is_no_conflict(
        self, trainer: Bucket, monkeypatch: pytest.MonkeyPatch
    ):
        """The swap was done, and asked for again."""
        real = Objects.swap

        def twice(objects: Objects, *arguments: object) -> object:
            real(objects, *arguments)
            return real(objects, *arguments)

        monkeypatch.setattr(Objects, "swap", twice)
        trainer.model("pump").publish(FIRST, {})
        assert trainer.model("pump").current() == V1


class TestPromoting:
    def test_a_version_is_named_by_its_beginning(self, s3: Buckets, url: str, trainer: Bucket):
        trainer.model("pump").publish(FIRST, {})
        trainer.model("pump").publish(SECOND, {})
        assert trainer.model("pump").promote(V1[:9]) == V1
        assert s3.read(url, "pump/current") == f"{V1}\n".encode()

    def test_one_that_is_not_there_is_named_with_those_that_are(self, trainer: Bucket):
        trainer.model("pump").publish(FIRST, {})
        with pytest.raises(UnknownVersion, match=f"is not there; the versions are {V1[:12]}"):
            trainer.model("pump").promote("0" * 12)

    def test_one_that_was_changed_there_is_not_brought_into_service(
        self, s3: Buckets, url: str, trainer: Bucket, server: Bucket
    ):
        trainer.model("pump").publish(FIRST, {})
        trainer.model("pump").publish(SECOND, {})
        s3.put(url, f"pump/{V1}/model.onnx", FIRST[:-1] + b"!")

        model = server.model("pump")
        model.pull()
        with pytest.raises(InvalidArtifact, match=f"version {V1[:12]} of 'pump' is damaged"):
            model.promote(V1)
        assert s3.read(url, "pump/current") == f"{V2}\n".encode()

    def test_a_challenger_that_cannot_be_taken_away_does_not_undo_it(
        self, trainer: Bucket, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ):
        trainer.model("pump").publish(FIRST, {})
        trainer.model("pump").keep(SECOND, {})
        trainer.model("pump").challenge(V2)

        def refuse(*_: str) -> None:
            raise OSError(errno.EACCES, "it refuses")

        monkeypatch.setattr(trainer.objects, "delete", refuse)
        registry = registry_of(trainer)
        look(registry)
        assert asyncio.run(registry.promote("pump", V2)).detector.version == V2
        assert "its pointer as a challenger stays: it refuses" in caplog.text


class TestServing:
    def test_what_is_published_comes_into_service_at_the_next_look(
        self, trainer: Bucket, server: Bucket
    ):
        registry = registry_of(server)
        assert look(registry) == {}
        trainer.model("pump").publish(FIRST, {})
        assert look(registry) == {"pump": "loaded"}
        trainer.model("pump").publish(SECOND, {})
        assert look(registry) == {"pump": "swapped"}
        assert registry.find("pump").detector.version == V2

    def test_a_version_is_fetched_once_and_a_pointer_that_stays_costs_no_bytes(
        self, s3: Buckets, trainer: Bucket, server: Bucket
    ):
        trainer.model("pump").publish(FIRST, {"report.json": "{}"})
        registry = registry_of(server)
        look(registry)
        s3.requests.clear()

        assert look(registry) == {"pump": "unchanged"}
        assert look(registry, "pump") == {"pump": "unchanged"}
        again = registry_of(a_machine(str(server), server.path.parent))  # a restart
        assert look(again) == {"pump": "loaded"}

        assert s3.asked("model.onnx") == s3.asked("report.json") == []
        assert s3.asked("current")[:2] == [("GET", 304), ("GET", 304)]

    def test_a_version_whose_bytes_are_not_its_name_s_is_refused_and_the_other_stays(
        self, s3: Buckets, url: str, trainer: Bucket, server: Bucket
    ):
        trainer.model("pump").publish(FIRST, {})
        registry = registry_of(server)
        look(registry)
        s3.put(url, f"pump/{V2}/model.onnx", SECOND[:-1])
        s3.put(url, "pump/current", f"{V2}\n".encode())

        assert look(registry) == {"pump": "failed"}
        assert registry.problems["pump"].fault == "damaged"
        assert registry.errors["pump"].startswith(f"{url}/pump/{V2}/model.onnx has the SHA-256 ")
        assert registry.find("pump").detector.version == V1

    def test_a_pointer_before_its_version_is_waited_for(
        self, s3: Buckets, url: str, server: Bucket
    ):
        s3.put(url, "pump/current", f"{V1}\n".encode())
        registry = registry_of(server)
        assert look(registry) == {"pump": "failed"}
        assert registry.problems["pump"] == (
            "missing",
            f"{url}/pump/{V1}/model.onnx is not there",
        )
        s3.put(url, f"pump/{V1}/model.onnx", FIRST)
        assert look(registry, "pump") == {"pump": "loaded"}

    def test_a_copy_that_was_changed_here_is_fetched_anew(self, trainer: Bucket, server: Bucket):
        trainer.model("pump").publish(FIRST, {})
        look(registry_of(server))
        server.model("pump").file(V1).write_bytes(b"changed")
        registry = registry_of(server)
        assert look(registry) == {"pump": "loaded"}

    def test_a_model_larger_than_is_allowed_is_not_fetched(
        self, s3: Buckets, url: str, trainer: Bucket, server: Bucket
    ):
        trainer.model("pump").publish(FIRST, {})
        s3.requests.clear()
        registry = Registry(server, threads=1, max_bytes=1000)
        assert look(registry) == {"pump": "failed"}
        assert registry.errors["pump"] == (
            f"{url}/pump/{V1}/model.onnx has {len(FIRST)} bytes, at most 1000 are loaded"
        )
        assert s3.asked("model.onnx") == []

    def test_names_that_no_model_may_have_are_ignored_once(
        self, s3: Buckets, url: str, server: Bucket, caplog: pytest.LogCaptureFixture
    ):
        s3.put(url, "Pump!/current", b"x")
        s3.put(url, ".retired/current", b"x")
        for _ in range(2):
            assert look(registry_of(server)) == {}
        assert [line for line in caplog.messages if "ignored" in line] == [
            f"{url}/Pump! is ignored: a model's name matches {MODEL_NAME.pattern}"
        ]

    def test_a_retired_model_goes_and_comes_back_when_it_is_promoted(
        self, trainer: Bucket, server: Bucket
    ):
        trainer.model("pump").publish(FIRST, {})
        registry = registry_of(server)
        look(registry)
        assert trainer.model("pump").retire(0.0) == (
            f"{trainer}/pump holds its versions, of which promote brings one into service again"
        )
        assert look(registry) == {"pump": "failed"}
        assert look(registry) == {"pump": "retired"}
        trainer.model("pump").promote(V1)
        assert look(registry) == {"pump": "loaded"}


class TestABudget:
    def test_another_machine_serves_with_it_at_its_next_look(
        self, trainer: Bucket, server: Bucket, tmp_path: Path, url: str
    ):
        trainer.model("pump").publish(FIRST, {})
        one, other = registry_of(server), registry_of(a_machine(url, tmp_path / "other"))
        look(one), look(other)

        asyncio.run(one.change_threshold("pump", ThresholdChange(alpha=0.1)))
        assert look(other) == {"pump": "unchanged"}
        assert (one.find("pump").threshold.alpha, other.find("pump").threshold.alpha) == (0.1, 0.1)

    def test_of_changes_at_once_none_is_lost(self, trainer: Bucket, url: str, tmp_path: Path):
        trainer.model("pump").publish(FIRST, {})
        machines = [a_machine(url, tmp_path / f"{n}").model("pump") for n in range(2)]

        def change(each: BucketModel, **changes: float) -> None:
            for _ in range(4):
                each.change_threshold(
                    lambda stored: ThresholdChange(**changes).of(
                        stored or StoredThreshold(0.5, 0.5)
                    )
                )

        with ThreadPoolExecutor(2) as pool:
            list(
                pool.map(
                    lambda n: change(machines[n], **[{"alpha": 0.1}, {"delta": 0.2}][n]), (0, 1)
                )
            )
        machines[0].pull()
        assert machines[0].threshold() == StoredThreshold(0.1, 0.2)

    def test_a_look_that_began_before_a_change_does_not_undo_it_here(
        self, trainer: Bucket, server: Bucket, monkeypatch: pytest.MonkeyPatch
    ):
        model = server.model("pump")
        trainer.model("pump").publish(FIRST, {})
        trainer.model("pump").change_threshold(lambda _: StoredThreshold(0.1, 0.2))
        get, changed = server.objects.get, []

        def slow(key: str, known: object = None, **most: int) -> object:
            found = get(key, None, **most)
            if key == "pump/threshold.json" and not changed:
                changed.append(True)
                model.change_threshold(lambda _: StoredThreshold(0.3, 0.4))
            return found

        monkeypatch.setattr(server.objects, "get", slow)
        model.pull()
        assert changed
        assert model.threshold() == StoredThreshold(0.3, 0.4)


class TestPruning:
    def test_a_version_goes_there_and_here(self, s3: Buckets, url: str, trainer: Bucket):
        trainer.model("pump").publish(FIRST, {"run.toml": "a = 1\n"})
        trainer.model("pump").publish(SECOND, {})
        trainer.model("pump").remove(V1)
        assert s3.keys(url) == {"pump/current", f"pump/{V2}/model.onnx"}
        assert not trainer.model("pump").file(V1).exists()
        assert trainer.model("pump").versions() == [V2]

    def test_that_in_service_stays_whoever_brought_it_there(
        self, trainer: Bucket, url: str, tmp_path: Path
    ):
        trainer.model("pump").publish(FIRST, {})
        trainer.model("pump").publish(SECOND, {})
        a_machine(url, tmp_path / "other").model("pump").promote(V1)
        with pytest.raises(NotPromoted, match="is in service, and stays"):
            trainer.model("pump").remove(V1)


class TestAway:
    def test_what_is_served_stays_and_the_registry_says_since_when(
        self, s3: Buckets, trainer: Bucket, server: Bucket, caplog: pytest.LogCaptureFixture
    ):
        trainer.model("pump").publish(FIRST, {})
        registry = registry_of(server)
        look(registry)
        looked_at = registry.looked_at
        assert (registry.away, looked_at is not None) == (None, True)
        s3.stop()
        try:
            with caplog.at_level(logging.INFO):
                assert look(registry) == {"pump": "unchanged"}
                assert look(registry) == {"pump": "unchanged"}
            assert registry.away is not None
            assert registry.away.startswith(f"{server} does not answer: ")
            assert registry.looked_at == looked_at
            assert registry.find("pump").detector.version == V1
            assert sum("what is served stays" in line for line in caplog.messages) == 1
        finally:
            s3.start()
        trainer.model("pump").publish(SECOND, {})
        assert look(registry) == {"pump": "swapped"}
        assert registry.away is None
        assert registry.looked_at > looked_at

    def test_a_restart_serves_what_is_here(self, s3: Buckets, trainer: Bucket, server: Bucket):
        trainer.model("pump").publish(FIRST, {})
        look(registry_of(server))
        s3.stop()
        try:
            again = a_machine(str(server), server.path.parent)
            assert again.check() == (
                f"{again.away or server} does not answer: HTTP error: error sending request; the"
                " copies of its models are served meanwhile"
            )
            registry = registry_of(again)
            assert look(registry) == {"pump": "loaded"}
        finally:
            s3.start()

    def test_a_change_is_refused_in_a_sentence(self, s3: Buckets, trainer: Bucket, server: Bucket):
        trainer.model("pump").publish(FIRST, {})
        registry = registry_of(server)
        look(registry)
        s3.stop()
        try:
            with pytest.raises(
                Exception, match=r"threshold.json of pump cannot be written \(s3://"
            ):
                asyncio.run(registry.change_threshold("pump", ThresholdChange(alpha=0.1)))
            with pytest.raises(Exception, match=r"current of pump cannot be written \(s3://"):
                asyncio.run(registry.promote("pump", V1))
            with pytest.raises(InvalidArtifact, match="the versions of pump cannot be read: s3://"):
                asyncio.run(registry.versions("pump"))
        finally:
            s3.start()

    def test_one_that_takes_requests_and_never_answers_is_away_too(
        self, s3: Buckets, trainer: Bucket, server: Bucket
    ):
        trainer.model("pump").publish(FIRST, {})
        look(registry_of(server))
        s3.stop()
        try:
            with socket.create_server(("127.0.0.1", s3.port)):
                registry = registry_of(a_machine(str(server), server.path.parent))
                assert look(registry) == {"pump": "loaded"}
                assert registry.away is not None
                assert registry.away.startswith(f"{server} does not answer: ")
        finally:
            s3.start()

    def test_a_look_ends_with_the_first_model_that_gets_no_answer(
        self, trainer: Bucket, server: Bucket, monkeypatch: pytest.MonkeyPatch
    ):
        for n in range(20):
            trainer.model(f"pump{n}").challenge(V1)
        look(registry_of(server))
        pulled = []

        def pull(model: BucketModel) -> None:
            pulled.append(model.name)
            raise OSError(errno.EIO, "it does not answer")

        monkeypatch.setattr(BucketModel, "pull", pull)
        monkeypatch.setattr("hourglass.service.serving.bucket.AT_ONCE", 1)
        server.look()
        assert server.away == "it does not answer"
        assert len(pulled) < 20

    def test_a_signature_that_is_here_does_while_the_bucket_is_away(
        self, s3: Buckets, url: str, trainer: Bucket, tmp_path: Path
    ):
        trust = make_keys(tmp_path / "key")
        trainer.model("pump").publish(FIRST, {})
        signature = SigningKey(tmp_path / "key").sign(FIRST)
        s3.put(url, f"pump/{V1}/{SIGNATURE_FILE}", signature)

        def trusting() -> Store:
            return open_store(url, cache=tmp_path / "server", trust=trust)

        place = trusting().model("pump").path / V1 / SIGNATURE_FILE
        place.parent.mkdir(parents=True)
        place.write_bytes(b"cut short")
        assert look(registry_of(trusting())) == {"pump": "loaded"}
        assert place.read_bytes() == signature
        s3.stop()
        try:
            assert look(registry_of(trusting())) == {"pump": "loaded"}
            place.write_bytes(bytes(len(signature)))
            assert look(registry_of(trusting())) == {"pump": "failed"}
        finally:
            s3.start()

    def test_a_cache_that_is_taken_away_comes_back(self, trainer: Bucket, server: Bucket):
        trainer.model("pump").publish(FIRST, {})
        registry = registry_of(server)
        look(registry)
        shutil.rmtree(server.path)
        look(registry)
        trainer.model("pump").publish(SECOND, {})
        assert look(registry) == {"pump": "swapped"}
        assert registry.away is None

    def test_a_bucket_that_is_not_there_is_said_at_the_start(self, s3: Buckets, tmp_path: Path):
        problem = a_machine("s3://nobody-made-this/x", tmp_path).check()
        assert problem is not None
        assert problem.startswith("s3://nobody-made-this/x does not answer: ")
        assert problem.endswith("; none is served")


def test_a_store_without_conditions_is_said_and_written_to_all_the_same(
    trainer: Bucket, monkeypatch: pytest.MonkeyPatch
):
    """As servers are that speak an older S3: they write whatever the headers ask for."""
    import obstore

    real = obstore.put
    monkeypatch.setattr(
        obstore, "put", lambda store, key, data, **_: real(store, key, data, use_multipart=False)
    )
    model = trainer.model("pump")
    assert model.require_writable() == (
        f"{trainer} has no conditional writes: of two who publish at the same moment the last one"
        " wins, and the other is not told"
    )
    model.publish(FIRST, {})
    model.publish(SECOND, {})
    assert model.current() == V2
    seen = trainer.objects.get("pump/current", max_bytes=99)
    model.point(V1)
    with pytest.raises(Conflict):
        trainer.objects.swap("pump/current", b"x", seen)


def test_whether_one_can_write_leaves_nothing_behind(s3: Buckets, url: str, trainer: Bucket):
    assert trainer.model("pump").require_writable() is None
    assert s3.keys(url) == set()


def test_an_error_while_it_is_found_out_is_no_answer_for_ever(
    s3: Buckets, url: str, trainer: Bucket, monkeypatch: pytest.MonkeyPatch
):
    import obstore

    real, failed = obstore.put, []

    def fail_once(store: object, key: str, data: bytes, **options: object) -> object:
        if options.get("mode") == "create" and not failed:
            failed.append(key)
            raise obstore.exceptions.GenericError("a passing error")
        return real(store, key, data, **options)

    monkeypatch.setattr(obstore, "put", fail_once)
    assert not trainer.objects.is_conditional()
    assert trainer.objects.is_conditional()
    assert s3.keys(url) == set()
    s3.put(url, failed[0], b"1")  # of somebody who may not delete it
    assert Objects(url).is_conditional()


@pytest.mark.parametrize(
    ("models", "sentence"),
    [
        ("ftp://host/x", "models cannot be taken from ftp://host/x, expected a folder, s3://"),
        ("file://host/x", "file://host/x names a machine, expected file:///FOLDER"),
        ("s3://", "s3:// cannot be used"),
    ],
)
def test_a_url_of_no_store_is_refused(models: str, sentence: str, tmp_path: Path):
    with pytest.raises(InvalidSettings, match=sentence):
        open_store(models, cache=tmp_path)


@pytest.mark.parametrize(
    ("package", "models", "trusts"),
    [
        ("obstore.store", "s3://models/plant", False),
        ("mlflow", "mlflow://champion", False),
        ("cryptography", "models", True),
    ],
)
def test_an_extra_that_is_not_installed_is_named(
    package: str, models: str, trusts: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, package, None)  # as Python says that it is not there
    trust = tmp_path / "keys" if trusts else None
    with pytest.raises(InvalidSettings, match=r"pip install 'hourglass\[(cloud|mlflow|signing)\]'"):
        open_store(models, cache=tmp_path, trust=trust)


def test_a_file_s_url_is_its_folder(tmp_path: Path):
    store = open_store(f"file://{tmp_path}")
    assert type(store) is Store
    assert store.path == tmp_path


def test_each_url_has_a_folder_of_its_own_in_the_cache(s3: Buckets, tmp_path: Path):
    stores = [open_store(url, cache=tmp_path) for url in ("s3://one/a-b", "s3://one/a/b")]
    assert len({store.path for store in stores}) == 2
    assert all(store.path.parent == tmp_path for store in stores)
    assert stores[0].path.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("url", "variable"),
    [("s3://one/a", "AWS_ENDPOINT_URL"), ("az://one/a", "AZURE_STORAGE_ACCOUNT_NAME")],
)
def test_so_has_each_server(
    url: str, variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    first = open_store(url, cache=tmp_path)
    monkeypatch.setenv(variable, "http://127.0.0.1:1" if "URL" in variable else "another")
    assert open_store(url, cache=tmp_path).path != first.path
