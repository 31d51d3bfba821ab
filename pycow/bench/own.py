# SPDX-License-Identifier: Apache-2.0
"""pycow as a subject: in process, through the same handles that :mod:`pycow.fs` and :mod:`pycow.containers` use.

"pycow" makes bare trees; "pycow, named" makes containers of an image, with names in the catalog.
"""

from __future__ import annotations

import io
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import pycow
from pycow._native import NativeStore, Tree
from pycow.bench.base import FOLDER, MIB, SIZES, Base, piece
from pycow.bench.subject import Blocks, Box, Open, Subject
from pycow.oci.files import file_blob
from pycow.oci.stream import LayerStream

__all__ = ["NamedSubject", "TreeBox", "TreeFile", "TreeSubject"]

REGULAR, DIRECTORY = 0o100644, 0o040755
_IS_DIRECTORY = 0o040000
_TYPE = 0o170000


class TreeFile(Open):
    def __init__(self, tree: Tree, ino: int) -> None:
        self._tree, self._ino = tree, ino

    def writer(self) -> Callable[[int, Any], Any]:
        write, ino = self._tree.write, self._ino
        return lambda offset, data: write(ino, offset, data)

    def reader(self) -> Callable[[int, Any], Any]:
        read, ino = self._tree.read_into, self._ino
        return lambda offset, buffer: read(ino, offset, buffer)

    def write_many(self, blocks: Blocks, data: npt.NDArray[np.uint8]) -> None:
        self._tree.write_blocks(self._ino, blocks, data)

    def read_many(self, blocks: Blocks, out: npt.NDArray[np.uint8]) -> None:
        self._tree.read_blocks(self._ino, blocks, out)

    def sync(self) -> None:
        self._tree.sync(self._ino)

    def close(self) -> None:
        pass


class TreeBox(Box):
    """A tree; base is what changes() compares with."""

    def __init__(self, tree: Tree, base: Tree) -> None:
        self.tree, self._base = tree, base

    def fork(self) -> Box:
        return TreeBox(self.tree.fork(), self._base)

    def snapshot(self) -> Any:
        return self.tree.fork(sealed=True)

    def rollback(self, snapshot: Any) -> None:
        self.tree.reset(snapshot)

    def drop(self, snapshot: Any) -> None:
        snapshot.delete()
        snapshot.close()

    def delete(self) -> None:
        self.tree.delete()
        self.tree.close()

    def changes(self) -> int:
        return len(list(self.tree.diff(self._base)))

    def mkdir(self, path: str) -> None:
        tree = self.tree
        directory, name = tree.parent(path)
        tree.make(directory, name, DIRECTORY)

    def create(self, path: str, data: bytes) -> None:
        tree = self.tree
        directory, name = tree.parent(path)
        tree.write(tree.make(directory, name, REGULAR), 0, data)

    def read(self, path: str) -> bytes:
        tree = self.tree
        attr = tree.walk_attr(path)
        return tree.read(attr.ino, 0, attr.size)

    def remove(self, path: str) -> None:
        tree = self.tree
        directory, name = tree.parent(path)
        tree.remove(directory, name)

    def chmod(self, path: str, mode: int) -> None:
        tree = self.tree
        tree.set(tree.walk(path), mode=mode)

    def stat(self, path: str) -> Any:
        return self.tree.walk_attr(path)

    def list(self, path: str) -> int:
        return len(self.tree.read_dir(self.tree.walk(path)))

    def walk(self) -> int:
        paths, _attrs = self.tree.scan()
        return len(paths)

    def walk_directories(self) -> int:
        """One directory at a time, with a Python object for each entry."""
        tree, found, folders = self.tree, 0, [1]
        while folders:
            entries = tree.read_dir(folders.pop(), attrs=True)
            found += len(entries)
            folders += [entry.ino for entry in entries if entry.mode & _TYPE == _IS_DIRECTORY]
        return found

    def read_all(self, path: str) -> int:
        tree, total, folders = self.tree, 0, [self.tree.walk(path)]
        buffer = bytearray(MIB)
        while folders:
            for entry in tree.read_dir(folders.pop()):
                if entry.is_dir():
                    folders.append(entry.ino)
                elif entry.is_file():
                    at = 0
                    while got := tree.read_into(entry.ino, at, buffer):
                        at += got
                        if got < MIB:
                            break
                    total += at
        return total

    def open(self, path: str) -> Open:
        return TreeFile(self.tree, self.tree.walk(path))


class TreeSubject(Subject):
    """A store in folder; no background commits, so that each figure is either committed or not."""

    name = "pycow"

    def __init__(self, folder: Path) -> None:
        self.store = NativeStore(folder / "store", commit_interval_ms=0)
        self.base: Tree = self.store.create_tree()

    def prepare(self, base: Base) -> None:
        self.base.close()
        self.base = self.import_tar(base.tars["plain"])
        folder = self.base.make(1, FOLDER, DIRECTORY)
        for path, size in base.files():
            ino = self.base.make(folder, path.rpartition("/")[2], REGULAR)
            for at in range(0, size, MIB):
                self.base.write(ino, at, piece(at // MIB, min(MIB, size)))
        self.base.seal()
        self.store.commit()

    def create(self) -> Box:
        return TreeBox(self.base.fork(base=True), self.base)

    def commit(self) -> None:
        self.store.commit()

    def disk_bytes(self) -> int:
        """Blocks in use, not what the host charges: freed space is used again, and segments grow ahead."""
        while self.store.stats()["pending_delete_nodes"]:
            self.store.commit()
        self.store.commit()
        stats = self.store.stats()
        return stats["data_bytes"] + stats["node_bytes"]

    def import_tar(self, tar: Path) -> Any:
        """As images.load does it: decompression and SHA-256 in a thread beside the unpacking."""
        tree = self.store.create_tree()
        with LayerStream(file_blob(str(tar))) as stream, tree.untar() as untar:
            for chunk in stream:
                untar.feed(chunk)
            untar.finish()
        return tree

    def export_tar(self, tree: Any, to: Path) -> None:
        with to.open("wb", buffering=0) as out, tree.tar() as chunks:
            for chunk in chunks:
                out.write(chunk)

    def forget(self, tree: Any) -> None:
        tree.delete()
        tree.close()

    def stack(self, depth: int) -> Box:
        tree = self.store.create_tree()
        bottom, directory = tree, 1
        for name in ("usr", "share", "doc"):
            directory = tree.make(directory, name, DIRECTORY)
        tree.write(tree.make(directory, "copyright", REGULAR), 0, b"text")
        for layer in range(1, depth):
            tree.seal()
            tree = tree.fork(base=True)
            tree.make(1, f"layer-{layer}", REGULAR)
        tree.seal()
        return TreeBox(tree.fork(base=True), bottom)

    def close(self) -> None:
        self.store.close()


_NAMED_WORKS = "create create_committed fork fork_committed snapshot rollback delete life diff_10".split()


class NamedSubject(TreeSubject):
    """Containers of an image, with names and ids in the catalog: what the command line and the library's users do."""

    name = "pycow, named"

    def __init__(self, folder: Path) -> None:
        self._opened = pycow.open(folder / "named", commit_interval=0)
        self.store = self._opened._native
        self.base = self.store.create_tree()

    def leaves_out(self, work: str) -> str:
        return "" if work in _NAMED_WORKS else "as pycow"

    def prepare(self, base: Base) -> None:
        """Two layers: the root file system, and the small file."""
        with tempfile.NamedTemporaryFile(suffix=".tar") as layer:
            with tarfile.open(fileobj=layer, mode="w") as tar:
                info = tarfile.TarInfo(f"{FOLDER}/small")
                info.size = SIZES["small"]
                tar.addfile(info, io.BytesIO(piece(0, info.size)))
            layer.flush()
            self._image = self._opened.images.build_on(None, [base.tars["plain"], layer.name], "bench:latest")
        self.base = self._image.tree()

    def create(self) -> Box:
        return _NamedBox(self._opened.containers.create(self._image), self.base)

    def close(self) -> None:
        self._opened.close()


class _NamedBox(TreeBox):
    def __init__(self, container: pycow.Container, base: Tree) -> None:
        super().__init__(container.tree, base)
        self._container = container
        self._snapshots = 0

    def fork(self) -> Box:
        return _NamedBox(self._container.fork(), self._base)

    def snapshot(self) -> Any:
        self._snapshots += 1
        return self._container.snapshot(f"s{self._snapshots}")

    def rollback(self, snapshot: Any) -> None:
        self._container.rollback(snapshot)

    def drop(self, snapshot: Any) -> None:
        snapshot.remove()

    def delete(self) -> None:
        self._container.remove()

    def changes(self) -> int:
        return len(self._container.diff())
