# SPDX-License-Identifier: Apache-2.0
"""Compressed streams: plain, gzip or zstd by what the first bytes say, decompressed as they are read.

Memory is bounded (a zstd frame may ask for a window of 128 MiB at most), and the decompressors release the GIL.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, Protocol

import zstandard

from pycow.errors import ImageError

try:
    from isal import igzip, isal_zlib
except ImportError:  # not on every architecture
    _gzip_file: Any = gzip.GzipFile
    _GZIP_ERROR: Any = zlib.error
else:
    _gzip_file = igzip.IGzipFile
    _GZIP_ERROR = isal_zlib.IsalError

__all__ = ["HEAD_BYTES", "Reader", "damage", "decompress", "detect"]

HEAD_BYTES: Final = 6  # what detect wants to see
_READ_BYTES = 1 << 18

_UNSUPPORTED = {b"\xfd7zXZ\x00": "xz", b"BZh": "bzip2", b"\x04\x22\x4d\x18": "lz4"}


class Reader(Protocol):
    """What decompress returns. readinto answers 0 at the end only."""

    def readinto(self, buffer: memoryview, /) -> int: ...


def detect(head: bytes) -> str:
    """ "gzip", "zstd" or "plain" by the first HEAD_BYTES of a stream; ImageError for another known compression."""
    if head[:2] == b"\x1f\x8b":
        return "gzip"
    if head[:4] == b"\x28\xb5\x2f\xfd" or (head[1:4] == b"\x2a\x4d\x18" and 0x50 <= head[0] <= 0x5F):
        return "zstd"  # the second is a skippable frame
    for magic, name in _UNSUPPORTED.items():
        if head.startswith(magic):
            raise ImageError(f"compressed with {name}; plain, gzip and zstd are supported")
    return "plain"


def decompress(source: Any, kind: str) -> Reader:
    """The decompressed stream of a binary file, which is of the kind that detect found. Read it inside of damage()."""
    reader: Reader = source
    if kind == "gzip":
        reader = _gzip_file(fileobj=source, mode="rb")
    elif kind == "zstd":
        decompressor = zstandard.ZstdDecompressor()
        reader = decompressor.stream_reader(source, read_size=_READ_BYTES, read_across_frames=True)
    return reader


@contextmanager
def damage(what: str) -> Iterator[None]:
    """Turns what the decompressors raise into ImageError; errors of the host's files pass."""
    try:
        yield
    except (gzip.BadGzipFile, EOFError, zlib.error, zstandard.ZstdError, _GZIP_ERROR) as error:
        raise ImageError(f"{what}: damaged compressed data: {error}") from error
