# SPDX-License-Identifier: Apache-2.0
"""Boxes that are directories of the host, for all peers that are file systems: the same calls on each."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pycow.bench.base import FOLDER, MIB, Base, piece
from pycow.bench.mounts import syncfs
from pycow.bench.subject import BLOCK, Blocks, Box, Open, Subject, Unsupported

__all__ = ["HostBox", "HostFile", "HostSubject", "copy_tree", "fill_base"]


def walk(root: str) -> int:
    """Lists and stats everything below a folder; how many entries there are."""
    found, folders = 0, [root]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                found += 1
                if stat.S_ISDIR(entry.stat(follow_symlinks=False).st_mode):
                    folders.append(entry.path)
    return found


class HostFile(Open):
    def __init__(self, path: str, flags: int = os.O_RDWR) -> None:
        self.fd = os.open(path, flags | os.O_CLOEXEC, 0o644)

    def writer(self) -> Callable[[int, Any], Any]:
        fd, pwrite = self.fd, os.pwrite
        return lambda offset, data: pwrite(fd, data, offset)

    def reader(self) -> Callable[[int, Any], Any]:
        fd, preadv = self.fd, os.preadv
        return lambda offset, buffer: preadv(fd, (buffer,), offset)

    def write_many(self, blocks: Blocks, data: npt.NDArray[np.uint8]) -> None:
        fd, pwrite = self.fd, os.pwrite
        view = memoryview(data.data).cast("B")
        for i, block in enumerate(blocks.tolist()):
            pwrite(fd, view[i * BLOCK : (i + 1) * BLOCK], block * BLOCK)

    def read_many(self, blocks: Blocks, out: npt.NDArray[np.uint8]) -> None:
        fd, preadv = self.fd, os.preadv
        view = memoryview(out.data).cast("B")
        for i, block in enumerate(blocks.tolist()):
            preadv(fd, (view[i * BLOCK : (i + 1) * BLOCK],), block * BLOCK)

    def sync(self) -> None:
        os.fsync(self.fd)

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
        self.fd = -1

    def __del__(self) -> None:  # a work that is cut off must not keep its file system busy
        with contextlib.suppress(AttributeError, OSError):
            self.close()


class HostBox(Box):
    """root is where the tree is seen. Peers add how it is made, forked and removed."""

    def __init__(self, root: str) -> None:
        self.root = root

    def at(self, path: str) -> str:
        return f"{self.root}/{path}"

    def fork(self) -> Box:
        raise Unsupported("no fork")

    def snapshot(self) -> Any:
        raise Unsupported("no snapshot")

    def rollback(self, snapshot: Any) -> None:
        raise Unsupported("no rollback")

    def drop(self, snapshot: Any) -> None:
        raise Unsupported("no snapshot")

    def changes(self) -> int:
        raise Unsupported("no diff other than a comparison of both trees")

    def mkdir(self, path: str) -> None:
        os.mkdir(self.at(path))

    def create(self, path: str, data: bytes) -> None:
        fd = os.open(self.at(path), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        os.write(fd, data)
        os.close(fd)

    def read(self, path: str) -> bytes:
        fd = os.open(self.at(path), os.O_RDONLY | os.O_CLOEXEC)
        data = os.read(fd, os.fstat(fd).st_size)
        os.close(fd)
        return data

    def remove(self, path: str) -> None:
        os.unlink(self.at(path))

    def chmod(self, path: str, mode: int) -> None:
        os.chmod(self.at(path), mode)

    def stat(self, path: str) -> Any:
        return os.lstat(self.at(path))

    def list(self, path: str) -> int:
        return len(os.listdir(self.at(path)))

    def walk(self) -> int:
        return walk(self.root)

    def read_all(self, path: str) -> int:
        total, folders = 0, [self.at(path)]
        buffer = bytearray(MIB)
        while folders:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    elif entry.is_file(follow_symlinks=False):
                        fd = os.open(entry.path, os.O_RDONLY | os.O_CLOEXEC)
                        while got := os.readv(fd, (buffer,)):
                            total += got
                            if got < MIB:
                                break
                        os.close(fd)
        return total

    def open(self, path: str) -> Open:
        return HostFile(self.at(path))


class HostSubject(Subject):
    """A folder on a host file system. base/ has the base tree; boxes are made beside it."""

    def __init__(self, folder: Path, shared_base: Path | None = None) -> None:
        self.folder = folder
        self.folder.mkdir(parents=True, exist_ok=True)
        self.base = shared_base or folder / "base"
        self._number = 0
        self._fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def next_name(self) -> str:
        self._number += 1
        return str(self._number)

    def prepare(self, base: Base) -> None:
        fill_base(self.base, base)
        syncfs(self._fd)

    def commit(self) -> None:
        syncfs(self._fd)

    def disk_bytes(self) -> int:
        info = os.statvfs(self.folder)
        return (info.f_blocks - info.f_bfree) * info.f_frsize

    def import_tar(self, tar: Path) -> Any:
        to = self.folder / f"import-{self.next_name()}"
        to.mkdir()
        subprocess.run(["tar", "--numeric-owner", "-C", str(to), "-xf", str(tar)], check=True)
        return to

    def export_tar(self, tree: Any, to: Path) -> None:
        subprocess.run(["tar", "--numeric-owner", "-C", str(tree), "-cf", str(to), "."], check=True)

    def forget(self, tree: Any) -> None:
        shutil.rmtree(tree)

    def stack(self, depth: int) -> Box:
        raise Unsupported("no layers: each tree is whole")

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1


def fill_base(to: Path, base: Base) -> None:
    """Unpacks the base tree, once for all subjects that share it."""
    if to.exists():
        return
    to.mkdir(parents=True)
    subprocess.run(["tar", "--numeric-owner", "-C", str(to), "-xf", str(base.tars["plain"])], check=True)
    (to / FOLDER).mkdir()
    for path, size in base.files():
        with (to / path).open("wb", buffering=0) as file:
            for at in range(0, size, MIB):
                file.write(piece(at // MIB, min(MIB, size)))


def copy_tree(source: str, target: str) -> None:
    """What `cp -a --reflink=auto` does, in process: fork of an overlay's upper directory, whiteouts included."""
    folders = [(source, target)]
    while folders:
        old, new = folders.pop()
        os.mkdir(new)
        _copy_attributes(old, new)
        with os.scandir(old) as entries:
            for entry in entries:
                to = f"{new}/{entry.name}"
                info = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(info.st_mode):
                    folders.append((entry.path, to))
                elif stat.S_ISLNK(info.st_mode):
                    os.symlink(os.readlink(entry.path), to)
                elif stat.S_ISREG(info.st_mode):
                    _copy_file(entry.path, to)
                    _copy_attributes(entry.path, to)
                else:
                    os.mknod(to, info.st_mode, info.st_rdev)


def _copy_file(source: str, target: str) -> None:
    """copy_file_range(2) shares blocks where the file system can."""
    old = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    new = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        while os.copy_file_range(old, new, 1 << 30):
            pass
    finally:
        os.close(old)
        os.close(new)


def _copy_attributes(source: str, target: str) -> None:
    info = os.lstat(source)
    os.chown(target, info.st_uid, info.st_gid)
    os.chmod(target, stat.S_IMODE(info.st_mode))
    for name in os.listxattr(source, follow_symlinks=False):
        try:
            os.setxattr(target, name, os.getxattr(source, name, follow_symlinks=False), follow_symlinks=False)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EPERM):
                raise
    with contextlib.suppress(OSError):
        os.utime(target, ns=(info.st_atime_ns, info.st_mtime_ns))
