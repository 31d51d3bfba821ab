# SPDX-License-Identifier: Apache-2.0
"""The short run of `pycow bench`: the works that users ask for, small, with a synthetic base tree."""

from __future__ import annotations

from pathlib import Path

from pycow.bench.base import MIB, make_base
from pycow.bench.mounts import Workshop
from pycow.bench.report import Report
from pycow.bench.run import Progress, measure
from pycow.bench.works import Scale

__all__ = ["short_run"]

BIG_BYTES = 64 * MIB
FOLDERS = 100  # of ten files each

_WORKS = frozenset(
    "create create_committed fork snapshot rollback delete first_big first_big_committed chmod_big files_create "
    "files_create_committed files_stat files_read files_remove walk import_plain import_plain_committed diff_10 "
    "forks_1000 forks_1000_disk forks_1000_memory stream_write stream_read rewrite random_write random_write_committed "
    "random_read batch_write batch_read fsync_1 fsync_8".split()
)


def short_run(folder: Path, *, compare: bool, progress: Progress) -> Report:
    """In folder, which must not exist and is gone afterwards."""
    with Workshop(folder) as workshop:
        progress("the base tree")
        base = make_base(workshop.folder / "made", big_bytes=BIG_BYTES, folders=FOLDERS, compressed=False)
        return measure(
            workshop,
            base,
            Scale.small(BIG_BYTES),
            compare=compare,
            only=lambda work: work.key in _WORKS,
            progress=progress,
        )
