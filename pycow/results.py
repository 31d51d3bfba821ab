# SPDX-License-Identifier: Apache-2.0
"""What calls return: frozen dataclasses. Sizes are bytes, times are nanoseconds since the epoch."""

from __future__ import annotations

import dataclasses
import stat
from collections.abc import Iterator
from typing import Any

import numpy as np

__all__ = [
    "ATTR_DTYPE",
    "EXTENT_DTYPE",
    "FINDING_KINDS",
    "Attr",
    "Change",
    "CheckReport",
    "DiffEntry",
    "DirEntry",
    "Finding",
    "HistoryEntry",
    "RepairReport",
    "ScrubReport",
    "Stats",
    "TreeInfo",
    "TreeUsage",
    "UntarResult",
    "Usage",
]

#: What a :class:`Finding` can be.
FINDING_KINDS = (
    "superblock",
    "journal",
    "records",
    "node",
    "data",
    "count",
    "tree",
    "inode",
    "name",
    "lost",
    "unverified",
)

#: One row per run of blocks of a file, see :meth:`pycow.File.extents`. address is segment << 32 | block of the
#: segment (0: the data is inline), shared says that something else refers to a block of it as well, own that
#: it was written since the tree was forked from its base.
EXTENT_DTYPE = np.dtype(
    [("block", "<u8"), ("block_count", "<u8"), ("address", "<u8"), ("shared", "<u4"), ("own", "<u4")]
)

#: One row per entry of a scan, see :meth:`pycow.Path.scan`: the fields of :class:`Attr`, times in nanoseconds.
ATTR_DTYPE = np.dtype(
    [("ino", "<u8"), ("mode", "<u4"), ("uid", "<u4"), ("gid", "<u4"), ("nlink", "<u4"), ("rdev", "<u8")]
    + [("size", "<u8"), ("blocks", "<u8")]
    + [(name, "<i8") for name in ("atime_ns", "mtime_ns", "ctime_ns", "btime_ns")]
)


@dataclasses.dataclass(frozen=True)
class Attr:
    """Attributes of an inode. The names of :class:`os.stat_result` work too (``st_mode``, ``st_mtime_ns``, ...)."""

    ino: int
    mode: int  # type and permissions
    uid: int
    gid: int
    nlink: int
    rdev: int
    size: int
    blocks: int  # mapped, in units of 512 bytes
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    btime_ns: int

    def is_dir(self) -> bool:
        return stat.S_ISDIR(self.mode)

    def is_file(self) -> bool:
        return stat.S_ISREG(self.mode)

    def is_symlink(self) -> bool:
        return stat.S_ISLNK(self.mode)

    @property
    def permissions(self) -> int:
        """The mode without the type."""
        return stat.S_IMODE(self.mode)

    @property
    def st_ino(self) -> int:
        return self.ino

    @property
    def st_mode(self) -> int:
        return self.mode

    @property
    def st_uid(self) -> int:
        return self.uid

    @property
    def st_gid(self) -> int:
        return self.gid

    @property
    def st_nlink(self) -> int:
        return self.nlink

    @property
    def st_rdev(self) -> int:
        return self.rdev

    @property
    def st_size(self) -> int:
        return self.size

    @property
    def st_blocks(self) -> int:
        return self.blocks

    @property
    def st_blksize(self) -> int:
        return 4096

    @property
    def st_atime_ns(self) -> int:
        return self.atime_ns

    @property
    def st_mtime_ns(self) -> int:
        return self.mtime_ns

    @property
    def st_ctime_ns(self) -> int:
        return self.ctime_ns

    @property
    def st_birthtime_ns(self) -> int:
        return self.btime_ns

    @property
    def st_atime(self) -> float:
        return self.atime_ns / 1e9

    @property
    def st_mtime(self) -> float:
        return self.mtime_ns / 1e9

    @property
    def st_ctime(self) -> float:
        return self.ctime_ns / 1e9

    @property
    def st_birthtime(self) -> float:
        return self.btime_ns / 1e9


@dataclasses.dataclass(frozen=True, slots=True)
class DirEntry:
    """One entry of a directory. mode has the type bits only, unless attributes were asked for."""

    name: str
    ino: int
    mode: int
    attr: Attr | None = None

    def is_dir(self) -> bool:
        return stat.S_ISDIR(self.mode)

    def is_file(self) -> bool:
        return stat.S_ISREG(self.mode)

    def is_symlink(self) -> bool:
        return stat.S_ISLNK(self.mode)


@dataclasses.dataclass(frozen=True, slots=True)
class TreeInfo:
    """State of a tree."""

    id: int  # never reused
    parent: int  # the tree it was forked from, 0 = none
    sealed: bool
    temp: bool
    inodes: int
    apparent_bytes: int  # mapped file bytes
    size_bytes: int  # those written since the tree's base
    created_ns: int
    quota_bytes: int = 0  # bound of size_bytes, 0 = none


@dataclasses.dataclass(frozen=True, slots=True)
class TreeUsage:
    """Space of a tree in bytes."""

    size_bytes: int  # file bytes written since the tree's base
    apparent_bytes: int  # mapped file bytes
    exclusive_bytes: int  # blocks, nodes included, that only this tree refers to
    shared_bytes: int  # data blocks that another tree refers to as well
    quota_bytes: int = 0  # bound of size_bytes, 0 = none


@dataclasses.dataclass(frozen=True, slots=True)
class DiffEntry:
    """One difference of two trees; ranges are (first block, block count) of changed content."""

    kind: str  # "A", "C" or "D"
    path: str
    what: int  # bits: 1 metadata, 2 data, 4 xattrs
    mode: int
    ino: int
    ranges: tuple[tuple[int, int], ...]


@dataclasses.dataclass(frozen=True, slots=True)
class UntarResult:
    """What a layer's tar held."""

    entries: int
    files: int
    whiteouts: int
    content_bytes: int  # of regular files
    tar_bytes: int  # fed, trailing padding included


@dataclasses.dataclass(frozen=True, slots=True)
class Usage:
    """Space of a container, snapshot or volume in bytes.

    size is the data that it holds by itself (written since it was created from its image), virtual_size that and
    its image; exclusive is what removing it would free, shared what it uses together with others. quota is the
    bound of size, None when there is none.
    """

    size: int
    virtual_size: int
    exclusive: int
    shared: int
    quota: int | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Change:
    """One line of ``docker diff``: kind is "A" (added), "C" (changed) or "D" (deleted).

    blocks are the changed ranges of a file's content: (first block of 4096 bytes, block count).
    """

    kind: str
    path: str
    blocks: tuple[tuple[int, int], ...] = dataclasses.field(default=(), compare=False, repr=False)

    def __str__(self) -> str:
        return f"{self.kind} {self.path}"


@dataclasses.dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One line of ``docker history``; created in ns, 0 where the image does not say."""

    id: str  # short image id, or "<missing>"
    created: int
    created_by: str
    size: int
    comment: str
    empty_layer: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """One thing that check, repair or scrub found. What is not known, or says nothing here, is 0 or empty."""

    #: One of FINDING_KINDS. "node": what lies below it cannot be read; "data": the blocks of the file cannot be read;
    #: "lost": repair could not save it; "unverified": its checksum was lost, repair took the bytes as they are.
    kind: str
    text: str
    repaired: bool
    tree: int
    ino: int
    path: str  # in the tree
    file_block: int  # first block of the file
    segment: int
    block: int  # first block in the segment
    block_count: int


@dataclasses.dataclass(frozen=True, slots=True)
class RepairReport:
    """Result of :func:`pycow.repair`. True when the store is whole again and nothing was lost."""

    findings: tuple[Finding, ...]  # at most 10,000
    found: int  # in all
    repaired: int
    lost: int
    unverified: int  # blocks whose checksum was made anew
    damaged: int  # places in files that stay unreadable

    @property
    def ok(self) -> bool:
        return not (self.lost or self.unverified or self.damaged)

    def __bool__(self) -> bool:
        return self.ok


@dataclasses.dataclass(frozen=True, slots=True)
class ScrubReport:
    """Result of :meth:`pycow.Store.scrub`. True when nothing was found."""

    blocks: int  # verified
    damaged: int  # blocks
    findings: tuple[Finding, ...]  # at most 10,000

    @property
    def ok(self) -> bool:
        return not (self.damaged or self.findings)

    def __bool__(self) -> bool:
        return self.ok


@dataclasses.dataclass(frozen=True, slots=True)
class CheckReport:
    """Result of :meth:`pycow.Store.check`; the numbers say what was walked."""

    ok: bool
    errors: tuple[str, ...]
    findings: tuple[Finding, ...]  # the same with places, as far as the core found them; at most 10,000
    trees: int
    nodes: int
    inodes: int
    extents: int
    blocks: int
    orphans: int  # inodes without a name that wait to be reclaimed

    def __bool__(self) -> bool:
        return self.ok


@dataclasses.dataclass(frozen=True, slots=True)
class Stats:
    """Counters and sizes of an open store; the counters start at 0 when it is opened.

    ``stats["syncs"]``, ``stats.keys()``, ``stats.items()`` and ``dict(stats)`` work as with a mapping.
    """

    generation: int  # last durable commit
    trees: int  # the catalog included
    data_bytes: int  # data blocks in use
    node_bytes: int  # B+tree nodes in use
    host_bytes: int  # what the host file system charges
    commits: int
    syncs: int
    bytes_read: int
    bytes_written: int
    blocks_allocated: int
    blocks_freed: int
    nodes_read: int
    nodes_written: int
    nodes_copied: int
    nodes_visited: int
    node_hits: int
    node_misses: int
    node_evictions: int
    node_cached_bytes: int
    record_hits: int
    record_misses: int
    record_evictions: int
    record_cached_bytes: int
    lookup_hits: int
    lookup_misses: int
    lookup_evictions: int
    copy_ups: int  # first writes to shared or committed blocks
    copy_up_bytes: int  # bytes copied by them
    blocks_verified: int
    checksum_errors: int
    forks: int
    deletes: int
    punched_bytes: int
    pending_delete_nodes: int

    def __getitem__(self, name: str) -> int:
        if name not in self.__dataclass_fields__:
            raise KeyError(name)
        value: int = getattr(self, name)
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self.__dataclass_fields__)

    def __len__(self) -> int:
        return len(self.__dataclass_fields__)

    def keys(self) -> list[str]:
        return list(self.__dataclass_fields__)

    def items(self) -> list[tuple[str, int]]:
        return [(name, self[name]) for name in self]

    def as_dict(self) -> dict[str, Any]:
        return dict(self.items())
