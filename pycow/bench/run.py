# SPDX-License-Identifier: Apache-2.0
"""Runs works: each work by all subjects in turn, sample by sample."""

from __future__ import annotations

import contextlib
import gc
import itertools
import statistics
import subprocess
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any

from pycow.bench.base import Base
from pycow.bench.mounts import Workshop
from pycow.bench.own import NamedSubject, TreeSubject
from pycow.bench.peers import make_peers
from pycow.bench.report import NOT_ASKED, Figure, Report, machine
from pycow.bench.subject import Subject, Unsupported
from pycow.bench.volumes import BoxVolume, LmdbVolume, MappedVolume, PlainVolume, Volume
from pycow.bench.works import BLOCKS, OWN, TREES, Scale, Work
from pycow.bench.works.layers import base_of_layers

__all__ = ["Progress", "measure"]

#: Called with what begins now.
Progress = Callable[[str], None]

Samples = Generator[float | Mapping[str, float], None, None]


def measure(
    workshop: Workshop,
    base: Base,
    scale: Scale,
    *,
    compare: bool,
    only: Callable[[Work], bool] = lambda work: True,
    progress: Progress = lambda text: None,
) -> Report:
    """All works of pycow, and with compare of its peers, in the workshop's folder."""
    report = Report(machine(workshop.folder), _parameters(base, scale))
    base_of_layers(base)
    with contextlib.ExitStack() as stack:
        subjects = _subjects(workshop, stack, report, base, compare, progress)
        own = subjects[0]
        volumes: list[Volume] = []
        for works, who in ((TREES, subjects), (OWN, [own]), (BLOCKS, volumes)):
            chosen = [work for work in works if only(work)]
            if who is volumes and chosen:
                volumes += _volumes(workshop, stack, report, subjects, scale, progress)
            for _, family in itertools.groupby(chosen, lambda work: work.run):
                group = list(family)
                progress(group[0].title)
                report.figures += _family(group, who, scale)
    return report


def _parameters(base: Base, scale: Scale) -> dict[str, Any]:
    sizes = {name: list(value) if isinstance(value, tuple) else value for name, value in vars(scale).items()}
    return {"base": base.origin, "base entries": base.entries, **sizes}


def _subjects(
    workshop: Workshop, stack: contextlib.ExitStack, report: Report, base: Base, compare: bool, progress: Progress
) -> list[Subject]:
    subjects: list[Subject] = [TreeSubject(workshop.folder), NamedSubject(workshop.folder)]
    for own in subjects:
        stack.callback(own.close)
    if compare:
        peers, report.missing = make_peers(workshop)
        subjects += peers
    for subject in subjects:
        progress(f"the base tree for {subject.name}")
        subject.prepare(base)
    return subjects


def _volumes(
    workshop: Workshop,
    stack: contextlib.ExitStack,
    report: Report,
    subjects: Sequence[Subject],
    scale: Scale,
    progress: Progress,
) -> list[Volume]:
    """The named store has no large file, and would do the same as the other one."""
    folder = workshop.folder / "volumes"
    makers: list[tuple[str, Callable[[], Volume]]] = [
        (subject.name, lambda subject=subject: BoxVolume(subject, scale.area_bytes))  # type: ignore[misc]
        for subject in subjects
        if not subject.leaves_out("second") and not isinstance(subject, NamedSubject)
    ]
    makers += [
        (kind.name, lambda kind=kind: kind(folder / kind.name.replace(" ", "-"), scale.area_bytes))  # type: ignore[misc]
        for kind in (PlainVolume, MappedVolume, LmdbVolume)
    ]
    volumes = []
    for name, make in makers:
        progress(f"a large file of {name}")
        try:
            volume = make()
        except Unsupported as reason:
            report.missing[name] = str(reason)
            continue
        stack.callback(volume.close)
        volumes.append(volume)
    return volumes


def _family(works: Sequence[Work], subjects: Sequence[Any], scale: Scale) -> Iterator[Figure]:
    """The figures of works that are one run."""
    running: dict[str, Samples] = {}
    samples: dict[str, list[float | Mapping[str, float]]] = {}
    notes: dict[str, str] = {}
    for subject in subjects:
        samples[subject.name] = []
        notes[subject.name] = subject.leaves_out(works[0].key) if isinstance(subject, Subject) else ""
        if not notes[subject.name]:
            running[subject.name] = works[0].run(subject, scale)
    gc.collect()
    try:
        _take_turns(running, samples, notes)
    finally:
        for iterator in running.values():
            iterator.close()
    if not any(samples.values()):
        return  # left out at this scale
    for work in works:
        for name, found in samples.items():
            if not found and not notes[name]:
                continue  # not meant for it
            values = [v for s in found if (v := s.get(work.part) if isinstance(s, Mapping) else s) is not None]
            yield _figure(work, name, values, notes[name])


def _take_turns(
    running: dict[str, Samples], samples: dict[str, list[float | Mapping[str, float]]], notes: dict[str, str]
) -> None:
    """One sample of each, until all have ended."""
    while running:
        for name, iterator in list(running.items()):
            try:
                samples[name].append(next(iterator))
            except StopIteration:
                del running[name]
            except Unsupported as reason:
                notes[name] = str(reason)
                del running[name]
            except (OSError, subprocess.CalledProcessError) as error:
                notes[name] = f"failed: {error}"
                del running[name]


def _figure(work: Work, subject: str, values: list[float], note: str) -> Figure:
    value = statistics.median(values) if values else None
    low, high = (min(values), max(values)) if values else (0.0, 0.0)
    return Figure(
        work.topic, work.key, work.title, subject, work.unit, work.mode, work.more, value, low, high, len(values),
        note or ("" if values else NOT_ASKED),
    )  # fmt: skip
