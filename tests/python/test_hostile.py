# SPDX-License-Identifier: Apache-2.0
"""Wrong and hostile use: each public call with arguments and at moments that it cannot work with.

The answer is an exception of a documented class: one of pycow, or a builtin one for what is a programmer's mistake
(TypeError, BufferError, ValueError for a buffer that is not contiguous, UnicodeEncodeError for half a surrogate pair).
Never a crash, a hang, or a store that does not check clean (the store fixture sees to that).
"""

from __future__ import annotations

import errno
import gc
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pycow

FILE_BYTES_MAX = 2**55


class Stage:
    """What the calls of the tables work on."""

    def __init__(self, store: pycow.Store, image: pycow.Image) -> None:
        self.store = store
        self.image = image
        self.box = store.containers.create(image, name="box")
        self.fs = self.box.fs
        self.tree = self.box.tree
        (self.fs / "f").write_bytes(b"x" * 10_000)
        self.file = self.fs.open("f", "r+b")
        self.ino = self.file.ino
        (self.fs / "loop1").symlink_to("loop2")
        (self.fs / "loop2").symlink_to("loop1")


@pytest.fixture
def stage(store: pycow.Store, image: pycow.Image) -> Stage:
    return Stage(store, image)


Call = Callable[[Stage], Any]
Expected = type[BaseException] | tuple[type[BaseException], int]

TABLE: dict[str, tuple[Call, Expected]] = {
    # ---- paths
    "NUL": (lambda s: (s.fs / "a\0b").write_bytes(b""), pycow.InvalidError),
    "NUL, looked at": (lambda s: (s.fs / "a\0b").exists(), pycow.InvalidError),
    "nothing": (lambda s: (s.fs / "").write_bytes(b""), pycow.IsDirectoryError),
    "dot": (lambda s: (s.fs / ".").write_bytes(b""), pycow.IsDirectoryError),
    "dots": (lambda s: (s.fs / "..").write_bytes(b""), pycow.IsDirectoryError),
    "make dots": (lambda s: (s.fs / "etc/..").mkdir(), pycow.InvalidError),
    "unlink dots": (lambda s: (s.fs / "etc/..").unlink(), pycow.InvalidError),
    "rmdir root": (lambda s: s.fs.root.rmdir(), pycow.InvalidError),
    "rmtree root": (lambda s: s.fs.root.rmtree(), pycow.InvalidError),
    "rename root": (lambda s: s.fs.root.rename("/x"), pycow.InvalidError),
    "rename to root": (lambda s: (s.fs / "f").rename("/"), pycow.InvalidError),
    "rename into itself": (lambda s: (s.fs / "etc").rename("/etc/x"), pycow.InvalidError),
    "long name": (lambda s: (s.fs / ("n" * 256)).write_bytes(b""), pycow.NameTooLongError),
    "long path": (lambda s: (s.fs / ("a/" * 3000)).exists(), pycow.NameTooLongError),
    "half a pair": (lambda s: (s.fs / "\ud800").write_bytes(b""), UnicodeEncodeError),
    "a number": (lambda s: s.fs / 5, TypeError),  # type: ignore[operator]
    "None": (lambda s: s.fs / None, TypeError),  # type: ignore[operator]
    "loop": (lambda s: (s.fs / "loop1").read_bytes(), pycow.LoopError),
    "loop, written": (lambda s: (s.fs / "loop1").write_bytes(b""), pycow.LoopError),
    "loop, on the way": (lambda s: (s.fs / "loop1/x").write_bytes(b""), pycow.LoopError),
    "symlink to nothing": (lambda s: (s.fs / "l").symlink_to(""), pycow.NotFoundError),
    "symlink to NUL": (lambda s: (s.fs / "l").symlink_to("a\0b"), pycow.InvalidError),
    "long symlink": (lambda s: (s.fs / "l").symlink_to("t" * 4096), pycow.NameTooLongError),
    # ---- offsets and sizes
    "read before": (lambda s: s.file.pread(-1, 5), pycow.InvalidError),
    "read less than nothing": (lambda s: s.file.pread(0, -1), pycow.InvalidError),
    "read past all": (lambda s: s.file.pread(2**64, 5), pycow.InvalidError),
    "write before": (lambda s: s.file.pwrite(-1, b"x"), pycow.InvalidError),
    "write at 2**55": (lambda s: s.file.pwrite(FILE_BYTES_MAX, b"x"), (pycow.OperationError, errno.EFBIG)),
    "write at 2**63": (lambda s: s.file.pwrite(2**63, b"x"), (pycow.OperationError, errno.EFBIG)),
    "write at 2**64-1": (lambda s: s.file.pwrite(2**64 - 1, b"x"), pycow.InvalidError),
    "write at 2**64": (lambda s: s.file.pwrite(2**64, b"x"), pycow.InvalidError),
    "seek before": (lambda s: s.file.seek(-1), pycow.InvalidError),
    "seek for nothing known": (lambda s: s.file.seek(0, 9), pycow.InvalidError),
    "seek data before": (lambda s: s.file.seek(-1, os.SEEK_DATA), pycow.InvalidError),
    "truncate before": (lambda s: s.file.truncate(-1), pycow.InvalidError),
    "truncate, path": (lambda s: (s.fs / "f").truncate(-1), pycow.InvalidError),
    "truncate past all": (lambda s: s.file.truncate(FILE_BYTES_MAX + 1), (pycow.OperationError, errno.EFBIG)),
    "truncate to 2**64": (lambda s: s.file.truncate(2**64), pycow.InvalidError),
    "punch before": (lambda s: s.file.punch(-1, 5), pycow.InvalidError),
    "punch nothing": (lambda s: s.file.punch(0, 0), pycow.InvalidError),
    "clone past the end": (lambda s: s.file.clone_from(s.file, offset=2**20, length=2**40), pycow.InvalidError),
    "clone onto itself": (lambda s: s.file.clone_from(s.file), pycow.InvalidError),
    "clone of parts": (lambda s: s.file.clone_from(s.file, source_offset=1, offset=2**20), pycow.InvalidError),
    "clone before": (lambda s: s.file.clone_from(s.file, source_offset=-4096, offset=2**20), pycow.InvalidError),
    # ---- buffers
    "write text": (lambda s: s.file.write("abc"), TypeError),
    "write None": (lambda s: s.file.write(None), TypeError),
    "write every second": (lambda s: s.file.write(np.arange(64, dtype=np.uint8)[::2]), ValueError),
    "read into bytes": (lambda s: s.file.readinto(b"abc"), BufferError),
    "read into every second": (lambda s: s.file.readinto(np.zeros(64, np.uint8)[::2]), ValueError),
    "too few bytes for blocks": (lambda s: s.file.write_blocks([0, 1], bytes(4096)), pycow.InvalidError),
    "block before": (lambda s: s.file.write_blocks([-1], bytes(4096)), pycow.InvalidError),
    "half a block": (lambda s: s.file.write_blocks([0.5], bytes(4096)), TypeError),
    "blocks of text": (lambda s: s.file.write_blocks("ab", bytes(4096)), TypeError),  # type: ignore[arg-type]
    "block past all": (lambda s: s.file.write_blocks([2**43], bytes(4096)), (pycow.OperationError, errno.EFBIG)),
    "read block past all": (lambda s: s.file.read_blocks([2**63]), (pycow.OperationError, errno.EFBIG)),
    "read block before": (lambda s: s.file.read_blocks([-1]), pycow.InvalidError),
    "small buffer for blocks": (lambda s: s.tree.read_blocks(s.ino, [0, 1], bytearray(4096)), pycow.InvalidError),
    "bytes for blocks": (lambda s: s.tree.read_blocks(s.ino, [0], bytes(4096)), BufferError),
    # ---- attributes
    "long attribute name": (lambda s: (s.fs / "f").setxattr("user." + "n" * 300, b""), pycow.OperationError),
    "attribute without a name": (lambda s: (s.fs / "f").setxattr("", b""), pycow.OperationError),
    "attribute with NUL": (lambda s: (s.fs / "f").setxattr("user.a\0", b""), pycow.InvalidError),
    "long attribute": (lambda s: (s.fs / "f").setxattr("user.a", bytes(1701)), pycow.NoSpaceError),
    "attribute of a number": (lambda s: (s.fs / "f").setxattr("user.a", 10**12), TypeError),
    "attribute of text": (lambda s: (s.fs / "f").setxattr("user.a", "x"), TypeError),
    "attribute flags": (lambda s: (s.fs / "f").setxattr("user.a", b"", 77), pycow.InvalidError),
    "mode": (lambda s: (s.fs / "f").chmod(-1), pycow.InvalidError),
    "owner": (lambda s: (s.fs / "f").chown(2**33), pycow.InvalidError),
    "time": (lambda s: (s.fs / "f").utime(ns=(2**63, 0)), pycow.InvalidError),
    "no type": (lambda s: (s.fs / "n").mknod(0o170000), pycow.InvalidError),
    "device": (lambda s: (s.fs / "n").mknod(0o020000, 2**65), pycow.InvalidError),
    "permissions": (lambda s: s.fs.open("n", "wb", permissions=-1), pycow.InvalidError),
    "open how": (lambda s: s.fs.open("f", "zz"), pycow.InvalidError),
    # ---- objects of the store
    "no tree": (lambda s: s.store._native.open_tree(-1), pycow.NotFoundError),
    "no such tree": (lambda s: s.store._native.open_tree(2**64), pycow.NotFoundError),
    "no inode": (lambda s: s.tree.stat(0), pycow.NotFoundError),
    "no such inode": (lambda s: s.tree.stat(2**64 - 1), pycow.NotFoundError),
    "pin no inode": (lambda s: s.tree.pin(0), pycow.NotFoundError),
    "container of nothing": (lambda s: s.store.containers.get(""), pycow.NotFoundError),
    "container by number": (lambda s: s.store.containers.get(5), TypeError),  # type: ignore[arg-type]
    "image by number": (lambda s: s.store.containers.create(5), TypeError),  # type: ignore[arg-type]
    "name of a number": (lambda s: s.store.containers.create(s.image, name=5), TypeError),  # type: ignore[arg-type]
    "command of text": (lambda s: s.store.containers.create(s.image, command="ls"), TypeError),
    "command of numbers": (lambda s: s.store.containers.create(s.image, command=[1]), TypeError),  # type: ignore[list-item]
    "labels of objects": (lambda s: s.store.containers.create(s.image, labels={"a": 1}), TypeError),  # type: ignore[dict-item]
    "long container name": (lambda s: s.store.containers.create(s.image, name="n" * 256), pycow.NameTooLongError),
    "long snapshot name": (lambda s: s.box.snapshot("n" * 256), pycow.NameTooLongError),
    "volume elsewhere": (lambda s: s.store.volumes.create("../x"), pycow.InvalidError),
    "image with NUL": (lambda s: s.store.images.get("a\0b"), pycow.BadReferenceError),
    "tag": (lambda s: s.image.tag("UPPER CASE"), pycow.BadReferenceError),
    "load a number": (lambda s: s.store.images.load(5), TypeError),  # type: ignore[arg-type]
    "load what is not there": (lambda s: s.store.images.load("/nonexistent"), FileNotFoundError),
    "rename to a bad name": (lambda s: s.box.rename("a b"), pycow.InvalidError),
    "snapshot that is not there": (lambda s: s.box.rollback("none"), pycow.NotFoundError),
    # ---- opening
    "open with NUL": (lambda s: pycow.open("a\0b"), pycow.InvalidError),
    "open nothing": (lambda s: pycow.open(""), pycow.NotFoundError),
    "open a number": (lambda s: pycow.open(5), TypeError),  # type: ignore[arg-type]
    "open how, store": (lambda s: pycow.open(s.store.path, "w"), pycow.InvalidError),  # type: ignore[arg-type]
    "open twice": (lambda s: pycow.open(s.store.path), pycow.LockedError),
    "cache": (lambda s: pycow.open(s.store.path, node_cache_bytes=-1), pycow.InvalidError),
    "large cache": (lambda s: pycow.open(s.store.path, lookup_entries=2**64), pycow.InvalidError),
    "interval": (lambda s: pycow.open(s.store.path, commit_interval=float("nan")), pycow.InvalidError),
    "open a file": (lambda s: pycow.open(__file__), OSError),
}


@pytest.mark.parametrize("what", TABLE)
def test_what_cannot_work(stage: Stage, what: str) -> None:
    call, expected = TABLE[what]
    kind, code = expected if isinstance(expected, tuple) else (expected, None)
    before = sorted(path.name for path in stage.fs.root.iterdir())
    with pytest.raises(kind) as caught:
        call(stage)
    assert type(caught.value) is kind or kind in (OSError, pycow.OperationError, ValueError, FileNotFoundError), what
    assert str(caught.value)
    if code is not None:
        assert isinstance(caught.value, OSError)
        assert caught.value.errno == code
    assert sorted(path.name for path in stage.fs.root.iterdir()) == before
    assert (stage.fs / "f").read_bytes() == b"x" * 10_000


def test_more_than_there_is(stage: Stage) -> None:
    assert stage.file.pread(9_990, 2**62) == b"x" * 10
    assert stage.file.pread(2**62, 2**62) == b""
    assert stage.file.pread(2**63, 10) == b""
    stage.file.punch(2**54, 2**64 - 1 - 2**54)
    stage.tree.unpin(0)
    stage.tree.unpin(12345)  # never pinned


def test_names_of_any_bytes(stage: Stage) -> None:
    raw = bytes(range(1, 256)).replace(b"/", b"")
    (stage.fs / raw).write_bytes(b"here")
    names = {path.name for path in stage.fs.root.iterdir()}
    assert raw.decode("utf-8", "surrogateescape") in names
    assert (stage.fs / raw.decode("utf-8", "surrogateescape")).read_bytes() == b"here"
    (stage.fs / raw).unlink()


# ---- Another store's, closed, deleted -------------------------------------------------------------------------------


def test_objects_of_another_store(stage: Stage, tmp_path: Path, make_archive: Any) -> None:
    with pycow.open(tmp_path / "other", commit_interval=0) as other:
        image = other.images.load(make_archive([{"etc/": None, "f": b"1" * 10_000}]))
        box = other.containers.create(image)
        file = box.fs.open("f", "r+b")
        calls: list[tuple[Callable[[], Any], type[BaseException]]] = [
            (lambda: stage.store.containers.create(image), pycow.InvalidError),
            (lambda: stage.box.rollback(box.snapshot("one")), pycow.InvalidError),
            (lambda: stage.tree.reset(box.tree), pycow.OperationError),
            (lambda: list(stage.tree.diff(box.tree)), pycow.OperationError),
            (lambda: list(stage.tree.tar(box.tree)), pycow.OperationError),
            (lambda: stage.file.clone_from(file), pycow.OperationError),
            (lambda: (stage.fs / "f").rename(box.fs / "g"), pycow.OperationError),
            (lambda: (stage.fs / "g").hardlink_to(box.fs / "f"), pycow.OperationError),
        ]
        for call, kind in calls:
            with pytest.raises(kind):
                call()
        assert other.check().ok


def closed_calls(stage: Stage) -> dict[str, Callable[[], Any]]:
    store, box, fs, tree, file = stage.store, stage.box, stage.fs, stage.tree, stage.file
    snapshot = box.snapshot("one")
    volume = store.volumes.create("vol")
    return {
        "commit": store.commit,
        "check": store.check,
        "stats": store.stats,
        "transaction": lambda: store.transaction().__enter__(),
        "images": store.images.list,
        "image": lambda: store.images.get("test"),
        "tag": lambda: stage.image.tag("other"),
        "layers": store.layers.list,
        "containers": store.containers.list,
        "create": lambda: store.containers.create(stage.image),
        "set_quota": lambda: box.set_quota(5),
        "fork": box.fork,
        "usage": box.usage,
        "diff": box.diff,
        "snapshot": lambda: box.snapshot("two"),
        "rollback": lambda: box.rollback(snapshot),
        "remove": box.remove,
        "rename": lambda: box.rename("other"),
        "image of it": box.commit,
        "snapshot's usage": snapshot.usage,
        "snapshot's removal": snapshot.remove,
        "volumes": store.volumes.list,
        "volume's removal": volume.remove,
        "stat": lambda: (fs / "f").stat(),
        "list": lambda: list(fs.root.iterdir()),
        "write": lambda: (fs / "f").write_bytes(b""),
        "open": lambda: fs.open("f"),
        "pread": lambda: file.pread(0, 1),
        "pwrite": lambda: file.pwrite(0, b"x"),
        "fsync": file.fsync,
        "extents": file.extents,
        "tree": tree.info,
        "copy in": lambda: fs.copy_in(__file__, "/x"),
        "copy out": lambda: fs.copy_out("/f", "/nonexistent/x"),
    }


def test_after_close(stage: Stage) -> None:
    calls = closed_calls(stage)
    iterator = stage.fs.root.scandir()
    next(iterator)
    diff = stage.tree.diff(stage.image.tree())
    stage.store.close()
    stage.store.close()
    for what, call in calls.items():
        with pytest.raises(pycow.ClosedError):
            call()
            pytest.fail(what)
    assert list(diff) == []
    stage.file.close()
    assert stage.store.closed
    assert "closed" in repr(stage.store)


def test_after_remove(stage: Stage) -> None:
    stage.box.snapshot("one")
    stage.box.remove()
    for call in (
        lambda: (stage.fs / "f").stat(),
        lambda: stage.file.pread(0, 1),
        lambda: stage.file.write(b"x"),
        stage.box.usage,
        stage.box.diff,
        stage.box.fork,
        lambda: stage.box.set_quota(1),
        stage.box.remove,
        lambda: stage.box.rename("other"),
    ):
        with pytest.raises((pycow.StaleError, pycow.NotFoundError)):
            call()
    stage.file.close()
    assert len(stage.store.containers) == 0


# ---- Transactions ---------------------------------------------------------------------------------------------------


def test_transactions_of_wrong_shape(store: pycow.Store) -> None:
    native = store._native
    with pytest.raises(pycow.InvalidError):
        native.end([native._h], True)  # none was begun
    begun = native.begin()
    with pytest.raises(pycow.OperationError) as caught:
        native.begin()
    assert caught.value.errno == errno.EDEADLK
    failures: list[BaseException] = []

    def end_elsewhere() -> None:
        try:
            native.end(begun, True)
        except pycow.InvalidError as error:
            failures.append(error)

    thread = threading.Thread(target=end_elsewhere)
    thread.start()
    thread.join()
    assert len(failures) == 1
    with pytest.raises(pycow.OperationError) as caught:
        store.close()
    assert (caught.value.errno, store.closed) == (errno.EDEADLK, False)
    native.end(begun, True)
    with pytest.raises(pycow.InvalidError):
        native.end(begun, False)
    transaction = store.transaction()
    with transaction:
        store.volumes.create("inside")
    assert [volume.name for volume in store.volumes] == ["inside"]


# ---- Threads and close ----------------------------------------------------------------------------------------------


def test_close_under_way(tmp_path: Path, make_archive: Any) -> None:
    """close waits for calls that run; those that come later raise ClosedError. Nothing else comes out, ever."""
    archive = make_archive([{"f": b"1" * 300_000, "d/": None, "d/e": b"2"}])
    for round_number in range(8):
        store = pycow.open(tmp_path / f"store{round_number}", commit_interval=0)
        box = store.containers.create(store.images.load(archive))
        unexpected: list[BaseException] = []
        started = threading.Barrier(6)

        def work(
            number: int, store: pycow.Store = store, box: pycow.Container = box, u: Any = unexpected, b: Any = started
        ) -> None:
            try:
                file = box.fs.open("f", "r+b")
                b.wait()
                for i in range(100_000):
                    if number == 0:
                        (box.fs / f"n{i % 50}").write_bytes(b"x" * (i % 9000))
                    elif number == 1:
                        file.pread(0, 300_000)
                    elif number == 2:
                        box.fork().remove()
                    elif number == 3:
                        list(box.diff())
                        sum(len(part) for part in box.tree.tar())
                    else:
                        store.commit()
            except pycow.ClosedError:
                pass
            except BaseException as error:
                u.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(5)]
        for thread in threads:
            thread.start()
        started.wait()
        time.sleep(0.02 * round_number)
        store.close()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()
        assert unexpected == []
        with pycow.open(tmp_path / f"store{round_number}") as again:
            assert again.check().ok


def test_a_cycle_of_open_files(tmp_path: Path) -> None:
    """The garbage collector finalizes a cycle in any order: a file after the handle of its tree."""
    script = """
        import gc, sys, pycow
        for number in range(30):
            store = pycow.open(f"{sys.argv[1]}/s{number}", commit_interval=0)
            fs = store.volumes.create("vol").fs
            files = [fs.open(f"f{i}", "w+b") for i in range(20)]
            iterator = fs.root.scandir()
            next(iterator)
            cycle = [store, fs, files, iterator]
            cycle.append(cycle)
            if number % 3:
                del store, fs, files, iterator, cycle
                gc.collect()
    """
    done = subprocess.run(
        [sys.executable, "-P", "-c", textwrap.dedent(script), str(tmp_path)],
        capture_output=True,
        check=False,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    gc.collect()


# ---- Processes ------------------------------------------------------------------------------------------------------


def test_handles_in_a_forked_child(tmp_path: Path) -> None:
    script = """
        import os, sys, pycow
        store = pycow.open(sys.argv[1], commit_interval=1)
        volume = store.volumes.create("vol")
        fs = volume.fs
        file = fs.open("f", "w+b")
        file.write(b"parent")
        calls = [store.commit, store.stats, store.check, volume.usage, volume.remove, lambda: file.pread(0, 1),
                 lambda: file.pwrite(0, b"child"), lambda: (fs / "f").stat(), lambda: (fs / "g").write_bytes(b""),
                 lambda: store.volumes.create("other"), lambda: store.volumes.list()]
        child = os.fork()
        if child == 0:
            for number, call in enumerate(calls):
                try:
                    call()
                except pycow.ForkedError:
                    continue
                except BaseException as error:
                    print(number, repr(error), file=sys.stderr)
                os._exit(1)
            file.close()
            store.close()
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert file.pread(0, 10) == b"parent"
        assert store.check().ok
        store.close()
    """
    done = subprocess.run(
        [sys.executable, "-P", "-c", textwrap.dedent(script), str(tmp_path / "store")],
        capture_output=True, check=False, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stderr.decode()) == (0, "")


def test_a_second_process(store: pycow.Store) -> None:
    store.volumes.create("vol")
    store.commit()
    script = """
        import sys, pycow
        try:
            pycow.open(sys.argv[1])
        except pycow.LockedError:
            with pycow.open(sys.argv[1], "r") as store:
                assert [volume.name for volume in store.volumes] == ["vol"]
                try:
                    store.volumes.create("other")
                except pycow.ReadOnlyError:
                    print("fine")
    """
    done = subprocess.run(
        [sys.executable, "-P", "-c", textwrap.dedent(script), store.path], capture_output=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"fine\n", b"")
