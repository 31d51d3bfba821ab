# SPDX-License-Identifier: Apache-2.0
"""What operations may cost, by counters (bytes, nodes, blocks), which do not depend on the speed of the machine."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from pycow._native import NativeStore
from pycow.bench.works.growth import fill
from pycow.fs import FileSystem

S_IFREG, S_IFDIR = 0o100644, 0o040755
MIB = 1 << 20


@pytest.fixture
def native(tmp_path: Path) -> Iterator[NativeStore]:
    store = NativeStore(str(tmp_path / "s"), readonly=False, create=True, commit_interval_ms=0)
    yield store
    store.close()


def delta(store: NativeStore, before: dict[str, int]) -> dict[str, int]:
    return {name: value - before[name] for name, value in store.stats().items()}


def test_fork_costs_the_same_for_any_tree(native: NativeStore) -> None:
    costs = []
    for entries in (10, 100_000):
        tree = native.create_tree()
        fill(tree, entries)
        native.commit()
        before = native.stats()
        forks = [tree.fork(base=True), tree.fork(), tree.fork(sealed=True)]
        forks[0].reset(forks[2])
        spent = delta(native, before)
        costs.append((spent["nodes_visited"], spent["blocks_allocated"], spent["nodes_copied"], spent["bytes_written"]))
        for fork in forks:
            fork.close()
        tree.close()
    assert costs[0] == costs[1]


def test_ten_thousand_forks_are_small(native: NativeStore) -> None:
    count = 10_000
    tree = native.create_tree()
    fill(tree, 1000)
    tree.seal()
    native.commit()
    before = native.stats()
    resident = resident_bytes()
    for _ in range(count):
        tree.fork(base=True).close()
    grown = resident_bytes() - resident
    native.commit()
    spent = delta(native, before)
    tree.close()
    assert spent["host_bytes"] / count < 4096
    assert grown / count < 4096


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_first_write_in_a_large_file_copies_one_block(native: NativeStore) -> None:
    tree = native.create_tree()
    ino = tree.make(1, "big.bin", S_IFREG)
    chunk = bytes(range(256)) * 4096 * 4  # 4 MiB
    for i in range(256):
        tree.write(ino, i * len(chunk), chunk)
    tree.seal()
    native.commit()
    box = tree.fork(base=True)
    native.commit()
    before = native.stats()
    box.write(ino, 28672, b"x")
    native.commit()
    spent = delta(native, before)
    assert spent["copy_ups"] == 1
    assert spent["copy_up_bytes"] <= 4096
    assert spent["data_bytes"] == 4096
    assert spent["nodes_written"] <= 8  # the path to the extent, and that of the trees tree
    assert spent["bytes_written"] <= 128 * 1024  # with the journal pages of the counts
    assert box.usage().size_bytes == 4096
    assert box.read(ino, 28670, 4) == chunk[28670:28672] + b"x" + chunk[28673:28674]
    box.close()
    tree.close()


def test_lookup_does_not_depend_on_the_number_of_layers(native: NativeStore) -> None:
    trees = [native.create_tree()]
    fill(trees[0], 2000)
    (FileSystem(trees[0]) / "etc").mkdir()
    (FileSystem(trees[0]) / "etc/hosts").write_bytes(b"localhost")
    trees[0].seal()
    visited = []
    for depth in range(1, 121):
        layer = trees[-1].fork(base=True)
        (FileSystem(layer) / f"layer-{depth}").write_bytes(b"x" * depth)
        layer.seal()
        trees.append(layer)
    native.commit()
    for tree in (trees[1], trees[120]):
        box = tree.fork(base=True)
        before = native.stats()
        box.walk("/etc/hosts")
        visited.append(delta(native, before)["nodes_visited"])
        box.close()
    for tree in trees:
        tree.close()
    assert visited[1] <= visited[0] + 2


def test_diff_and_commit_cost_what_changed(native: NativeStore) -> None:
    costs = []
    for entries in (2_000, 100_000):
        tree = native.create_tree()
        fill(tree, entries)
        tree.seal()
        box = tree.fork(base=True)
        native.commit()
        fs = FileSystem(box)
        for i in range(10):
            (fs / "d0" / f"file-{i}").write_bytes(b"changed")
        before = native.stats()
        changes = list(box.diff(tree))
        diffed = delta(native, before)["nodes_visited"]
        before = native.stats()
        native.commit()
        written = delta(native, before)["nodes_written"]
        assert [c.path for c in changes] == [f"/d0/file-{i}" for i in range(10)]
        costs.append((diffed, written))
        box.close()
        tree.close()
    assert costs[1][0] <= costs[0][0] + 40
    assert costs[1][1] <= costs[0][1] + 12


def test_open_does_not_grow_with_data(tmp_path: Path) -> None:
    read = []
    for entries in (10, 50_000):
        path = str(tmp_path / str(entries))
        store = NativeStore(path, readonly=False, create=True, commit_interval_ms=0)
        tree = store.create_tree()
        fill(tree, entries)
        ino = tree.make(1, "data", S_IFREG)
        tree.write(ino, 0, b"d" * (entries * 400))
        tree.close()
        store.close()
        store = NativeStore(path, readonly=True, create=False, commit_interval_ms=0)
        read.append(store.stats()["bytes_read"])
        store.close()
    # The journal since the last checkpoint is read; it is bounded, whatever the data.
    assert read[1] <= read[0] + 5 * MIB


def test_memory_stays_within_the_caches(tmp_path: Path) -> None:
    """A 2 GiB file is written and read with 8 MiB caches; the process grows by the caches and some slack."""
    script = f"""
        import re
        from pycow._native import NativeStore
        store = NativeStore({str(tmp_path / "s")!r}, readonly=False, create=True, commit_interval_ms=500,
                            node_cache_bytes=8 << 20, record_cache_bytes=8 << 20)
        tree = store.create_tree()
        ino = tree.make(1, "big", 0o100644)
        piece = b"0123456789abcdef" * 65536
        def peak():  # not ru_maxrss, which a child takes over from the process that started it
            return int(re.search("VmHWM:[^0-9]*([0-9]+) kB", open("/proc/self/status").read())[1])
        before = peak()
        for i in range(2048):
            tree.write(ino, i << 20, piece)
        buffer = bytearray(1 << 20)
        for i in range(2048):
            tree.read_into(ino, i << 20, buffer)
            assert buffer == piece
        print(peak() - before)
        tree.close()
        store.close()
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True)
    assert int(done.stdout) * 1024 < 64 * MIB
