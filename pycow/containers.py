# SPDX-License-Identifier: Apache-2.0
"""Containers: writable trees forked from an image, their snapshots, and what can be done with them."""

from __future__ import annotations

import contextlib
import re
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from pycow._names import random_name
from pycow._native import Tree
from pycow.catalog import Document
from pycow.errors import AmbiguousError, ExistsError, InvalidError, NameTooLongError, NotFoundError
from pycow.fs import FileSystem
from pycow.results import Change, Usage

if TYPE_CHECKING:
    from pycow.images import Image
    from pycow.store import Store, _Group

__all__ = ["Container", "Containers", "Snapshot"]

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
_HEX = re.compile(r"[0-9a-f]{1,64}")
_SHORT_ID = 12
_NAME_MAX = 255
_NAME_TRIES = 20


QUOTA_MAX = 2**63 - 1


def check_quota(quota: int | None) -> int:
    """As the core wants it: 0 = none. InvalidError for what is no number of bytes above 0."""
    if quota is None:
        return 0
    if isinstance(quota, bool) or not isinstance(quota, int) or not 0 < quota <= QUOTA_MAX:
        raise InvalidError(f"a quota is a number of bytes above 0, or None for none, not {quota!r}")
    return quota


def check_labels(labels: Mapping[str, str] | None) -> dict[str, str]:
    checked = dict(labels or {})
    if not all(isinstance(text, str) for item in checked.items() for text in item):
        raise TypeError("labels are str by str")
    return checked


def check_name(name: str) -> str:
    """Docker's rule for names of containers, snapshots and volumes; InvalidError otherwise."""
    if not isinstance(name, str):
        raise TypeError(f"a name is a str, not {type(name).__name__}")
    if len(name) > _NAME_MAX:
        raise NameTooLongError(f"a name of {len(name)} characters; at most {_NAME_MAX} are allowed")
    if not _NAME.fullmatch(name):
        raise InvalidError(f"invalid name {name!r}: only [a-zA-Z0-9][a-zA-Z0-9_.-]+ is allowed")
    return name


class Containers:
    """The containers of a store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def create(
        self,
        image: Image | str,
        *,
        name: str | None = None,
        command: Sequence[str] | None = None,
        labels: Mapping[str, str] | None = None,
        quota: int | None = None,
    ) -> Container:
        """A container over an image; takes the same time and space whatever the image's size.

        name defaults to a random one; quota, in bytes, bounds what the container holds by itself. ExistsError when
        the name is taken, InvalidError when it is not a name, NotFoundError when there is no such image.
        """
        store = self._store
        quota_bytes, words = check_quota(quota), list(command or ())
        if isinstance(command, str) or not all(isinstance(word, str) for word in words):
            raise TypeError("a command is a sequence of str")
        if isinstance(image, str):
            image = store.images.get(image)
        if getattr(image, "_store", None) is None:
            raise TypeError(f"an image is an Image or a str, not {type(image).__name__}")
        if image._store is not store:
            raise InvalidError(f"image {image.id} is of another store")
        image_key = image.id.removeprefix("sha256:")
        name = self._free_name(name)
        container_id = secrets.token_hex(32)
        with store._group() as group:
            if not store._catalog.exists("images", image_key):  # it may have been removed meanwhile
                raise NotFoundError(f"no such image: {image.id}")
            tree = image.tree().fork(base=True)
            group.undo(tree.delete)
            if quota_bytes:
                tree.set_quota(quota_bytes)
            document: Document = {
                "name": name,
                "tree": tree.id,
                "image": image_key,
                "created": time.time_ns(),
                "command": words,
                "labels": check_labels(labels),
                "forked_from": None,
            }
            self._add(group, container_id, document)
        return Container(store, container_id, document, tree)

    def get(self, key: str) -> Container:
        """By full id, name, or a prefix of the id that fits one container only.

        NotFoundError when there is none, AmbiguousError when there are several.
        """
        catalog = self._store._catalog
        document = catalog.find("containers", key) if _HEX.fullmatch(key) and len(key) == 64 else None
        container_id = key
        if document is None and (named := catalog.find("names", key)) is not None:
            container_id = named["id"]
            document = catalog.find("containers", container_id)
        if document is None:
            container_id = self._by_prefix(key)
            document = catalog.find("containers", container_id)
        if document is None:
            raise NotFoundError(f"no such container: {key}")
        return Container(self._store, container_id, document)

    def set_quota(self, key: str, quota: int | None) -> None:
        """See Container.set_quota; key as for get."""
        self.get(key).set_quota(quota)

    def list(self) -> list[Container]:
        """All containers, newest first."""
        found = [Container(self._store, key, document) for key, document in self._store._catalog.items("containers")]
        return sorted(found, key=lambda container: (container.created, container.id), reverse=True)

    def __iter__(self) -> Iterator[Container]:
        return iter(self.list())

    def __len__(self) -> int:
        return len(self._store._catalog.keys("containers"))

    def __contains__(self, key: object) -> bool:
        try:
            return isinstance(key, str) and self.get(key) is not None
        except NotFoundError:
            return False

    def _by_prefix(self, key: str) -> str:
        if not _HEX.fullmatch(key):
            raise NotFoundError(f"no such container: {key}")
        found = [full for full in self._store._catalog.keys("containers") if full.startswith(key)]
        if len(found) > 1:
            raise AmbiguousError(f"{len(found)} containers have an id that begins with {key}")
        if not found:
            raise NotFoundError(f"no such container: {key}")
        return found[0]

    def _free_name(self, name: str | None) -> str:
        """A name that is not taken; of a given one only that it is a name: adding it finds out the rest."""
        catalog = self._store._catalog
        if name is not None:
            return check_name(name)
        for attempt in range(_NAME_TRIES):
            name = random_name() if attempt < _NAME_TRIES // 2 else f"{random_name()}{secrets.randbelow(10**6)}"
            if not catalog.exists("names", name):
                return name
        return f"{random_name()}_{secrets.token_hex(8)}"

    def _add(self, group: _Group, container_id: str, document: Document) -> None:
        """The container's documents."""
        catalog = self._store._catalog
        try:
            catalog.create("names", document["name"], {"id": container_id})
        except ExistsError:
            raise ExistsError(f"the container name {document['name']} is taken") from None
        group.undo(catalog.delete, "names", document["name"])
        catalog.create("containers", container_id, document)


class Container:
    """A container of a store."""

    def __init__(self, store: Store, container_id: str, document: Document, tree: Tree | None = None) -> None:
        self._store = store
        self.id = container_id
        self.name: str = document["name"]
        self.created: int = document["created"]
        self.command: tuple[str, ...] = tuple(document["command"])
        self.labels: dict[str, str] = dict(document["labels"])
        self.forked_from: str | None = document["forked_from"]
        self._image_key: str = document["image"]
        self._tree_id: int = document["tree"]
        self._tree = tree

    def __repr__(self) -> str:
        return f"<Container {self.name!r} {self.short_id}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Container) and self.id == other.id and self._store is other._store

    def __hash__(self) -> int:
        return hash(self.id)

    @property
    def short_id(self) -> str:
        return self.id[:_SHORT_ID]

    @property
    def image_id(self) -> str:
        """Of the image that it was made from: "sha256:..."."""
        return f"sha256:{self._image_key}"

    @property
    def image(self) -> Image:
        return self._store.images.get(self.image_id)

    @property
    def tree(self) -> Tree:
        if self._tree is None:
            self._tree = self._store._native.open_tree(self._tree_id)
        return self._tree

    @property
    def fs(self) -> FileSystem:
        return FileSystem(self.tree)

    # ---- What it holds

    def usage(self) -> Usage:
        """Space in bytes, known without a walk of the files: size as ``docker ps -s`` shows it."""
        return _usage(self.tree, self.image)

    def set_quota(self, quota: int | None) -> None:
        """Bounds usage().size, in bytes; None takes the bound away.

        What would go above it raises QuotaError, before anything of it is done. Overwriting what the container holds
        already, removing and shrinking always work, names and attributes do not count; so a quota may also be below
        what is in use. Forks and snapshots take the quota over, a rollback keeps the container's own.
        """
        self.tree.set_quota(check_quota(quota))

    def diff(self) -> list[Change]:
        """The changes since the image, sorted by path, as ``docker diff`` shows them. Costs what changed.

        Directories above a change are listed as changed too.
        """
        changes = {}
        for entry in self.tree.diff(self.image.tree()):
            if entry.path != "/":
                changes[entry.path] = Change(entry.kind, entry.path, entry.ranges)
        for path in list(changes):
            while (path := path.rpartition("/")[0]) and path not in changes:
                changes[path] = Change("C", path)
        return [changes[path] for path in sorted(changes)]

    # ---- Copies of it

    def fork(self, name: str | None = None) -> Container:
        """A second container with the same content, of a live one too, whatever its size. Snapshots are not copied."""
        store = self._store
        name = store.containers._free_name(name)
        container_id = secrets.token_hex(32)
        store._write_back()
        with store._group() as group:
            tree = self.tree.fork()
            group.undo(tree.delete)
            document: Document = {
                "name": name,
                "tree": tree.id,
                "image": self._image_key,
                "created": time.time_ns(),
                "command": list(self.command),
                "labels": dict(self.labels),
                "forked_from": self.id,
            }
            store.containers._add(group, container_id, document)
        return Container(store, container_id, document, tree)

    def snapshot(self, name: str) -> Snapshot:
        """Keeps the present state under a name. ExistsError when this container has a snapshot of that name."""
        store = self._store
        kind = f"snapshots/{self.id}"
        check_name(name)
        store._write_back()
        with store._group() as group:
            tree = self.tree.fork(sealed=True)
            group.undo(tree.delete)
            document: Document = {"tree": tree.id, "created": time.time_ns(), "container": self.id}
            try:
                store._catalog.create(kind, name, document)
            except ExistsError:
                raise ExistsError(f"snapshot {name} of container {self.name} exists already") from None
        return Snapshot(self, name, document, tree)

    def snapshots(self) -> list[Snapshot]:
        """All snapshots of this container, oldest first."""
        catalog = self._store._catalog
        found = [Snapshot(self, name, document) for name, document in catalog.items(f"snapshots/{self.id}")]
        return sorted(found, key=lambda snapshot: (snapshot.created, snapshot.name))

    def get_snapshot(self, name: str) -> Snapshot:
        """NotFoundError when there is none of that name."""
        document = self._store._catalog.find(f"snapshots/{self.id}", name)
        if document is None:
            raise NotFoundError(f"no such snapshot of container {self.name}: {name}")
        return Snapshot(self, name, document)

    def rollback(self, snapshot: Snapshot | str) -> None:
        """The content becomes that of the snapshot, whatever its size; the snapshot stays.

        InvalidError for a snapshot of another container.
        """
        if isinstance(snapshot, str):
            snapshot = self.get_snapshot(snapshot)
        if snapshot.container_id != self.id:
            raise InvalidError(f"snapshot {snapshot.name} is of another container")
        self.tree.reset(snapshot.tree)

    def commit(
        self,
        ref: str | None = None,
        *,
        message: str = "",
        author: str = "",
        command: Sequence[str] | None = None,
    ) -> Image:
        """An image of the present state: one layer more than this container's image. ref names it."""
        return self._store.images.commit(self, ref, message=message, author=author, command=command)

    # ---- Its life

    def rename(self, name: str) -> None:
        """ExistsError when the name is taken, InvalidError when it is not a name."""
        store = self._store
        if name == self.name:
            return
        store.containers._free_name(name)
        with store.transaction(durable=False):
            document = self._document()
            try:
                store._catalog.create("names", name, {"id": self.id})
            except ExistsError:
                raise ExistsError(f"the container name {name} is taken") from None
            store._catalog.delete("names", document["name"])
            store._catalog.put("containers", self.id, {**document, "name": name})
        self.name = name

    def remove(self) -> None:
        """Removes the container and its snapshots; a large one is freed in the background."""
        store = self._store
        with store.transaction(durable=False):
            document = self._document()
            for snapshot in self.snapshots():
                snapshot.remove()
            store._catalog.delete_part("snapshots", self.id)
            with contextlib.suppress(NotFoundError):
                self.tree.delete()
            with contextlib.suppress(NotFoundError):
                store._catalog.delete("names", document["name"])
            store._catalog.delete("containers", self.id)

    def _document(self) -> Document:
        document = self._store._catalog.find("containers", self.id)
        if document is None:
            raise NotFoundError(f"no such container: {self.name}")
        return document


class Snapshot:
    """A named, read-only state of a container."""

    def __init__(self, container: Container, name: str, document: Document, tree: Tree | None = None) -> None:
        self._store = container._store
        self._image_key = container._image_key
        self.container_id = container.id
        self.name = name
        self.created: int = document["created"]
        self._tree_id: int = document["tree"]
        self._tree = tree

    def __repr__(self) -> str:
        return f"<Snapshot {self.name!r} of {self.container_id[:_SHORT_ID]}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Snapshot) and self._tree_id == other._tree_id and self._store is other._store

    def __hash__(self) -> int:
        return hash(self._tree_id)

    @property
    def tree(self) -> Tree:
        if self._tree is None:
            self._tree = self._store._native.open_tree(self._tree_id)
        return self._tree

    @property
    def fs(self) -> FileSystem:
        """Read-only."""
        return FileSystem(self.tree)

    def usage(self) -> Usage:
        """Space in bytes; see Container.usage."""
        return _usage(self.tree, self._store.images.get(f"sha256:{self._image_key}"))

    def remove(self) -> None:
        """NotFoundError when it is gone already."""
        with self._store.transaction(durable=False):
            self._store._catalog.delete(f"snapshots/{self.container_id}", self.name)
            with contextlib.suppress(NotFoundError):
                self.tree.delete()


def _usage(tree: Tree, image: Image) -> Usage:
    usage = tree.usage()
    return Usage(
        size=usage.size_bytes,
        virtual_size=usage.size_bytes + image.size,
        exclusive=usage.exclusive_bytes,
        shared=usage.shared_bytes,
        quota=usage.quota_bytes or None,
    )
