# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno
import pickle

import pytest

from pycow import errors


@pytest.mark.parametrize(
    ("code", "kind", "builtin"),
    [
        (errno.ENOENT, errors.NotFoundError, FileNotFoundError),
        (errno.EEXIST, errors.ExistsError, FileExistsError),
        (errno.ENOTDIR, errors.NotDirectoryError, NotADirectoryError),
        (errno.EISDIR, errors.IsDirectoryError, IsADirectoryError),
        (errno.ENOTEMPTY, errors.NotEmptyError, OSError),
        (errno.EROFS, errors.ReadOnlyError, OSError),
        (errno.EBUSY, errors.BusyError, OSError),
        (errno.EAGAIN, errors.LockedError, BlockingIOError),
        (errno.ENOSPC, errors.NoSpaceError, OSError),
        (errno.EDQUOT, errors.QuotaError, OSError),
        (errno.EINVAL, errors.InvalidError, ValueError),
        (errno.EPROTONOSUPPORT, errors.FormatError, OSError),
        (errno.ESTALE, errors.StaleError, OSError),
        (errno.ECHILD, errors.ForkedError, OSError),
        (errno.ELOOP, errors.LoopError, OSError),
        (errno.ENAMETOOLONG, errors.NameTooLongError, OSError),
        (errno.EPERM, errors.DeniedError, PermissionError),
        (errno.EACCES, errors.DeniedError, PermissionError),
        (errno.EXDEV, errors.OperationError, OSError),
    ],
)
def test_each_code_has_its_class(code: int, kind: type[errors.Error], builtin: type[Exception]) -> None:
    error = errors.error_for(code, "open", "", "/a")
    assert type(error) is kind
    assert isinstance(error, errors.Error)
    assert isinstance(error, builtin)
    assert isinstance(error, OSError)
    assert error.errno == code
    assert error.filename == "/a"
    assert "/a" in str(error)


def test_damage_is_an_io_error() -> None:
    error = errors.error_for(errno.EUCLEAN, "read", "segment 1 block 7")
    assert isinstance(error, errors.CorruptError)
    assert error.errno == errno.EIO
    assert str(error) == "read: segment 1 block 7"


def test_a_hostile_archive_is_an_image_error() -> None:
    error = errors.error_for(errno.EBADMSG, "layer", "name leads out")
    assert isinstance(error, errors.ImageError)
    assert isinstance(error, ValueError)
    assert "name leads out" in str(error)


def test_message_only() -> None:
    error = errors.NotFoundError("no such container: x")
    assert str(error) == "no such container: x"
    assert error.errno == errno.ENOENT
    assert error.filename is None


def test_in_use_is_busy() -> None:
    assert issubclass(errors.InUseError, errors.BusyError)
    assert errors.InUseError("x").errno == errno.EBUSY


def test_errors_can_be_pickled() -> None:
    error = errors.error_for(errno.ENOENT, "stat", "", "/a")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert (again.errno, again.filename, str(again)) == (errno.ENOENT, "/a", str(error))
