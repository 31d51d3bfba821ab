# SPDX-License-Identifier: Apache-2.0
"""Mounts: a container, or the whole store, as a file system that any process can use.

C serves the requests; here are the life of a mount and the names under which the whole store's trees appear:

    containers/NAME     writable
    images/NAME:TAG     read-only; a "/" in the name makes a directory
    snapshots/CONTAINER/NAME    read-only
    volumes/NAME        writable
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import os
import threading
import weakref
from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeAlias, Union

from pycow._native import NativeMount
from pycow.catalog import Catalog, Document
from pycow.errors import ClosedError, ExistsError, InvalidError, NotEmptyError, NotFoundError, OperationError

if TYPE_CHECKING:
    from pycow.containers import Container, Snapshot
    from pycow.images import Image
    from pycow.store import Store
    from pycow.volumes import Volume

__all__ = ["Mount", "Mountable", "Names", "tree_id_of"]

Mountable: TypeAlias = Union["Container", "Snapshot", "Volume", "Image"]

KINDS = ("containers", "images", "snapshots", "volumes")


def tree_id_of(what: Mountable | None) -> int:
    """The tree to mount; 0 for the whole store."""
    if what is None:
        return 0
    tree = what.tree
    return (tree() if callable(tree) else tree).id


class Mount:
    """A mount that is being served; made by :meth:`Store.mount`. A context manager: leaving it unmounts.

    It ends as well when somebody unmounts the directory, when the store is closed and when the interpreter ends.
    """

    def __init__(
        self,
        store: Store,
        directory: str | os.PathLike[str],
        tree_id: int,
        *,
        readonly: bool,
        allow_other: bool,
        dev: bool,
        suid: bool,
        write_through: bool,
        threads: int,
    ) -> None:
        if not 0 <= threads <= 1024:
            raise InvalidError(f"threads is 0 to 1024, not {threads}")
        self._store = store
        self._names: Names | None = None
        self._native = NativeMount(
            store._native,
            os.path.abspath(directory),
            tree_id=tree_id,
            readonly=readonly,
            allow_other=allow_other,
            dev=dev,
            suid=suid,
            write_through=write_through,
            threads=threads,
        )
        _open_mounts.add(self)
        try:
            if tree_id == 0:
                self._show_names()
            os.stat(self.path)  # answered once the kernel and we have agreed on how to talk
        except BaseException:
            self.close()
            raise

    def __repr__(self) -> str:
        return f"<Mount {self.path!r}{' closed' if self.closed else ''}>"

    def __enter__(self) -> Mount:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def path(self) -> str:
        """The directory."""
        return self._native.mountpoint

    @property
    def closed(self) -> bool:
        return self._native.closed or not self._native.serving

    def wait(self, timeout: float | None = None) -> bool:
        """Until it is unmounted, from here or from outside; False when timeout (seconds) passed before that."""
        return self._native.wait(timeout)

    def flush(self) -> None:
        """Has the kernel hand over what was written through the mount: the library sees it then (durable it is not).

        Not inside of a transaction of the store: what is written waits for its end.
        """
        self._native.flush()

    def close(self) -> None:
        """Unmounts; may be called again. Files that are still open there become useless.

        What was written through the mount is in the store, and durable with its next commit. BusyError when requests
        are still under way after some seconds. Not inside of a transaction of this thread, for whose end writes would
        wait: OperationError (EDEADLK).
        """
        if self._store._thread_state.depth and not self.closed:
            raise OperationError("a mount cannot be closed inside of a transaction", errno=errno.EDEADLK)
        if self._names is not None:
            names, self._names = self._names, None
            self._store._names = tuple(other for other in self._store._names if other is not names)
            if not self._store._names:
                self._store._catalog.touched = None
        self._native.close()
        _open_mounts.discard(self)

    def _show_names(self) -> None:
        self._names = Names(self._native, self._store._catalog)
        if self._store._catalog.touched is None:
            self._store._catalog.touched = []
        self._store._names += (self._names,)
        self._names.load()


_open_mounts: weakref.WeakSet[Mount] = weakref.WeakSet()


def _close_all() -> None:
    for mount in list(_open_mounts):
        with contextlib.suppress(Exception):
            mount.close()


atexit.register(_close_all)


class Names:
    """The names in a mount of the whole store, kept as the catalog has them."""

    def __init__(self, native: NativeMount, catalog: Catalog) -> None:
        self._native = native
        self._catalog = catalog
        self._lock = threading.Lock()
        self._shown: dict[tuple[str, str], str] = {}  # (kind, key) -> path
        self._owner: dict[str, tuple[str, str]] = {}  # path -> (kind, key)
        self._snapshots: dict[str, set[str]] = {}  # container id -> names of those shown

    def load(self) -> None:
        """Everything that the catalog has."""
        for kind in KINDS:
            self._native.set_entry(kind, 0)
        kinds = ["containers", "tags", "volumes"]
        kinds += [f"snapshots/{container}" for container in self._catalog.keys("snapshots")]
        for kind in kinds:
            self.update((kind, key) for key in self._catalog.keys(kind))

    def update(self, keys: Iterable[tuple[str, str]]) -> None:
        """These documents may have changed; what they say now is shown."""
        with self._lock, contextlib.suppress(ClosedError):
            for kind, key in keys:
                self._update(kind, key)
                if kind == "containers":  # its snapshots have its name in their paths
                    for name in self._snapshots.get(key, set()).copy():
                        self._update(f"snapshots/{key}", name)

    def _update(self, kind: str, key: str) -> None:
        wanted = self._wanted(kind, key)
        shown = self._shown.get((kind, key))
        if shown is not None and (wanted is None or wanted[0] != shown):
            del self._shown[kind, key]
            self._note_snapshot(kind, key, False)
            if self._owner.get(shown) == (kind, key):
                del self._owner[shown]
                with contextlib.suppress(NotFoundError, NotEmptyError):
                    self._native.remove_entry(shown)
        if wanted is None:
            return
        path, tree_id = wanted
        with contextlib.suppress(ExistsError):  # registry/x:1 when there is an image registry, and the like: not shown
            self._native.set_entry(path, tree_id)
            self._shown[kind, key] = path
            self._owner[path] = (kind, key)
            self._note_snapshot(kind, key, True)

    def _note_snapshot(self, kind: str, key: str, shown: bool) -> None:
        kind, _, container_id = kind.partition("/")
        if kind == "snapshots" and shown:
            self._snapshots.setdefault(container_id, set()).add(key)
        elif kind == "snapshots" and (names := self._snapshots.get(container_id)) is not None:
            names.discard(key)
            if not names:
                del self._snapshots[container_id]

    def _wanted(self, kind: str, key: str) -> tuple[str, int] | None:
        """Where a document is shown, and its tree."""
        shows = kind in ("containers", "tags", "volumes") or kind.startswith("snapshots/")
        document = self._catalog.find(kind, key) if shows else None
        if document is None:
            return None
        if kind == "containers":
            return f"containers/{document['name']}", document["tree"]
        if kind == "volumes":
            return f"volumes/{key}", document["tree"]
        if kind != "tags":
            container = self._catalog.find("containers", kind.removeprefix("snapshots/"))
            return (f"snapshots/{container['name']}/{key}", document["tree"]) if container else None
        tree_id = self._image_tree(document)
        return (f"images/{key}", tree_id) if tree_id else None

    def _image_tree(self, tag: Document) -> int | None:
        image = self._catalog.find("images", tag["image"])
        layer = self._catalog.find("layers", image["layers"][-1]) if image and image["layers"] else None
        return layer["tree"] if layer else None
