# SPDX-License-Identifier: Apache-2.0
"""A layer blob as a stream of uncompressed chunks, read ahead by a thread that decompresses and hashes.

The thread fills a few buffers of 1 MiB; the consumer works on one while the next are filled, and gives it back.
Reading, decompression and hashing release the GIL, so both sides run at the same time, and memory is the buffers,
whatever the layer's size.
"""

from __future__ import annotations

import hashlib
import io
import queue
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pycow.errors import ImageError
from pycow.oci.compression import HEAD_BYTES, damage, decompress, detect
from pycow.oci.digest import Digest
from pycow.oci.files import Blob, Window

if TYPE_CHECKING:
    from hashlib import _Hash as Hash

__all__ = ["LayerStream"]

_BUFFERS = 4
_BUFFER_BYTES = 1 << 20


class LayerStream:
    """Iterates over the uncompressed bytes of a blob; a context manager, which ends the thread.

    A chunk is valid until the next one is asked for. After the last one diff_id is known and the blob's digest, if one
    was given, has been checked. Raises ImageError for damaged data or a wrong digest, OSError when reading fails.
    """

    def __init__(self, blob: Blob, digest: Digest | None = None) -> None:
        self.done = 0  # bytes of the blob that were read for the chunks so far
        self.diff_id = ""
        self._blob = blob
        self._digest = digest
        self._free: queue.SimpleQueue[bytearray | None] = queue.SimpleQueue()
        self._full: queue.SimpleQueue[tuple[bytearray, int, int] | BaseException | None] = queue.SimpleQueue()
        for _ in range(_BUFFERS):
            self._free.put(bytearray(_BUFFER_BYTES))
        self._thread = threading.Thread(target=self._run, name="pycow-layer", daemon=True)

    def __enter__(self) -> LayerStream:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._free.put(None)  # the thread waits for nothing else
        while self._thread.is_alive():
            self._thread.join()

    def __iter__(self) -> Iterator[memoryview]:
        while (got := self._full.get()) is not None:
            if isinstance(got, BaseException):
                raise got
            buffer, length, self.done = got
            yield memoryview(buffer)[:length]
            self._free.put(buffer)

    # ---- The thread

    def _run(self) -> None:
        try:
            with self._blob.open() as window:
                if self._read(window):
                    self._full.put(None)
        except BaseException as error:
            self._full.put(error)

    def _read(self, window: Window) -> bool:
        """False when the consumer has gone."""
        kind = self._kind(window)
        diff_hash = hashlib.sha256()
        source = _Counted(window, self._blob_hash(kind))
        with damage(self._blob.name):
            reader = decompress(source, kind)
            while (buffer := self._free.get()) is not None:
                view = memoryview(buffer)
                length = reader.readinto(view)
                if length == 0:
                    break
                diff_hash.update(view[:length])
                self._full.put((buffer, length, source.count))
            else:
                return False
        self.diff_id = f"sha256:{diff_hash.hexdigest()}"
        self._check(source, window)
        return True

    def _kind(self, window: Window) -> str:
        try:
            return detect(window.head(HEAD_BYTES))
        except ImageError as error:
            raise ImageError(f"{self._blob.name}: {error}") from None

    def _blob_hash(self, kind: str) -> Hash | None:
        if self._digest is None or (kind == "plain" and self._digest.algorithm == "sha256"):
            return None  # a plain layer's digest is its diffID
        return self._digest.hasher()

    def _check(self, source: _Counted, window: Window) -> None:
        while source.read(_BUFFER_BYTES):  # a decompressor may leave what follows its end
            pass
        if source.count != self._blob.size:
            raise ImageError(f"{self._blob.name}: {source.count} bytes instead of {self._blob.size}")
        if self._digest is None:
            return
        found = f"{self._digest.algorithm}:{source.hash.hexdigest()}" if source.hash is not None else self.diff_id
        if found != str(self._digest):
            raise ImageError(f"{self._blob.name}: wrong digest: it is {found}")


class _Counted(io.RawIOBase):
    """Counts and hashes what is read."""

    def __init__(self, window: Window, blob_hash: Hash | None) -> None:
        self._window = window
        self.hash = blob_hash
        self.count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        got = self._window.readinto(buffer)
        self.count += got
        if self.hash is not None:
            self.hash.update(memoryview(buffer)[:got])
        return got
