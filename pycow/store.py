# SPDX-License-Identifier: Apache-2.0
"""The store: opens it, holds the collections, and makes changes atomic and durable."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Literal, Self

from pycow import _native
from pycow._native import Begun, NativeStore
from pycow.catalog import Catalog
from pycow.containers import Containers
from pycow.errors import ClosedError, CorruptError, InvalidError, NotFoundError, OperationError
from pycow.images import Images
from pycow.layers import Layers
from pycow.mount import Mount, Mountable, Names, tree_id_of
from pycow.results import CheckReport, RepairReport, ScrubReport, Stats
from pycow.volumes import Volumes

__all__ = ["Store", "open", "repair"]

_SCRUB_BLOCKS = 1024


def open(
    path: str | os.PathLike[str],
    mode: Literal["rw", "r"] = "rw",
    *,
    create: bool = True,
    commit_interval: float = 5.0,
    node_cache_bytes: int = 0,
    record_cache_bytes: int = 0,
    lookup_entries: int = 0,
) -> Store:
    """Opens the store in the directory path.

    mode "rw" needs the store for itself (LockedError when another process has it) and makes it when the directory is
    missing or empty, unless create is false (NotFoundError then). mode "r" sees the last commit, beside a writer if
    need be. commit_interval is in seconds; 0 leaves commits to commit(), transaction() and fsync(). The caches are
    sized in bytes and entries; 0 means 64 MiB, 32 MiB and 65,536.

    Raises also ExistsError or NotEmptyError for a directory that is not a store, FormatError for a store of an
    unknown format, CorruptError for a damaged one.
    """
    if mode not in ("rw", "r"):
        raise InvalidError(f"mode is 'rw' or 'r', not {mode!r}")
    if not 0 <= commit_interval <= 4_000_000:
        raise InvalidError("commit_interval is out of range")
    for size in (node_cache_bytes, record_cache_bytes, lookup_entries):
        if not 0 <= size < 1 << 63:
            raise InvalidError(f"the size of a cache is out of range: {size}")
    native = NativeStore(
        path,
        readonly=mode == "r",
        create=create and mode == "rw",
        commit_interval_ms=round(commit_interval * 1000),
        node_cache_bytes=node_cache_bytes,
        record_cache_bytes=record_cache_bytes,
        lookup_entries=lookup_entries,
    )
    return Store(native)


def repair(path: str | os.PathLike[str]) -> RepairReport:
    """Repairs the store in the directory path, which nobody may have open (LockedError).

    Rebuilt is all that can be derived: reference counts, free space, counters, journal, superblocks. A tree with
    damaged nodes keeps what can still be read; files that lost their names are put in its /lost+found, and what is
    missing from a file keeps raising CorruptError, as damaged data does. It is one commit: a crash leaves the store as
    it was.

    Raises NotFoundError, and CorruptError when nothing is left to start from. Needs memory for what it changes: the
    nodes of damaged trees, and 4 KiB for each MiB of data whose records were damaged.
    """
    numbers, findings = _native.repair(path)
    return RepairReport(findings=tuple(findings), **numbers)


class _ThreadState(threading.local):
    """The open transaction of a thread."""

    depth = 0
    durable = False  # it ends with a commit
    failed = False  # a part of it did
    begun: Begun = []  # noqa: RUF012 - what its end needs; never changed here


class _Transaction:
    """The context manager of Store.transaction; one written as a generator would cost more than a fork does."""

    __slots__ = ("_durable", "_store")

    def __init__(self, store: Store, durable: bool) -> None:
        self._store = store
        self._durable = durable

    def __enter__(self) -> None:
        state = self._store._thread_state
        if state.depth:
            state.durable = state.durable or self._durable
        else:
            if self._durable:
                self._store._write_back()
            state.begun = self._store._native.begin()
            state.durable, state.failed = self._durable, False
        state.depth += 1

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        state = self._store._thread_state
        state.depth -= 1
        state.failed = state.failed or kind is not None
        if state.depth:
            return
        if state.failed:
            self._store._catalog.forget()
            NativeStore.end(state.begun, False)
            self._store._show_names()
            if kind is None:
                raise OperationError("a part of the transaction failed, so all of it was taken back")
            return
        NativeStore.end(state.begun, True)
        self._store._show_names()
        if state.durable:
            self._store._native.commit()


class _Group:
    """Changes that one commit covers, cheaper than a transaction: it does not save what it may have to take back.

    What was done is taken back, when a later part fails, by the calls given to undo(). Part of an open transaction.
    """

    __slots__ = ("_store", "_undo")

    def __init__(self, store: Store) -> None:
        self._store = store
        self._undo: list[tuple[Callable[..., object], tuple[object, ...]]] = []

    def undo(self, call: Callable[..., object], *arguments: object) -> None:
        self._undo.append((call, arguments))

    def __enter__(self) -> Self:
        state = self._store._thread_state
        if not state.depth:
            state.begun = self._store._native.begin_group()
            state.durable, state.failed = False, False
        state.depth += 1
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        state = self._store._thread_state
        if kind is not None:
            for call, arguments in reversed(self._undo):
                with contextlib.suppress(OSError, ClosedError):  # the first error is the one to tell
                    call(*arguments)
        state.depth -= 1
        if state.depth:
            state.failed = state.failed or kind is not None
            return
        NativeStore.end(state.begun, True)
        self._store._show_names()
        if state.durable:
            self._store._native.commit()


class Store:
    """An open store; made by :func:`pycow.open`. A context manager: leaving it closes the store.

    Changes are durable after commit(), after a durable transaction(), after the fsync of a file, or when the commit
    interval has passed. A crash opens as exactly the last commit.
    """

    def __init__(self, native: NativeStore) -> None:
        self._native = native
        self._thread_state = _ThreadState()
        self._catalog = Catalog(native.catalog, lambda: _Transaction(self, False))
        self._names: tuple[Names, ...] = ()  # of the mounts of the whole store
        self.images = Images(self)
        self.layers = Layers(self)
        self.containers = Containers(self)
        self.volumes = Volumes(self)

    def __repr__(self) -> str:
        return f"<Store {self.path!r}{' closed' if self.closed else ''}>"

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def path(self) -> str:
        return self._native.path

    @property
    def readonly(self) -> bool:
        return self._native.readonly

    @property
    def closed(self) -> bool:
        return self._native.closed

    def close(self) -> None:
        """Commits and closes; may be called again. Everything that the store gave out is closed as well.

        Raises what the last commit raised; the store is closed all the same.
        """
        self._native.close()

    def commit(self) -> None:
        """Makes everything done so far durable. Inside of a transaction: at its end."""
        if self._thread_state.depth:
            self._thread_state.durable = True
        else:
            self._write_back()
            self._native.commit()

    def mount(
        self,
        directory: str | os.PathLike[str],
        what: Mountable | None = None,
        *,
        readonly: bool = False,
        allow_other: bool = False,
        dev: bool = False,
        suid: bool = False,
        write_through: bool = False,
        threads: int = 0,
    ) -> Mount:
        """Mounts a container, snapshot, volume or image in a directory (None: all of the store), and serves it.

        What it returns is a context manager that unmounts; requests are served by threads without Python. Images and
        snapshots are read-only, and so is everything with readonly or when the store is. allow_other lets other users
        in; dev and suid make device nodes and set-user-ID bits work (root only). write_through does without the
        kernel's write-back cache. At most so many threads serve (0: 64). docs/MOUNT.md tells what is seen when.

        Raises OperationError with ENOSYS when pycow was built without libfuse3, with ENODEV when the kernel or a
        container has no /dev/fuse, NotFoundError and NotDirectoryError for the directory.
        """
        return Mount(
            self,
            directory,
            tree_id_of(what),
            readonly=readonly,
            allow_other=allow_other,
            dev=dev,
            suid=suid,
            write_through=write_through,
            threads=threads,
        )

    def _write_back(self) -> None:
        """Has what was written through mounts put into the store. Inside of a transaction it cannot be."""
        if self._native.mounts and not self._thread_state.depth:
            for mount in self._native.mounts:
                with contextlib.suppress(ClosedError):
                    mount.flush()

    def _show_names(self) -> None:
        """Names that changed appear in, and disappear from, the mounts of the whole store."""
        touched = self._catalog.touched
        if not touched:
            return
        keys = dict.fromkeys(touched[:])
        del touched[: len(touched)]
        for names in self._names:
            names.update(keys)

    def transaction(self, *, durable: bool = True) -> contextlib.AbstractContextManager[None]:
        """What is done inside happens as a whole, in all trees and names, or not at all.

        An exception takes back every change made since the start, and goes on. Otherwise the changes are kept; durable
        says whether they are committed at once or with the next commit. Other threads that write wait meanwhile.
        Inside of another transaction of the same thread it is a part of that one; when a part failed, the whole cannot
        be kept (OperationError at its end).
        """
        return _Transaction(self, durable)

    def _group(self) -> _Group:
        return _Group(self)

    def check(self, verify_data: bool = True, *, whole: bool = False) -> CheckReport:
        """Walks everything and compares it with what the store recorded; reads all data when verify_data.

        Compared are reference counts, free space and checksums, and in each tree names, inodes and counters; of a fork
        only what differs from its parent, unless whole. The report is true when nothing was found. Writers wait
        meanwhile.
        """
        numbers, findings = self._native.check(verify_data, whole)
        count = numbers.pop("errors")
        problems = [finding.text for finding in findings]
        if count > len(problems):
            problems.append(f"{count - len(problems)} further problems")
        problems.extend(self._check_names())
        return CheckReport(ok=not problems, errors=tuple(problems), findings=tuple(findings), **numbers)

    def scrub(self, *, rate: float = 0.0, progress: Callable[[int, int], object] | None = None) -> ScrubReport:
        """Reads and verifies every block that the last commit has in use, beside other work.

        rate is in bytes per second; 0 is as fast as it goes. progress is called with the bytes done and the bytes in
        all, several times a second. Damaged files are named in the findings. Blocks that are written or freed meanwhile
        are left out.
        """
        if rate < 0:
            raise InvalidError("rate is not negative")
        scrub = _native.Scrub(self._native)
        step = _SCRUB_BLOCKS if not rate else max(1, min(_SCRUB_BLOCKS, int(rate / 10 / _native.BLOCK_BYTES)))
        start = time.monotonic()
        more = True
        while more:
            more, done, total, damaged = scrub.step(step)
            if progress is not None:
                progress(done * _native.BLOCK_BYTES, max(done, total) * _native.BLOCK_BYTES)
            if rate and more:
                time.sleep(max(0.0, start + done * _native.BLOCK_BYTES / rate - time.monotonic()))
        findings = tuple(scrub.findings)
        scrub.close()
        return ScrubReport(blocks=done, damaged=damaged, findings=findings)

    def _check_names(self) -> Iterator[str]:
        """Documents whose trees are missing."""
        kinds = ["layers", "containers", "volumes"]
        kinds += [f"snapshots/{container}" for container in self._catalog.keys("snapshots")]
        for kind in kinds:
            for key, document in self._catalog.items(kind):
                tree_id = document.get("tree")
                try:
                    self._native.open_tree(tree_id if isinstance(tree_id, int) else 0).close()
                except CorruptError as error:
                    yield f"{kind.split('/')[0].removesuffix('s')} {key}: {error}"
                except NotFoundError:
                    yield f"{kind.split('/')[0].removesuffix('s')} {key} refers to tree {tree_id}, which does not exist"

    def stats(self) -> Stats:
        """Sizes, and counters since the store was opened."""
        return Stats(**self._native.stats())
