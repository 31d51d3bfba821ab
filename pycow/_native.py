# SPDX-License-Identifier: Apache-2.0
"""The C core as Python objects: the only module that imports the extension.

Methods map the C API one to one (csrc/cow.h says what they do and which errors they answer); a negative answer becomes
an exception of :mod:`pycow.errors`. All calls release the GIL and may be made from many threads. Three things are done
here and nowhere else:

Lifetimes. A handle is a cffi object whose destructor frees the C handle, so a C handle cannot go away while a call in
another thread still uses it. Destructors run in any order when the garbage collector takes a cycle, therefore each C
handle has a count (:class:`_Shared`) that also holds what it depends on: a store is closed after its last tree. A
closed object has no ``_h``; using it raises ClosedError. In a forked child nothing is freed: the C core belongs to the
parent.

Out-parameters. Calls that answer through pointers take scratch memory from a pool (a list: pop and append are atomic),
which makes them safe against threads, signal handlers and finalizers, and free of allocations.

Text. Names and paths are str as UTF-8 with surrogate escapes, or bytes; answers are str.
"""

from __future__ import annotations

import errno
import gc
import os
import struct
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from pycow._cow import ffi, lib
from pycow.errors import BusyError, ClosedError, Error, OperationError, error_for
from pycow.results import (
    ATTR_DTYPE,
    EXTENT_DTYPE,
    FINDING_KINDS,
    Attr,
    DiffEntry,
    DirEntry,
    Finding,
    TreeInfo,
    TreeUsage,
    UntarResult,
)

__all__ = [
    "BLOCK_BYTES",
    "ROOT_INO",
    "Diff",
    "NativeMount",
    "NativeStore",
    "Scrub",
    "Tar",
    "Tree",
    "Untar",
    "check",
    "repair",
    "version",
]

Name: TypeAlias = str | bytes
Begun: TypeAlias = list[Any]  # the store's handle, in a list that lets go of it when the transaction ends
Buffer: TypeAlias = Any  # bytes, bytearray, memoryview, mmap, ndarray: whatever has the buffer protocol

BLOCK_BYTES: Final = 4096
ROOT_INO: Final = 1

REMOVE_FILE: Final = 1
REMOVE_DIR: Final = 2
REMOVE_TREE: Final = 4
RENAME_NOREPLACE: Final = 1
RENAME_EXCHANGE: Final = 2
XATTR_CREATE: Final = 1
XATTR_REPLACE: Final = 2

_NOT_FOUND: Final = -errno.ENOENT
_APPEND: Final = 0xFFFF_FFFF_FFFF_FFFF
_SMALL_READ: Final = 65536
_STREAM_BYTES: Final = 1 << 20
_DIR_BYTES: Final = 65536
_SCAN_ENTRIES: Final = 4096
_SCAN_PATH_BYTES: Final = 1 << 18
_CLOSE_WAIT_S: Final = 60.0
_NULL: Final[Any] = ffi.NULL

_ATTR = struct.Struct("=QIIIIQQQqqqq")
_ATTR_NAMES = (
    "ino", "mode", "uid", "gid", "nlink", "rdev", "size", "blocks", "atime_ns", "mtime_ns", "ctime_ns", "btime_ns",
)  # fmt: skip
_DIR_ENTRY = struct.Struct("=QQIHH")
_DIFF_ENTRY = struct.Struct("=IBBHIIQ")

# cdef and the structs above must agree; a mismatch is a broken build.
if (ffi.sizeof("cow_attr"), ffi.sizeof("cow_dir_entry"), ffi.sizeof("cow_diff_entry"), ffi.sizeof("cow_extent")) != (
    _ATTR.size,
    _DIR_ENTRY.size,
    _DIFF_ENTRY.size,
    EXTENT_DTYPE.itemsize,
):
    raise ImportError("pycow._cow does not fit this version of pycow; build it again")


def version() -> str:
    """Version of the C core."""
    text: bytes = ffi.string(lib.cow_version())
    return text.decode()


def _raise(rc: int, what: str, filename: Name | None = None) -> None:
    detail = ffi.string(lib.cow_error_detail()).decode("utf-8", "replace")
    raise error_for(-rc, what, detail, filename)


def check(rc: int, what: str, filename: Name | None = None) -> int:
    """Returns rc, or raises the exception for it when it is negative."""
    if rc < 0:
        _raise(rc, what, filename)
    return rc


def _encode(name: Name) -> bytes:
    return name if type(name) is bytes else name.encode("utf-8", "surrogateescape")  # type: ignore[union-attr]


def _decode(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _no_range(what: str, *numbers: int | None) -> Error:
    """Numbers that do not fit in 64 bits without a sign: -EFBIG is the core's answer to those that do."""
    text = ", ".join(str(number) for number in numbers)
    return error_for(errno.EINVAL, what, f"an offset or size is out of range: {text}")


def _block_numbers(blocks: npt.ArrayLike) -> npt.NDArray[np.uint64]:
    numbers = np.asarray(blocks)
    if numbers.dtype != np.uint64:
        if numbers.size and numbers.dtype.kind not in "iu":
            raise TypeError(f"block numbers are integers below 2**64, not {numbers.dtype}")
        if numbers.size and numbers.min() < 0:
            raise error_for(errno.EINVAL, "blocks", "a block number is negative")
    return np.ascontiguousarray(numbers, dtype=np.uint64)


_new = object.__new__
_set_attribute = object.__setattr__


def _attr(values: tuple[int, ...]) -> Attr:
    # A frozen dataclass sets its fields one by one, which is four times slower than this.
    attr = _new(Attr)
    _set_attribute(attr, "__dict__", dict(zip(_ATTR_NAMES, values, strict=True)))
    return attr


class _Scratch:
    """Out-parameters of one call."""

    __slots__ = ("attr", "attr_bytes", "info", "size_a", "size_b", "tree", "u64")

    def __init__(self) -> None:
        self.tree = ffi.new("cow_tree **")
        self.info = ffi.new("cow_tree_info *")
        self.attr_bytes = bytearray(_ATTR.size)
        self.attr = ffi.from_buffer("cow_attr *", self.attr_bytes, require_writable=True)
        self.u64 = ffi.new("uint64_t *")
        self.size_a = ffi.new("size_t *")
        self.size_b = ffi.new("size_t *")


_scratches: list[_Scratch] = []
_buffers: list[Any] = []  # char[_SMALL_READ]


def _take_scratch() -> _Scratch:
    try:
        return _scratches.pop()
    except IndexError:
        return _Scratch()


def _take_buffer() -> Any:
    try:
        return _buffers.pop()
    except IndexError:
        return ffi.new("char[]", _SMALL_READ)


class _Collector:
    """What waits for the end of a run of the garbage collector.

    The collector calls the finalizers of a cycle in any order: a file's, which unpins its inode, may come after that of
    the handle of its tree. So no C handle is closed before all finalizers of the run were called.
    """

    __slots__ = ("later", "running")

    def __init__(self) -> None:
        self.running = False
        self.later: list[_Shared] = []

    def __call__(self, phase: str, _info: object) -> None:
        self.running = phase == "start"
        self.drain()

    def drain(self) -> None:
        while not self.running:
            try:
                shared = self.later.pop()
            except IndexError:
                return
            shared.end()


_collector: Final = _Collector()
gc.callbacks.append(_collector)


class _Shared:
    """Counts the users of one C handle; closes it with the last, then lets go of what it depends on.

    The count is a list of tokens, one for each user: append and pop are atomic, so no lock is needed (a finalizer may
    run anywhere, in a thread that holds one too), and exactly one user gets the first token, which says that it is
    the last user.
    """

    __slots__ = ("_close", "_needs", "_pid", "_raw", "_tokens", "idle")

    def __init__(self, raw: Any, close: Callable[[Any], Any], needs: tuple[_Shared, ...] = ()) -> None:
        self._raw = raw
        self._close = close
        self._tokens = [True]
        self._needs = needs
        self._pid = os.getpid()
        self.idle = False
        for need in needs:
            need.acquire()

    def acquire(self) -> None:
        self._tokens.append(False)

    def release(self, _raw: Any = None) -> None:
        if not self._tokens.pop():
            return
        if _collector.running:
            _collector.later.append(self)
            _collector.drain()  # it may have ended meanwhile, in another thread
        else:
            self.end()

    def end(self) -> None:
        """The last user is gone."""
        if self._pid == os.getpid():
            self._close(self._raw)
        self._raw = None
        self.idle = True
        for need in self._needs:
            need.release()

    def handle(self) -> Any:
        """The C handle; this count's release comes when it is no longer referred to."""
        return ffi.gc(self._raw, self.release)


class _Handle:
    """Base of objects with a C handle ``_h``, which is missing once they are closed."""

    __slots__ = ("__weakref__", "_h", "_shared")
    _h: Any
    _shared: _Shared

    def _adopt(self, raw: Any, close: Callable[[Any], Any], needs: tuple[_Shared, ...]) -> None:
        self._shared = _Shared(raw, close, needs)
        self._h = self._shared.handle()

    def __getattr__(self, name: str) -> Any:
        if name == "_h":
            raise ClosedError(f"this {type(self).__name__.lower().removeprefix('native')} is closed")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    @property
    def closed(self) -> bool:
        try:
            object.__getattribute__(self, "_h")
        except AttributeError:
            return True
        return False

    def close(self) -> None:
        """Lets go of the handle; calls of other threads that are under way end first. May be called again."""
        # AttributeError: closed before, perhaps by another thread at this moment.
        try:
            del self._h
        except AttributeError:
            return


class NativeStore(_Handle):
    """An open store."""

    __slots__ = ("_catalog", "_children", "mounts", "path", "readonly")

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        readonly: bool = False,
        create: bool = True,
        commit_interval_ms: int = 5000,
        node_cache_bytes: int = 0,
        record_cache_bytes: int = 0,
        lookup_entries: int = 0,
    ) -> None:
        self.path = os.fspath(path)
        if "\0" in os.fsdecode(self.path):
            raise error_for(errno.EINVAL, "cannot open the store", "a path may not hold NUL", self.path)
        self.readonly = readonly
        options = ffi.new("cow_options *")
        options.flags = (lib.COW_OPEN_READONLY if readonly else 0) | (lib.COW_OPEN_CREATE if create else 0)
        options.commit_interval_ms = commit_interval_ms
        options.node_cache_bytes = node_cache_bytes
        options.record_cache_bytes = record_cache_bytes
        options.lookup_entries = lookup_entries
        out = ffi.new("cow_store **")
        check(lib.cow_store_open(os.fsencode(path), options, out), "cannot open the store", self.path)
        self._adopt(out[0], lib.cow_store_close, ())
        self._children: dict[int, weakref.ref[_Handle]] = {}  # by id
        self.mounts: tuple[NativeMount, ...] = ()  # those that are open; replaced as a whole
        self._catalog: Tree | None = None

    def _register(self, child: _Handle) -> None:
        # No lock: a finalizer that runs while this thread held it may wait for a transaction of another thread, which
        # would wait for the lock.
        key, children = id(child), self._children
        children[key] = weakref.ref(child, lambda _: children.pop(key, None))

    def _close_children(self) -> None:
        for child in list(self._children.values()):
            if (handle := child()) is not None:
                handle.close()

    def close(self) -> None:
        """Commits, closes all handles that the store gave out, and the store itself. May be called again.

        Waits for calls and transactions of other threads that are under way; later ones raise ClosedError. Raises what
        the commit raised; the store is closed all the same. BusyError when calls of other threads are still under way
        after a minute. Inside of a transaction of this thread: OperationError (EDEADLK), and the store stays open.
        """
        if self.closed:
            return
        if self.mounts and self._shared._pid == os.getpid():
            if not self.readonly:
                self.end(self.begin_group(), True)  # EDEADLK inside of a transaction: writes wait for its end
            for mount in self.mounts:
                mount.close()
        begun: Begun = []
        if not self.readonly and self._shared._pid == os.getpid():
            try:
                begun = self.begin_group()  # nobody is in the middle of something
            except ClosedError:
                return
            except OperationError as error:  # for instance a store that failed
                if error.errno == errno.EDEADLK:
                    raise
        failure = self._close_all(begun)
        self._wait_until_idle()
        if failure is not None:
            raise failure

    def _close_all(self, begun: Begun) -> Exception | None:
        """All handles, in one go as seen by transactions of other threads. Returns what the last commit raised."""
        self._catalog = None
        self._close_children()
        handles = begun.copy()
        super().close()
        if not begun:
            return None
        try:
            self.end(begun, True)
            check(lib.cow_store_commit(handles[0]), "commit")
        except Exception as error:
            return error
        finally:
            handles.clear()
        return None

    def _wait_until_idle(self) -> None:
        until = time.monotonic() + _CLOSE_WAIT_S
        while not self._shared.idle:
            if time.monotonic() > until:
                raise BusyError(f"calls are still under way in the store {self.path}")
            time.sleep(0.001)
            self._close_children()  # what a call that was under way has made meanwhile

    def commit(self) -> None:
        check(lib.cow_store_commit(self._h), "commit")

    def begin(self) -> Begun:
        """Returns what end needs: a transaction must be ended also when the store is closed meanwhile."""
        begun = [self._h]
        self._begin(lib.cow_store_begin(begun[0]), begun)
        return begun

    def begin_group(self) -> Begun:
        """Like begin, but what is done cannot be taken back; cheaper."""
        begun = [self._h]
        self._begin(lib.cow_store_begin_group(begun[0]), begun)
        return begun

    @staticmethod
    def _begin(rc: int, begun: Begun) -> None:
        if rc < 0:
            begun.clear()  # the traceback of an exception holds the list
            _raise(rc, "begin")

    @staticmethod
    def end(begun: Begun, keep: bool) -> None:
        if not begun:
            raise error_for(errno.EINVAL, "end of the transaction", "it was ended before")
        rc = lib.cow_store_end(begun[0], 1 if keep else 0)
        if rc != -errno.EINVAL:  # not this thread's
            begun.clear()
        check(rc, "end of the transaction")

    def stats(self) -> dict[str, int]:
        out = ffi.new("cow_stats *")
        check(lib.cow_store_stats(self._h, out), "stats")
        return {name: getattr(out, name) for name, _ in ffi.typeof("cow_stats").fields}

    def check(self, verify_data: bool = True, whole: bool = False) -> tuple[dict[str, int], list[Finding]]:
        findings: list[Finding] = []
        context = ffi.new_handle(findings)
        out = ffi.new("cow_check_report *")
        flags = (lib.COW_CHECK_DATA if verify_data else 0) | (lib.COW_CHECK_WHOLE if whole else 0)
        check(lib.cow_store_examine(self._h, flags, lib.pycow_found, context, out), "check")
        return {name: getattr(out, name) for name, _ in ffi.typeof("cow_check_report").fields}, findings

    def create_tree(self, *, temp: bool = False) -> Tree:
        scratch = _take_scratch()
        check(lib.cow_tree_create(self._h, lib.COW_FORK_TEMP if temp else 0, scratch.tree), "cannot make a tree")
        return Tree(self, scratch)

    def open_tree(self, tree_id: int) -> Tree:
        scratch = _take_scratch()
        if not 0 <= tree_id < 1 << 64:
            raise error_for(errno.ENOENT, f"tree {tree_id}", "there is no such tree")
        check(lib.cow_tree_open(self._h, tree_id, scratch.tree), f"tree {tree_id}")
        return Tree(self, scratch)

    @property
    def catalog(self) -> Tree:
        """Tree 1: names and configs."""
        tree = self._catalog
        if tree is None:
            tree = self._catalog = self.open_tree(lib.COW_TREE_CATALOG)
        return tree


class Scrub(_Handle):
    """Verifies all blocks in use, a few at each step."""

    __slots__ = ("findings",)

    def __init__(self, store: NativeStore) -> None:
        out = ffi.new("cow_scrub **")
        check(lib.cow_scrub_open(store._h, out), "scrub")
        self._adopt(out[0], lib.cow_scrub_close, (store._shared,))
        store._register(self)
        self.findings: list[Finding] = []

    def step(self, blocks: int) -> tuple[bool, int, int, int]:
        """Whether there is more to do; blocks done, blocks in all, blocks damaged."""
        out = ffi.new("cow_scrub_progress *")
        context = ffi.new_handle(self.findings)
        more = check(lib.cow_scrub_step(self._h, blocks, lib.pycow_found, context, out), "scrub")
        return more != 0, out.blocks_done, out.blocks_total, out.damaged


def repair(path: str | os.PathLike[str]) -> tuple[dict[str, int], list[Finding]]:
    """Repairs a store that nobody has open."""
    findings: list[Finding] = []
    context = ffi.new_handle(findings)
    out = ffi.new("cow_repair_report *")
    check(lib.cow_store_repair(os.fsencode(path), lib.pycow_found, context, out), "repair", os.fspath(path))
    return {name: getattr(out, name) for name, _ in ffi.typeof("cow_repair_report").fields}, findings


_FINDINGS_MAX: Final = 10_000
_FOUND: Final = {getattr(lib, f"COW_FOUND_{kind.upper()}"): kind for kind in FINDING_KINDS if kind != "superblock"}
_FOUND[lib.COW_FOUND_SUPER] = "superblock"


class NativeMount(_Handle):
    """A mount of a tree, or of the whole store (tree_id 0). Whoever makes it lets a thread serve it with run()."""

    __slots__ = ("_closing", "_store", "_thread", "mountpoint")
    _thread: threading.Thread

    def __init__(
        self,
        store: NativeStore,
        mountpoint: str,
        *,
        tree_id: int = 0,
        readonly: bool = False,
        allow_other: bool = False,
        dev: bool = False,
        suid: bool = False,
        write_through: bool = False,
        threads: int = 0,
    ) -> None:
        check(lib.cow_mount_available(), "mount")
        options = ffi.new("cow_mount_options *")
        texts = (ffi.new("char[]", os.fsencode(mountpoint)), ffi.new("char[]", os.fsencode(store.path)))
        options.mountpoint, options.store_path = texts
        options.tree = tree_id
        options.threads = threads
        for flag, wanted in (
            (lib.COW_MOUNT_READONLY, readonly or store.readonly),
            (lib.COW_MOUNT_ALLOW_OTHER, allow_other),
            (lib.COW_MOUNT_DEV, dev),
            (lib.COW_MOUNT_SUID, suid),
            (lib.COW_MOUNT_WRITE_THROUGH, write_through),
        ):
            options.flags |= flag if wanted else 0
        out = ffi.new("cow_mount **")
        check(lib.cow_mount_open(store._h, options, out), "mount")
        self.mountpoint = mountpoint
        self._adopt(out[0], lib.cow_mount_close, (store._shared,))
        self._store = store
        self._closing = threading.Lock()
        store._register(self)
        store.mounts += (self,)
        self._thread = threading.Thread(target=_serve, args=(self._h,), name=f"pycow {mountpoint}", daemon=True)
        self._thread.start()

    @property
    def serving(self) -> bool:
        return self._thread.is_alive()

    def wait(self, timeout: float | None = None) -> bool:
        """Until it is unmounted; False when the time (in seconds) is up."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def flush(self) -> None:
        """What was written through the mount is in the store when this returns."""
        check(lib.cow_mount_flush(self._h), "mount")

    def set_entry(self, path: Name, tree_id: int) -> None:
        """The path shows the tree (0: an empty directory); for the mount of a whole store."""
        raw = _encode(path)
        check(lib.cow_mount_set_entry(self._h, raw, len(raw), tree_id), "mount", path)

    def remove_entry(self, path: Name) -> None:
        raw = _encode(path)
        check(lib.cow_mount_remove_entry(self._h, raw, len(raw)), "mount", path)

    def close(self) -> None:
        """Unmounts, waits for what is being served, and lets go of the handle. May be called again."""
        with self._closing:
            if self.closed:
                return
            if self._shared._pid == os.getpid():
                check(lib.cow_mount_stop(self._h), "unmount")
                self._thread.join()
            self._store.mounts = tuple(mount for mount in self._store.mounts if mount is not self)
            super().close()


def _serve(handle: Any) -> None:
    lib.cow_mount_run(handle)


@ffi.def_extern()  # type: ignore[untyped-decorator]
def pycow_found(context: Any, found: Any) -> None:
    findings = ffi.from_handle(context)
    if len(findings) >= _FINDINGS_MAX:
        return
    findings.append(
        Finding(
            kind=_FOUND.get(found.kind, "unknown"),
            text=ffi.string(found.text).decode("utf-8", "replace"),
            repaired=bool(found.repaired),
            tree=found.tree,
            ino=found.ino,
            path=_decode(ffi.string(found.path)),
            file_block=found.file_block,
            segment=found.address >> 32,
            block=found.address & 0xFFFF_FFFF,
            block_count=found.block_count,
        )
    )


class Tree(_Handle):
    """A file tree. Inodes are numbers; directory 1 is the root."""

    __slots__ = ("id", "store")

    def __init__(self, store: NativeStore, scratch: _Scratch) -> None:
        """Takes over the handle in scratch.tree, and scratch."""
        self.store = store
        self._adopt(scratch.tree[0], lib.cow_tree_close, (store._shared,))
        store._register(self)
        check(lib.cow_tree_get_info(self._h, scratch.info), "tree")
        self.id: int = scratch.info.id
        _scratches.append(scratch)

    def __repr__(self) -> str:
        return f"Tree({self.id}{', closed' if self.closed else ''})"

    def __enter__(self) -> Tree:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- The tree as a whole

    def info(self) -> TreeInfo:
        out = ffi.new("cow_tree_info *")
        check(lib.cow_tree_get_info(self._h, out), "tree")
        return TreeInfo(
            out.id, out.parent, bool(out.sealed), bool(out.temp), out.inodes, out.apparent_bytes, out.size_bytes,
            out.created_ns, out.quota_bytes,
        )  # fmt: skip

    def usage(self) -> TreeUsage:
        out = ffi.new("cow_tree_usage *")
        check(lib.cow_tree_get_usage(self._h, out), "usage")
        return TreeUsage(out.size_bytes, out.apparent_bytes, out.exclusive_bytes, out.shared_bytes, out.quota_bytes)

    def fork(self, *, base: bool = False, sealed: bool = False, temp: bool = False) -> Tree:
        """A new tree with the same content, O(1); base: its size count starts at 0; temp: dropped unless kept."""
        flags = (1 if base else 0) | (2 if sealed else 0) | (4 if temp else 0)
        scratch = _take_scratch()
        check(lib.cow_tree_fork(self._h, flags, scratch.tree), "fork")
        return Tree(self.store, scratch)

    def seal(self) -> None:
        check(lib.cow_tree_seal(self._h), "seal")

    def set_quota(self, quota_bytes: int) -> None:
        """Bounds size_bytes; 0 = no bound."""
        check(lib.cow_tree_set_quota(self._h, quota_bytes), "quota")

    def keep(self) -> None:
        check(lib.cow_tree_keep(self._h), "keep")

    def delete(self) -> None:
        check(lib.cow_tree_delete(self._h), "delete")

    def reset(self, source: Tree) -> None:
        """Rollback: the content becomes that of source, O(1)."""
        check(lib.cow_tree_reset(self._h, source._h), "rollback")

    def diff(self, old: Tree) -> Diff:
        """The changes from old to this tree, sorted by path."""
        return Diff(old, self)

    def untar(self, *, layer: bool = True) -> Untar:
        """Applies a tar that is fed to it; layer: ".wh." names are whiteouts."""
        return Untar(self, layer)

    def tar(self, old: Tree | None = None) -> Tar:
        """The tree, or its changes since old, as the bytes of a tar."""
        return Tar(old, self)

    # ---- Paths

    def walk(self, path: Name, *, start: int = ROOT_INO, follow: bool = True) -> int:
        raw = _encode(path)
        scratch = _take_scratch()
        rc = lib.cow_path_walk(self._h, start, raw, len(raw), 0 if follow else 1, scratch.u64, _NULL)
        if rc < 0:
            _raise(rc, "", path)
        ino: int = scratch.u64[0]
        _scratches.append(scratch)
        return ino

    def walk_attr(self, path: Name, *, start: int = ROOT_INO, follow: bool = True) -> Attr:
        """Like walk, with the attributes of what is there in the same call."""
        raw = _encode(path)
        scratch = _take_scratch()
        rc = lib.cow_path_walk(self._h, start, raw, len(raw), 0 if follow else 1, scratch.u64, scratch.attr)
        if rc < 0:
            _raise(rc, "", path)
        values = _ATTR.unpack(scratch.attr_bytes)
        _scratches.append(scratch)
        return _attr(values)

    def parent(self, path: Name, *, start: int = ROOT_INO) -> tuple[int, bytes]:
        """Directory of the last name in path, and that name."""
        raw = _encode(path)
        scratch = _take_scratch()
        rc = lib.cow_path_parent(self._h, start, raw, len(raw), scratch.u64, scratch.size_a, scratch.size_b)
        if rc < 0:
            _raise(rc, "", path)
        at = scratch.size_a[0]
        result = scratch.u64[0], raw[at : at + scratch.size_b[0]]
        _scratches.append(scratch)
        return result

    def path_of(self, ino: int) -> str:
        buffer = _take_buffer()
        scratch = _take_scratch()
        check(lib.cow_path_of(self._h, ino, buffer, _SMALL_READ, scratch.size_a), f"inode {ino}")
        path = _decode(ffi.unpack(buffer, scratch.size_a[0]))
        _scratches.append(scratch)
        _buffers.append(buffer)
        return path

    # ---- Inodes

    def stat(self, ino: int) -> Attr:
        scratch = _take_scratch()
        rc = lib.cow_inode_stat(self._h, ino, scratch.attr)
        if rc < 0:
            _raise(rc, f"inode {ino}")
        values = _ATTR.unpack(scratch.attr_bytes)
        _scratches.append(scratch)
        return _attr(values)

    def set(
        self,
        ino: int,
        *,
        mode: int | None = None,
        uid: int | None = None,
        gid: int | None = None,
        size: int | None = None,
        atime_ns: int | None = None,
        mtime_ns: int | None = None,
    ) -> None:
        given = (mode, uid, gid, size, atime_ns, mtime_ns)
        mask = sum(1 << i for i, value in enumerate(given) if value is not None)
        attr = ffi.new("cow_attr *")
        try:
            attr.mode, attr.uid, attr.gid, attr.size_bytes, attr.atime_ns, attr.mtime_ns = (v or 0 for v in given)
        except OverflowError as error:
            raise error_for(errno.EINVAL, f"inode {ino}", f"an attribute is out of range: {error}") from None
        check(lib.cow_inode_set(self._h, ino, attr, mask), f"inode {ino}")

    def pin(self, ino: int) -> None:
        """Keeps the inode usable without a name until unpin."""
        check(lib.cow_inode_get(self._h, ino), f"inode {ino}")

    def unpin(self, ino: int) -> None:
        check(lib.cow_inode_put(self._h, ino), f"inode {ino}")

    # ---- Names

    def lookup(self, directory: int, name: Name) -> int:
        """Inode of an entry; NotFoundError when there is none."""
        ino = self.find(directory, name)
        if ino is None:
            raise error_for(errno.ENOENT, "", "", name)
        return ino

    def find(self, directory: int, name: Name) -> int | None:
        """Inode of an entry, or None: an exception costs ten times as much as the look-up."""
        raw = _encode(name)
        scratch = _take_scratch()
        rc = lib.cow_dir_lookup(self._h, directory, raw, len(raw), scratch.u64, ffi.NULL)
        if rc < 0:
            if rc == _NOT_FOUND:
                _scratches.append(scratch)
                return None
            _raise(rc, "", name)
        ino: int = scratch.u64[0]
        _scratches.append(scratch)
        return ino

    def make(
        self,
        directory: int,
        name: Name,
        mode: int,
        *,
        uid: int = 0,
        gid: int = 0,
        rdev: int = 0,
        target: Name | None = None,
        mtime_ns: int = 0,
    ) -> int:
        """Makes what mode's type says (a symlink to target, a device rdev); returns its inode."""
        raw = _encode(name)
        to = b"" if target is None else _encode(target)
        scratch = _take_scratch()
        try:
            _ATTR.pack_into(scratch.attr_bytes, 0, 0, mode, uid, gid, 0, rdev, 0, 0, 0, mtime_ns, 0, 0)
        except struct.error as error:
            raise error_for(errno.EINVAL, "", f"an attribute is out of range: {error}", name) from None
        rc = lib.cow_dir_make(self._h, directory, raw, len(raw), scratch.attr, to, len(to), scratch.u64)
        if rc < 0:
            _raise(rc, "", name)
        ino: int = scratch.u64[0]
        _scratches.append(scratch)
        return ino

    def link(self, directory: int, name: Name, ino: int) -> None:
        raw = _encode(name)
        check(lib.cow_dir_link(self._h, directory, raw, len(raw), ino), "", name)

    def remove(self, directory: int, name: Name, how: int = REMOVE_FILE) -> None:
        raw = _encode(name)
        check(lib.cow_dir_remove(self._h, directory, raw, len(raw), how), "", name)

    def rename(self, old_dir: int, old_name: Name, new_dir: int, new_name: Name, flags: int = 0) -> None:
        old, new = _encode(old_name), _encode(new_name)
        check(lib.cow_dir_rename(self._h, old_dir, old, len(old), new_dir, new, len(new), flags), "", old_name)

    def iter_dir(self, directory: int, *, attrs: bool = False) -> Iterator[DirEntry]:
        """Entries of a directory, in the order of the store; reads 64 KiB of them at a time."""
        cookie = 0
        while True:
            buffer = _take_buffer()
            n = lib.cow_dir_read(self._h, directory, cookie, 1 if attrs else 0, buffer, _DIR_BYTES)
            if n < 0:
                _raise(n, f"directory {directory}")
            batch = ffi.unpack(buffer, n) if n else b""
            _buffers.append(buffer)
            if not batch:
                return
            at = 0
            while at < n:
                ino, cookie, mode, name_bytes, record_bytes = _DIR_ENTRY.unpack_from(batch, at)
                start = at + _DIR_ENTRY.size
                name = _decode(batch[start : start + name_bytes])
                attr = None
                if attrs:
                    attr = _attr(_ATTR.unpack_from(batch, start + (name_bytes + 7 & ~7)))
                yield DirEntry(name, ino, mode, attr)
                at += record_bytes

    def read_dir(self, directory: int, *, attrs: bool = False) -> list[DirEntry]:
        return list(self.iter_dir(directory, attrs=attrs))

    def scan(self, directory: int = ROOT_INO) -> tuple[list[str], npt.NDArray[Any]]:
        """Everything below a directory: paths ("/a/b", relative to it) and their attributes (ATTR_DTYPE).

        Directories come before what is in them; otherwise in no order.
        """
        out = ffi.new("cow_scan **")
        check(lib.cow_scan_open(self._h, directory, out), f"directory {directory}")
        scan = ffi.gc(out[0], lib.cow_scan_close)
        paths: list[str] = []
        parts: list[npt.NDArray[Any]] = []
        ends, text = np.empty(_SCAN_ENTRIES, dtype=np.uint32), bytearray(_SCAN_PATH_BYTES)
        ends_c, text_c = ffi.from_buffer("uint32_t[]", ends), ffi.from_buffer("char[]", text)
        while True:
            part = np.empty(_SCAN_ENTRIES, dtype=ATTR_DTYPE)
            attrs = ffi.from_buffer("cow_attr[]", part, require_writable=True)
            n = check(lib.cow_scan_read(scan, attrs, ends_c, _SCAN_ENTRIES, text_c, _SCAN_PATH_BYTES), "scan")
            if n == 0:
                ffi.release(scan)
                return paths, np.concatenate(parts) if parts else part[:0]
            parts.append(part[:n])
            begin, names = 0, bytes(text[: ends[n - 1]])
            for end in ends[:n].tolist():
                paths.append(_decode(names[begin:end]))
                begin = end

    def symlink_read(self, ino: int) -> str:
        buffer = _take_buffer()
        n = check(lib.cow_symlink_read(self._h, ino, buffer, _SMALL_READ), f"inode {ino}")
        target: bytes = ffi.unpack(buffer, n) if n else b""
        _buffers.append(buffer)
        return _decode(target)

    # ---- Extended attributes

    def xattr_get(self, ino: int, name: Name) -> bytes:
        raw = _encode(name)
        buffer = _take_buffer()
        n = check(lib.cow_xattr_get(self._h, ino, raw, len(raw), buffer, _SMALL_READ), "", name)
        value: bytes = ffi.unpack(buffer, n) if n else b""
        _buffers.append(buffer)
        return value

    def xattr_set(self, ino: int, name: Name, value: Buffer, flags: int = 0) -> None:
        raw, data = _encode(name), bytes(memoryview(value))
        check(lib.cow_xattr_set(self._h, ino, raw, len(raw), data, len(data), flags), "", name)

    def xattr_list(self, ino: int) -> list[str]:
        capacity = _SMALL_READ
        while True:
            buffer = _take_buffer() if capacity == _SMALL_READ else ffi.new("char[]", capacity)
            n = lib.cow_xattr_list(self._h, ino, buffer, capacity)
            if n != -errno.ERANGE:
                break
            capacity *= 4
        check(n, f"inode {ino}")
        names = ffi.unpack(buffer, n).split(b"\0")[:-1] if n else []
        if capacity == _SMALL_READ:
            _buffers.append(buffer)
        return [_decode(name) for name in names]

    def xattr_remove(self, ino: int, name: Name) -> None:
        raw = _encode(name)
        check(lib.cow_xattr_remove(self._h, ino, raw, len(raw)), "", name)

    # ---- File content

    def read(self, ino: int, offset: int, length: int) -> bytes:
        """Up to length bytes; fewer only at the end of the file."""
        if length <= _SMALL_READ:
            buffer = _take_buffer()
            try:
                n = lib.cow_file_read(self._h, ino, offset, buffer, length)
            except OverflowError:
                raise _no_range("read", offset, length) from None
            if n <= 0:
                if n < 0:
                    _raise(n, "read")
                _buffers.append(buffer)
                return b""
            data: bytes = ffi.unpack(buffer, n)
            _buffers.append(buffer)
            return data
        left = self.stat(ino).size - offset
        large = bytearray(max(0, min(length, left)))
        n = self.read_into(ino, offset, large)
        del large[n:]
        return bytes(large)

    def read_into(self, ino: int, offset: int, buffer: Buffer) -> int:
        """Fills a writable buffer, without a copy; returns the bytes read."""
        target = ffi.from_buffer("char[]", buffer, require_writable=True)
        try:
            n: int = lib.cow_file_read(self._h, ino, offset, target, len(target))
        except OverflowError:
            raise _no_range("read", offset) from None
        if n < 0:
            _raise(n, "read")
        return n

    def write(self, ino: int, offset: int | None, data: Buffer) -> int:
        """Writes all of data at offset (None: at the end, whatever it is then); returns its length."""
        if type(data) is not bytes:
            data = ffi.from_buffer("char[]", data)
        if offset == _APPEND:
            raise _no_range("write", offset)
        try:
            n: int = lib.cow_file_write(self._h, ino, _APPEND if offset is None else offset, data, len(data))
        except OverflowError:
            raise _no_range("write", offset) from None
        if n < 0:
            _raise(n, "write")
        return n

    def truncate(self, ino: int, size: int) -> None:
        try:
            check(lib.cow_file_truncate(self._h, ino, size), "truncate")
        except OverflowError:
            raise _no_range("truncate", size) from None

    def punch(self, ino: int, offset: int, length: int) -> None:
        try:
            check(lib.cow_file_punch(self._h, ino, offset, length), "punch")
        except OverflowError:
            raise _no_range("punch", offset, length) from None

    def seek(self, ino: int, offset: int, whence: int) -> int:
        """os.SEEK_DATA or os.SEEK_HOLE; OSError ENXIO past the end."""
        try:
            return check(lib.cow_file_seek(self._h, ino, offset, whence), "seek")
        except OverflowError:
            raise _no_range("seek", offset) from None

    def clone(self, source: Tree, source_ino: int, source_offset: int, ino: int, offset: int, length: int) -> None:
        """Shares a range of another file (reflink); offsets and length in whole blocks."""
        try:
            check(lib.cow_file_clone(source._h, source_ino, source_offset, self._h, ino, offset, length), "clone")
        except OverflowError:
            raise _no_range("clone", source_offset, offset, length) from None

    def extents(self, ino: int) -> npt.NDArray[Any]:
        parts: list[npt.NDArray[Any]] = []
        first = 0
        while True:
            part = np.zeros(1024, dtype=EXTENT_DTYPE)
            target = ffi.from_buffer("cow_extent[]", part, require_writable=True)
            n = check(lib.cow_file_extents(self._h, ino, first, target, len(part)), "extents")
            parts.append(part[:n])
            if n < len(part):
                return np.concatenate(parts)
            first = int(part[n - 1]["block"] + part[n - 1]["block_count"])

    def read_blocks(self, ino: int, blocks: npt.ArrayLike, out: Buffer | None = None) -> Buffer:
        """Reads many blocks of 4096 bytes in one call, into out (at least len(blocks) * 4096 bytes) when given."""
        numbers = _block_numbers(blocks)
        if out is None:
            out = np.empty((numbers.size, BLOCK_BYTES), dtype=np.uint8)
        target = ffi.from_buffer("char[]", out, require_writable=True)
        if len(target) < numbers.size * BLOCK_BYTES:
            raise error_for(errno.EINVAL, "read_blocks", "the buffer is too small")
        source = ffi.from_buffer("uint64_t[]", numbers)
        check(lib.cow_file_read_blocks(self._h, ino, source, numbers.size, target), "read_blocks")
        return out

    def write_blocks(self, ino: int, blocks: npt.ArrayLike, data: Buffer) -> None:
        """Writes many blocks of 4096 bytes in one call; data holds them one after another."""
        numbers = _block_numbers(blocks)
        source = ffi.from_buffer("char[]", data)
        if len(source) != numbers.size * BLOCK_BYTES:
            raise error_for(errno.EINVAL, "write_blocks", "the data is not as long as the blocks")
        target = ffi.from_buffer("uint64_t[]", numbers)
        check(lib.cow_file_write_blocks(self._h, ino, target, numbers.size, source), "write_blocks")

    def sync(self, ino: int) -> None:
        """Durable when it returns."""
        check(lib.cow_file_sync(self._h, ino), "sync")


class Diff(_Handle):
    """Iterator over the differences of two trees."""

    __slots__ = ("_entries",)
    _KINDS: Final = {65: "A", 67: "C", 68: "D"}

    def __init__(self, old: Tree, new: Tree) -> None:
        out = ffi.new("cow_diff **")
        check(lib.cow_diff_open(old._h, new._h, out), "diff")
        self._adopt(out[0], lib.cow_diff_close, (old._shared, new._shared))
        new.store._register(self)
        self._entries: Iterator[DiffEntry] = iter(())

    def __iter__(self) -> Iterator[DiffEntry]:
        return self

    def __next__(self) -> DiffEntry:
        while True:
            for entry in self._entries:
                return entry
            if self.closed:
                raise StopIteration
            batch = self._read()
            if not batch:
                self.close()
                raise StopIteration
            self._entries = self._parse(batch)

    def _read(self) -> bytes:
        capacity = 4 * _SMALL_READ
        while True:
            buffer = ffi.new("char[]", capacity)
            n = lib.cow_diff_read(self._h, buffer, capacity)
            if n == -errno.ERANGE and capacity < 1 << 30:  # one entry with very many ranges
                capacity *= 4
                continue
            check(n, "diff")
            batch: bytes = ffi.unpack(buffer, n) if n else b""
            return batch

    @classmethod
    def _parse(cls, batch: bytes) -> Iterator[DiffEntry]:
        at = 0
        while at < len(batch):
            record_bytes, kind, what, path_bytes, mode, range_count, ino = _DIFF_ENTRY.unpack_from(batch, at)
            start = at + _DIFF_ENTRY.size
            path = _decode(batch[start : start + path_bytes])
            flat = struct.unpack_from(f"={2 * range_count}Q", batch, start + path_bytes)
            ranges = tuple(zip(flat[::2], flat[1::2], strict=True))
            yield DiffEntry(cls._KINDS[kind], path, what, mode, ino, ranges)
            at += record_bytes


class Untar(_Handle):
    """Applies a tar to a tree while it is fed."""

    __slots__ = ()

    def __init__(self, tree: Tree, layer: bool) -> None:
        out = ffi.new("cow_untar **")
        check(lib.cow_untar_open(tree._h, lib.COW_UNTAR_LAYER if layer else 0, out), "untar")
        self._adopt(out[0], lib.cow_untar_close, (tree._shared,))
        tree.store._register(self)

    def feed(self, data: Buffer) -> None:
        """Raises ImageError when the archive is damaged or hostile."""
        if type(data) is not bytes:
            data = ffi.from_buffer("char[]", data)
        check(lib.cow_untar_feed(self._h, data, len(data)), "layer")

    def finish(self) -> UntarResult:
        """Says that the tar is complete; ImageError when it is cut off."""
        out = ffi.new("cow_untar_result *")
        check(lib.cow_untar_finish(self._h, out), "layer")
        return UntarResult(out.entries, out.files, out.whiteouts, out.content_bytes, out.tar_bytes)

    def __enter__(self) -> Untar:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Tar(_Handle):
    """Iterator over the bytes of a tar, 1 MiB at a time."""

    __slots__ = ("_buffer",)

    def __init__(self, old: Tree | None, new: Tree) -> None:
        out = ffi.new("cow_tar **")
        check(lib.cow_tar_open(ffi.NULL if old is None else old._h, new._h, out), "tar")
        needs = (new._shared,) if old is None else (old._shared, new._shared)
        self._adopt(out[0], lib.cow_tar_close, needs)
        new.store._register(self)
        self._buffer = ffi.new("char[]", _STREAM_BYTES)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self.closed:
            raise StopIteration
        n = check(lib.cow_tar_read(self._h, self._buffer, _STREAM_BYTES), "tar")
        if n == 0:
            self.close()
            raise StopIteration
        data: bytes = ffi.unpack(self._buffer, n)
        return data

    def __enter__(self) -> Tar:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
