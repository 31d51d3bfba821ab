# SPDX-License-Identifier: Apache-2.0
"""Large files to write blocks in: that of a subject's container, a plain file, a mapped file, LMDB."""

from __future__ import annotations

import abc
import mmap
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pycow.bench.base import BIG, MIB, piece
from pycow.bench.host import HostFile
from pycow.bench.subject import BLOCK, Blocks, Box, Open, Subject, Unsupported

__all__ = ["BoxVolume", "LmdbVolume", "MappedVolume", "PlainVolume", "Volume"]

SMALL_BYTES = 64 << 10


class Volume(abc.ABC):
    name: str
    file: Open  # its first area_bytes have been written to

    @abc.abstractmethod
    def small(self, number: int) -> Open:
        """One more file of 64 KiB, for a thread of its own."""

    @abc.abstractmethod
    def close(self) -> None: ...


def _fill(file: Open, area_bytes: int) -> None:
    write = file.writer()
    for at in range(0, area_bytes, MIB):
        write(at, piece(at // MIB))
    file.sync()


class BoxVolume(Volume):
    """The large file of a container."""

    def __init__(self, subject: Subject, area_bytes: int) -> None:
        self.name = subject.name
        self._subject = subject
        self._box: Box = subject.create()
        self.file = self._box.open(BIG)
        _fill(self.file, area_bytes)

    def small(self, number: int) -> Open:
        path = f"small-{number}"
        self._box.create(path, bytes(SMALL_BYTES))
        return self._box.open(path)

    def close(self) -> None:
        self.file.close()
        self._box.delete()
        self._subject.commit()


class PlainVolume(Volume):
    """pread and pwrite on the host file system."""

    name = "plain file"

    def __init__(self, folder: Path, area_bytes: int) -> None:
        folder.mkdir(parents=True)
        self._folder = folder
        self.file = HostFile(f"{folder}/big", os.O_RDWR | os.O_CREAT)
        _fill(self.file, area_bytes)

    def small(self, number: int) -> Open:
        file = HostFile(f"{self._folder}/small-{number}", os.O_RDWR | os.O_CREAT)
        file.writer()(0, bytes(SMALL_BYTES))
        return file

    def close(self) -> None:
        self.file.close()


class _MappedFile(Open):
    def __init__(self, path: Path, length: int) -> None:
        with path.open("w+b") as file:
            file.truncate(length)
            self._map = mmap.mmap(file.fileno(), length)
        self._view = memoryview(self._map)
        self._rows = np.frombuffer(self._map, dtype=np.uint8).reshape(-1, BLOCK)

    def writer(self) -> Callable[[int, Any], Any]:
        view = self._view

        def write(offset: int, data: Any) -> None:
            view[offset : offset + len(data)] = data

        return write

    def reader(self) -> Callable[[int, Any], Any]:
        view = self._view

        def read(offset: int, buffer: Any) -> None:
            buffer[:] = view[offset : offset + len(buffer)]

        return read

    def write_many(self, blocks: Blocks, data: npt.NDArray[np.uint8]) -> None:
        self._rows[blocks] = data

    def read_many(self, blocks: Blocks, out: npt.NDArray[np.uint8]) -> None:
        np.take(self._rows, blocks.astype(np.intp), axis=0, out=out)

    def sync(self) -> None:
        self._map.flush()

    def close(self) -> None:
        del self._rows
        self._view.release()
        self._map.close()


class MappedVolume(Volume):
    """A mapped file: no checksums, no copy-on-write, no order among its writes."""

    name = "mmap"

    def __init__(self, folder: Path, area_bytes: int) -> None:
        folder.mkdir(parents=True)
        self._folder = folder
        self.file = _MappedFile(folder / "big", area_bytes)
        _fill(self.file, area_bytes)

    def small(self, number: int) -> Open:
        return _MappedFile(self._folder / f"small-{number}", SMALL_BYTES)

    def close(self) -> None:
        self.file.close()


class _LmdbFile(Open):
    """Keys are block numbers. One transaction a call; reads keep one open until the next write."""

    def __init__(self, env: Any, prefix: int) -> None:
        self._env, self._prefix = env, prefix << 32

    def _key(self, block: int) -> bytes:
        return (self._prefix | block).to_bytes(8, "big")

    def writer(self) -> Callable[[int, Any], Any]:
        env, prefix = self._env, self._prefix

        def write(offset: int, data: Any) -> None:
            first = prefix | offset // BLOCK
            with env.begin(write=True) as transaction:
                if len(data) == BLOCK:
                    transaction.put(first.to_bytes(8, "big"), data)
                    return
                view = memoryview(data)
                for i in range(0, len(data), BLOCK):
                    transaction.put((first + i // BLOCK).to_bytes(8, "big"), view[i : i + BLOCK])

        return write

    def reader(self) -> Callable[[int, Any], Any]:
        transaction = self._env.begin(buffers=True)
        prefix = self._prefix

        def read(offset: int, buffer: Any) -> None:
            first = prefix | offset // BLOCK
            for i in range(0, len(buffer), BLOCK):
                buffer[i : i + BLOCK] = transaction.get((first + i // BLOCK).to_bytes(8, "big"))

        return read

    def write_many(self, blocks: Blocks, data: npt.NDArray[np.uint8]) -> None:
        view = memoryview(data.data).cast("B")
        items = [(self._key(b), view[i * BLOCK : (i + 1) * BLOCK]) for i, b in enumerate(blocks.tolist())]
        with self._env.begin(write=True) as transaction:
            transaction.cursor().putmulti(items)

    def read_many(self, blocks: Blocks, out: npt.NDArray[np.uint8]) -> None:
        view = memoryview(out.data).cast("B")
        with self._env.begin(buffers=True) as transaction:
            for i, block in enumerate(blocks.tolist()):
                view[i * BLOCK : (i + 1) * BLOCK] = transaction.get(self._key(block))

    def sync(self) -> None:
        self._env.sync(True)

    def close(self) -> None:
        pass


class LmdbVolume(Volume):
    """LMDB with sync off: durable at sync(), like the others."""

    name = "LMDB"

    def __init__(self, folder: Path, area_bytes: int) -> None:
        try:
            import lmdb
        except ImportError:
            raise Unsupported("the Python package lmdb is not installed") from None
        folder.mkdir(parents=True)
        self._env: Any = lmdb.open(str(folder), map_size=4 * area_bytes + (1 << 30), sync=False, metasync=False)
        self.file = _LmdbFile(self._env, 0)
        _fill(self.file, area_bytes)

    def small(self, number: int) -> Open:
        file = _LmdbFile(self._env, number + 1)
        file.writer()(0, bytes(SMALL_BYTES))
        return file

    def close(self) -> None:
        self._env.close()
