# SPDX-License-Identifier: Apache-2.0
"""Copies between the host's file system and a tree, with the rules of ``docker cp``.

SRC a file:      DEST missing: becomes it; a file: replaced; a directory: copied into it under SRC's name.
SRC a directory: DEST missing: becomes it; a file: an error; a directory: copied into it under SRC's name, or with
                 "SRC/." what is in SRC is copied into it.

Both directions walk with a stack of their own (no recursion), keep hard links among what is copied, holes, and all
attributes. A directory's times are set after its entries were made. On the host nothing is written through a symbolic
link: what stands in the way is replaced, and only DEST itself may be a link.
"""

from __future__ import annotations

import contextlib
import errno
import os
import posixpath
import stat
from collections.abc import Iterator

from pycow._native import REMOVE_FILE, Tree
from pycow.errors import InvalidError, IsDirectoryError, NotDirectoryError, NotFoundError
from pycow.results import Attr

__all__ = ["copy_in", "copy_out"]

_CHUNK_BYTES = 1 << 20


def _wants_content(source: str) -> bool:
    return source in (".", "./") or source.endswith(("/.", "/./"))


def _base_name(source: str) -> str:
    name = posixpath.basename(posixpath.normpath(source))
    if name in ("", "/", ".", ".."):
        raise InvalidError("this source has no name of its own; add /. to copy what is in it", filename=source)
    return name


# ---- Into the tree -----------------------------------------------------------------------------------


def copy_in(tree: Tree, source: str, dest: str) -> None:
    """Copies source of the host to dest in the tree."""
    st = os.lstat(source)
    if stat.S_ISLNK(st.st_mode) and source.endswith("/"):
        st = os.stat(source)
    is_dir = stat.S_ISDIR(st.st_mode)
    try:
        there: Attr | None = tree.walk_attr(dest)
    except NotFoundError:
        there = None
    if there is not None and there.is_dir():
        if is_dir and _wants_content(source):
            _Import(tree).content(source, there.ino)
        else:
            _Import(tree).entry(source, there.ino, os.fsencode(_base_name(os.path.abspath(source))))
        return
    if there is None and dest.endswith("/") and not is_dir:
        raise NotFoundError("the directory does not exist", filename=dest)
    if there is not None and is_dir:
        raise NotDirectoryError("a directory cannot replace a file", filename=dest)
    if there is not None:  # an existing file is replaced where it really stands, behind links too
        dest = tree.path_of(there.ino)
    directory, name = tree.parent(dest)
    _Import(tree).entry(source, directory, name)


class _Import:
    """One copy into a tree."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.links: dict[tuple[int, int], int] = {}  # (host device, host inode) -> inode, of files with links
        self.buffer = memoryview(bytearray(_CHUNK_BYTES))

    def entry(self, source: str, directory: int, name: bytes) -> None:
        """source becomes the entry name of a directory, with all below it."""
        ino = self.one(source, directory, name)
        if ino is not None:
            self.content(source, ino)
            self.attributes(source, ino, os.lstat(source))

    def content(self, source: str, ino: int) -> None:
        """What is in the host's directory source goes into the tree's directory ino."""
        stack = [(source, ino)]
        finished: list[tuple[str, int]] = []  # directories, parents first
        while stack:
            host_dir, directory = stack.pop()
            with os.scandir(host_dir) as entries:
                names = sorted(entry.name for entry in entries)
            for name in names:
                host = os.path.join(host_dir, name)
                made = self.one(host, directory, os.fsencode(name))
                if made is not None:
                    stack.append((host, made))
                    finished.append((host, made))
        for host_dir, directory in reversed(finished):
            self.attributes(host_dir, directory, os.lstat(host_dir))

    def one(self, source: str, directory: int, name: bytes) -> int | None:
        """Makes one entry; returns its inode when it is a directory that is to be filled."""
        st = os.lstat(source)
        if stat.S_ISDIR(st.st_mode):
            return self.directory(source, directory, name)
        self.clear(directory, name)
        key = (st.st_dev, st.st_ino)
        if st.st_nlink > 1 and key in self.links:
            self.tree.link(directory, name, self.links[key])
            return None
        target = os.readlink(source) if stat.S_ISLNK(st.st_mode) else None
        rdev = st.st_rdev if stat.S_ISCHR(st.st_mode) or stat.S_ISBLK(st.st_mode) else 0
        ino = self.tree.make(
            directory, name, st.st_mode, uid=st.st_uid, gid=st.st_gid, rdev=rdev, target=target and os.fsencode(target)
        )
        if st.st_nlink > 1:
            self.links[key] = ino
        if stat.S_ISREG(st.st_mode):
            self.file(source, ino)
        self.attributes(source, ino, st)
        return None

    def directory(self, source: str, directory: int, name: bytes) -> int:
        try:
            ino = self.tree.lookup(directory, name)
        except NotFoundError:
            return self.tree.make(directory, name, stat.S_IFDIR | 0o755)
        if not self.tree.stat(ino).is_dir():
            raise NotDirectoryError("a directory cannot replace a file", filename=self.tree.path_of(ino))
        return ino

    def clear(self, directory: int, name: bytes) -> None:
        with contextlib.suppress(NotFoundError):
            ino = self.tree.lookup(directory, name)
            if self.tree.stat(ino).is_dir():
                raise IsDirectoryError("a file cannot replace a directory", filename=self.tree.path_of(ino))
            self.tree.remove(directory, name, REMOVE_FILE)

    def file(self, source: str, ino: int) -> None:
        fd = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with open(fd, "rb", buffering=0) as host:
            size = os.fstat(fd).st_size
            for start, end in _host_ranges(fd, size):
                host.seek(start)
                while start < end:
                    n = host.readinto(self.buffer[: end - start])
                    if not n:  # it shrank meanwhile
                        return
                    self.tree.write(ino, start, self.buffer[:n])
                    start += n
            if self.tree.stat(ino).size < size:
                self.tree.truncate(ino, size)

    def attributes(self, source: str, ino: int, st: os.stat_result) -> None:
        for name in os.listxattr(source, follow_symlinks=False):
            self.tree.xattr_set(ino, os.fsencode(name), os.getxattr(source, name, follow_symlinks=False))
        mode = None if stat.S_ISLNK(st.st_mode) else stat.S_IMODE(st.st_mode)
        self.tree.set(ino, mode=mode, uid=st.st_uid, gid=st.st_gid, atime_ns=st.st_atime_ns, mtime_ns=st.st_mtime_ns)


def _host_ranges(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """Ranges of a host file that hold data."""
    if os.fstat(fd).st_blocks * 512 >= size:
        yield 0, size
        return
    at = 0
    while at < size:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        at = min(os.lseek(fd, start, os.SEEK_HOLE), size)
        yield start, at


# ---- Out of the tree ---------------------------------------------------------------------------------


def copy_out(tree: Tree, source: str, dest: str) -> None:
    """Copies source in the tree to dest of the host."""
    attr = tree.walk_attr(source, follow=source.endswith("/") or _wants_content(source))
    if os.path.isdir(dest):
        dest = os.path.realpath(dest)
        if attr.is_dir() and _wants_content(source):
            _Export(tree).content(attr.ino, dest)
        else:
            name = _base_name(tree.path_of(attr.ino) if source.endswith(("/.", "/..")) else source)
            _Export(tree).entry(attr, os.path.join(dest, name))
        return
    if attr.is_dir() and os.path.lexists(dest):
        raise NotDirectoryError("a directory cannot replace a file", filename=dest)
    if dest.endswith("/") and not attr.is_dir():
        raise NotFoundError("the directory does not exist", filename=dest)
    _Export(tree).entry(attr, os.path.realpath(dest) if os.path.exists(dest) else dest.rstrip("/"))


class _Export:
    """One copy out of a tree."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.links: dict[int, str] = {}  # inode -> first host path, of files with links
        self.buffer = memoryview(bytearray(_CHUNK_BYTES))
        self.privileged = os.geteuid() == 0

    def entry(self, attr: Attr, dest: str) -> None:
        """attr's inode becomes dest, with all below it."""
        if self.one(attr, dest):
            self.content(attr.ino, dest)
            self.attributes(attr, dest)

    def content(self, ino: int, dest: str) -> None:
        """What is in the tree's directory ino goes into the host's directory dest."""
        stack = [(ino, dest)]
        finished: list[tuple[Attr, str]] = []
        while stack:
            directory, host_dir = stack.pop()
            for entry in self.tree.iter_dir(directory, attrs=True):
                if entry.attr is None or "/" in entry.name or entry.name in ("", ".", ".."):
                    raise InvalidError("an entry with an impossible name", filename=entry.name)
                host = os.path.join(host_dir, entry.name)
                if self.one(entry.attr, host):
                    stack.append((entry.ino, host))
                    finished.append((entry.attr, host))
        for attr, host_dir in reversed(finished):
            self.attributes(attr, host_dir)

    def one(self, attr: Attr, dest: str) -> bool:
        """Makes one entry; True when it is a directory that is to be filled."""
        try:
            there = os.lstat(dest)
        except FileNotFoundError:
            there = None
        if attr.is_dir():
            if there is None:
                os.mkdir(dest, 0o700)
            elif not stat.S_ISDIR(there.st_mode):
                raise NotDirectoryError("a directory cannot replace a file", filename=dest)
            return True
        if there is not None:
            if stat.S_ISDIR(there.st_mode):
                raise IsDirectoryError("a file cannot replace a directory", filename=dest)
            os.unlink(dest)
        if attr.nlink > 1 and attr.ino in self.links:
            os.link(self.links[attr.ino], dest, follow_symlinks=False)
            return False
        if attr.nlink > 1:
            self.links[attr.ino] = dest
        self.make(attr, dest)
        self.attributes(attr, dest)
        return False

    def make(self, attr: Attr, dest: str) -> None:
        if attr.is_file():
            self.file(attr, dest)
        elif attr.is_symlink():
            os.symlink(self.tree.symlink_read(attr.ino), dest)
        else:
            os.mknod(dest, stat.S_IFMT(attr.mode) | 0o600, attr.rdev)

    def file(self, attr: Attr, dest: str) -> None:
        fd = os.open(dest, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with open(fd, "wb", buffering=0) as host:
            for start, end in _tree_ranges(self.tree, attr):
                host.seek(start)
                while start < end:
                    n = self.tree.read_into(attr.ino, start, self.buffer[: end - start])
                    if not n:
                        return
                    _write_all(host.fileno(), self.buffer[:n])
                    start += n
            os.ftruncate(fd, attr.size)

    def attributes(self, attr: Attr, dest: str) -> None:
        if self.privileged:
            os.chown(dest, attr.uid, attr.gid, follow_symlinks=False)
        for name in self.tree.xattr_list(attr.ino):
            value = self.tree.xattr_get(attr.ino, name)
            try:
                os.setxattr(dest, name, value, follow_symlinks=False)
            except OSError as error:
                if error.errno not in (errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.EINVAL):
                    raise
        if not attr.is_symlink():
            os.chmod(dest, attr.permissions)
        os.utime(dest, ns=(attr.atime_ns, attr.mtime_ns), follow_symlinks=False)


def _tree_ranges(tree: Tree, attr: Attr) -> Iterator[tuple[int, int]]:
    """Ranges of a file in the tree that hold data."""
    at = 0
    while at < attr.size:
        try:
            start = tree.seek(attr.ino, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        at = min(tree.seek(attr.ino, start, os.SEEK_HOLE), attr.size)
        yield start, at


def _write_all(fd: int, data: memoryview) -> None:
    while data:
        data = data[os.write(fd, data) :]
