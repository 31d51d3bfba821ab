# SPDX-License-Identifier: Apache-2.0
"""Volumes: writable trees that no image owns."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from pycow._native import Tree
from pycow.catalog import Document
from pycow.containers import check_labels, check_name
from pycow.errors import ExistsError, NotFoundError
from pycow.fs import FileSystem
from pycow.results import Usage

if TYPE_CHECKING:
    from pycow.store import Store

__all__ = ["Volume", "Volumes"]


class Volumes:
    """The volumes of a store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def create(self, name: str, *, labels: Mapping[str, str] | None = None) -> Volume:
        """A new, empty volume. ExistsError when the name is taken, InvalidError when it is not a name."""
        check_name(name)
        store = self._store
        if store._catalog.find("volumes", name) is not None:
            raise ExistsError(f"volume {name} exists already")
        with store.transaction(durable=False):
            tree = store._native.create_tree()
            document = {"tree": tree.id, "created": time.time_ns(), "labels": check_labels(labels)}
            store._catalog.create("volumes", name, document)
        return Volume(store, name, document, tree)

    def get(self, name: str) -> Volume:
        """NotFoundError when there is none."""
        return Volume(self._store, name, self._store._catalog.get("volumes", name))

    def list(self) -> list[Volume]:
        """All volumes by name."""
        return [Volume(self._store, name, document) for name, document in self._store._catalog.items("volumes")]

    def __iter__(self) -> Iterator[Volume]:
        return iter(self.list())

    def __len__(self) -> int:
        return len(self._store._catalog.keys("volumes"))


class Volume:
    """A volume of a store."""

    def __init__(self, store: Store, name: str, document: Document, tree: Tree | None = None) -> None:
        self._store = store
        self.name = name
        self.created: int = document["created"]
        self.labels: dict[str, str] = dict(document["labels"])
        self._tree_id: int = document["tree"]
        self._tree = tree

    def __repr__(self) -> str:
        return f"<Volume {self.name!r}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Volume) and self._tree_id == other._tree_id and self._store is other._store

    def __hash__(self) -> int:
        return hash(self._tree_id)

    @property
    def tree(self) -> Tree:
        if self._tree is None:
            self._tree = self._store._native.open_tree(self._tree_id)
        return self._tree

    @property
    def fs(self) -> FileSystem:
        return FileSystem(self.tree)

    def usage(self) -> Usage:
        """Bytes used; a volume has no image, so virtual_size is size."""
        usage = self.tree.usage()
        return Usage(
            usage.size_bytes, usage.size_bytes, usage.exclusive_bytes, usage.shared_bytes, usage.quota_bytes or None
        )

    def remove(self) -> None:
        """Removes the volume and its data. NotFoundError when it is gone already."""
        with self._store.transaction(durable=False):
            document = self._store._catalog.find("volumes", self.name)
            if document is None or document["tree"] != self._tree_id:
                raise NotFoundError(f"no such volume: {self.name}")
            self.tree.delete()
            self._store._catalog.delete("volumes", self.name)
