# SPDX-License-Identifier: Apache-2.0
"""The speeds that pycow is meant to reach on a 2-core machine, and whether a report reaches them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from pycow.bench.report import Report, human
from pycow.bench.tables import ratio_text

__all__ = ["targets_table"]


@dataclasses.dataclass(frozen=True)
class Verdict:
    work: str
    target: str
    measured: str
    met: bool | None  # None: not measured


def _at_most(report: Report, work: str, target: str, key: str, limit: float, unit: str = "us") -> Verdict:
    value = report.value(key)
    return Verdict(work, target, human(value, unit), None if value is None else value <= limit)


def _at_least(report: Report, work: str, target: str, key: str, limit: float, unit: str = "k/s") -> Verdict:
    value = report.value(key)
    return Verdict(work, target, human(value, unit), None if value is None else value >= limit)


def _times_better(report: Report, work: str, key: str, times: float, peer: str | None = None) -> Verdict:
    """peer None: the best of them."""
    ratio = report.ratio(key, peer)
    other = report.best_peer(key)
    name = peer or (other.subject if other else "the best peer")
    text = f"{ratio_text(ratio)} {name}" if ratio else "-"
    return Verdict(work, f">= {times:g}x {peer or 'the best peer'}", text, None if ratio is None else ratio >= times)


def verdicts(report: Report) -> Iterator[Verdict]:
    for key in ("create", "fork", "snapshot", "rollback"):
        yield _at_most(report, f"{key}, from Python", "<= 5 us", key, 5)
        yield _times_better(report, key, key, 50)
    yield _at_most(report, "first 4 KiB write, in C", "<= 5 us", "c_first_write", 5000, "ns")
    yield _at_most(report, "open + first 4 KiB write in a large file, from Python", "<= 10 us", "first_big", 10)
    yield _times_better(report, "the same", "first_big", 8, "btrfs")
    yield _times_better(report, "the same", "first_big", 30, "overlay, XFS")
    yield _at_most(report, "chmod of an untouched file, by path", "<= 5 us", "chmod_big", 5)
    yield _at_most(report, "rewrite of an owned 4 KiB block, in C", "<= 1 us", "c_rewrite", 1000, "ns")
    yield _at_most(report, "the same, from Python", "<= 2 us", "rewrite", 2)
    yield _at_least(report, "random 4 KiB writes, one call each", ">= 500 k/s", "random_write", 500)
    yield _at_least(report, "random 4 KiB reads, one call each", ">= 800 k/s", "random_read", 800)
    yield _at_least(report, "random 4 KiB writes, batched", ">= 2,000 k/s", "batch_write", 2000)
    yield _at_least(report, "random 4 KiB reads, batched", ">= 5,000 k/s", "batch_read", 5000)
    yield _times_better(report, "sequential write", "stream_write", 0.8, "plain file")
    yield _times_better(report, "sequential read", "stream_read", 0.8, "plain file")
    yield _at_most(report, "look-up of a cached path component, in C", "<= 150 ns", "c_lookup", 150, "ns")
    yield _at_most(report, "stat + list of the whole base tree", "<= 5 ms", "walk", 5, "ms")
    yield _at_least(report, "create + write + close of small files, one by one", ">= 50 k/s", "files_create", 50)
    yield _unpacked(report)
    yield _at_most(report, "diff after 10 changes among 1,000,000", "<= 100 us", "diff_of_1000000", 100)
    yield _at_most(report, "syncs of a commit", "<= 2", "commit_syncs", 2, "")
    yield _times_better(report, "import of an uncompressed tar, against tar -xf", "import_plain", 3, "overlay, ext4")
    for kind in ("gzip", "zstd"):
        yield _bounded(report, kind)
    yield _at_most(report, "delete of a container with 10 changes", "<= 50 us", "delete", 50)
    yield _at_most(report, "10,000 forks with one 4 KiB change: disk each", "<= 16 KiB", "forks_10000_disk", 16, "KiB")
    yield _at_most(report, "the same: memory each", "<= 4 KiB", "forks_10000_memory", 4, "KiB")


def _unpacked(report: Report) -> Verdict:
    """There is no call that makes many files but the unpacking of a tar."""
    took = report.value("import_plain")
    work, target = "create + write + close of small files, batched (entries of an imported tar)", ">= 150 k/s"
    if took is None:
        return Verdict(work, target, "-", None)
    speed = float(report.parameters["base entries"]) / took
    return Verdict(work, target, human(speed, "k/s"), speed >= 150)


def _bounded(report: Report, kind: str) -> Verdict:
    own, floor = report.value(f"import_{kind}"), report.value(f"import_{kind}_floor")
    work, target = f"import of a tar, {kind}", "<= 1.5x reading, decompressing and hashing it"
    if own is None or floor is None:
        return Verdict(work, target, "-", None)
    return Verdict(work, target, f"{own / floor:.2f}x", own / floor <= 1.5)


def targets_table(report: Report) -> str:
    lines = ["| work | target | measured | |", "| --- | --- | ---: | --- |"]
    said = {True: "met", False: "**missed**", None: "not measured"}
    lines += [f"| {v.work} | {v.target} | {v.measured} | {said[v.met]} |" for v in verdicts(report)]
    return "\n".join(lines) + "\n"
