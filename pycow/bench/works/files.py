# SPDX-License-Identifier: Apache-2.0
"""Many small files, walks and look-ups, in a container."""

from __future__ import annotations

from collections.abc import Iterator
from time import perf_counter_ns as now

from pycow.bench.subject import Subject
from pycow.bench.works._work import COMMITTED, OPEN, READ, Clock, Runner, Scale, Work, median_us

__all__ = ["FILE_WORKS"]

TOPIC = "Files"
DATA = b"s" * 1000
LOOKUPS = 5000


def _small(subject: Subject, scale: Scale) -> Iterator[dict[str, float]]:
    """scale.files files of 1,000 bytes, 1,000 to a directory, through their life."""
    box = subject.create()
    for round_number in range(min(3, scale.rounds)):
        paths = []
        for i in range(scale.files):
            folder = f"many-{round_number}-{i // 1000}"
            if i % 1000 == 0:
                box.mkdir(folder)
            paths.append(f"{folder}/file-{i}")
        subject.commit()
        speeds = {}
        with Clock() as both:
            with Clock() as clock:
                for path in paths:
                    box.create(path, DATA)
            speeds["create"] = clock.per_second(len(paths))
            subject.commit()
        speeds["commit"] = both.per_second(len(paths))
        for step, call in (("stat", box.stat), ("read", box.read), ("remove", box.remove)):
            with Clock() as clock:
                for path in paths:
                    call(path)
            speeds[step] = clock.per_second(len(paths))
        yield speeds
    box.delete()
    subject.commit()


def _list(subject: Subject, scale: Scale) -> Iterator[float]:
    box = subject.create()
    box.mkdir("listed")
    for i in range(1000):
        box.create(f"listed/file-{i}", b"")
    for _ in range(scale.rounds):
        times = []
        for _ in range(20):
            started = now()
            box.list("listed")
            times.append(now() - started)
        yield median_us(times)
    box.delete()


def _walk(subject: Subject, scale: Scale) -> Iterator[float]:
    box = subject.create()
    box.walk()
    for _ in range(scale.rounds):
        with Clock() as clock:
            box.walk()
        yield clock.ms
    box.delete()


def _read_all(subject: Subject, scale: Scale) -> Iterator[float]:
    box = subject.create()
    box.read_all("usr")
    for _ in range(scale.rounds):
        with Clock() as clock:
            total = box.read_all("usr")
        yield clock.mb_per_second(total)
    box.delete()


def _lookup(depth: int) -> Runner:
    """A path of four names in a stack of layers: the first time in a fresh container, and when it is known."""

    def run(subject: Subject, scale: Scale) -> Iterator[dict[str, float]]:
        if depth not in scale.depths:
            return
        box = subject.stack(depth)
        for _ in range(scale.rounds):
            box = box.fork()
            started = now()
            box.stat("usr/share/doc/copyright")
            first = now() - started
            with Clock() as clock:
                for _ in range(LOOKUPS):
                    box.stat("usr/share/doc/copyright")
            yield {"first": first / 1e3, "cached": clock.us / LOOKUPS}

    return run


def _lookups() -> Iterator[Work]:
    for depth in (1, 10, 60, 120):
        title = f"stat of a path of 4 names through {depth} layer{'s' * (depth > 1)}"
        run = _lookup(depth)
        yield Work(f"lookup_cold_{depth}", TOPIC, f"{title}, first", "us", READ, run, part="first")
        yield Work(f"lookup_{depth}", TOPIC, f"{title}, cached", "us", READ, run, part="cached")


FILE_WORKS = (
    Work("files_create", TOPIC, "create + write + close, 1,000 bytes", "k/s", OPEN, _small, True, "create"),
    Work("files_create_committed", TOPIC, "the same, then one commit", "k/s", COMMITTED, _small, True, "commit"),
    Work("files_stat", TOPIC, "stat by path", "k/s", READ, _small, True, "stat"),
    Work("files_read", TOPIC, "open + read + close by path", "k/s", READ, _small, True, "read"),
    Work("files_remove", TOPIC, "remove by path", "k/s", OPEN, _small, True, "remove"),
    Work("list", TOPIC, "list a directory of 1,000", "us", READ, _list),
    Work("walk", TOPIC, "list + stat of the whole base tree", "ms", READ, _walk),
    Work("read_all", TOPIC, "read all files below /usr", "MB/s", READ, _read_all, more=True),
    *_lookups(),
)
