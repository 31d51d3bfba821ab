# SPDX-License-Identifier: Apache-2.0
"""A tree as a file system: FileSystem, Path, File.

Paths are those of the tree: "/" is its root, relative ones start there as well, and symbolic links never lead out. A
Path is a value (no handle is open behind it); a File pins its inode, so it stays usable when its name goes away.
Everything may be used from many threads; the position of one File is not meant to be shared by them (pread and pwrite
have none).
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import posixpath
import stat
import time
from collections.abc import Iterator
from typing import Any, Final, Literal, TypeAlias, overload

import numpy as np
import numpy.typing as npt

from pycow import _hostcopy
from pycow._native import REMOVE_DIR, REMOVE_FILE, REMOVE_TREE, ROOT_INO, Buffer, Tree
from pycow.errors import (
    ClosedError,
    ExistsError,
    ForkedError,
    InvalidError,
    IsDirectoryError,
    LoopError,
    NotDirectoryError,
    NotFoundError,
    OperationError,
    StaleError,
)
from pycow.results import Attr, DirEntry

__all__ = ["File", "FileSystem", "Path"]

PathLike: TypeAlias = "str | bytes | os.PathLike[str] | os.PathLike[bytes] | Path"
RawMode: TypeAlias = Literal["rb", "wb", "ab", "xb", "r+b", "w+b", "a+b", "x+b", "rb+", "wb+", "ab+", "xb+"]

_LINKS_MAX: Final = 40


def _text(path: PathLike) -> str:
    if isinstance(path, str):
        return path
    if isinstance(path, Path):
        return path._path
    raw = os.fspath(path)  # TypeError for what is no path
    return raw if isinstance(raw, str) else raw.decode("utf-8", "surrogateescape")


def _permissions(mode: int) -> int:
    if not 0 <= mode < 1 << 32:
        raise InvalidError(f"a mode is out of range: {mode}")
    return stat.S_IMODE(mode)


def _check_tree(fs: FileSystem, path: PathLike) -> None:
    """A path of another tree means something else here."""
    if isinstance(path, Path) and (path.fs.tree.id != fs.tree.id or path.fs.tree.store is not fs.tree.store):
        raise OperationError("the two paths are of different trees", errno=errno.EXDEV, filename=str(path))


class FileSystem:
    """A path-like view of a tree: ``fs / "etc" / "hosts"``."""

    __slots__ = ("tree",)

    def __init__(self, tree: Tree) -> None:
        self.tree = tree

    def __repr__(self) -> str:
        return f"FileSystem({self.tree!r})"

    @property
    def root(self) -> Path:
        return Path(self, "/")

    def __truediv__(self, path: PathLike) -> Path:
        return Path(self, path)

    def path(self, *parts: PathLike) -> Path:
        """The path of these parts below the root."""
        return self.root.joinpath(*parts)

    @overload
    def open(
        self, path: PathLike, mode: RawMode = "rb", buffering: Literal[0] = 0, *, permissions: int = 0o644
    ) -> File: ...

    @overload
    def open(
        self,
        path: PathLike,
        mode: str,
        buffering: int = 0,
        *,
        permissions: int = 0o644,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> Any: ...

    def open(
        self,
        path: PathLike,
        mode: str = "rb",
        buffering: int = 0,
        *,
        permissions: int = 0o644,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> Any:
        """Opens a file as the builtin open does.

        Binary modes give a File without a buffer, or a buffered one with buffering > 1 (bytes); text modes are
        always buffered and UTF-8 unless encoding says otherwise. permissions are those of a new file.
        """
        flags = _Mode(mode)
        if flags.text and buffering == 0:
            buffering = io.DEFAULT_BUFFER_SIZE
        raw = File(self.tree, _text(path), flags, permissions)
        if buffering == 0:
            return raw
        size = buffering if buffering > 1 else io.DEFAULT_BUFFER_SIZE
        buffered: io.BufferedRandom | io.BufferedReader | io.BufferedWriter
        if flags.read and flags.write:
            buffered = io.BufferedRandom(raw, size)
        elif flags.write:
            buffered = io.BufferedWriter(raw, size)
        else:
            buffered = io.BufferedReader(raw, size)
        if not flags.text:
            return buffered
        return io.TextIOWrapper(buffered, encoding or "utf-8", errors, newline, line_buffering=buffering == 1)

    def copy_in(self, host_path: str | os.PathLike[str], path: PathLike) -> None:
        """Copies a file or directory of the host into the tree, with all its attributes.

        As ``docker cp``: into an existing directory copies below it, "SRC/." copies what is in SRC. The host's errors
        (OSError) and those of the tree pass through; what was copied by then stays.
        """
        _hostcopy.copy_in(self.tree, os.fspath(host_path), _text(path))

    def copy_out(self, path: PathLike, host_path: str | os.PathLike[str]) -> None:
        """Copies a file or directory of the tree to the host; the same rules as copy_in.

        Owners are set only by a privileged user, and extended attributes where the host takes them. Links in the tree
        are never followed on the host.
        """
        _hostcopy.copy_out(self.tree, _text(path), os.fspath(host_path))


class Path:
    """A path in a tree; immutable. Methods are those of :class:`pathlib.Path` where both have them."""

    __slots__ = ("_path", "fs")

    def __init__(self, fs: FileSystem, path: PathLike = "/") -> None:
        self.fs = fs
        text = _text(path)
        if "//" in text or "/." in text or text[:1] != "/" or text[-1:] == "/":
            text = "/" + "/".join(part for part in text.split("/") if part and part != ".")
        self._path = text

    # ---- As a value

    def __str__(self) -> str:
        return self._path

    def __repr__(self) -> str:
        return f"Path({self._path!r})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Path):
            return NotImplemented
        return self._path == other._path and self.fs.tree.id == other.fs.tree.id

    def __hash__(self) -> int:
        return hash((self.fs.tree.id, self._path))

    def __lt__(self, other: Path) -> bool:
        return self._path < other._path

    def __truediv__(self, other: PathLike) -> Path:
        return self.joinpath(other)

    def joinpath(self, *others: PathLike) -> Path:
        """An absolute part starts again at the root."""
        return Path(self.fs, posixpath.join(self._path, *(_text(other) for other in others)))

    @property
    def name(self) -> str:
        return posixpath.basename(self._path)

    @property
    def suffix(self) -> str:
        return posixpath.splitext(self.name)[1]

    @property
    def stem(self) -> str:
        return posixpath.splitext(self.name)[0]

    @property
    def parent(self) -> Path:
        return Path(self.fs, posixpath.dirname(self._path))

    @property
    def parts(self) -> tuple[str, ...]:
        return ("/", *(part for part in self._path.split("/") if part))

    # ---- What is there

    def stat(self, *, follow_symlinks: bool = True) -> Attr:
        return self.fs.tree.walk_attr(self._path, follow=follow_symlinks)

    def lstat(self) -> Attr:
        return self.fs.tree.walk_attr(self._path, follow=False)

    def _mode(self, follow: bool = True) -> int:
        try:
            return self.fs.tree.walk_attr(self._path, follow=follow).mode
        except (NotFoundError, NotDirectoryError, LoopError):
            return 0

    def exists(self, *, follow_symlinks: bool = True) -> bool:
        return self._mode(follow_symlinks) != 0

    def is_file(self) -> bool:
        return stat.S_ISREG(self._mode())

    def is_dir(self) -> bool:
        return stat.S_ISDIR(self._mode())

    def is_symlink(self) -> bool:
        return stat.S_ISLNK(self._mode(follow=False))

    def iterdir(self) -> Iterator[Path]:
        """Entries in the order of the store."""
        base = self._path.rstrip("/")
        for entry in self._entries():
            yield Path(self.fs, f"{base}/{entry.name}")

    def scandir(self) -> Iterator[DirEntry]:
        """Entries with their attributes, in one pass."""
        return self._entries(attrs=True)

    def _entries(self, attrs: bool = False) -> Iterator[DirEntry]:
        attr = self.stat()
        if not attr.is_dir():
            raise NotDirectoryError(NotDirectoryError.hint, filename=self._path)
        return self.fs.tree.iter_dir(attr.ino, attrs=attrs)

    def walk(self) -> Iterator[tuple[Path, list[str], list[str]]]:
        """As pathlib's walk, top down, names sorted; symbolic links are not followed. Names removed from the list of
        directories are not visited."""
        stack = [self]
        while stack:
            directory = stack.pop()
            entries = sorted(directory._entries(), key=lambda entry: entry.name)
            dirs = [entry.name for entry in entries if entry.is_dir()]
            yield directory, dirs, [entry.name for entry in entries if not entry.is_dir()]
            stack.extend(directory / name for name in reversed(dirs))

    def scan(self) -> tuple[list[str], npt.NDArray[Any]]:
        """Everything below this directory in one call: paths relative to it ("etc/hosts") and their attributes, a row
        of ATTR_DTYPE each. Many times faster than walk and stat. Directories come before what is in them.
        """
        paths, attrs = self.fs.tree.scan(self.stat().ino)
        return [path[1:] for path in paths], attrs

    # ---- Content

    @overload
    def open(self, mode: RawMode = "rb", buffering: Literal[0] = 0, *, permissions: int = 0o644) -> File: ...

    @overload
    def open(
        self,
        mode: str,
        buffering: int = 0,
        *,
        permissions: int = 0o644,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> Any: ...

    def open(self, mode: str = "rb", buffering: int = 0, **options: Any) -> Any:
        """See FileSystem.open."""
        return self.fs.open(self._path, mode, buffering, **options)

    def read_bytes(self) -> bytes:
        tree = self.fs.tree
        attr = tree.walk_attr(self._path)
        _need_file(attr, self._path)
        return tree.read(attr.ino, 0, attr.size)

    def write_bytes(self, data: Buffer) -> int:
        """Makes the file or replaces its content; returns the bytes written."""
        with File(self.fs.tree, self._path, _Mode("wb")) as file:
            return file.write(data)

    def read_text(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return self.read_bytes().decode(encoding, errors)

    def write_text(self, text: str, encoding: str = "utf-8", errors: str = "strict") -> int:
        return self.write_bytes(text.encode(encoding, errors))

    def truncate(self, size: int) -> None:
        """Cuts the file off or extends it with a hole to size bytes."""
        attr = self.stat()
        _need_file(attr, self._path)
        self.fs.tree.truncate(attr.ino, size)

    # ---- Names

    def mkdir(self, mode: int = 0o755, parents: bool = False, exist_ok: bool = False) -> None:
        if self._path == "/":
            if not exist_ok:
                raise ExistsError(ExistsError.hint, filename="/")
            return
        try:
            directory, name = self._parent()
            self.fs.tree.make(directory, name, stat.S_IFDIR | _permissions(mode))
        except NotFoundError:
            if not parents:
                raise
            self.parent.mkdir(parents=True, exist_ok=True)  # as deep as the path has parts
            self.mkdir(mode, exist_ok=exist_ok)
        except ExistsError:
            if not exist_ok or not self.is_dir():
                raise

    def touch(self, mode: int = 0o644, exist_ok: bool = True) -> None:
        try:
            attr = self.stat()
        except NotFoundError:
            _create(self.fs.tree, self._path, mode)
            return
        if not exist_ok:
            raise ExistsError(ExistsError.hint, filename=self._path)
        now = time.time_ns()
        self.fs.tree.set(attr.ino, atime_ns=now, mtime_ns=now)

    def mknod(self, mode: int = 0o100644, device: int = 0) -> None:
        """Makes a file, fifo, socket or device (os.makedev) by the type in mode."""
        directory, name = self._parent()
        self.fs.tree.make(directory, name, mode if stat.S_IFMT(mode) else mode | stat.S_IFREG, rdev=device)

    def symlink_to(self, target: PathLike) -> None:
        directory, name = self._parent()
        self.fs.tree.make(directory, name, stat.S_IFLNK | 0o777, target=_text(target))

    def hardlink_to(self, target: PathLike) -> None:
        _check_tree(self.fs, target)
        directory, name = self._parent()
        self.fs.tree.link(directory, name, self.fs.tree.walk((self.fs / target)._path, follow=False))

    def readlink(self) -> str:
        return self.fs.tree.symlink_read(self.fs.tree.walk(self._path, follow=False))

    def unlink(self, missing_ok: bool = False) -> None:
        with contextlib.suppress(NotFoundError) if missing_ok else contextlib.nullcontext():
            self._remove(REMOVE_FILE)

    def rmdir(self) -> None:
        self._remove(REMOVE_DIR)

    def rmtree(self) -> None:
        """Removes whatever it is, with all below it."""
        self._remove(REMOVE_TREE)

    def rename(self, target: PathLike) -> Path:
        """As rename(2): an existing file or empty directory at target is replaced. Returns the new path."""
        _check_tree(self.fs, target)
        new = self.fs / target
        old_dir, old_name = self._parent()
        new_dir, new_name = new._parent()
        self.fs.tree.rename(old_dir, old_name, new_dir, new_name)
        return new

    def replace(self, target: PathLike) -> Path:
        return self.rename(target)

    def _parent(self) -> tuple[int, bytes]:
        return self.fs.tree.parent(self._path)

    def _remove(self, how: int) -> None:
        directory, name = self._parent()
        self.fs.tree.remove(directory, name, how)

    # ---- Attributes

    def chmod(self, mode: int, *, follow_symlinks: bool = True) -> None:
        self.fs.tree.set(self.stat(follow_symlinks=follow_symlinks).ino, mode=_permissions(mode))

    def chown(self, uid: int = -1, gid: int = -1, *, follow_symlinks: bool = True) -> None:
        """-1 leaves one as it is."""
        ino = self.stat(follow_symlinks=follow_symlinks).ino
        self.fs.tree.set(ino, uid=None if uid == -1 else uid, gid=None if gid == -1 else gid)

    def utime(self, *, ns: tuple[int, int] | None = None, follow_symlinks: bool = True) -> None:
        """Sets access and modification time in ns; to now without ns."""
        atime, mtime = ns if ns is not None else (time.time_ns(),) * 2
        self.fs.tree.set(self.stat(follow_symlinks=follow_symlinks).ino, atime_ns=atime, mtime_ns=mtime)

    def getxattr(self, name: str, *, follow_symlinks: bool = True) -> bytes:
        """OSError ENODATA when it has none of that name."""
        return self.fs.tree.xattr_get(self.stat(follow_symlinks=follow_symlinks).ino, name)

    def setxattr(self, name: str, value: Buffer, flags: int = 0, *, follow_symlinks: bool = True) -> None:
        """flags: os.XATTR_CREATE or os.XATTR_REPLACE. At most 1700 bytes; NoSpaceError above."""
        self.fs.tree.xattr_set(self.stat(follow_symlinks=follow_symlinks).ino, name, value, flags)

    def listxattr(self, *, follow_symlinks: bool = True) -> list[str]:
        return self.fs.tree.xattr_list(self.stat(follow_symlinks=follow_symlinks).ino)

    def removexattr(self, name: str, *, follow_symlinks: bool = True) -> None:
        self.fs.tree.xattr_remove(self.stat(follow_symlinks=follow_symlinks).ino, name)


class _Mode:
    """A mode string of open, taken apart."""

    __slots__ = ("append", "create", "exclusive", "read", "text", "truncate", "write")

    def __init__(self, mode: str) -> None:
        letters = set(mode)
        kinds = letters & set("rwax")
        if len(kinds) != 1 or letters - set("rwax+bt") or len(letters) != len(mode) or {"b", "t"} <= letters:
            raise InvalidError(f"invalid mode: {mode!r}")
        plus = "+" in letters
        self.text = "b" not in letters
        self.read = "r" in letters or plus
        self.write = "r" not in letters or plus
        self.create = "r" not in letters
        self.exclusive = "x" in letters
        self.append = "a" in letters
        self.truncate = "w" in letters


def _need_file(attr: Attr, path: str) -> None:
    if attr.is_file():
        return
    if attr.is_dir():
        raise IsDirectoryError(IsDirectoryError.hint, filename=path)
    raise InvalidError("not a regular file", filename=path)


def _create(tree: Tree, path: str, permissions: int) -> int:
    """Makes an empty file, at the end of dangling symbolic links as open(2) does."""
    start = ROOT_INO
    at: str = path
    for _ in range(_LINKS_MAX):
        start, name = tree.parent(at, start=start)
        try:
            return tree.make(start, name, stat.S_IFREG | _permissions(permissions))
        except ExistsError:
            attr = tree.stat(tree.lookup(start, name))
            if not attr.is_symlink():
                raise
            at = tree.symlink_read(attr.ino)
    raise LoopError(LoopError.hint, filename=path)


class _Closed:
    """Stands where the tree of an open file was."""

    def __getattr__(self, name: str) -> Any:
        raise ClosedError("the file is closed")


_CLOSED: Any = _Closed()


class File(io.RawIOBase):
    """An open file; made by FileSystem.open. Its inode is pinned until close."""

    def __init__(self, tree: Tree, path: str, mode: _Mode, permissions: int = 0o644) -> None:
        self._tree: Any = _CLOSED  # for close, should this not get to its end
        super().__init__()
        self.name = path
        ino = self._find(tree, path, mode, permissions)
        tree.pin(ino)
        self._tree = tree
        self.ino = ino
        self._pos = 0
        self._readable = mode.read
        self._writable = mode.write
        self._append = mode.append
        if mode.append:
            self._pos = tree.stat(ino).size

    @staticmethod
    def _find(tree: Tree, path: str, mode: _Mode, permissions: int) -> int:
        if mode.exclusive:
            directory, name = tree.parent(path)
            return tree.make(directory, name, stat.S_IFREG | _permissions(permissions))
        try:
            attr = tree.walk_attr(path)
        except NotFoundError:
            if not mode.create:
                raise
            return _create(tree, path, permissions)
        _need_file(attr, path)
        if mode.truncate:
            tree.truncate(attr.ino, 0)
        return attr.ino

    def __repr__(self) -> str:
        return f"<File {self.name!r}{' closed' if self.closed else ''}>"

    def close(self) -> None:
        tree, self._tree = self._tree, _CLOSED
        super().close()
        if tree is not _CLOSED:
            # The tree or the store may have been closed or deleted before, or be the parent process's: then there is
            # nothing to unpin.
            with contextlib.suppress(ClosedError, StaleError, ForkedError):
                tree.unpin(self.ino)

    def readable(self) -> bool:
        return self._readable

    def writable(self) -> bool:
        return self._writable

    def seekable(self) -> bool:
        return True

    def _need_readable(self) -> None:
        if not self._readable:
            raise io.UnsupportedOperation("not open for reading")

    def _need_writable(self) -> None:
        if not self._writable:
            raise io.UnsupportedOperation("not open for writing")

    # ---- At the position

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            return self.readall()
        if not self._readable:
            self._need_readable()
        data: bytes = self._tree.read(self.ino, self._pos, size)
        self._pos += len(data)
        return data

    def readall(self) -> bytes:
        self._need_readable()
        parts: list[bytes] = []
        while True:
            left = self._tree.stat(self.ino).size - self._pos
            if left <= 0:
                return b"".join(parts) if len(parts) != 1 else parts[0]
            data: bytes = self._tree.read(self.ino, self._pos, left)
            if not data:
                return b"".join(parts)
            self._pos += len(data)
            parts.append(data)

    def readinto(self, buffer: Buffer, /) -> int:
        if not self._readable:
            self._need_readable()
        n: int = self._tree.read_into(self.ino, self._pos, buffer)
        self._pos += n
        return n

    def write(self, data: Buffer, /) -> int:
        """Writes all of data; returns its length in bytes."""
        if not self._writable:
            self._need_writable()
        n: int
        if self._append:
            n = self._tree.write(self.ino, None, data)
            self._pos = self._tree.stat(self.ino).size
        else:
            n = self._tree.write(self.ino, self._pos, data)
            self._pos += n
        return n

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """os.SEEK_DATA and os.SEEK_HOLE work too (OSError ENXIO past the end)."""
        if whence == os.SEEK_SET:
            pos = offset
        elif whence == os.SEEK_CUR:
            pos = self._pos + offset
        elif whence == os.SEEK_END:
            pos = self._tree.stat(self.ino).size + offset
        elif whence in (os.SEEK_DATA, os.SEEK_HOLE):
            pos = self._tree.seek(self.ino, offset, whence)
        else:
            raise InvalidError(f"invalid whence: {whence}")
        if pos < 0:
            raise InvalidError("negative seek position")
        if self._tree is _CLOSED:
            raise ClosedError("the file is closed")
        self._pos = pos
        return pos

    def tell(self) -> int:
        if self._tree is _CLOSED:
            raise ClosedError("the file is closed")
        return self._pos

    def truncate(self, size: int | None = None, /) -> int:
        self._need_writable()
        size = self._pos if size is None else size
        if size < 0:
            raise InvalidError("negative size")
        self._tree.truncate(self.ino, size)
        return size

    # ---- Anywhere

    def pread(self, offset: int, size: int) -> bytes:
        """Up to size bytes at offset; fewer only at the end. The position stays."""
        self._need_readable()
        data: bytes = self._tree.read(self.ino, offset, size)
        return data

    def pwrite(self, offset: int, data: Buffer) -> int:
        """Writes all of data at offset. The position stays."""
        self._need_writable()
        n: int = self._tree.write(self.ino, offset, data)
        return n

    def punch(self, offset: int, length: int) -> None:
        """Makes a hole of length bytes: it reads as zeros, whole blocks in it are given back, the size stays."""
        self._need_writable()
        self._tree.punch(self.ino, offset, length)

    def clone_from(self, source: File, *, source_offset: int = 0, offset: int = 0, length: int | None = None) -> int:
        """Shares blocks with another file of the store (reflink) instead of copying; returns the bytes shared.

        Offsets and length (default: all from source_offset on) are multiples of 4096, or end where the source ends;
        InvalidError otherwise. Both files may be of different trees.
        """
        self._need_writable()
        source._need_readable()
        if length is None:
            length = max(0, source._tree.stat(source.ino).size - source_offset)
        if length:
            self._tree.clone(source._tree, source.ino, source_offset, self.ino, offset, length)
        return length

    def read_blocks(self, blocks: npt.ArrayLike) -> npt.NDArray[np.uint8]:
        """Blocks of 4096 bytes by number in one call: an array (n, 4096) of uint8; zeros past the end."""
        self._need_readable()
        out: npt.NDArray[np.uint8] = self._tree.read_blocks(self.ino, blocks)
        return out

    def write_blocks(self, blocks: npt.ArrayLike, data: Buffer) -> None:
        """Writes blocks of 4096 bytes by number in one call; data is an array (n, 4096) of uint8, or its bytes."""
        self._need_writable()
        if isinstance(data, np.ndarray):
            data = np.ascontiguousarray(data)
        self._tree.write_blocks(self.ino, blocks, data)

    def extents(self) -> npt.NDArray[Any]:
        """Where the content lies: a structured array, see pycow.EXTENT_DTYPE."""
        extents: npt.NDArray[Any] = self._tree.extents(self.ino)
        return extents

    def stat(self) -> Attr:
        attr: Attr = self._tree.stat(self.ino)
        return attr

    def fsync(self) -> None:
        """Durable when it returns: this file, and everything done in the store before."""
        self._tree.sync(self.ino)

    def fileno(self) -> int:
        raise io.UnsupportedOperation(os.strerror(errno.ENOTSUP))
