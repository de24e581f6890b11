"""Which rows a model was made of: fingerprints beside it, never inside.

A fingerprint is a salted 64-bit hash of a row as the model reads it. The file keeps the smallest
ones, at most MOST: a random sample of the distinct rows (Cohen and Kaplan, PODC 2007), so that its
size is bounded. Whoever has the file and a row can ask whether the row was there; who must not be
able to deletes it, and `evaluate` is silent.

Shapes: N rows, D features, F fingerprints kept.
"""

import base64
import hashlib
import secrets
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

FILE = "fingerprints.json"
MOST = 65_536

Float32 = NDArray[np.float32]


class Fingerprints(msgspec.Struct, frozen=True, kw_only=True):
    """The smallest hashes of the rows, ascending."""

    salt: str  # hexadecimal
    rows: int  # distinct ones, kept or not
    hashes: str  # F little-endian 64-bit numbers, base64
    # the same of rows that its run looked at and left out, most of them for being strange
    left_out: str = ""

    def seen(self, rows_ND: Float32) -> float | None:
        """The share of these rows that equal one of the model's; None where none can tell."""
        kept_F, hash_N = self._compare(rows_ND)
        if len(kept_F) < self.rows:  # what lies beyond the largest one kept is not known
            hash_N = hash_N[hash_N <= kept_F[-1]]
        return float(np.isin(hash_N, kept_F).mean()) if len(hash_N) else None

    def holds(self, rows_ND: Float32) -> NDArray[np.bool_]:
        """[N] true where a row equals one whose fingerprint was kept."""
        kept_F, hash_N = self._compare(rows_ND)
        return np.isin(hash_N, kept_F)

    def lacks(self, rows_ND: Float32) -> NDArray[np.bool_]:
        """[N] true where the model's run did not look at a row; of more rows than were kept this is
        known of a random part, and false elsewhere.
        """
        kept_F, hash_N = self._compare(rows_ND)
        is_decidable_N = np.ones(len(hash_N), dtype=bool)
        if len(kept_F) < self.rows:
            is_decidable_N = hash_N <= kept_F[-1]
        return is_decidable_N & ~np.isin(hash_N, np.concatenate([kept_F, _decode(self.left_out)]))

    def _compare(self, rows_ND: Float32) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        kept_F = _decode(self.hashes)
        return kept_F, hash_rows(rows_ND, bytes.fromhex(self.salt))


def fingerprint(
    rows_ND: Float32,
    looked_at_MD: Float32 | None = None,
    *,
    most: int = MOST,
    salt: bytes | None = None,
) -> Fingerprints:
    """Hash rows [N, D], and those that were looked at beside them; with a new salt, unless one is
    given.
    """
    salt = salt or secrets.token_bytes(16)
    distinct = np.unique(hash_rows(rows_ND, salt))
    left_out = np.empty(0, dtype=np.uint64)
    if looked_at_MD is not None:
        left_out = np.setdiff1d(hash_rows(looked_at_MD, salt), distinct)
    return Fingerprints(
        salt=salt.hex(),
        rows=len(distinct),
        hashes=_encode(distinct[:most]),
        left_out=_encode(left_out[:most]),
    )


def write_fingerprints(fingerprints: Fingerprints) -> str:
    """JSON text."""
    return msgspec.json.encode(fingerprints).decode() + "\n"


def read_fingerprints(folder: Path) -> Fingerprints | None:
    """What lies beside a model in its folder; None where there is nothing that can be read."""
    try:
        return msgspec.json.decode((folder / FILE).read_bytes(), type=Fingerprints)
    except (OSError, msgspec.DecodeError):
        return None


def _encode(hashes: NDArray[np.uint64]) -> str:
    return base64.b64encode(hashes.astype("<u8").tobytes()).decode()


def _decode(text: str) -> NDArray[np.uint64]:
    return np.frombuffer(base64.b64decode(text), dtype="<u8").astype(np.uint64)


def hash_rows(rows_ND: Float32, salt: bytes) -> NDArray[np.uint64]:
    """[N]; all NaN are alike, and both zeros."""
    plain_ND = np.where(np.isnan(rows_ND), np.float32(np.nan), rows_ND + np.float32(0.0))
    lines = np.ascontiguousarray(plain_ND, dtype="<f4")
    digests = b"".join(
        hashlib.blake2b(line.tobytes(), digest_size=8, key=salt).digest() for line in lines
    )
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)
