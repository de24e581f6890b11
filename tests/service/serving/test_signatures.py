"""Only what a listed key has signed is served."""

import asyncio
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from hourglass.service.errors import InvalidArtifact, InvalidSettings
from hourglass.service.model.artifact import version_of
from hourglass.service.serving.places import open_store
from hourglass.service.serving.registry import Registry
from hourglass.service.serving.signatures import SIGNATURE_FILE, SigningKey, Trust, make_keys
from hourglass.service.serving.store import ModelFolder, Store
from tests.artifacts import make_artifact
from tests.buckets import Buckets

FIRST, SECOND = make_artifact(seed=1), make_artifact(seed=2)
V1, V2 = version_of(FIRST), version_of(SECOND)


class Keys:
    """A pair of keys, and a file that trusts them."""

    def __init__(self, folder: Path, name: str) -> None:
        self.private = folder / name
        self.public = make_keys(self.private)

    def sign(self, model: ModelFolder, data: bytes) -> None:
        signature = SigningKey(self.private).sign(data)
        model.write(SIGNATURE_FILE, signature, version=version_of(data))


@pytest.fixture
def ours(tmp_path: Path) -> Keys:
    return Keys(tmp_path, "ours.pem")


@pytest.fixture
def theirs(tmp_path: Path) -> Keys:
    return Keys(tmp_path, "theirs.pem")


@pytest.fixture
def pump(tmp_path: Path) -> ModelFolder:
    return Store(tmp_path / "models").model("pump")


def registry_of(models: Path | str, trust: Path, cache: Path | None = None) -> Registry:
    return Registry(open_store(models, cache=cache, trust=trust), threads=1, max_bytes=2**20)


def look(registry: Registry, name: str | None = None) -> dict[str, str]:
    return {each.name: each.outcome for each in asyncio.run(registry.look(name))}


def test_a_signed_version_is_served(pump: ModelFolder, ours: Keys):
    pump.publish(FIRST, {})
    ours.sign(pump, FIRST)
    assert look(registry_of(pump.path.parent, ours.public)) == {"pump": "loaded"}


def unsigned(model: ModelFolder, ours: Keys, theirs: Keys) -> None:
    pass


def of_another_key(model: ModelFolder, ours: Keys, theirs: Keys) -> None:
    theirs.sign(model, SECOND)


def of_another_version(model: ModelFolder, ours: Keys, theirs: Keys) -> None:
    shutil.copy(model.path / V1 / SIGNATURE_FILE, model.path / V2 / SIGNATURE_FILE)


def cut_short(model: ModelFolder, ours: Keys, theirs: Keys) -> None:
    model.write(SIGNATURE_FILE, b"short", version=V2)


def too_long(model: ModelFolder, ours: Keys, theirs: Keys) -> None:
    model.write(SIGNATURE_FILE, bytes(65), version=V2)


def a_folder(model: ModelFolder, ours: Keys, theirs: Keys) -> None:
    (model.path / V2 / SIGNATURE_FILE).mkdir()


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (unsigned, "has no signature beside it, expected one by a key of "),
        (of_another_key, "is signed by none of the 1 keys of "),
        (of_another_version, "is signed by none of the 1 keys of "),
        (cut_short, "is signed by none of the 1 keys of "),
        (too_long, "has 65 bytes, at most 64 are loaded"),
        (a_folder, "is a folder, expected a regular file"),
    ],
)
def test_a_version_that_is_not_well_signed_is_refused_and_the_one_in_service_stays(
    pump: ModelFolder,
    ours: Keys,
    theirs: Keys,
    spoil: Callable[[ModelFolder, Keys, Keys], None],
    sentence: str,
):
    pump.publish(FIRST, {})
    ours.sign(pump, FIRST)
    registry = registry_of(pump.path.parent, ours.public)
    look(registry)
    pump.keep(SECOND, {})
    spoil(pump, ours, theirs)
    pump.point(V2)

    assert look(registry) == {"pump": "failed"}
    assert registry.problems["pump"].fault == "untrusted"
    assert sentence in registry.errors["pump"]
    assert registry.find("pump").detector.version == V1


def test_it_is_served_once_it_is_signed(pump: ModelFolder, ours: Keys):
    pump.publish(FIRST, {})
    registry = registry_of(pump.path.parent, ours.public)
    assert look(registry) == {"pump": "failed"}
    ours.sign(pump, FIRST)
    assert look(registry) == {"pump": "loaded"}


def test_one_that_is_not_signed_is_not_promoted(pump: ModelFolder, ours: Keys):
    pump.publish(FIRST, {})
    pump.publish(SECOND, {})
    ours.sign(pump, SECOND)
    registry = registry_of(pump.path.parent, ours.public)
    look(registry)
    with pytest.raises(InvalidArtifact, match="has no signature beside it"):
        asyncio.run(registry.promote("pump", V1))
    assert pump.current() == V2


def test_without_trust_nobody_asks_for_signatures(pump: ModelFolder):
    pump.publish(FIRST, {})
    pump.write(SIGNATURE_FILE, b"nonsense", version=V1)
    assert look(Registry(Store(pump.path.parent), threads=1, max_bytes=2**20)) == {"pump": "loaded"}


class TestRotation:
    def test_a_key_that_is_added_holds_at_the_next_look(
        self, pump: ModelFolder, ours: Keys, theirs: Keys, tmp_path: Path
    ):
        trusted = tmp_path / "trusted.pem"
        trusted.write_bytes(ours.public.read_bytes())
        pump.publish(FIRST, {})
        theirs.sign(pump, FIRST)
        registry = registry_of(pump.path.parent, trusted)
        assert look(registry) == {"pump": "failed"}
        trusted.write_text(
            f"ours\n{ours.public.read_text()}\nof the new machine:\n{theirs.public.read_text()}"
        )
        assert look(registry) == {"pump": "loaded"}

    def test_what_a_removed_key_signed_is_said_stays_and_is_not_loaded_again(
        self, pump: ModelFolder, ours: Keys, theirs: Keys, tmp_path: Path
    ):
        trusted = tmp_path / "trusted.pem"
        trusted.write_bytes(ours.public.read_bytes())
        pump.publish(FIRST, {})
        ours.sign(pump, FIRST)
        registry = registry_of(pump.path.parent, trusted)
        look(registry)
        trusted.write_bytes(theirs.public.read_bytes())

        assert look(registry) == {"pump": "failed"}
        assert registry.problems["pump"].fault == "untrusted"
        assert registry.find("pump").detector.version == V1
        assert look(registry_of(pump.path.parent, trusted)) == {"pump": "failed"}

    @pytest.mark.parametrize(
        "text", [None, "", "-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----"]
    )
    def test_a_file_of_keys_that_breaks_lets_nothing_new_in(
        self, pump: ModelFolder, ours: Keys, text: str | None
    ):
        pump.publish(FIRST, {})
        ours.sign(pump, FIRST)
        registry = registry_of(pump.path.parent, ours.public)
        look(registry)
        ours.public.unlink() if text is None else ours.public.write_text(text)
        assert look(registry) == {"pump": "failed"}
        assert "cannot be trusted" in registry.errors["pump"]
        assert registry.find("pump").detector.version == V1


class TestInABucket:
    def test_a_signature_that_comes_after_the_version_is_seen(
        self, s3: Buckets, ours: Keys, tmp_path: Path
    ):
        url = s3.make()
        model = open_store(url, cache=tmp_path / "trainer").model("pump")
        model.publish(FIRST, {})
        registry = registry_of(url, ours.public, tmp_path / "server")
        assert look(registry) == {"pump": "failed"}
        ours.sign(model, FIRST)
        assert s3.keys(url) >= {f"pump/{V1}/{SIGNATURE_FILE}"}
        assert look(registry, "pump") == {"pump": "loaded"}

    def test_one_that_is_taken_off_there_does_not_count_here(
        self, s3: Buckets, ours: Keys, tmp_path: Path
    ):
        url = s3.make()
        model = open_store(url, cache=tmp_path / "trainer").model("pump")
        model.publish(FIRST, {})
        ours.sign(model, FIRST)
        assert look(registry_of(url, ours.public, tmp_path)) == {"pump": "loaded"}
        s3.delete(url, f"pump/{V1}/{SIGNATURE_FILE}")
        assert look(registry_of(url, ours.public, tmp_path)) == {"pump": "failed"}


class TestKeys:
    def test_the_private_one_is_its_owner_s_and_neither_is_written_over(self, tmp_path: Path):
        path = tmp_path / "signing.pem"
        public = make_keys(path)
        assert public == tmp_path / "signing.pem.pub"
        assert path.stat().st_mode & 0o777 == 0o600
        before = path.read_bytes(), public.read_bytes()
        with pytest.raises(InvalidSettings, match=r"signing.pem.pub is there already, and stays"):
            make_keys(path)
        public.unlink()
        with pytest.raises(InvalidSettings, match=r"signing.pem is there already, and stays"):
            make_keys(path)
        assert path.read_bytes() == before[0]

    def test_openssl_s_keys_and_signatures_are_ours_and_ours_are_its(self, tmp_path: Path):
        def openssl(*arguments: object) -> str:
            command = ["openssl", *map(str, arguments)]
            return subprocess.run(command, check=True, capture_output=True, text=True).stdout

        key, public, file = tmp_path / "k", tmp_path / "k.pub", tmp_path / "model.onnx"
        file.write_bytes(FIRST)
        openssl("genpkey", "-algorithm", "ed25519", "-out", key)
        openssl("pkey", "-in", key, "-pubout", "-out", public)
        signed = tmp_path / "by-openssl"
        openssl("pkeyutl", "-sign", "-inkey", key, "-rawin", "-in", file, "-out", signed)
        Trust(public).require(FIRST, signed.read_bytes(), file)

        own = tmp_path / "own"
        own_public = make_keys(own)
        signed.write_bytes(SigningKey(own).sign(FIRST))
        told = openssl(
            *("pkeyutl", "-verify", "-pubin", "-inkey", own_public, "-rawin"),
            *("-in", file, "-sigfile", signed),
        )
        assert "Signature Verified Successfully" in told

    def test_a_private_key_is_not_to_be_trusted(self, ours: Keys):
        with pytest.raises(InvalidSettings, match="is a private one, expected public keys alone"):
            Trust(ours.private).require_keys()

    def test_a_public_key_does_not_sign(self, ours: Keys):
        with pytest.raises(InvalidSettings, match="is no private key in PEM without a password"):
            SigningKey(ours.public)

    def test_a_key_of_another_kind_is_named(self, tmp_path: Path):
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

        key = X25519PrivateKey.generate()
        pem = serialization.Encoding.PEM
        path = tmp_path / "x"
        path.write_bytes(
            key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
        )
        with pytest.raises(InvalidSettings, match="is of another kind, expected Ed25519"):
            Trust(path).require_keys()
        path.write_bytes(
            key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        )
        with pytest.raises(InvalidSettings, match="is a key of another kind, expected Ed25519"):
            SigningKey(path)

    def test_a_file_without_keys_is_said_before_anything_starts(self, tmp_path: Path):
        (tmp_path / "empty").write_text("")
        with pytest.raises(InvalidSettings, match="has no key, expected -----BEGIN PUBLIC KEY"):
            open_store(tmp_path, trust=tmp_path / "empty")
        with pytest.raises(InvalidSettings, match="cannot be read: No such file"):
            open_store(tmp_path, trust=tmp_path / "nowhere")
