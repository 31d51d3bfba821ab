# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

import pycow


class TestOpen:
    def test_makes_it_once(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            pycow.open(tmp_path / "s", create=False)
        with pytest.raises(FileNotFoundError):
            pycow.open(tmp_path / "s", "r")
        with pycow.open(tmp_path / "s") as store:
            assert store.path == str(tmp_path / "s")
            assert not store.readonly and not store.closed
        assert store.closed
        store.close()
        with pytest.raises(pycow.ClosedError):
            store.stats()
        with pycow.open(tmp_path / "s", create=False) as store:
            assert store.check()

    def test_not_a_store(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("mine")
        with pytest.raises((pycow.ExistsError, pycow.NotEmptyError)):
            pycow.open(tmp_path)
        assert (tmp_path / "file").read_text() == "mine"
        with pytest.raises(pycow.InvalidError):
            pycow.open(tmp_path / "s", "w")  # type: ignore[arg-type]

    def test_one_writer(self, tmp_path: Path) -> None:
        with pycow.open(tmp_path / "s"):
            code = f"import pycow; pycow.open({str(tmp_path / 's')!r})"
            run = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=False)
            assert "LockedError" in run.stderr

    def test_readers_see_the_last_commit(self, tmp_path: Path) -> None:
        with pycow.open(tmp_path / "s", commit_interval=0) as store:
            volume = store.volumes.create("vv")
            (volume.fs / "a").write_bytes(b"one")
            store.commit()
            (volume.fs / "a").write_bytes(b"two")
            with pycow.open(tmp_path / "s", "r") as reader:
                assert reader.readonly
                other = reader.volumes.get("vv")
                assert (other.fs / "a").read_bytes() == b"one"
                with pytest.raises(pycow.ReadOnlyError):
                    (other.fs / "a").write_bytes(b"x")
                with pytest.raises(pycow.ReadOnlyError):
                    reader.volumes.create("ww")


class TestCommit:
    def test_close_commits(self, tmp_path: Path) -> None:
        with pycow.open(tmp_path / "s", commit_interval=0) as store:
            (store.volumes.create("vv").fs / "a").write_bytes(b"x")
        with pycow.open(tmp_path / "s") as store:
            assert (store.volumes.get("vv").fs / "a").read_bytes() == b"x"

    def test_the_interval_commits(self, tmp_path: Path) -> None:
        with pycow.open(tmp_path / "s", commit_interval=0.05) as store:
            store.volumes.create("vv")
            before = store.stats().generation
            (store.volumes.get("vv").fs / "a").write_bytes(b"x")
            until = time.monotonic() + 10
            while store.stats().generation == before and time.monotonic() < until:
                time.sleep(0.01)
            assert store.stats().generation > before

    def test_a_killed_process_loses_only_what_was_not_committed(self, tmp_path: Path) -> None:
        code = textwrap.dedent(
            f"""
            import os, signal, pycow
            store = pycow.open({str(tmp_path / "s")!r}, commit_interval=0)
            volume = store.volumes.create("vv")
            (volume.fs / "kept").write_bytes(b"k" * 100_000)
            store.commit()
            (volume.fs / "lost").write_bytes(b"l" * 100_000)
            (volume.fs / "kept").write_bytes(b"changed")
            store.volumes.create("lost")
            os.kill(os.getpid(), signal.SIGKILL)
            """
        )
        run = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=False)
        assert run.returncode == -9, run.stderr
        with pycow.open(tmp_path / "s") as store:
            assert store.check().errors == ()
            assert [v.name for v in store.volumes] == ["vv"]
            fs = store.volumes.get("vv").fs
            assert [p.name for p in fs.root.iterdir()] == ["kept"]
            assert (fs / "kept").read_bytes() == b"k" * 100_000


class TestTransaction:
    def test_kept(self, store: pycow.Store) -> None:
        before = store.stats().generation
        with store.transaction():
            store.volumes.create("aa")
            store.volumes.create("bb")
        assert store.stats().generation > before
        assert len(store.volumes) == 2

    def test_not_durable(self, store: pycow.Store) -> None:
        before = store.stats().generation
        with store.transaction(durable=False):
            store.volumes.create("aa")
        assert store.stats().generation == before

    def test_taken_back(self, store: pycow.Store) -> None:
        kept = store.volumes.create("kept")
        (kept.fs / "a").write_bytes(b"before" * 1000)
        with pytest.raises(RuntimeError, match="mine"), store.transaction():
            store.volumes.create("new")
            (kept.fs / "a").write_bytes(b"after")
            (kept.fs / "b").write_bytes(b"b")
            kept.fs.root.chmod(0o700)
            raise RuntimeError("mine")
        assert [v.name for v in store.volumes] == ["kept"]
        assert (kept.fs / "a").read_bytes() == b"before" * 1000
        assert not (kept.fs / "b").exists()
        assert kept.fs.root.stat().permissions == 0o755
        assert store.check().errors == ()
        store.volumes.create("new")

    def test_a_removal_taken_back(self, store: pycow.Store) -> None:
        volume = store.volumes.create("vv")
        (volume.fs / "a").write_bytes(b"x" * 10000)
        with pytest.raises(RuntimeError), store.transaction():
            volume.remove()
            assert len(store.volumes) == 0
            raise RuntimeError
        assert (store.volumes.get("vv").fs / "a").read_bytes() == b"x" * 10000

    def test_nested(self, store: pycow.Store) -> None:
        before = store.stats().generation
        with store.transaction(durable=False):
            with store.transaction(durable=True):
                store.volumes.create("aa")
            assert store.stats().generation == before  # nothing is committed inside
            with store.transaction(durable=False):
                store.volumes.create("bb")
        assert store.stats().generation > before
        assert len(store.volumes) == 2

    def test_a_failed_part_fails_the_whole(self, store: pycow.Store) -> None:
        with pytest.raises(pycow.OperationError, match="part"), store.transaction():
            store.volumes.create("aa")
            try:
                with store.transaction():
                    store.volumes.create("bb")
                    raise RuntimeError
            except RuntimeError:
                pass
        assert len(store.volumes) == 0

    def test_a_taken_name_fails_no_transaction(self, store: pycow.Store) -> None:
        with store.transaction():
            store.volumes.create("aa")
            with pytest.raises(pycow.ExistsError):
                store.volumes.create("aa")
            store.volumes.create("bb")
        assert len(store.volumes) == 2

    def test_commit_inside_waits_for_the_end(self, store: pycow.Store) -> None:
        before = store.stats().generation
        with store.transaction(durable=False):
            store.volumes.create("aa")
            store.commit()
            assert store.stats().generation == before
        assert store.stats().generation > before

    def test_threads_take_turns(self, store: pycow.Store) -> None:
        counter = store.volumes.create("vv").fs / "n"
        counter.write_bytes(b"0")
        wrong: list[BaseException] = []

        def work() -> None:
            try:
                for i in range(25):
                    try:
                        with store.transaction(durable=False):
                            counter.write_bytes(b"%d" % (int(counter.read_bytes()) + 1))
                            if i % 5 == 0:
                                raise KeyError
                    except KeyError:
                        pass
            except BaseException as error:
                wrong.append(error)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []
        assert counter.read_bytes() == b"80"


class TestReports:
    def test_stats(self, store: pycow.Store) -> None:
        stats = store.stats()
        assert stats["trees"] == stats.trees == dict(stats.items())["trees"]
        assert set(stats) == {field.name for field in dataclasses.fields(stats)}
        (store.volumes.create("vv").fs / "a").write_bytes(b"x" * 100_000)
        store.commit()
        after = store.stats()
        assert after.data_bytes == stats.data_bytes + 25 * 4096
        assert after.commits > stats.commits and after.syncs > stats.syncs
        assert after.host_bytes > 0
        with pytest.raises(KeyError):
            stats["nope"]

    def test_check(self, store: pycow.Store) -> None:
        (store.volumes.create("vv").fs / "a").write_bytes(b"x" * 100_000)
        report = store.check()
        assert report and report.ok and report.errors == ()
        assert report.blocks >= 25 and report.trees >= 2 and report.inodes >= 2

    def test_check_finds_damage(self, tmp_path: Path) -> None:
        with pycow.open(tmp_path / "s", commit_interval=0) as store:
            (store.volumes.create("vv").fs / "a").write_bytes(b"precious" * 10000)
        hit = 0
        for segment in (tmp_path / "s" / "segments").iterdir():
            data = segment.read_bytes()
            if (at := data.find(b"precious")) >= 0:
                with segment.open("r+b") as f:
                    f.seek(at + 100)
                    f.write(b"!")
                hit += 1
        assert hit == 1
        with pycow.open(tmp_path / "s") as store:
            report = store.check()
            assert not report and report.errors
            assert store.check(verify_data=False)
            with pytest.raises(pycow.CorruptError):
                (store.volumes.get("vv").fs / "a").read_bytes()

    def test_check_finds_names_without_trees(self, store: pycow.Store) -> None:
        volume = store.volumes.create("vv")
        volume.tree.delete()
        assert any("volume vv" in error for error in store.check().errors)
        store._catalog.delete("volumes", "vv")


def test_memory_is_given_back(store: pycow.Store) -> None:
    volume = store.volumes.create("vv")
    (volume.fs / "a").write_bytes(b"x" * (1 << 20))
    store.commit()
    full = store.stats().data_bytes
    volume.remove()
    store.commit()
    until = time.monotonic() + 10
    while store.stats().data_bytes > full - (1 << 20) and time.monotonic() < until:
        time.sleep(0.01)
    assert store.stats().data_bytes == full - (1 << 20)
