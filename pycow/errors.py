# SPDX-License-Identifier: Apache-2.0
"""Exceptions.

Everything that pycow raises on purpose is an :class:`Error`. Errors that have an errno are the matching builtin
exception as well, so ``except FileNotFoundError`` works; their ``errno`` is set, and ``filename`` where it is known.
"""

from __future__ import annotations

import errno as _errno
import os
from typing import ClassVar

__all__ = [
    "AmbiguousError",
    "BadReferenceError",
    "BusyError",
    "ClosedError",
    "CorruptError",
    "DeniedError",
    "Error",
    "ExistsError",
    "ForkedError",
    "FormatError",
    "ImageError",
    "InUseError",
    "InvalidError",
    "IsDirectoryError",
    "LockedError",
    "LoopError",
    "NameTooLongError",
    "NoSpaceError",
    "NotDirectoryError",
    "NotEmptyError",
    "NotFoundError",
    "OperationError",
    "QuotaError",
    "ReadOnlyError",
    "StaleError",
    "error_for",
]


class Error(Exception):
    """Base of all exceptions of pycow."""


class OperationError(Error, OSError):
    """An operation failed; ``errno`` says how. More specific classes exist for what callers usually tell apart."""

    code: ClassVar[int] = _errno.EIO  # what the C core answers
    shown: ClassVar[int | None] = None  # what .errno says, where that differs
    hint: ClassVar[str] = ""  # the message when the core had nothing to add

    def __init__(self, message: str, *, errno: int | None = None, filename: str | bytes | None = None) -> None:
        number = errno if errno is not None else (self.shown or self.code)
        if filename is None:
            super().__init__(number, message)
        else:
            super().__init__(number, message, filename)

    def __str__(self) -> str:
        return f"{self.strerror}: {self.filename!r}" if self.filename is not None else str(self.strerror)

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.strerror, self.errno, self.filename)


def _rebuild(kind: type[OperationError], message: str, number: int, filename: str | bytes | None) -> OperationError:
    return kind(message, errno=number, filename=filename)


class NotFoundError(OperationError, FileNotFoundError):
    """No such file, container, image, volume, layer or store."""

    code = _errno.ENOENT
    hint = "no such file or directory"


class ExistsError(OperationError, FileExistsError):
    """The name is taken."""

    code = _errno.EEXIST
    hint = "it exists already"


class NotDirectoryError(OperationError, NotADirectoryError):
    """A directory was needed."""

    code = _errno.ENOTDIR
    hint = "not a directory"


class IsDirectoryError(OperationError, IsADirectoryError):
    """A directory will not do here."""

    code = _errno.EISDIR
    hint = "is a directory"


class NotEmptyError(OperationError):
    """The directory has entries."""

    code = _errno.ENOTEMPTY
    hint = "directory not empty"


class DeniedError(OperationError, PermissionError):
    """The operation is not allowed on this kind of file, or the host denied it."""

    code = _errno.EPERM
    hint = "operation not permitted"


class ReadOnlyError(OperationError):
    """A sealed tree, or a store opened for reading only."""

    code = _errno.EROFS
    hint = "read-only tree or store"


class BusyError(OperationError):
    """In use at the moment."""

    code = _errno.EBUSY
    hint = "in use"


class InUseError(BusyError):
    """A container or image depends on it."""


class LockedError(OperationError, BlockingIOError):
    """Another process has the store open for writing."""

    code = _errno.EAGAIN
    hint = "another process has the store open for writing"


class NoSpaceError(OperationError):
    """The host's disk is full, or a value does not fit."""

    code = _errno.ENOSPC
    hint = "no space left"


class QuotaError(OperationError):
    """It would go above the quota of a container; or a quota of the host is used up."""

    code = _errno.EDQUOT
    hint = "quota exceeded"


class InvalidError(OperationError, ValueError):
    """An argument that can never work."""

    code = _errno.EINVAL
    hint = "invalid argument"


class CorruptError(OperationError):
    """The medium returned bytes that the store did not write."""

    code = _errno.EUCLEAN
    shown = _errno.EIO
    hint = "the store is damaged"


class FormatError(OperationError):
    """The store has a format that this version does not know."""

    code = _errno.EPROTONOSUPPORT
    hint = "unknown store format"


class StaleError(OperationError):
    """The tree behind the handle was deleted."""

    code = _errno.ESTALE
    hint = "the tree was deleted"


class ForkedError(OperationError, ChildProcessError):
    """A handle was used in a forked child process."""

    code = _errno.ECHILD
    hint = "this handle belongs to the parent process"


class LoopError(OperationError):
    """Too many symbolic links on the way."""

    code = _errno.ELOOP
    hint = "too many levels of symbolic links"


class NameTooLongError(OperationError):
    """A name of more than 255 bytes or a path of more than 4095."""

    code = _errno.ENAMETOOLONG
    hint = "name too long"


class ClosedError(Error, ValueError):
    """The store or handle was closed before."""


class ImageError(Error, ValueError):
    """An image, archive, manifest or layer that is damaged, hostile, or not what its digest says."""


class BadReferenceError(Error, ValueError):
    """Not a valid image reference."""


class AmbiguousError(Error, LookupError):
    """An id prefix that fits more than one object."""


def _subclasses(base: type[OperationError]) -> list[type[OperationError]]:
    return [c for sub in base.__subclasses__() for c in (sub, *_subclasses(sub))]


# By what the core answers; a class that refines another one above it (InUseError) does not take its place.
_BY_CODE: dict[int, type[OperationError]] = {}
for _class in _subclasses(OperationError):
    _BY_CODE.setdefault(_class.code, _class)
_BY_CODE[_errno.EACCES] = DeniedError


def error_for(code: int, what: str, detail: str = "", filename: str | bytes | None = None) -> Error:
    """The exception for a positive errno value that the core answered.

    what names the operation and detail is what the core said about it; each may be empty.
    """
    if code == _errno.EBADMSG:
        return ImageError(detail or f"{what}: bad archive")
    kind = _BY_CODE.get(code, OperationError)
    message = detail or kind.hint or os.strerror(code).lower()
    if what:
        message = f"{what}: {message}"
    return kind(message, errno=kind.shown or code, filename=filename)
