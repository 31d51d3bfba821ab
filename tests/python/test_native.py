# SPDX-License-Identifier: Apache-2.0
"""Handles: lifetimes, threads, forks; and calls that nothing above uses in this form."""

from __future__ import annotations

import gc
import os
import stat
import threading
from pathlib import Path

import numpy as np
import pytest

import pycow
from pycow._native import RENAME_EXCHANGE, RENAME_NOREPLACE, ROOT_INO, NativeStore, Tree, version

FILE = stat.S_IFREG | 0o644
DIR = stat.S_IFDIR | 0o755


@pytest.fixture
def native(store: pycow.Store) -> NativeStore:
    return store._native


@pytest.fixture
def tree(native: NativeStore) -> Tree:
    return native.create_tree()


def test_version() -> None:
    assert version() == pycow.__version__


class TestLifetimes:
    def test_close_is_idempotent(self, tmp_path: Path) -> None:
        native = NativeStore(tmp_path / "s")
        assert not native.closed
        native.close()
        native.close()
        assert native.closed

    def test_a_closed_store_raises(self, tmp_path: Path) -> None:
        native = NativeStore(tmp_path / "s")
        native.close()
        with pytest.raises(pycow.ClosedError, match="store is closed"):
            native.stats()

    def test_a_closed_tree_raises(self, tree: Tree) -> None:
        tree.close()
        tree.close()
        with pytest.raises(pycow.ClosedError, match="tree is closed"):
            tree.stat(ROOT_INO)
        with pytest.raises(ValueError, match="closed"):
            tree.fork()

    def test_closing_the_store_closes_its_trees(self, tmp_path: Path) -> None:
        native = NativeStore(tmp_path / "s")
        tree = native.create_tree()
        fork = tree.fork()
        native.close()
        for handle in (tree, fork):
            with pytest.raises(pycow.ClosedError):
                handle.info()

    def test_closing_the_store_closes_streams(self, tmp_path: Path) -> None:
        native = NativeStore(tmp_path / "s")
        tree = native.create_tree()
        tree.make(ROOT_INO, "a", FILE)
        tar, untar, diff = tree.tar(), native.create_tree().untar(), tree.diff(native.create_tree())
        native.close()
        assert tar.closed
        assert untar.closed
        assert diff.closed
        assert NativeStore(tmp_path / "s").stats()["trees"] >= 1

    def test_a_dropped_cycle_frees_the_store(self, tmp_path: Path) -> None:
        def leave() -> None:
            native = NativeStore(tmp_path / "s")
            cycle: list[object] = [native, native.create_tree(), native.catalog]
            cycle.append(cycle)

        leave()
        gc.collect()
        NativeStore(tmp_path / "s").close()  # the lock is free again

    def test_a_tree_keeps_the_store_alive(self, tmp_path: Path) -> None:
        tree = NativeStore(tmp_path / "s").create_tree()
        gc.collect()
        assert tree.stat(ROOT_INO).is_dir()
        tree.store.close()

    def test_close_while_others_work(self, tmp_path: Path) -> None:
        native = NativeStore(tmp_path / "s", commit_interval_ms=0)
        tree = native.create_tree()
        ino = tree.make(ROOT_INO, "a", FILE)
        wrong: list[BaseException] = []

        def work() -> None:
            data = os.urandom(1 << 16)
            try:
                while True:
                    tree.write(ino, None, data)
                    tree.read(ino, 0, 1 << 20)
            except pycow.ClosedError:
                pass
            except BaseException as error:
                wrong.append(error)

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        threading.Event().wait(0.05)
        native.close()
        for thread in threads:
            thread.join(30)
        assert wrong == []
        assert not any(thread.is_alive() for thread in threads)
        with pycow.open(tmp_path / "s") as again:
            assert again.check().errors == ()

    def test_a_deleted_tree_is_stale(self, native: NativeStore, tree: Tree) -> None:
        other = native.open_tree(tree.id)
        tree.delete()
        with pytest.raises(pycow.StaleError):
            other.stat(ROOT_INO)
        with pytest.raises(pycow.NotFoundError):
            native.open_tree(tree.id)

    def test_a_forked_child_may_not_use_it(self, native: NativeStore, tree: Tree) -> None:
        ino = tree.make(ROOT_INO, "a", FILE)
        pid = os.fork()
        if pid == 0:  # nothing of pytest may run in the child
            code = 1
            try:
                tree.write(ino, 0, b"x")
            except pycow.ForkedError:
                native.close()
                code = 0
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert tree.write(ino, 0, b"x") == 1


class TestTrees:
    def test_info(self, tree: Tree) -> None:
        fork = tree.fork(base=True, temp=True)
        info = fork.info()
        assert info.parent == tree.id
        assert info.id == fork.id != tree.id
        assert info.temp and not info.sealed
        fork.keep()
        assert not fork.info().temp

    def test_sealed(self, tree: Tree) -> None:
        ino = tree.make(ROOT_INO, "a", FILE)
        sealed = tree.fork(sealed=True)
        with pytest.raises(pycow.ReadOnlyError):
            sealed.write(ino, 0, b"x")
        tree.seal()
        with pytest.raises(pycow.ReadOnlyError):
            tree.make(ROOT_INO, "b", FILE)

    def test_temporary_trees_go_with_the_next_open(self, tmp_path: Path) -> None:
        native = NativeStore(tmp_path / "s")
        kept, dropped = native.create_tree(temp=True), native.create_tree(temp=True)
        kept.keep()
        kept_id, dropped_id = kept.id, dropped.id
        native.close()
        native = NativeStore(tmp_path / "s")
        assert native.open_tree(kept_id).stat(ROOT_INO).is_dir()
        with pytest.raises(pycow.NotFoundError):
            native.open_tree(dropped_id)
        native.close()

    def test_a_fork_does_not_see_later_changes(self, tree: Tree) -> None:
        ino = tree.make(ROOT_INO, "a", FILE)
        tree.write(ino, 0, b"one" * 5000)
        fork = tree.fork()
        tree.write(ino, 0, b"two" * 5000)
        fork.write(ino, 6000, b"fork")
        assert tree.read(ino, 0, 20000) == b"two" * 5000
        expected = bytearray(b"one" * 5000)
        expected[6000:6004] = b"fork"
        assert fork.read(ino, 0, 20000) == expected

    def test_reset(self, tree: Tree) -> None:
        ino = tree.make(ROOT_INO, "a", FILE)
        tree.write(ino, 0, b"x" * 10000)
        snapshot = tree.fork(sealed=True)
        size = tree.info().size_bytes
        tree.write(ino, 0, b"y" * 20000)
        tree.make(ROOT_INO, "b", FILE)
        tree.reset(snapshot)
        assert tree.read(ino, 0, 30000) == b"x" * 10000
        assert tree.info().size_bytes == size
        with pytest.raises(pycow.NotFoundError):
            tree.lookup(ROOT_INO, "b")

    def test_diff(self, tree: Tree) -> None:
        ino = tree.make(ROOT_INO, "big", FILE)
        tree.write(ino, 0, b"x" * (100 * 4096))
        tree.make(ROOT_INO, "gone", FILE)
        old = tree.fork(sealed=True)
        tree.write(ino, 7 * 4096 + 5, b"y")
        tree.write(ino, 50 * 4096, b"z" * 8192)
        tree.remove(ROOT_INO, "gone")
        tree.make(ROOT_INO, "new", FILE)
        entries = {e.path: e for e in tree.diff(old) if e.path != "/"}
        assert {path: e.kind for path, e in entries.items()} == {"/big": "C", "/gone": "D", "/new": "A"}
        assert entries["/big"].ranges == ((7, 1), (50, 2))
        assert entries["/big"].what & 2
        assert list(tree.diff(tree.fork())) == []


class TestNames:
    def test_rename_flags(self, tree: Tree) -> None:
        a, b = tree.make(ROOT_INO, "a", FILE), tree.make(ROOT_INO, "b", FILE)
        with pytest.raises(pycow.ExistsError):
            tree.rename(ROOT_INO, "a", ROOT_INO, "b", RENAME_NOREPLACE)
        tree.rename(ROOT_INO, "a", ROOT_INO, "b", RENAME_EXCHANGE)
        assert (tree.lookup(ROOT_INO, "a"), tree.lookup(ROOT_INO, "b")) == (b, a)

    def test_names_are_any_bytes(self, tree: Tree) -> None:
        names = [b"\xff\xfe", "snow\u2603".encode(), b"with space", b"x" * 255]
        for name in names:
            tree.make(ROOT_INO, name, FILE)
        entries = tree.read_dir(ROOT_INO)
        assert sorted(e.name.encode("utf-8", "surrogateescape") for e in entries) == sorted(names)
        for entry in entries:
            assert tree.lookup(ROOT_INO, entry.name) == entry.ino
        with pytest.raises(pycow.NameTooLongError):
            tree.make(ROOT_INO, b"x" * 256, FILE)

    def test_a_large_directory_in_pieces(self, tree: Tree) -> None:
        for i in range(5000):
            tree.make(ROOT_INO, f"entry-{i:06d}-{'x' * 40}", FILE)
        entries = tree.read_dir(ROOT_INO, attrs=True)
        assert len({e.name for e in entries}) == len(entries) == 5000
        for entry in entries[::500]:
            assert entry.attr == tree.stat(entry.ino)

    def test_path_of_and_parent(self, tree: Tree) -> None:
        a = tree.make(ROOT_INO, "a", DIR)
        b = tree.make(a, "b", FILE)
        assert tree.path_of(b) == "/a/b"
        assert tree.path_of(ROOT_INO) == "/"
        assert tree.parent("/a/b") == (a, b"b")
        with pytest.raises(pycow.InvalidError):
            tree.parent("/")


class TestContent:
    def test_large_reads(self, tree: Tree) -> None:
        ino = tree.make(ROOT_INO, "a", FILE)
        data = os.urandom(3 << 20)
        assert tree.write(ino, 0, memoryview(data)) == len(data)
        assert tree.read(ino, 0, 4 << 20) == data
        assert tree.read(ino, 12345, 100) == data[12345:12445]
        assert tree.read(ino, 1000, 65536) == data[1000 : 1000 + 65536]
        assert tree.read(ino, 3 << 20, 10) == b""

    def test_read_into_numpy(self, tree: Tree) -> None:
        ino = tree.make(ROOT_INO, "a", FILE)
        values = np.arange(10000, dtype=np.int64)
        tree.write(ino, 0, values)
        out = np.zeros_like(values)
        assert tree.read_into(ino, 0, out) == values.nbytes
        assert (out == values).all()

    def test_read_into_needs_a_writable_buffer(self, tree: Tree) -> None:
        ino = tree.make(ROOT_INO, "a", FILE)
        with pytest.raises((TypeError, BufferError)):
            tree.read_into(ino, 0, b"12345")

    def test_block_calls_check_lengths(self, tree: Tree) -> None:
        ino = tree.make(ROOT_INO, "a", FILE)
        with pytest.raises(pycow.InvalidError):
            tree.write_blocks(ino, [0, 1], b"\0" * 4096)
        with pytest.raises(pycow.InvalidError):
            tree.read_blocks(ino, [0, 1], bytearray(4096))

    def test_many_extents(self, tree: Tree) -> None:
        ino = tree.make(ROOT_INO, "a", FILE)
        blocks = np.arange(0, 6000, 2, dtype=np.uint64)
        tree.write_blocks(ino, blocks, np.ones((len(blocks), 4096), dtype=np.uint8))
        extents = tree.extents(ino)
        assert extents["block"].tolist() == blocks.tolist()
        assert set(extents["block_count"].tolist()) == {1}
        assert set(extents["own"].tolist()) == {1}
        assert set(extents["shared"].tolist()) == {0}

    def test_unlinked_but_pinned(self, tree: Tree) -> None:
        ino = tree.make(ROOT_INO, "a", FILE)
        tree.write(ino, 0, b"x" * 100000)
        tree.pin(ino)
        tree.remove(ROOT_INO, "a")
        assert tree.read(ino, 0, 10) == b"x" * 10
        assert tree.stat(ino).nlink == 0
        tree.unpin(ino)
        with pytest.raises(pycow.NotFoundError):
            tree.stat(ino)


class TestThreads:
    def test_one_tree_per_thread(self, native: NativeStore, tree: Tree) -> None:
        ino = tree.make(ROOT_INO, "a", FILE)
        tree.write(ino, 0, b"\0" * (64 * 4096))
        wrong: list[BaseException] = []

        def work(number: int) -> None:
            try:
                fork = tree.fork()
                for i in range(100):
                    fork.write(ino, (i % 64) * 4096, bytes([number]) * 4096)
                    name = f"t{number}-{i}"
                    fork.make(ROOT_INO, name, FILE)
                    assert fork.stat(fork.lookup(ROOT_INO, name)).is_file()
                    if i % 25 == 0:
                        native.commit()
                assert fork.read(ino, 0, 64 * 4096) == bytes([number]) * (64 * 4096)
                assert len(fork.read_dir(ROOT_INO)) == 101
                fork.delete()
            except BaseException as error:
                wrong.append(error)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(1, 5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []
        assert tree.read(ino, 0, 10) == b"\0" * 10

    def test_many_threads_in_one_tree(self, native: NativeStore, tree: Tree) -> None:
        wrong: list[BaseException] = []

        def work(number: int) -> None:
            try:
                for i in range(60):
                    ino = tree.make(ROOT_INO, f"{number}-{i}", FILE)
                    data = bytes([number, i]) * 3000
                    tree.write(ino, 0, data)
                    assert tree.read(ino, 0, 10000) == data
                    if i % 3 == 0:
                        tree.remove(ROOT_INO, f"{number}-{i}")
                    if i % 20 == 0:
                        tree.fork(sealed=True).delete()
            except BaseException as error:
                wrong.append(error)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []
        assert len(tree.read_dir(ROOT_INO)) == 4 * 40


class TestTar:
    def test_round_trip(self, native: NativeStore, tree: Tree) -> None:
        etc = tree.make(ROOT_INO, "etc", DIR)
        hosts = tree.make(etc, "hosts", FILE, uid=5, gid=6, mtime_ns=1_600_000_000_123_456_789)
        tree.write(hosts, 0, b"127.0.0.1\n")
        tree.make(etc, "link", stat.S_IFLNK | 0o777, target="hosts")
        data = b"".join(tree.tar())
        assert data == b"".join(tree.tar())
        copy = native.create_tree()
        with copy.untar() as untar:
            for i in range(0, len(data), 1000):
                untar.feed(data[i : i + 1000])
            result = untar.finish()
        assert result.files == 1
        assert result.content_bytes == 10
        assert result.tar_bytes == len(data)
        assert copy.read(copy.walk("/etc/link"), 0, 100) == b"127.0.0.1\n"
        attr = copy.stat(copy.walk("/etc/hosts"))
        assert (attr.uid, attr.gid) == (5, 6)
        assert b"".join(copy.tar()) == data

    def test_a_cut_off_tar_is_refused(self, native: NativeStore, tree: Tree) -> None:
        ino = tree.make(ROOT_INO, "a", FILE)
        tree.write(ino, 0, b"x" * 5000)
        data = b"".join(tree.tar())
        with native.create_tree(temp=True).untar() as untar:
            untar.feed(data[:2000])
            with pytest.raises(pycow.ImageError):
                untar.finish()
