# SPDX-License-Identifier: Apache-2.0
"""Life of a container: create, fork, snapshot, rollback, delete. A changed one has 10 changes: 8 new files, a chmod, a
removal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from time import perf_counter_ns as now

from pycow.bench.base import FOLDER
from pycow.bench.subject import Box, Subject
from pycow.bench.works._work import COMMITTED, OPEN, Scale, Work, median_us

__all__ = ["CONTAINER_WORKS", "change"]

TOPIC = "Containers"


def change(box: Box, name: str = "new", files: int = 8) -> None:
    """files + 2 changes."""
    for i in range(files):
        box.create(f"{name}-{i}", b"x" * 500)
    box.chmod("usr", 0o711)
    box.create(f"{name}-gone", b"")
    box.remove(f"{name}-gone")
    box.chmod("usr", 0o755)


def _boxes(subject: Subject, scale: Scale) -> int:
    return 1 if subject.copies_all else scale.boxes


def _rounds(subject: Subject, scale: Scale) -> int:
    return 1 if subject.copies_all else scale.rounds


def _create(commit: bool) -> Callable[[Subject, Scale], Iterator[float]]:
    def run(subject: Subject, scale: Scale) -> Iterator[float]:
        for _ in range(_rounds(subject, scale)):
            times: list[int] = []
            boxes: list[Box] = []
            for _ in range(max(1, _boxes(subject, scale) // (5 if commit else 1))):
                started = now()
                boxes.append(subject.create())
                if commit:
                    subject.commit()
                times.append(now() - started)
            yield median_us(times)
            for box in boxes:
                box.delete()
        subject.commit()

    return run


def _of_changed(work: Callable[[Box, list[int]], None]) -> Callable[..., Iterator[float]]:
    """work does one thing with a changed box and adds its times."""

    def run(subject: Subject, scale: Scale) -> Iterator[float]:
        box = subject.create()
        change(box)
        subject.commit()
        for _ in range(_rounds(subject, scale)):
            times: list[int] = []
            for _ in range(_boxes(subject, scale)):
                work(box, times)
            yield median_us(times)
        box.delete()
        subject.commit()

    return run


def _fork(box: Box, times: list[int]) -> None:
    started = now()
    other = box.fork()
    times.append(now() - started)
    other.delete()


def _snapshot(box: Box, times: list[int]) -> None:
    started = now()
    snapshot = box.snapshot()
    times.append(now() - started)
    box.drop(snapshot)


def _rollback(box: Box, times: list[int]) -> None:
    snapshot = box.snapshot()
    change(box, "later")
    started = now()
    box.rollback(snapshot)
    times.append(now() - started)
    box.drop(snapshot)


def _delete(subject: Subject, scale: Scale) -> Iterator[float]:
    for _ in range(_rounds(subject, scale)):
        boxes = [subject.create() for _ in range(_boxes(subject, scale))]
        for box in boxes:
            change(box)
        subject.commit()
        times = []
        for box in boxes:
            started = now()
            box.delete()
            times.append(now() - started)
        yield median_us(times)
        subject.commit()


def _fork_committed(subject: Subject, scale: Scale) -> Iterator[float]:
    box = subject.create()
    change(box)
    subject.commit()
    for _ in range(_rounds(subject, scale)):
        times: list[int] = []
        for _ in range(max(1, _boxes(subject, scale) // 5)):
            started = now()
            other = box.fork()
            subject.commit()
            times.append(now() - started)
            other.delete()
        yield median_us(times)
    box.delete()
    subject.commit()


def _use_base(subject: Subject, scale: Scale) -> Iterator[float]:
    """A container's whole life: create, read a file, write one, see the changes, delete."""
    for _ in range(_rounds(subject, scale)):
        times = []
        for _ in range(_boxes(subject, scale)):
            started = now()
            box = subject.create()
            box.read(f"{FOLDER}/small")
            box.create("out", b"x" * 4096)
            box.delete()
            times.append(now() - started)
        yield median_us(times)
    subject.commit()


CONTAINER_WORKS = (
    Work("create", TOPIC, "create", "us", OPEN, _create(False)),
    Work("create_committed", TOPIC, "create, durable", "us", COMMITTED, _create(True)),
    Work("fork", TOPIC, "fork a container with 10 changes", "us", OPEN, _of_changed(_fork)),
    Work("fork_committed", TOPIC, "fork a container with 10 changes, durable", "us", COMMITTED, _fork_committed),
    Work("snapshot", TOPIC, "snapshot of a container with 10 changes", "us", OPEN, _of_changed(_snapshot)),
    Work("rollback", TOPIC, "rollback of 10 changes", "us", OPEN, _of_changed(_rollback)),
    Work("delete", TOPIC, "delete a container with 10 changes", "us", OPEN, _delete),
    Work("life", TOPIC, "create, read a file, write a file, delete", "us", OPEN, _use_base),
)
