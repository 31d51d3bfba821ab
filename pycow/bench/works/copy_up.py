# SPDX-License-Identifier: Apache-2.0
"""The first change to a file of the base: a fresh container each time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from time import perf_counter_ns as now

from pycow.bench.base import BIG, FOLDER
from pycow.bench.subject import BLOCK, Box, Subject
from pycow.bench.works._work import COMMITTED, OPEN, Scale, Work, median_us

__all__ = ["COPY_UP_WORKS"]

TOPIC = "Copy-up"
DATA = b"w" * BLOCK


def _each(
    work: Callable[[Box], Callable[[], object]], expensive: bool = False, commit: bool = False
) -> Callable[[Subject, Scale], Iterator[float]]:
    """Times what work(box) returns, once for each fresh container. expensive: a copy of a GiB for some subjects."""

    def run(subject: Subject, scale: Scale) -> Iterator[float]:
        boxes = 1 if subject.copies_all else 1 if expensive and not subject.name.startswith("pycow") else scale.boxes
        for _ in range(1 if subject.copies_all else scale.rounds if not expensive else 2):
            times = []
            for _ in range(boxes if not commit else (boxes + 4) // 5):
                box = subject.create()
                change = work(box)
                started = now()
                change()
                if commit:
                    subject.commit()
                times.append(now() - started)
                box.delete()
            yield median_us(times)
        subject.commit()

    return run


def _write(path: str, offset: int = BLOCK) -> Callable[[Box], Callable[[], object]]:
    def prepare(box: Box) -> Callable[[], object]:
        def change() -> None:
            file = box.open(path)  # opening for writing is where overlayfs copies
            file.writer()(offset, DATA)
            file.close()

        return change

    return prepare


def _chmod(box: Box) -> Callable[[], object]:
    return lambda: box.chmod(BIG, 0o600)


def _second(subject: Subject, scale: Scale) -> Iterator[float]:
    """Other blocks of a file that was written to already, each for the first time."""
    for _ in range(1 if subject.copies_all else 2):
        box = subject.create()
        file = box.open(f"{FOLDER}/64MiB")
        write = file.writer()
        write(0, DATA)
        times = []
        for i in range(1, 500):
            started = now()
            write(i * 7 % 512 * BLOCK, DATA)
            times.append(now() - started)
        yield median_us(times)
        file.close()
        box.delete()
    subject.commit()


def _title(size: str) -> str:
    return f"first 4 KiB write into {size} (open, write, close)"


COPY_UP_WORKS = (
    Work("first_small", TOPIC, _title("a 4 KiB file"), "us", OPEN, _each(_write(f"{FOLDER}/small", 0))),
    Work("first_1mib", TOPIC, _title("1 MiB"), "us", OPEN, _each(_write(f"{FOLDER}/1MiB"))),
    Work("first_64mib", TOPIC, _title("64 MiB"), "us", OPEN, _each(_write(f"{FOLDER}/64MiB"), True)),
    Work("first_big", TOPIC, _title("the large file"), "us", OPEN, _each(_write(BIG), True)),
    Work(
        "first_big_committed", TOPIC, _title("the large file") + ", durable", "us", COMMITTED,
        _each(_write(BIG), True, True),
    ),
    Work("second", TOPIC, "further 4 KiB writes, other blocks", "us", OPEN, _second),
    Work("chmod_big", TOPIC, "chmod of the untouched large file", "us", OPEN, _each(_chmod, True)),
)  # fmt: skip
