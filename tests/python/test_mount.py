# SPDX-License-Identifier: Apache-2.0
"""Mounted trees: what programs see, what the library sees, and what is left when something dies."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
import random
import shutil
import signal
import stat
import struct
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import pycow
from pycow._cow import lib

ROOT = os.geteuid() == 0
BLOCK = 4096


def _why_not() -> str:
    if lib.cow_mount_available() != 0:
        return "built without libfuse3"
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "there is no /dev/fuse to use"
    return "" if ROOT or shutil.which("fusermount3") else "neither root nor fusermount3"


if (_reason := _why_not()) and not (os.environ.get("CI") == "true" and ROOT and os.path.exists("/dev/fuse")):
    pytest.skip(_reason, allow_module_level=True)


@pytest.fixture
def point(tmp_path: Path) -> Path:
    path = tmp_path / "mnt"
    path.mkdir()
    return path


@pytest.fixture
def volume(store: pycow.Store) -> pycow.Volume:
    return store.volumes.create("data")


@pytest.fixture
def mounted(store: pycow.Store, volume: pycow.Volume, point: Path) -> Iterator[Path]:
    """The volume "data", alone."""
    with store.mount(point, volume):
        yield point


@pytest.fixture
def whole(store: pycow.Store, point: Path) -> Iterator[Path]:
    with store.mount(point):
        yield point


def _errno_of(call: Callable[..., Any], *arguments: Any, **options: Any) -> int:
    with pytest.raises(OSError) as caught:
        call(*arguments, **options)
    return caught.value.errno or 0


# ---- What programs see


def test_files_and_directories(mounted: Path) -> None:
    (mounted / "a" / "b").mkdir(parents=True)
    file = mounted / "a" / "b" / "file"
    file.write_bytes(b"x" * 10_000)
    assert file.stat().st_size == 10_000
    assert file.stat().st_blocks >= 16
    os.link(file, mounted / "hard")
    assert file.stat().st_nlink == 2
    assert (mounted / "hard").stat().st_ino == file.stat().st_ino
    (mounted / "soft").symlink_to("a/b/file")
    assert (mounted / "soft").read_bytes() == b"x" * 10_000
    file.rename(mounted / "moved")
    (mounted / "a" / "b").rmdir()
    assert sorted(os.listdir(mounted)) == ["a", "hard", "moved", "soft"]
    assert _errno_of(os.rmdir, mounted / "hard") == errno.ENOTDIR
    assert _errno_of(os.unlink, mounted / "a") in (errno.EISDIR, errno.EPERM)
    assert not (mounted / "soft").exists()


def test_a_large_directory_is_listed_whole(mounted: Path) -> None:
    names = {f"file-{i:04}-{'x' * (i % 100)}" for i in range(3000)}
    for name in names:
        (mounted / name).touch()
    assert set(os.listdir(mounted)) == names
    assert {entry.name for entry in os.scandir(mounted) if entry.is_file()} == names
    for name in sorted(names)[::2]:
        (mounted / name).unlink()
    assert len(os.listdir(mounted)) == 1500


def test_an_open_file_outlives_its_name(mounted: Path, store: pycow.Store, volume: pycow.Volume) -> None:
    path = mounted / "file"
    with path.open("w+b") as file:
        file.write(b"0123456789" * 1000)
        file.flush()
        path.unlink()
        store.commit()
        file.seek(5)
        assert file.read(5) == b"56789"
        file.write(b"more")
        file.flush()
        assert os.fstat(file.fileno()).st_nlink == 0
    os.listdir(mounted)
    deadline = time.monotonic() + 5
    while volume.tree.info().inodes > 1 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert volume.tree.info().inodes == 1


def test_holes(mounted: Path) -> None:
    fd = os.open(mounted / "f", os.O_RDWR | os.O_CREAT)
    try:
        os.ftruncate(fd, 1 << 20)
        os.pwrite(fd, b"x" * BLOCK, 16 * BLOCK)  # not written back when it is asked for
        assert os.lseek(fd, 0, os.SEEK_DATA) == 16 * BLOCK
        assert os.lseek(fd, 16 * BLOCK, os.SEEK_HOLE) == 17 * BLOCK
        assert _errno_of(os.lseek, fd, 17 * BLOCK, os.SEEK_DATA) == errno.ENXIO
        assert os.pread(fd, BLOCK, 16 * BLOCK) == b"x" * BLOCK
    finally:
        os.close(fd)


_libc = ctypes.CDLL(None, use_errno=True)


def _fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    if _libc.fallocate(fd, mode, ctypes.c_int64(offset), ctypes.c_int64(length)):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def test_fallocate(mounted: Path) -> None:
    keep, punch, collapse, zero = 1, 2, 8, 16
    fd = os.open(mounted / "f", os.O_RDWR | os.O_CREAT)
    try:
        os.write(fd, b"x" * (4 * BLOCK))
        _fallocate(fd, punch | keep, BLOCK, 2 * BLOCK)
        assert os.pread(fd, 4 * BLOCK, 0) == b"x" * BLOCK + bytes(2 * BLOCK) + b"x" * BLOCK
        _fallocate(fd, zero, 10, 20)
        assert os.pread(fd, 40, 0) == b"x" * 10 + bytes(20) + b"x" * 10
        _fallocate(fd, keep, 0, 1 << 20)
        assert os.fstat(fd).st_size == 4 * BLOCK
        _fallocate(fd, 0, 0, 1 << 20)
        assert os.fstat(fd).st_size == 1 << 20
        with pytest.raises(OSError) as caught:
            _fallocate(fd, collapse, 0, BLOCK)
        assert caught.value.errno == errno.EOPNOTSUPP
    finally:
        os.close(fd)


def test_copying_shares_blocks(mounted: Path, store: pycow.Store, volume: pycow.Volume) -> None:
    data = random.Random(1).randbytes(300_001)
    (mounted / "source").write_bytes(data)
    before = store.stats().data_bytes
    with (mounted / "source").open("rb") as source, (mounted / "copy").open("wb") as copy:
        left = len(data)
        while left > 0:
            left -= os.copy_file_range(source.fileno(), copy.fileno(), left)
    assert (mounted / "copy").read_bytes() == data
    assert store.stats().data_bytes == before
    with (mounted / "source").open("rb") as source, (mounted / "odd").open("w+b") as odd:
        os.copy_file_range(source.fileno(), odd.fileno(), 5000, 3, 7)
    assert (mounted / "odd").read_bytes() == bytes(7) + data[3:5003]


def test_mapped_memory(mounted: Path, volume: pycow.Volume, store: pycow.Store) -> None:
    path = mounted / "f"
    path.write_bytes(bytes(3 * BLOCK))
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        mapped[BLOCK : BLOCK + 5] = b"hello"
        mapped.flush()
        assert path.read_bytes()[BLOCK : BLOCK + 5] == b"hello"
        store.commit()  # has the kernel write back
        assert (volume.fs / "f").read_bytes()[BLOCK : BLOCK + 5] == b"hello"


def test_direct_io(mounted: Path) -> None:
    with contextlib.closing(mmap.mmap(-1, BLOCK)) as buffer:
        buffer[:] = b"d" * BLOCK
        fd = os.open(mounted / "f", os.O_RDWR | os.O_CREAT | os.O_DIRECT)
        try:
            assert os.pwrite(fd, buffer, BLOCK) == BLOCK
            buffer[:] = bytes(BLOCK)
            assert os.preadv(fd, [buffer], BLOCK) == BLOCK
            assert buffer[:] == b"d" * BLOCK
        finally:
            os.close(fd)


def test_locks_and_append(mounted: Path) -> None:
    path = mounted / "f"
    with path.open("ab") as one, path.open("ab") as two:
        fcntl.flock(one, fcntl.LOCK_EX)
        assert _errno_of(fcntl.flock, two, fcntl.LOCK_EX | fcntl.LOCK_NB) == errno.EAGAIN
        for i in range(100):
            (one, two)[i % 2].write(b"%3d\n" % i)
            (one, two)[i % 2].flush()
    assert path.read_bytes() == b"".join(b"%3d\n" % i for i in range(100))


def test_rename_flags(mounted: Path) -> None:
    def renameat2(old: str, new: str, flags: int) -> int:
        old_raw, new_raw = os.fsencode(mounted / old), os.fsencode(mounted / new)
        return ctypes.get_errno() if _libc.renameat2(-100, old_raw, -100, new_raw, flags) else 0

    (mounted / "a").write_text("a")
    (mounted / "b").mkdir()
    assert renameat2("a", "b", 1) == errno.EEXIST
    assert renameat2("a", "b", 2) == 0
    assert (mounted / "b").read_text() == "a"
    assert (mounted / "a").is_dir()
    assert renameat2("a", "c", 1) == 0
    assert sorted(os.listdir(mounted)) == ["b", "c"]


def test_extended_attributes(mounted: Path) -> None:
    path = mounted / "f"
    path.touch()
    os.setxattr(path, "user.one", b"1")
    os.setxattr(path, "user.two", b"2" * 1000)
    assert sorted(os.listxattr(path)) == ["user.one", "user.two"]
    assert os.getxattr(path, "user.two") == b"2" * 1000
    assert _errno_of(os.setxattr, path, "user.one", b"", os.XATTR_CREATE) == errno.EEXIST
    os.removexattr(path, "user.one")
    assert _errno_of(os.getxattr, path, "user.one") == errno.ENODATA
    assert _errno_of(os.setxattr, path, "user.big", b"x" * 2000) == errno.ENOSPC


def _acl(*entries: tuple[int, int, int]) -> bytes:
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


ANYBODY = 0xFFFFFFFF


def test_access_control_lists(mounted: Path) -> None:
    directory, path = mounted / "d", mounted / "f"
    directory.mkdir()
    path.touch(0o640)
    value = _acl((1, 6, ANYBODY), (2, 7, 1234), (4, 4, ANYBODY), (16, 5, ANYBODY), (32, 0, ANYBODY))
    os.setxattr(path, "system.posix_acl_access", value)
    assert stat.S_IMODE(path.stat().st_mode) == 0o650  # the mask shows as the group's bits
    path.chmod(0o600)
    narrowed = _acl((1, 6, ANYBODY), (2, 7, 1234), (4, 4, ANYBODY), (16, 0, ANYBODY), (32, 0, ANYBODY))
    assert os.getxattr(path, "system.posix_acl_access") == narrowed
    os.setxattr(directory, "system.posix_acl_default", value)
    old = os.umask(0o077)  # a default ACL takes its place
    try:
        (directory / "child").touch(0o666)
        (directory / "sub").mkdir(0o777)
        (mounted / "plain").touch(0o666)
    finally:
        os.umask(old)
    assert stat.S_IMODE((directory / "child").stat().st_mode) == 0o640
    assert os.getxattr(directory / "sub", "system.posix_acl_default") == value
    assert stat.S_IMODE((mounted / "plain").stat().st_mode) == 0o600


def test_times(mounted: Path, store: pycow.Store, volume: pycow.Volume) -> None:
    path = mounted / "f"
    path.write_bytes(b"1")
    os.utime(path, ns=(1_000_000_001, 2_000_000_002))
    assert (path.stat().st_atime_ns, path.stat().st_mtime_ns) == (1_000_000_001, 2_000_000_002)
    path.read_bytes()
    assert path.stat().st_atime_ns == 1_000_000_001  # reading does not change it
    os.utime(path, ns=(-5, -1_000_000_001))
    assert path.stat().st_mtime_ns == -1_000_000_001
    before = time.time_ns()
    with path.open("ab") as file:
        file.write(b"2")
    assert path.stat().st_mtime_ns >= before - 20_000_000
    store.commit()
    assert (volume.fs / "f").stat().mtime_ns == path.stat().st_mtime_ns


@pytest.mark.skipif(not ROOT, reason="needs root")
def test_set_user_id_goes_when_others_write(store: pycow.Store, volume: pycow.Volume, point: Path) -> None:
    with store.mount(point, volume, allow_other=True, suid=True, dev=True):
        os.chmod(point, 0o777)
        path = point / "f"
        path.touch()
        os.chown(path, 1000, 1000)
        path.chmod(0o6777)
        script = f"import os; os.setgid(1000); os.setuid(1000); open({str(path)!r}, 'ab').write(b'x')"
        for parent in reversed(path.parents):  # pytest's directories are private
            if parent != Path("/") and not parent.stat().st_mode & 1:
                parent.chmod(parent.stat().st_mode | 0o111)
        subprocess.run([sys.executable, "-c", script], check=True)
        assert stat.S_IMODE(path.stat().st_mode) == 0o777
        os.mknod(point / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        (point / "null").write_bytes(b"gone")
        assert (point / "null").read_bytes() == b""


def test_free_space_is_told(mounted: Path, store: pycow.Store) -> None:
    here, host = os.statvfs(mounted), os.statvfs(store.path)
    assert here.f_bsize == BLOCK
    assert abs(here.f_bavail * here.f_frsize - host.f_bavail * host.f_frsize) < 1 << 30
    assert here.f_blocks >= here.f_bfree >= here.f_bavail


def test_fsync_is_durable(mounted: Path, store: pycow.Store) -> None:
    fd = os.open(mounted / "f", os.O_WRONLY | os.O_CREAT)
    try:
        before = store.stats().commits
        os.write(fd, b"x" * 5000)
        os.fsync(fd)
        assert store.stats().commits > before
        with pycow.open(store.path, mode="r") as reader:
            assert (reader.volumes.get("data").fs / "f").read_bytes() == b"x" * 5000
    finally:
        os.close(fd)
    directory = os.open(mounted, os.O_RDONLY)
    before = store.stats().commits
    (mounted / "g").touch()
    os.fsync(directory)
    os.close(directory)
    assert store.stats().commits > before


def test_many_processes_at_once(mounted: Path) -> None:
    code = textwrap.dedent("""
        import os, sys
        root, me = sys.argv[1:]
        for i in range(60):
            path = f"{root}/{me}-{i}"
            with open(path, "wb") as f: f.write(me.encode() * 3000)
            os.rename(path, path + ".done")
            if i % 3 == 0: os.unlink(path + ".done")
    """)
    running = [subprocess.Popen([sys.executable, "-c", code, str(mounted), str(i)]) for i in range(6)]
    assert [process.wait(60) for process in running] == [0] * 6
    assert len(os.listdir(mounted)) == 6 * 40
    assert all((mounted / name).read_bytes() == name[0].encode() * 3000 for name in os.listdir(mounted))


# ---- The same operations on the host's file system


class _Both:
    """Does random operations in two directories and compares what they answer."""

    def __init__(self, ours: Path, theirs: Path, seed: int) -> None:
        self.roots = (ours, theirs)
        self.random = random.Random(seed)
        self.names = [f"n{i}" for i in range(6)]

    def path(self) -> str:
        return "/".join(self.random.choice(self.names) for _ in range(self.random.choice((1, 1, 2, 2, 3))))

    def both(self, call: Callable[[Path], Any]) -> None:
        answers: list[Any] = []
        for root in self.roots:
            try:
                answers.append(call(root))
            except OSError as error:
                answers.append(errno.errorcode.get(error.errno or 0, type(error).__name__))
        assert answers[0] == answers[1]

    def step(self) -> None:
        r = self.random
        one, two = self.path(), self.path()
        offset, data = r.choice((0, 1, 100, BLOCK, r.randrange(100_000))), r.randbytes(r.choice((1, 50, 5000, 30_000)))
        size, mode, when = r.randrange(60_000), r.choice((0o644, 0o600, 0o755)), r.randrange(1 << 50)
        attribute = f"user.{r.randrange(3)}"

        def write(root: Path) -> int:
            fd = os.open(root / one, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                return os.pwrite(fd, data, offset) + len(os.pread(fd, 100_000, offset // 2))
            finally:
                os.close(fd)

        def append(root: Path) -> int:
            with open(root / one, "ab") as file:
                return file.write(data)

        def punch(root: Path) -> None:
            with open(root / one, "r+b") as file:
                _fallocate(file.fileno(), 3, offset, size + 1)

        operations: list[Callable[[Path], Any]] = [
            write, write, append, punch,
            lambda root: (root / one).read_bytes(),
            lambda root: os.truncate(root / one, size),
            lambda root: os.mkdir(root / one),
            lambda root: os.mkdir(root / one),
            lambda root: os.unlink(root / one),
            lambda root: os.rmdir(root / one),
            lambda root: os.rename(root / one, root / two),
            lambda root: os.rename(root / one, root / two),
            lambda root: os.link(root / one, root / two, follow_symlinks=False),
            lambda root: os.symlink(two, root / one),
            lambda root: os.readlink(root / one),
            lambda root: os.chmod(root / one, mode),
            lambda root: os.utime(root / one, ns=(when, when), follow_symlinks=False),
            lambda root: os.setxattr(root / one, attribute, data[:200]),
            lambda root: os.listxattr(root / one) and os.removexattr(root / one, attribute),
            lambda root: sorted(os.listdir(root / one)),
            lambda root: shutil.copyfile(root / one, root / two) and None,
        ]  # fmt: skip
        self.both(r.choice(operations))

    @staticmethod
    def snapshot(root: Path) -> dict[str, Any]:
        found: dict[str, Any] = {}
        numbers: dict[int, str] = {}
        for top, directories, files in os.walk(root):
            for name in sorted(directories + files):
                path = os.path.join(top, name)
                st = os.lstat(path)
                shown = os.path.relpath(path, root)
                kind = stat.S_IFMT(st.st_mode)
                content: Any = None
                if kind == stat.S_IFREG:
                    with open(path, "rb") as file:
                        content = file.read()
                elif kind == stat.S_IFLNK:
                    content = os.readlink(path)
                attributes = {n: os.getxattr(path, n, follow_symlinks=False)
                              for n in os.listxattr(path, follow_symlinks=False) if n.startswith("user.")}  # fmt: skip
                twin = numbers.setdefault(st.st_ino, shown) if kind != stat.S_IFDIR else shown
                size = 0 if kind == stat.S_IFDIR else st.st_size
                found[shown] = (st.st_mode, st.st_nlink, size, content, attributes, twin)
            directories.sort()
        return found


@pytest.mark.parametrize("seed", range(3))
def test_random_operations_answer_as_on_the_host(
    store: pycow.Store, volume: pycow.Volume, point: Path, tmp_path: Path, seed: int
) -> None:
    theirs = tmp_path / "host"
    theirs.mkdir()
    steps = int(os.environ.get("PYCOW_MOUNT_STEPS", "1500"))
    with store.mount(point, volume, write_through=seed == 2):
        both = _Both(point, theirs, seed)
        for i in range(steps):
            both.step()
            if i % 500 == 499:
                assert both.snapshot(point) == both.snapshot(theirs)
                store.commit()
        expected = both.snapshot(theirs)
        assert both.snapshot(point) == expected
    with store.mount(point, volume):  # nothing in the kernel's cache any more
        assert _Both.snapshot(point) == expected


# ---- The library and the mount in one process


def test_changes_of_the_library_are_seen_at_once(mounted: Path, volume: pycow.Volume) -> None:
    fs = volume.fs
    (mounted / "f").write_bytes(b"mount")
    assert (fs / "f").read_bytes() == b"mount"
    (fs / "f").write_bytes(b"library, longer")
    assert (mounted / "f").read_bytes() == b"library, longer"
    assert (mounted / "f").stat().st_size == 15
    (fs / "f").write_bytes(b"short")
    assert (mounted / "f").read_bytes() == b"short"
    (fs / "f").chmod(0o600)
    (fs / "f").utime(ns=(5, 6))
    assert stat.S_IMODE((mounted / "f").stat().st_mode) == 0o600
    assert (mounted / "f").stat().st_mtime_ns == 6
    assert not (mounted / "new").exists()
    (fs / "new").mkdir()
    assert (mounted / "new").is_dir()
    assert sorted(os.listdir(mounted)) == ["f", "new"]
    (fs / "new").rename("/old")
    assert sorted(os.listdir(mounted)) == ["f", "old"]
    (fs / "old").rmdir()
    (fs / "f").unlink()
    assert os.listdir(mounted) == []
    assert not (mounted / "f").exists()


def test_an_open_file_sees_what_the_library_appends(mounted: Path, volume: pycow.Volume) -> None:
    (mounted / "log").write_bytes(b"one\n")
    with (mounted / "log").open("rb") as file:
        assert file.read() == b"one\n"
        with volume.fs.open("/log", "ab") as log:
            log.write(b"two\n")
        assert file.read() == b"two\n"


def test_links_changed_by_the_library(mounted: Path, volume: pycow.Volume) -> None:
    (mounted / "a").write_bytes(b"1")
    os.link(mounted / "a", mounted / "b")
    assert (mounted / "b").read_bytes() == b"1"
    (volume.fs / "a").write_bytes(b"22")
    assert (mounted / "a").read_bytes() == (mounted / "b").read_bytes() == b"22"
    (volume.fs / "b").unlink()
    assert (mounted / "a").stat().st_nlink == 1


def test_rollback_and_transactions_are_seen(store: pycow.Store, image: pycow.Image, point: Path) -> None:
    box = store.containers.create(image, name="box")
    with store.mount(point, box):
        (point / "etc" / "hosts").write_bytes(b"changed")
        snapshot = box.snapshot("one")
        (point / "etc" / "hosts").write_bytes(b"changed again, longer")
        (point / "etc" / "more").write_bytes(b"more")
        (point / "opt" / "app" / "run").unlink()
        assert not (point / "opt" / "app" / "run").exists()
        box.rollback(snapshot)
        assert (point / "etc" / "hosts").read_bytes() == b"changed"
        assert not (point / "etc" / "more").exists()
        assert (point / "opt" / "app" / "run").exists()
        with pytest.raises(RuntimeError):
            with store.transaction():
                (box.fs / "etc" / "hosts").write_bytes(b"never")
                assert (point / "etc" / "hosts").stat().st_size in (5, 7)
                raise RuntimeError
        assert (point / "etc" / "hosts").read_bytes() == b"changed"


def test_a_fork_has_what_was_written_through_the_mount(store: pycow.Store, image: pycow.Image, point: Path) -> None:
    box = store.containers.create(image, name="box")
    with store.mount(point, box), (point / "open").open("wb", buffering=0) as file:
        file.write(b"not closed, not synced")
        assert (box.fork("twin").fs / "open").read_bytes() == b"not closed, not synced"
        file.write(b"!")
        assert (box.snapshot("second").fs / "open").read_bytes().endswith(b"!")
        file.write(b"?")
        layer = box.commit("test:2").fs
        assert (layer / "open").read_bytes().endswith(b"!?")


def test_two_mounts_of_one_tree_agree(store: pycow.Store, volume: pycow.Volume, point: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    with store.mount(point, volume), store.mount(other, volume):
        assert not (other / "f").exists()
        (point / "f").write_bytes(b"one")
        _until(lambda: (other / "f").exists() and (other / "f").read_bytes() == b"one")
        (other / "f").write_bytes(b"two, longer")
        _until(lambda: (point / "f").read_bytes() == b"two, longer")


def _until(condition: Callable[[], bool]) -> None:
    """Mounts tell each other without waiting."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_the_library_writes_while_programs_do(mounted: Path, volume: pycow.Volume) -> None:
    """No deadlock, and the tree is sound after it (the store's fixture checks that)."""
    stop = threading.Event()
    failures: list[BaseException] = []

    def library() -> None:
        try:
            i = 0
            while not stop.is_set():
                i += 1
                (volume.fs / f"l{i % 7}").write_bytes(b"l" * (i * 100 % 9000))
                (volume.fs / f"shared{i % 3}").write_bytes(b"L" * (i % 5000))
                if i % 5 == 0:
                    (volume.fs / f"l{i % 7}").unlink(missing_ok=True)
        except BaseException as error:
            failures.append(error)

    def program() -> None:
        try:
            while not stop.is_set():
                for i in range(3):
                    with (mounted / f"shared{i}").open("ab") as file:
                        file.write(b"m" * 100)
                for entry in os.scandir(mounted):
                    with contextlib.suppress(FileNotFoundError):
                        entry.stat()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for work in (library, program, program)]
    for thread in threads:
        thread.start()
    time.sleep(2)
    stop.set()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert failures == []


# ---- The whole store


def test_the_whole_store(whole: Path, store: pycow.Store, image: pycow.Image) -> None:
    assert sorted(os.listdir(whole)) == ["containers", "images", "snapshots", "volumes"]
    assert not (whole / "containers" / "box").exists()
    box = store.containers.create(image, name="box")
    assert (whole / "containers" / "box" / "etc" / "hosts").read_bytes() == b"127.0.0.1 localhost\n"
    (whole / "containers" / "box" / "out.txt").write_bytes(b"hello")
    assert box.usage().size == 5
    twin = box.fork("twin")
    assert (whole / "containers" / "twin" / "out.txt").read_bytes() == b"hello"
    twin.rename("other")
    assert sorted(os.listdir(whole / "containers")) == ["box", "other"]
    box.snapshot("before")
    assert (whole / "snapshots" / "box" / "before" / "out.txt").read_bytes() == b"hello"
    box.rename("crate")
    assert os.listdir(whole / "snapshots") == ["crate"]
    assert os.listdir(whole / "images") == ["test:latest"]
    box.commit("acme/changed:1")
    assert (whole / "images" / "acme" / "changed:1" / "out.txt").read_bytes() == b"hello"
    store.images.remove("acme/changed:1")
    assert os.listdir(whole / "images") == ["test:latest"]
    store.volumes.create("data")
    (whole / "volumes" / "data" / "f").write_bytes(b"1")
    box.remove()
    assert os.listdir(whole / "snapshots") == []
    assert os.listdir(whole / "containers") == ["other"]
    with pytest.raises(RuntimeError), store.transaction():
        store.volumes.create("never")
        raise RuntimeError
    assert os.listdir(whole / "volumes") == ["data"]


def test_trees_are_apart(whole: Path, store: pycow.Store, image: pycow.Image) -> None:
    for name in ("a1", "b1"):
        store.containers.create(image, name=name)
    a, b = whole / "containers" / "a1", whole / "containers" / "b1"
    assert (a / "big.bin").stat().st_ino != (b / "big.bin").stat().st_ino
    assert _errno_of(os.rename, a / "big.bin", b / "big") == errno.EXDEV
    assert _errno_of(os.link, a / "big.bin", b / "big") == errno.EXDEV
    assert _errno_of(os.mkdir, whole / "containers" / "new") in (errno.EROFS, errno.EACCES)
    before = store.stats().data_bytes
    with (a / "big.bin").open("rb") as source, (b / "copy").open("wb") as copy:  # blocks are shared all the same
        assert os.copy_file_range(source.fileno(), copy.fileno(), 1 << 20) == 1 << 20
    assert store.stats().data_bytes == before


def test_images_and_snapshots_are_read_only(
    whole: Path, store: pycow.Store, image: pycow.Image, tmp_path: Path
) -> None:
    sealed = whole / "images" / "test:latest"
    assert (sealed / "opt" / "app" / "run").read_bytes() == b"#!/bin/sh\n"
    assert _errno_of((sealed / "etc" / "hosts").open, "r+b") == errno.EROFS
    for call, path in ((os.unlink, "big.bin"), (os.mkdir, "new"), (os.rmdir, "opt/app")):
        assert _errno_of(call, sealed / path) == errno.EROFS
    assert _errno_of(os.chmod, sealed / "big.bin", 0o600) == errno.EROFS
    alone = tmp_path / "alone"
    alone.mkdir()
    with store.mount(alone, image):
        assert _errno_of((alone / "new").touch) == errno.EROFS
        assert os.statvfs(alone).f_flag & os.ST_RDONLY


def test_read_only_mounts(store: pycow.Store, volume: pycow.Volume, point: Path) -> None:
    (volume.fs / "f").write_bytes(b"x")
    store.commit()
    with store.mount(point, volume, readonly=True):
        assert _errno_of((point / "f").write_bytes, b"y") == errno.EROFS
    with pycow.open(store.path, mode="r") as reader, reader.mount(point):
        assert (point / "volumes" / "data" / "f").read_bytes() == b"x"
        assert _errno_of((point / "volumes" / "data" / "g").touch) == errno.EROFS


# ---- Beginning and end


def test_unmounting(store: pycow.Store, volume: pycow.Volume, point: Path) -> None:
    mount = store.mount(point, volume)
    assert mount.path == str(point)
    (point / "f").write_bytes(b"x")
    mount.close()
    mount.close()
    assert mount.closed
    assert os.listdir(point) == []
    assert (volume.fs / "f").read_bytes() == b"x"


def test_unmounting_from_outside(store: pycow.Store, volume: pycow.Volume, point: Path) -> None:
    mount = store.mount(point, volume)
    (point / "f").write_bytes(b"x")
    subprocess.run(["umount", point] if ROOT else ["fusermount3", "-u", point], check=True)
    assert mount.wait(10)
    assert mount.closed
    mount.close()
    assert (volume.fs / "f").read_bytes() == b"x"


def test_unmounting_while_files_are_open(store: pycow.Store, volume: pycow.Volume, point: Path) -> None:
    mount = store.mount(point, volume)
    fd = os.open(point / "f", os.O_RDWR | os.O_CREAT)
    os.write(fd, b"written before")
    mount.close()
    assert os.listdir(point) == []
    assert _errno_of(os.fsync, fd) in (errno.ENOTCONN, errno.ECONNABORTED, errno.EIO)
    with contextlib.suppress(OSError):
        os.close(fd)
    assert (volume.fs / "f").read_bytes() == b"written before"


def test_closing_the_store_unmounts(tmp_path: Path, point: Path) -> None:
    with pycow.open(tmp_path / "store") as store:
        volume = store.volumes.create("data")
        store.mount(point, volume)
        (point / "f").write_bytes(b"x")
    assert os.listdir(point) == []
    with pycow.open(tmp_path / "store") as store:
        assert (store.volumes.get("data").fs / "f").read_bytes() == b"x"
        assert store.check().ok


def test_not_inside_of_a_transaction(store: pycow.Store, volume: pycow.Volume, point: Path) -> None:
    with store.mount(point, volume) as mount, store.transaction():
        for close in (mount.close, store.close):
            assert _errno_of(close) == errno.EDEADLK
        assert not mount.closed
        assert (point / "..").exists() and os.listdir(point) == []
    assert mount.closed


def test_bad_places(store: pycow.Store, volume: pycow.Volume, tmp_path: Path) -> None:
    with pytest.raises(pycow.NotFoundError):
        store.mount(tmp_path / "missing", volume)
    (tmp_path / "file").touch()
    with pytest.raises(pycow.NotDirectoryError):
        store.mount(tmp_path / "file", volume)
    assert store._native.mounts == ()


SERVER = """
import sys, pycow, threading
store = pycow.open(sys.argv[1], commit_interval=0)
volume = store.volumes.get("data") if len(store.volumes) else store.volumes.create("data")
store.commit()
store.mount(sys.argv[2], volume)
print("ready", flush=True)
threading.Event().wait()
"""


def _serve(path: Path, point: Path) -> subprocess.Popen[str]:
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(path), str(point)], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert server.stdout is not None
    assert server.stdout.readline() == "ready\n"
    return server


def test_a_killed_server_leaves_the_last_commit(tmp_path: Path, point: Path) -> None:
    path = tmp_path / "store"
    server = _serve(path, point)
    with (point / "synced").open("wb", buffering=0) as file:
        file.write(b"s" * 100_000)
        os.fsync(file.fileno())
    (point / "not-synced").write_bytes(b"n")
    server.send_signal(signal.SIGKILL)
    server.wait()
    assert server.stdout is not None
    server.stdout.close()
    assert _errno_of(os.listdir, point) == errno.ENOTCONN
    with pycow.open(path) as store:
        volume = store.volumes.get("data")
        assert (volume.fs / "synced").read_bytes() == b"s" * 100_000
        assert not (volume.fs / "not-synced").exists()
        with store.mount(point, volume):  # clears the stale mount
            assert os.listdir(point) == ["synced"]
        assert store.check().ok
