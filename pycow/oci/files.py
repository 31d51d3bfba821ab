# SPDX-License-Identifier: Apache-2.0
"""The files of an image archive: a directory, or a tar whose members are indexed once and read in place.

A compressed tar is first decompressed into a temporary file without a name, so nothing is left behind whatever happens.
Names are checked: what is absolute, leads out of the archive, is there twice, or is neither a file, a directory nor a
link is refused.
"""

from __future__ import annotations

import errno
import io
import os
import posixpath
import stat
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any, Final, Protocol, TypeAlias

from pycow.errors import ImageError, InvalidError
from pycow.oci.compression import HEAD_BYTES, damage, decompress, detect
from pycow.oci.documents import DOCUMENT_BYTES_MAX

__all__ = ["Blob", "Files", "Progress", "Window", "file_blob", "get", "open_files"]

#: Called with what is being done, how many bytes of how many are done; of an unknown number, 0.
Progress: TypeAlias = Callable[[str, int, int], None]

_COPY_BYTES = 1 << 20
_MEMBERS_MAX: Final = 100_000
_HEADER_READ_MAX: Final = 1 << 20  # a member's headers, long names and PAX records included
_LINKS_MAX = 16


@dataclass(frozen=True, slots=True)
class Blob:
    """A run of bytes of a host file. fd stays open as long as the archive; without one, path is opened to read."""

    name: str  # for messages
    size: int
    path: str
    fd: int | None = None
    offset: int = 0

    def open(self) -> Window:
        if self.fd is not None:
            return Window(self.fd, self.offset, self.size, owned=False)
        return Window(os.open(self.path, os.O_RDONLY | os.O_CLOEXEC), self.offset, self.size, owned=True)

    def read_all(self) -> bytes:
        """The content of a small document; ImageError when it is larger than any should be."""
        if self.size > DOCUMENT_BYTES_MAX:
            raise ImageError(f"{self.name}: too large for a JSON document: {self.size} bytes")
        with self.open() as window:
            data = window.read()
        if len(data) != self.size:
            raise ImageError(f"{self.name}: {len(data)} bytes instead of {self.size}")
        return data


class Window(io.RawIOBase):
    """Reads a run of bytes of a file, without moving the file's own position."""

    def __init__(self, fd: int, offset: int, size: int, *, owned: bool) -> None:
        self._fd = fd
        self._owned = owned
        self._at = offset
        self._end = offset + size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        want = min(len(view), self._end - self._at)
        if want <= 0:
            return 0
        got = os.preadv(self._fd, [view[:want]], self._at)
        self._at += got
        return got

    def head(self, size: int) -> bytes:
        """The next bytes, which stay to be read."""
        return os.pread(self._fd, min(size, self._end - self._at), self._at)

    def close(self) -> None:
        if not self.closed and self._owned:
            os.close(self._fd)
        super().close()


class Files(Protocol):
    """The files of an archive by name."""

    stem: str  # of the archive's own name

    def find(self, name: str) -> Blob | None: ...
    def close(self) -> None: ...


def get(files: Files, name: str) -> Blob:
    """The file of that name; ImageError when the archive lacks it."""
    blob = files.find(name)
    if blob is None:
        raise ImageError(f"the archive lacks {name!r}")
    return blob


def open_files(path: str, scratch_dir: str, progress: Progress) -> Files:
    """The files of the archive at path. A compressed one is decompressed into scratch_dir.

    Raises ImageError when it is neither a directory nor a tar, or a hostile one, OSError when it cannot be read.
    """
    stem = _stem(path)
    if os.path.isdir(path):
        return _Directory(path, stem)
    with open(path, "rb") as file:
        archive = _plain(file, path, scratch_dir, progress)
    try:
        return _Tar(archive, path, stem)
    except BaseException:
        archive.close()
        raise


def file_blob(path: str) -> Blob:
    """A file of the host; InvalidError when it is no regular file."""
    info = os.stat(path)
    if not stat.S_ISREG(info.st_mode):
        raise InvalidError("not a regular file", filename=path)
    return Blob(os.path.basename(path), info.st_size, path)


def _stem(path: str) -> str:
    stem = os.path.basename(os.path.abspath(path))
    for suffix in (".gz", ".tgz", ".zst", ".zstd", ".tar"):
        stem = stem.removesuffix(suffix)
    return stem


def _plain(file: IO[bytes], path: str, scratch_dir: str, progress: Progress) -> IO[bytes]:
    """A seekable file with the archive as a plain tar: file once more, or a temporary one."""
    what = f"archive {path}"
    regular = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
    head = file.peek(HEAD_BYTES)[:HEAD_BYTES] if isinstance(file, io.BufferedReader) else b""
    try:
        kind = detect(head)
    except ImageError as error:
        raise ImageError(f"{what}: {error}") from None
    if regular and kind == "plain":
        return os.fdopen(os.dup(file.fileno()), "rb", buffering=0)
    total = os.fstat(file.fileno()).st_size if regular else 0
    spool = tempfile.TemporaryFile(dir=scratch_dir, prefix="load-", buffering=0)  # noqa: SIM115
    try:
        buffer = memoryview(bytearray(_COPY_BYTES))
        with damage(what):
            reader = decompress(file, kind)
            while got := reader.readinto(buffer):
                _write_all(spool, buffer[:got])
                progress("decompress", min(file.tell(), total) if regular else spool.tell(), total)
    except BaseException:
        spool.close()
        raise
    return spool


def _write_all(file: IO[bytes], data: memoryview) -> None:
    while data:
        data = data[file.write(data) :]


class _Directory:
    """A directory of the host. Links may not lead out of it."""

    def __init__(self, path: str, stem: str) -> None:
        self.stem = stem
        self._root = os.path.realpath(path)

    def find(self, name: str) -> Blob | None:
        path = os.path.join(self._root, _checked(name, "archive"))
        real = os.path.realpath(path)
        if os.path.commonpath([real, self._root]) != self._root:
            raise ImageError(f"{name!r} leads out of the archive")
        try:
            info = os.stat(real)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR):
                return None
            raise
        if not stat.S_ISREG(info.st_mode):
            raise ImageError(f"{name!r} is not a regular file")
        return Blob(name, info.st_size, real)

    def close(self) -> None:
        pass


class _Headers:
    """What tarfile sees: it may read headers, but no member asks for a lot of memory or for no end of time."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._reads = 0

    def read(self, size: int) -> bytes:
        self._reads += 1
        if not 0 <= size <= _HEADER_READ_MAX or self._reads > 8 * _MEMBERS_MAX:
            raise ImageError("the archive's headers are too large")
        data = self._file.read(size)
        return data if data is not None else b""

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


class _Tar:
    """A plain tar, which it owns."""

    def __init__(self, file: IO[bytes], path: str, stem: str) -> None:
        self.stem = stem
        self._path = path
        self._file = file
        self._size = os.fstat(file.fileno()).st_size
        self._members: dict[str, Blob] = {}
        self._links: dict[str, str] = {}  # name -> name
        try:
            self._index()
        except (tarfile.TarError, ValueError, OverflowError, EOFError, RecursionError, LookupError) as error:
            if isinstance(error, ImageError):
                raise
            raise ImageError(f"archive {path}: not an image archive: {str(error)[:200]}") from None

    def _index(self) -> None:
        self._file.seek(0)
        file: Any = _Headers(self._file)
        count = 0
        with tarfile.open(fileobj=file, mode="r:", encoding="utf-8", errors="surrogateescape") as tar:
            last = -1
            while (member := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # it would keep them all
                count += 1
                if count > _MEMBERS_MAX:
                    raise ImageError(f"archive {self._path}: more than {_MEMBERS_MAX} members")
                if member.offset <= last or member.size < 0:
                    raise ImageError(f"archive {self._path}: damaged headers")
                last = member.offset
                self._add(member)

    def _add(self, member: tarfile.TarInfo) -> None:
        name = _checked(member.name, f"archive {self._path}")
        if member.isdir():
            return
        if name in self._members or name in self._links:
            raise ImageError(f"archive {self._path}: {name!r} is there twice")
        if member.isreg() and not member.issparse():
            if member.offset_data + member.size > self._size:
                raise ImageError(f"archive {self._path}: cut off in {name!r}")
            self._members[name] = Blob(name, member.size, self._path, self._file.fileno(), member.offset_data)
        elif member.issym():
            target = posixpath.join(posixpath.dirname(name), member.linkname)
            self._links[name] = _checked(target, f"archive {self._path}: link {name!r}")
        elif member.islnk():
            self._links[name] = _checked(member.linkname, f"archive {self._path}: link {name!r}")
        else:
            raise ImageError(f"archive {self._path}: {name!r} is neither a file, a directory nor a link")

    def find(self, name: str) -> Blob | None:
        key = _checked(name, f"archive {self._path}")
        for _ in range(_LINKS_MAX):
            if key not in self._links:
                return self._members.get(key)
            key = self._links[key]
        raise ImageError(f"archive {self._path}: {name!r} is a link without an end")

    def close(self) -> None:
        self._file.close()


def _checked(name: str, what: str) -> str:
    """The name without "./" and the like; ImageError when it leads out of the archive."""
    clean = posixpath.normpath(name)
    if "\0" in name or name.startswith("/") or clean.split("/")[0] == "..":
        raise ImageError(f"{what}: {name[:200]!r} leads out of the archive")
    return clean
