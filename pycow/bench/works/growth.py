# SPDX-License-Identifier: Apache-2.0
"""What grows: many forks, and a file after thousands of random overwrites. And what only pycow is asked: diff, commit
and open over the size of a tree."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter_ns as now

import numpy as np

from pycow._native import NativeStore, Tree
from pycow.bench.base import FOLDER, MIB
from pycow.bench.own import DIRECTORY, REGULAR, TreeBox, TreeSubject
from pycow.bench.subject import BLOCK, Subject, Unsupported
from pycow.bench.works._work import COMMITTED, READ, Clock, Runner, Scale, Work, median_us

__all__ = ["GROWTH_WORKS", "OWN_WORKS"]

TOPIC = "Growth"


# ---- Many forks


def _forks(count: int) -> Runner:
    """count containers, each with one 4 KiB block changed in a file of 1 MiB; then one commit."""

    def run(subject: Subject, scale: Scale) -> Iterator[dict[str, float]]:
        if count not in scale.forks:
            return
        if subject.copies_all or (count > scale.peer_forks and not isinstance(subject, TreeSubject)):
            raise Unsupported("too slow for so many")
        if isinstance(
            subject, TreeSubject
        ):  # in a process and a store of its own: what was freed before would be used again
            yield _probed(subject, count)
            return
        subject.commit()
        disk = subject.disk_bytes()
        boxes = []
        with Clock() as clock:
            for _ in range(count):
                box = subject.create()
                file = box.open(f"{FOLDER}/1MiB")
                file.writer()(BLOCK, b"f" * BLOCK)
                file.close()
                boxes.append(box)
            subject.commit()
        yield {"time": clock.us / count, "disk": (subject.disk_bytes() - disk) / count / 1024}
        for box in boxes:
            box.delete()
        subject.commit()

    return run


def _probed(subject: TreeSubject, count: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory(dir=Path(subject.store.path).parent) as folder:
        command = [sys.executable, "-m", "pycow.bench.probe", f"{folder}/store", str(count)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


# ---- Fragmentation


def _fragmented(subject: Subject, scale: Scale) -> Iterator[dict[str, float]]:
    """A container's 64 MiB file after random overwrites of 4 KiB, with an fsync after each thousand."""
    box = subject.create()
    subject.commit()
    disk = subject.disk_bytes()
    file = box.open(f"{FOLDER}/64MiB")
    write, read = file.writer(), file.reader()
    size = min(64 * MIB, scale.big_bytes)
    chosen = np.random.default_rng(3).integers(0, size // BLOCK, scale.overwrites).tolist()
    with Clock() as writing:
        for i, block in enumerate(chosen):
            write(block * BLOCK, b"o" * BLOCK)
            if i % 1000 == 999:
                file.sync()
        subject.commit()
    figures = {
        "writes": writing.per_second(len(chosen)),
        "space": (subject.disk_bytes() - disk) / (len(set(chosen)) * BLOCK),
    }
    buffer = bytearray(MIB)
    for _ in range(scale.rounds):
        with Clock() as clock:
            for at in range(0, size, MIB):
                read(at, buffer)
        yield {**figures, "read": clock.mb_per_second(size)}
    file.close()
    box.delete()
    subject.commit()


def _growth_works() -> Iterator[Work]:
    for count in (10, 100, 1_000, 10_000):
        title = f"{count:,} containers with a changed 4 KiB block each, durable"
        run = _forks(count)
        yield Work(f"forks_{count}", TOPIC, f"{title}: time each", "us", COMMITTED, run, part="time")
        yield Work(f"forks_{count}_disk", TOPIC, f"{title}: disk each", "KiB", COMMITTED, run, part="disk")
        yield Work(f"forks_{count}_memory", TOPIC, f"{title}: memory each", "KiB", COMMITTED, run, part="memory")
    title = "random overwrites of a 64 MiB file, fsync each 1,000"
    yield Work("overwrites", TOPIC, title, "k/s", COMMITTED, _fragmented, True, "writes")
    yield Work(
        "overwrites_space", TOPIC, f"{title}: disk taken / bytes written", "x", COMMITTED, _fragmented, part="space"
    )
    yield Work("overwrites_read", TOPIC, f"{title}: then a sequential read", "MB/s", READ, _fragmented, True, "read")


GROWTH_WORKS = tuple(_growth_works())


# ---- Of pycow alone: over the size of a tree


def fill(tree: Tree, entries: int) -> None:
    """Empty files, 1,000 to a directory."""
    made = 0
    while made < entries:
        folder = tree.make(1, f"d{made // 1000}", DIRECTORY)
        for i in range(min(1000, entries - made)):
            tree.make(folder, f"file-{i}", REGULAR)
        made += 1000


def _sized(subject: TreeSubject, entries: int) -> Tree:
    """A sealed tree of so many entries; made once."""
    trees: dict[int, Tree] = subject.__dict__.setdefault("sized", {})
    if entries not in trees:
        tree = subject.store.create_tree()
        fill(tree, entries)
        tree.seal()
        subject.commit()
        trees[entries] = tree
    return trees[entries]


def _diff_of(entries: int) -> Callable[[TreeSubject, Scale], Iterator[float]]:
    def run(subject: TreeSubject, scale: Scale) -> Iterator[float]:
        if entries not in scale.entries:
            return
        base = _sized(subject, entries)
        box = base.fork(base=True)
        for i in range(10):
            box.make(1, f"new-{i}", REGULAR)
        for _ in range(scale.rounds):
            times = []
            for _ in range(50):
                started = now()
                list(box.diff(base))
                times.append(now() - started)
            yield median_us(times)
        box.delete()
        box.close()

    return run


def _commit_of(entries: int, changes: int) -> Callable[[TreeSubject, Scale], Iterator[float]]:
    def run(subject: TreeSubject, scale: Scale) -> Iterator[float]:
        if entries not in scale.entries or changes not in scale.changes:
            return
        box = _sized(subject, entries).fork(base=True)
        subject.commit()
        number = 0
        for _ in range(scale.rounds):
            times = []
            for _ in range(10):
                for _ in range(changes):
                    number += 1
                    box.make(1, f"new-{number}", REGULAR)
                started = now()
                subject.commit()
                times.append(now() - started)
            yield median_us(times)
        box.delete()
        box.close()
        subject.commit()

    return run


def _open_of(entries: int) -> Callable[[TreeSubject, Scale], Iterator[float]]:
    def run(subject: TreeSubject, scale: Scale) -> Iterator[float]:
        if entries not in scale.entries:
            return
        with tempfile.TemporaryDirectory(dir=Path(subject.store.path).parent) as folder:
            path = Path(folder, "store")
            store = NativeStore(path, commit_interval_ms=0)
            with store.create_tree() as tree:
                fill(tree, entries)
                ino = tree.make(1, "data", REGULAR)
                for at in range(min(64, entries // 100)):
                    tree.write(ino, at * MIB, bytes(MIB))
            store.close()
            for readonly in [True] * scale.rounds:
                with Clock() as clock:
                    store = NativeStore(path, readonly=readonly, create=False)
                yield clock.us
                store.close()

    return run


def _syncs(subject: TreeSubject, scale: Scale) -> Iterator[float]:
    box = subject.create()
    for i in range(scale.rounds):
        box.create(f"synced-{i}", b"s" * 5000)
        before = subject.store.stats()["syncs"]
        subject.commit()
        yield subject.store.stats()["syncs"] - before
    box.delete()
    subject.commit()


def _walk_directories(subject: TreeSubject, scale: Scale) -> Iterator[float]:
    box = TreeBox(subject.base.fork(base=True), subject.base)
    box.walk_directories()
    for _ in range(scale.rounds):
        with Clock() as clock:
            box.walk_directories()
        yield clock.ms
    box.delete()


def _own_works() -> Iterator[Work]:
    title = "the same walk, an object for each entry"
    yield Work("walk_directories", "Files", title, "ms", READ, _walk_directories)
    yield Work("commit_syncs", "Scaling", "syncs of a commit of a new file of 5,000 bytes", "syncs", COMMITTED, _syncs)
    for entries in (1_000, 100_000, 1_000_000):
        tree = f"a tree of {entries:,} entries"
        yield Work(f"diff_of_{entries}", "Scaling", f"diff after 10 changes in {tree}", "us", READ, _diff_of(entries))
        for changes in (1, 10, 100, 1000):
            title = f"commit of {changes:,} new files in {tree}"
            key = f"commit_{changes}_of_{entries}"
            yield Work(key, "Scaling", title, "us", COMMITTED, _commit_of(entries, changes))
    for entries in (1_000, 100_000, 1_000_000):
        title = f"open a store (read-only) with {entries:,} entries"
        yield Work(f"open_{entries}", "Scaling", title, "us", READ, _open_of(entries))


OWN_WORKS = tuple(_own_works())
