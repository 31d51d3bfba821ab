# SPDX-License-Identifier: Apache-2.0
"""Digests ("sha256:..."), and the chainIDs that name a stack of layers."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from pycow.errors import ImageError

if TYPE_CHECKING:
    from hashlib import _Hash as Hash

__all__ = ["Digest", "chain_id", "chain_ids", "parse_digest", "sha256_hex", "short"]

_HEX_LENGTH = {"sha256": 64, "sha512": 128}
_HEX = re.compile(r"[0-9a-f]+")
_SHORT = 12


class Digest(NamedTuple):
    """An algorithm and the digest in lower-case hex; str() gives "algorithm:hex"."""

    algorithm: str
    hex: str

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"

    def hasher(self) -> Hash:
        """A fresh hash object of the algorithm."""
        return hashlib.new(self.algorithm)

    def of(self, data: bytes) -> Digest:
        """The digest of data by the same algorithm."""
        return Digest(self.algorithm, hashlib.new(self.algorithm, data).hexdigest())


def parse_digest(text: Any, what: str) -> Digest:
    """A digest as JSON gave it; ImageError names what it was of when it is not one or of an unknown algorithm."""
    if not isinstance(text, str):
        raise ImageError(f"{what}: the digest is missing or not a string")
    algorithm, colon, digits = text.partition(":")
    if not colon:
        raise ImageError(f"{what}: not a digest: {text[:100]!r}")
    if algorithm not in _HEX_LENGTH:
        raise ImageError(f"{what}: unknown digest algorithm {algorithm[:100]!r}")
    if len(digits) != _HEX_LENGTH[algorithm] or not _HEX.fullmatch(digits):
        raise ImageError(f"{what}: not a {algorithm} digest: {digits[:140]!r}")
    return Digest(algorithm, digits)


def sha256_hex(data: bytes) -> str:
    """The sha256 of data in hex."""
    return hashlib.sha256(data).hexdigest()


def chain_ids(diff_ids: Iterable[str]) -> tuple[str, ...]:
    """The chainID (hex) of each layer of a stack, lowest first; diff_ids are "sha256:..." strings.

    The lowest layer's chainID is its diffID; each next one is the digest of the chainID below and its diffID.
    """
    chains: list[str] = []
    for diff_id in diff_ids:
        chains.append(chain_id(chains[-1] if chains else None, diff_id))
    return tuple(chains)


def chain_id(parent: str | None, diff_id: str) -> str:
    """The chainID (hex) of a layer on the chain parent (hex, None: it is the lowest)."""
    if parent is None:
        return diff_id.removeprefix("sha256:")
    return sha256_hex(f"sha256:{parent} {diff_id}".encode())


def short(digest: str) -> str:
    """The first 12 hex digits, for people."""
    return digest.rpartition(":")[2][:_SHORT]
