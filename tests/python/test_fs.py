# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno
import io
import os
import stat
import threading

import numpy as np
import pytest

import pycow
from pycow import FileSystem


class TestPath:
    def test_as_a_value(self, fs: FileSystem) -> None:
        path = fs / "etc" / "app.d" / "conf.tar.gz"
        assert str(path) == "/etc/app.d/conf.tar.gz"
        assert (path.name, path.stem, path.suffix) == ("conf.tar.gz", "conf.tar", ".gz")
        assert str(path.parent) == "/etc/app.d"
        assert path.parts == ("/", "etc", "app.d", "conf.tar.gz")
        assert path == fs / "/etc//app.d/./conf.tar.gz/"
        assert hash(path) == hash(fs / "etc/app.d/conf.tar.gz")
        assert str(fs / "a" / "/b") == "/b"
        assert str(fs.root) == "/" == str(fs.root.parent)
        assert fs.path("a", "b") == fs / "a/b"
        assert str(fs / "a/../b") == "/a/../b"  # the tree decides what .. is
        assert str(fs / ".hidden") == "/.hidden"
        assert not isinstance(path, os.PathLike)  # it is no path of the host
        assert repr(path) == "Path('/etc/app.d/conf.tar.gz')"

    def test_what_is_there(self, fs: FileSystem) -> None:
        (fs / "d").mkdir()
        (fs / "d/f").write_bytes(b"x")
        (fs / "l").symlink_to("d/f")
        (fs / "loop").symlink_to("loop")
        assert (fs / "d").is_dir() and not (fs / "d").is_file()
        assert (fs / "d/f").is_file() and (fs / "l").is_file()
        assert (fs / "l").is_symlink() and not (fs / "d").is_symlink()
        assert not (fs / "nope").exists()
        assert not (fs / "d/f/below-a-file").exists()
        assert not (fs / "loop").exists()
        assert (fs / "loop").exists(follow_symlinks=False)
        with pytest.raises(pycow.LoopError):
            (fs / "loop").stat()
        with pytest.raises(FileNotFoundError) as caught:
            (fs / "nope").stat()
        assert caught.value.filename == "/nope"

    def test_stat_names(self, fs: FileSystem) -> None:
        (fs / "f").write_bytes(b"12345")
        (fs / "f").utime(ns=(1_000_000_001, 2_000_000_002))
        attr = (fs / "f").stat()
        assert attr.st_size == attr.size == 5
        assert (attr.st_atime_ns, attr.st_mtime_ns) == (1_000_000_001, 2_000_000_002)
        assert attr.st_mtime == pytest.approx(2.000000002)
        assert stat.S_ISREG(attr.st_mode) and attr.permissions == 0o644
        assert attr.st_nlink == 1
        with pytest.raises(AttributeError):
            attr.size = 6  # type: ignore[misc]
        assert attr == (fs / "f").stat()

    def test_directories(self, fs: FileSystem) -> None:
        with pytest.raises(FileNotFoundError):
            (fs / "a/b/c").mkdir()
        (fs / "a/b/c").mkdir(parents=True)
        with pytest.raises(FileExistsError):
            (fs / "a/b/c").mkdir()
        (fs / "a/b/c").mkdir(exist_ok=True)
        fs.root.mkdir(exist_ok=True)
        (fs / "a/f").touch()
        with pytest.raises(FileExistsError):
            (fs / "a/f").mkdir(exist_ok=True)
        assert sorted(p.name for p in (fs / "a").iterdir()) == ["b", "f"]
        with pytest.raises(NotADirectoryError):
            list((fs / "a/f").iterdir())
        with pytest.raises(pycow.NotEmptyError):
            (fs / "a").rmdir()
        (fs / "a/b/c").rmdir()
        (fs / "a").rmtree()
        assert list(fs.root.iterdir()) == []

    def test_walk(self, fs: FileSystem) -> None:
        for name in ("a/b/c", "a/d", "e"):
            (fs / name).mkdir(parents=True, exist_ok=True)
        (fs / "a/f").touch()
        (fs / "a/link").symlink_to("/e")
        found = [(str(p), dirs, files) for p, dirs, files in fs.root.walk()]
        assert found == [
            ("/", ["a", "e"], []),
            ("/a", ["b", "d"], ["f", "link"]),
            ("/a/b", ["c"], []),
            ("/a/b/c", [], []),
            ("/a/d", [], []),
            ("/e", [], []),
        ]
        for _, dirs, _ in fs.root.walk():
            if "b" in dirs:
                dirs.remove("b")
        assert {e.name for e in (fs / "a").scandir()} == {"b", "d", "f", "link"}

    def test_text(self, fs: FileSystem) -> None:
        assert (fs / "f").write_text("grüße\n") == 8
        assert (fs / "f").read_text() == "grüße\n"
        assert (fs / "f").write_bytes(b"short") == 5
        assert (fs / "f").read_bytes() == b"short"
        with pytest.raises(IsADirectoryError):
            fs.root.read_bytes()

    def test_links(self, fs: FileSystem) -> None:
        (fs / "f").write_bytes(b"x")
        (fs / "h").hardlink_to("f")
        assert (fs / "h").stat().ino == (fs / "f").stat().ino
        assert (fs / "f").stat().nlink == 2
        (fs / "s").symlink_to("/f")
        assert (fs / "s").readlink() == "/f"
        assert (fs / "s").lstat().size == 2
        (fs / "out").symlink_to("../../../f")
        assert (fs / "out").read_bytes() == b"x"  # .. stops at the root
        with pytest.raises(pycow.InvalidError):
            (fs / "f").readlink()
        with pytest.raises(PermissionError):
            (fs / "h2").hardlink_to("/")

    def test_rename(self, fs: FileSystem) -> None:
        (fs / "a").write_bytes(b"a")
        (fs / "b").write_bytes(b"b")
        assert (fs / "a").rename("b") == fs / "b"
        assert (fs / "b").read_bytes() == b"a"
        assert not (fs / "a").exists()
        (fs / "d/e").mkdir(parents=True)
        with pytest.raises(pycow.InvalidError):
            (fs / "d").rename("d/e/d")
        (fs / "b").replace(fs / "d/b")
        assert (fs / "d/b").read_bytes() == b"a"
        with pytest.raises(IsADirectoryError):
            (fs / "d/b").rename("d/e")

    def test_unlink(self, fs: FileSystem) -> None:
        with pytest.raises(FileNotFoundError):
            (fs / "f").unlink()
        (fs / "f").unlink(missing_ok=True)
        (fs / "d").mkdir()
        with pytest.raises(IsADirectoryError):
            (fs / "d").unlink()

    def test_attributes(self, fs: FileSystem) -> None:
        path = fs / "f"
        path.touch(0o600)
        assert path.stat().permissions == 0o600
        path.chmod(0o4755)
        path.chown(1000, 1001)
        path.chown(gid=7)
        attr = path.stat()
        assert (attr.permissions, attr.uid, attr.gid) == (0o4755, 1000, 7)
        with pytest.raises(FileExistsError):
            path.touch(exist_ok=False)
        before = path.stat().mtime_ns
        path.touch()
        assert path.stat().mtime_ns > before

    def test_xattrs(self, fs: FileSystem) -> None:
        path = fs / "f"
        path.touch()
        assert path.listxattr() == []
        path.setxattr("user.a", b"1")
        path.setxattr("security.capability", bytes(range(20)))
        assert sorted(path.listxattr()) == ["security.capability", "user.a"]
        assert path.getxattr("security.capability") == bytes(range(20))
        with pytest.raises(FileExistsError):
            path.setxattr("user.a", b"2", os.XATTR_CREATE)
        path.removexattr("user.a")
        with pytest.raises(OSError, match="user.a") as caught:
            path.getxattr("user.a")
        assert caught.value.errno == errno.ENODATA
        with pytest.raises(pycow.NoSpaceError):
            path.setxattr("user.big", b"x" * 5000)

    def test_special_files(self, fs: FileSystem) -> None:
        (fs / "fifo").mknod(stat.S_IFIFO | 0o600)
        (fs / "null").mknod(stat.S_IFCHR | 0o666, os.makedev(1, 3))
        (fs / "plain").mknod()
        assert stat.S_ISFIFO((fs / "fifo").stat().mode)
        assert (fs / "null").stat().rdev == os.makedev(1, 3)
        assert (fs / "plain").is_file()
        with pytest.raises(pycow.InvalidError):
            fs.open("null")


class TestFile:
    def test_modes(self, fs: FileSystem) -> None:
        with pytest.raises(FileNotFoundError):
            fs.open("f")
        with fs.open("f", "xb") as f:
            assert f.write(b"12345") == 5
            with pytest.raises(io.UnsupportedOperation):
                f.read(1)
        with pytest.raises(FileExistsError):
            fs.open("f", "xb")
        with fs.open("f", "r+b") as f:
            assert f.read(2) == b"12"
            assert f.write(b"X") == 1
            assert f.seek(-1, os.SEEK_END) == 4
            assert f.read() == b"5"
        with fs.open("f", "ab") as f:
            assert f.tell() == 5
            f.write(b"6")
            assert f.tell() == 6
        assert (fs / "f").read_bytes() == b"12X456"
        with fs.open("f") as f:
            with pytest.raises(io.UnsupportedOperation):
                f.write(b"x")
        with fs.open("f", "wb"):
            assert (fs / "f").stat().size == 0
        for mode in ("", "rw", "q", "rbt", "b", "r++"):
            with pytest.raises(ValueError, match="mode"):
                fs.open("f", mode)

    def test_text_and_buffers(self, fs: FileSystem) -> None:
        with fs.open("f", "w") as f:
            f.write("one\ntwo\n")
        with fs.open("f", "r") as f:
            assert list(f) == ["one\n", "two\n"]
        with fs.open("f", "rb", 4096) as f:
            assert isinstance(f, io.BufferedReader)
            assert f.readline() == b"one\n"
        with fs.open("f", "r+b", 4096) as f:
            f.seek(4)
            f.write(b"TWO")
            f.seek(0)
            assert f.read() == b"one\nTWO\n"
        with fs.open("f", "wb", 1 << 16) as f:
            for i in range(1000):
                f.write(b"%d\n" % i)
        assert (fs / "f").read_bytes() == b"".join(b"%d\n" % i for i in range(1000))

    def test_closed(self, fs: FileSystem) -> None:
        f = fs.open("f", "w+b")
        f.close()
        f.close()
        assert f.closed
        for call in (
            f.read,
            f.tell,
            lambda: f.seek(0),
            lambda: f.write(b"x"),
            f.fsync,
            lambda: f.readinto(bytearray(1)),
        ):
            with pytest.raises(ValueError, match="closed"):
                call()

    def test_the_position(self, fs: FileSystem) -> None:
        with fs.open("f", "w+b") as f:
            f.write(b"0123456789")
            assert f.tell() == 10
            assert f.seek(2) == 2
            assert f.seek(3, os.SEEK_CUR) == 5
            assert f.pread(0, 3) == b"012"
            assert f.pwrite(1, b"AB") == 2
            assert f.tell() == 5
            assert f.read(2) == b"56"
            buffer = bytearray(5)
            assert f.readinto(buffer) == 3
            assert buffer[:3] == b"789"
            assert f.readinto(buffer) == 0
            assert f.readall() == b""
            with pytest.raises(pycow.InvalidError):
                f.seek(-1)
            assert f.seek(100) == 100
            assert f.read() == b""

    def test_holes(self, fs: FileSystem) -> None:
        with fs.open("f", "w+b") as f:
            f.truncate(1 << 40)
            assert f.stat().size == 1 << 40
            assert f.stat().blocks == 0
            f.pwrite(1 << 30, b"x" * 8192)
            assert f.seek(0, os.SEEK_DATA) == 1 << 30
            assert f.seek(1 << 30, os.SEEK_HOLE) == (1 << 30) + 8192
            with pytest.raises(OSError, match="seek") as caught:
                f.seek((1 << 30) + 8192, os.SEEK_DATA)
            assert caught.value.errno == errno.ENXIO
            assert f.stat().blocks == 16
            f.punch(1 << 30, 4096)
            assert f.stat().blocks == 8
            assert f.pread(1 << 30, 8192) == b"\0" * 4096 + b"x" * 4096
            f.truncate(10)
            f.seek(0)
            assert f.read() == b"\0" * 10

    def test_clone(self, store: pycow.Store, fs: FileSystem) -> None:
        data = os.urandom(10 * 4096 + 100)
        (fs / "a").write_bytes(data)
        with fs.open("a") as a, fs.open("b", "w+b") as b:
            before = store.stats().data_bytes
            assert b.clone_from(a) == len(data)
            assert b.read() == data
            assert store.stats().data_bytes == before
            b.pwrite(5000, b"changed")
            assert store.stats().data_bytes == before + 4096
            assert a.read() == data
            with pytest.raises(pycow.InvalidError):
                b.clone_from(a, source_offset=1)
            with pytest.raises(pycow.InvalidError):
                b.clone_from(a, length=100)

    def test_blocks(self, fs: FileSystem) -> None:
        rng = np.random.default_rng(1)
        data = rng.integers(0, 256, (16, 4096), dtype=np.uint8)
        with fs.open("f", "w+b") as f:
            f.write_blocks(range(16), data)
            order = [3, 1, 15, 3, 40]
            got = f.read_blocks(order)
            assert got.shape == (5, 4096)
            assert (got[:4] == data[order[:4]]).all()
            assert not got[4].any()
            f.write_blocks(np.array([2, 9]), data[[0, 1]])
            data[[2, 9]] = data[[0, 1]]
            assert f.read() == data.tobytes()
            extents = f.extents()
            assert extents["block_count"].sum() == 16
            assert extents.dtype == pycow.EXTENT_DTYPE

    def test_other_buffers(self, fs: FileSystem) -> None:
        with fs.open("f", "w+b") as f:
            assert f.write(bytearray(b"abc")) == 3
            assert f.write(memoryview(b"def")) == 3
            assert f.write(np.arange(4, dtype=np.uint16)) == 8
            assert f.write(b"") == 0
            assert f.pread(0, 6) == b"abcdef"

    def test_unlinked_but_open(self, fs: FileSystem) -> None:
        f = fs.open("f", "w+b")
        f.write(b"x" * 50_000)
        (fs / "f").unlink()
        (fs / "f").write_bytes(b"new")
        f.write(b"y")
        assert f.pread(49_999, 2) == b"xy"
        f.close()
        assert (fs / "f").read_bytes() == b"new"

    def test_the_store_closes_first(self, store: pycow.Store, fs: FileSystem) -> None:
        f = fs.open("f", "w+b")
        store.close()
        with pytest.raises(pycow.ClosedError):
            f.write(b"x")
        f.close()

    def test_dangling_links_are_made_real(self, fs: FileSystem) -> None:
        (fs / "d").mkdir()
        (fs / "l").symlink_to("d/m")
        (fs / "d/m").symlink_to("target")
        (fs / "l").write_bytes(b"x")
        assert (fs / "d/target").read_bytes() == b"x"
        with pytest.raises(FileExistsError):
            fs.open("l", "xb")

    def test_appends_of_threads_do_not_overlap(self, fs: FileSystem) -> None:
        (fs / "log").touch()

        def work(number: int) -> None:
            with fs.open("log", "ab") as f:
                for _ in range(50):
                    f.write(b"%d" % number * 100)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        data = (fs / "log").read_bytes()
        records = [data[i : i + 100] for i in range(0, len(data), 100)]
        assert len(records) == 200
        assert all(len(set(record)) == 1 for record in records)

    def test_fsync_is_durable(self, store: pycow.Store, fs: FileSystem) -> None:
        with fs.open("f", "wb") as f:
            f.write(b"x")
            before = store.stats().generation
            f.fsync()
        assert store.stats().generation > before


def test_small_and_large_sizes(fs: FileSystem) -> None:
    for size in (0, 1, 1899, 1900, 1901, 4095, 4096, 4097, 65535, 65536, 65537, (1 << 20) + 1):
        data = os.urandom(size)
        path = fs / f"f{size}"
        path.write_bytes(data)
        assert path.read_bytes() == data
        with path.open() as f:
            assert f.read() == data


def test_scan_gives_what_walk_and_stat_give(fs: pycow.FileSystem) -> None:
    for i in range(300):
        (fs / f"d{i % 7}" / f"e{i % 3}").mkdir(parents=True, exist_ok=True)
        (fs / f"d{i % 7}" / f"e{i % 3}" / f"file-{i}").write_bytes(b"x" * i)
    (fs / "d0" / "link").symlink_to("e1")
    paths, attrs = fs.root.scan()
    expected = {}
    for folder, folders, files in fs.root.walk():
        for name in [*folders, *files]:
            expected[str(folder / name)[1:]] = (folder / name).lstat()
    assert sorted(paths) == sorted(expected)
    for path, row in zip(paths, attrs, strict=True):
        assert all(getattr(expected[path], name) == row[name] for name in attrs.dtype.names)
    below, _ = (fs / "d1" / "e1").scan()
    assert sorted(below) == sorted(p.removeprefix("d1/e1/") for p in expected if p.startswith("d1/e1/"))
    with pytest.raises(NotADirectoryError):
        (fs / "d0" / "e0" / "file-0").scan()
