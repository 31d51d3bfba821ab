# SPDX-License-Identifier: Apache-2.0
"""Layers: import and export of the base's root file system, and what a diff costs."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter_ns as now

from pycow.bench.base import Base
from pycow.bench.subject import Subject
from pycow.bench.works._work import COMMITTED, OPEN, READ, Clock, Runner, Scale, Work, median_us
from pycow.bench.works.containers import change
from pycow.oci.files import file_blob
from pycow.oci.stream import LayerStream

__all__ = ["FLOOR_WORKS", "LAYER_WORKS", "base_of_layers"]

TOPIC = "Layers"

#: The base whose tars are imported; set by the runner.
_base: list[Base] = []


def base_of_layers(base: Base) -> None:
    _base[:] = [base]


def _import(kind: str) -> Runner:
    def run(subject: Subject, scale: Scale) -> Iterator[dict[str, float]]:
        tar = _base[0].tars.get(kind)
        if tar is None:
            return
        for _ in range(min(2, scale.rounds)):
            subject.commit()
            with Clock() as both:
                with Clock() as clock:
                    tree = subject.import_tar(tar)
                subject.commit()
            yield {"open": clock.ms, "durable": both.ms}
            subject.forget(tree)
        subject.commit()

    return run


def _floor(kind: str) -> Runner:
    """What an import cannot be faster than."""

    def run(subject: Subject, scale: Scale) -> Iterator[float]:
        tar = _base[0].tars.get(kind)
        if tar is None:
            return
        for _ in range(scale.rounds):
            with Clock() as clock, LayerStream(file_blob(str(tar))) as stream:
                for _chunk in stream:
                    pass
            yield clock.ms

    return run


def _export(subject: Subject, scale: Scale) -> Iterator[float]:
    tree = subject.import_tar(_base[0].tars["plain"])
    with tempfile.TemporaryDirectory(dir=_base[0].tars["plain"].parent) as folder:
        for _ in range(min(2, scale.rounds)):
            with Clock() as clock:
                subject.export_tar(tree, Path(folder, "out.tar"))
            yield clock.ms
    subject.forget(tree)
    subject.commit()


def _diff(changes: int) -> Callable[[Subject, Scale], Iterator[float]]:
    def run(subject: Subject, scale: Scale) -> Iterator[float]:
        box = subject.create()
        change(box, files=max(1, changes - 2))
        box.changes()
        for _ in range(scale.rounds):
            times = []
            for _ in range(10):
                started = now()
                box.changes()
                times.append(now() - started)
            yield median_us(times)
        box.delete()
        subject.commit()

    return run


def _works() -> Iterator[Work]:
    for kind in ("plain", "gzip", "zstd"):
        title = f"import the root file system's tar, {kind}"
        run = _import(kind)
        yield Work(f"import_{kind}", TOPIC, title, "ms", OPEN, run, part="open")
        yield Work(f"import_{kind}_committed", TOPIC, f"{title}, durable", "ms", COMMITTED, run, part="durable")
    yield Work("export", TOPIC, "export it as a tar", "ms", READ, _export)
    for changes in (10, 1000):
        yield Work(f"diff_{changes}", TOPIC, f"diff after {changes:,} changes", "us", READ, _diff(changes))


LAYER_WORKS = tuple(_works())

#: Of pycow alone.
FLOOR_WORKS = tuple(
    Work(f"import_{kind}_floor", TOPIC, f"read, decompress and hash it only, {kind}", "ms", READ, _floor(kind))
    for kind in ("plain", "gzip", "zstd")
)
