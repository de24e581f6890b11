"""Objects: files in object storage (Amazon's S3 and what speaks like it, Google's, Azure's).

The one place that knows obstore, which has one way for all of them to write only over what is
known (If-Match, If-None-Match). Credentials, region and endpoint are the environment's, by the
names that each provider gives them.
"""

import errno
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from hourglass.service.errors import InvalidSettings

if TYPE_CHECKING:
    from obstore.store import ObjectStore

NEEDED = "models in a bucket need the package obstore: pip install 'hourglass[cloud]'"
SCHEMES = ("s3", "s3a", "gs", "az", "azure", "abfs", "abfss")
# of what is asked at each look, which is to end within the 5 s of registry.py, and of whole files
LOOK_SECONDS, TRANSFER_SECONDS = 2, 300
CONNECT_SECONDS = 2
RETRIES = 2
CHUNK_BYTES = 2**20
PROBE = ".written-to-see-whether-one-can"


class Found(NamedTuple):
    """An object's bytes, and the tag by which it is known whether it still holds them."""

    data: bytes
    tag: dict[str, str]


class Conflict(Exception):
    """The object is no longer the one that was to be replaced."""


class Objects:
    """What lies under a URL such as s3://bucket/prefix.

    A store that cannot be asked, or refuses, is an OSError whose strerror says why in a sentence's
    part: to who reads and writes a bucket is a disk.
    """

    def __init__(self, url: str) -> None:
        try:
            from obstore.store import from_url
        except ImportError as error:
            raise InvalidSettings(NEEDED) from error
        self.url = url.rstrip("/")
        self._conditional = False  # whether it is known to heed If-Match

        def store(seconds: int, retries: int) -> Any:
            return from_url(
                self.url,
                client_options={
                    "timeout": timedelta(seconds=seconds),
                    "connect_timeout": timedelta(seconds=CONNECT_SECONDS),
                    "allow_http": True,  # where the environment names such an endpoint
                },
                retry_config={
                    "max_retries": retries,
                    "retry_timeout": timedelta(seconds=seconds),
                },
            )

        try:
            self._quick: ObjectStore = store(LOOK_SECONDS, 0)
            self._store: ObjectStore = store(TRANSFER_SECONDS, RETRIES)
        except Exception as error:  # a URL or a variable that is wrong in a way of the provider's
            raise InvalidSettings(f"{url} cannot be used: {_first_line(error)}") from error

    def get(self, key: str, known: Found | None = None, *, max_bytes: int) -> Found | None:
        """An object; `known` itself where it is still that, and None where there is none. Of a
        larger one than allowed come max_bytes + 1.
        """
        import obstore
        from obstore.exceptions import NotModifiedError

        tag = known.tag.get("e_tag") if known else None
        try:
            result = obstore.get(self._quick, key, options={"if_none_match": tag} if tag else None)
            data = b""
            for chunk in result.stream(CHUNK_BYTES):
                data += bytes(chunk)
                if len(data) > max_bytes:
                    data = data[: max_bytes + 1]
                    break
        except FileNotFoundError:
            return None
        except NotModifiedError:
            return known
        except Exception as error:
            raise self._failed(error) from error
        return Found(data, _tag(result.meta))

    def stream(self, key: str) -> Iterator[bytes]:
        """The bytes of an object, piece by piece; FileNotFoundError where there is none."""
        import obstore

        try:
            for chunk in obstore.get(self._store, key).stream(CHUNK_BYTES):
                yield bytes(chunk)
        except FileNotFoundError as error:
            raise FileNotFoundError(
                errno.ENOENT, f"{self.url}/{key} is not there", f"{self.url}/{key}"
            ) from error
        except GeneratorExit:
            raise
        except Exception as error:
            raise self._failed(error) from error

    def put(self, key: str, data: bytes) -> None:
        """Write an object, whatever lies there."""
        import obstore

        try:
            obstore.put(self._store, key, data)
        except Exception as error:
            raise self._failed(error) from error

    def swap(self, key: str, data: bytes, known: Found | None) -> Found:
        """Write an object in the place of a known one, or where there is none; Conflict where
        something else lies there by now.

        Of a store that has no conditions the object is read right before.
        """
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        if not self.is_conditional():
            now = self.get(key, max_bytes=len(known.data) if known else 0)
            if (now and now.data) != (known and known.data):
                raise Conflict(key)
            self.put(key, data)
            return Found(data, {})
        mode: Any = known.tag if known else "create"
        try:
            # in one part: a multipart upload has no conditions
            put = obstore.put(self._store, key, data, mode=mode, use_multipart=False)
        except (AlreadyExistsError, PreconditionError) as error:
            raise Conflict(key) from error
        except Exception as error:
            raise self._failed(error) from error
        return Found(data, _tag(put))

    def is_conditional(self) -> bool:
        """Whether the store writes only over what is known, found out by an object that is taken
        away again; so it also says, by an OSError, that nothing can be written. A store that does
        is asked once; that one does not may be a passing error's word.
        """
        self._conditional = self._conditional or self._try_conditions()
        return self._conditional

    def folders(self, prefix: str = "") -> list[str]:
        """Names of what lies one level below, and has others below itself."""
        import obstore

        try:
            found = obstore.list_with_delimiter(self._quick, prefix or None)
        except Exception as error:
            raise self._failed(error) from error
        return sorted(each.rpartition("/")[2] for each in found["common_prefixes"])

    def keys(self, prefix: str) -> dict[str, int]:
        """All objects below a prefix, whatever their level, and their sizes in bytes."""
        import obstore

        try:
            pages = obstore.list(self._store, prefix)
            return {each["path"]: each["size"] for page in pages for each in page}
        except Exception as error:
            raise self._failed(error) from error

    def delete(self, *keys: str) -> None:
        """Take objects away, in this order; one that is not there is none the less gone."""
        import obstore

        for key in keys:
            try:
                obstore.delete(self._store, key)
            except FileNotFoundError:
                continue
            except Exception as error:
                raise self._failed(error) from error

    def _try_conditions(self) -> bool:
        """Of several at once the one that makes the object takes it away again, and the others are
        refused as it is there.
        """
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        other: Any = {"e_tag": f'"{"0" * 32}"', "version": "1"}
        written, refused = 0, []
        try:
            for mode in ("create", "create", other):
                try:
                    obstore.put(self._store, PROBE, b"1", mode=mode, use_multipart=False)
                    written += 1
                except (AlreadyExistsError, PreconditionError):
                    refused.append(mode)
                except FileNotFoundError:  # another one took it away; or there is no such bucket
                    if mode != other:
                        raise
                    refused.append(mode)
        except Exception:  # it does not know of conditions, or cannot be written at all
            self.put(PROBE, b"1")
            written += 1
            return False
        finally:
            if written:
                with suppress(Exception):
                    obstore.delete(self._store, PROBE)
        return "create" in refused and other in refused

    def _failed(self, error: Exception) -> OSError:
        from obstore.exceptions import PermissionDeniedError, UnauthenticatedError

        refused = isinstance(error, PermissionDeniedError | UnauthenticatedError)
        number = errno.EACCES if refused else errno.EIO
        verb = "refuses" if refused else "does not answer"
        return OSError(number, f"{self.url} {verb}: {_first_line(error)}")


def _tag(meta: Any) -> dict[str, str]:
    """What names this state of an object: Amazon and Azure take its e_tag, Google its version."""
    return {name: value for name in ("e_tag", "version") if (value := meta[name]) is not None}


def _first_line(error: Exception) -> str:
    """Without the tree of causes below it, and without addresses and times before it."""
    line = (str(error).splitlines() or [type(error).__name__])[0]
    return line.rpartition(" - ")[2][:200]
