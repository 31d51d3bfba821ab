# SPDX-License-Identifier: Apache-2.0
"""Names and configs: JSON documents in the store's catalog tree, so that one commit covers data and names together.

The document KEY of KIND is the file /KIND/QUOTED-KEY; a kind may be divided once ("snapshots/CONTAINER-ID"). A
document appears, changes and goes away as a whole: one that is new has no content until its only write, and an empty
file counts as missing; one that changes is written under another name and renamed over the old one. Every change runs
in a transaction of the store, so a commit sees all of it or nothing.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import stat
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias
from urllib.parse import unquote

from pycow._native import REMOVE_FILE, REMOVE_TREE, ROOT_INO, Tree
from pycow.errors import CorruptError, ExistsError, NotFoundError

__all__ = ["Catalog", "Document"]

Document: TypeAlias = dict[str, Any]
Transaction: TypeAlias = Callable[[], contextlib.AbstractContextManager[Any]]

_DIR_MODE = stat.S_IFDIR | 0o755
_FILE_MODE = stat.S_IFREG | 0o644
_READ_BYTES = 65536
_TEMP = "%tmp-"  # "%t" is no percent-quoted byte, so no key looks like this


_PLAIN = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*")
_UNSAFE = re.compile(rb"[^A-Za-z0-9_.-]")
_encode_json = json.JSONEncoder(separators=(",", ":"), ensure_ascii=True).encode


def _quoted(match: re.Match[bytes]) -> bytes:
    return b"%%%02X" % match[0][0]


def _file_name(key: str) -> bytes:
    if _PLAIN.fullmatch(key):
        return key.encode("ascii")
    if key in (".", ".."):
        return b"%2E" * len(key)
    return _UNSAFE.sub(_quoted, key.encode("utf-8", "surrogateescape"))


def _key(name: str) -> str:
    return unquote(name, encoding="utf-8", errors="surrogateescape")


class Catalog:
    """Documents by kind and key. transaction opens a re-entrant transaction that does not sync."""

    def __init__(self, tree: Tree, transaction: Transaction = contextlib.nullcontext) -> None:
        self._tree = tree
        self._transaction = transaction
        self._dirs: dict[str, int] = {}  # kind -> inode of its directory
        self._temp = itertools.count()
        self.touched: list[tuple[str, str]] | None = None  # (kind, key) of changes, when somebody wants to know

    def forget(self) -> None:
        """After a rollback: what this object remembers may be gone."""
        self._dirs.clear()

    # ---- Reading

    def find(self, kind: str, key: str) -> Document | None:
        """The document, or None."""
        directory = self._dir(kind)
        if directory is None:
            return None
        for _ in range(100):  # a writer may replace the file between lookup and read
            ino = self._tree.find(directory, _file_name(key))
            if ino is None:
                return None
            with contextlib.suppress(NotFoundError):
                return self._load(ino, kind, key)
        raise CorruptError(f"the document {kind}/{key} cannot be read")

    def get(self, kind: str, key: str) -> Document:
        """The document; NotFoundError when there is none."""
        document = self.find(kind, key)
        if document is None:
            raise NotFoundError(f"no such {kind.removesuffix('s')}: {key}")
        return document

    def exists(self, kind: str, key: str) -> bool:
        """Whether there is such a document; does not read it."""
        directory = self._dir(kind)
        return directory is not None and self._tree.find(directory, _file_name(key)) is not None

    def keys(self, kind: str) -> list[str]:
        """All keys of a kind, sorted."""
        directory = self._dir(kind)
        if directory is None:
            return []
        entries = self._tree.iter_dir(directory)
        return sorted(_key(entry.name) for entry in entries if not entry.name.startswith(_TEMP))

    def items(self, kind: str) -> Iterator[tuple[str, Document]]:
        """All keys and documents of a kind, sorted by key; skips what goes away meanwhile."""
        for key in self.keys(kind):
            document = self.find(kind, key)
            if document is not None:
                yield key, document

    # ---- Writing

    def create(self, kind: str, key: str, document: Document) -> None:
        """Adds a document; ExistsError when the key is taken."""
        with self._transaction():
            self._touch(kind, key)
            directory = self._dir(kind) or self._make_dir(kind)
            ino = self._make(directory, _file_name(key), f"{kind.removesuffix('s')} {key}")
            self._tree.write(ino, 0, self._dump(document))

    def put(self, kind: str, key: str, document: Document) -> None:
        """Adds or replaces a document."""
        with self._transaction():
            self._touch(kind, key)
            name = f"{_TEMP}{next(self._temp)}".encode()
            directory = self._dir(kind) or self._make_dir(kind)
            ino = self._make(directory, name, "temporary document")
            self._tree.write(ino, 0, self._dump(document))
            self._tree.rename(directory, name, directory, _file_name(key))

    def delete(self, kind: str, key: str) -> None:
        """Removes a document; NotFoundError when there is none."""
        directory = self._dir(kind)
        try:
            if directory is None:
                raise NotFoundError(key)
            with self._transaction():
                self._touch(kind, key)
                self._tree.remove(directory, _file_name(key), REMOVE_FILE)
        except NotFoundError:
            raise NotFoundError(f"no such {kind.removesuffix('s')}: {key}") from None

    def delete_part(self, kind: str, part: str) -> None:
        """Removes all documents of KIND/PART; there need not be any."""
        directory = self._dir(kind)
        if directory is not None and self._tree.find(directory, _file_name(part)) is not None:
            with self._transaction():
                for key in self.keys(f"{kind}/{part}") if self.touched is not None else ():
                    self._touch(f"{kind}/{part}", key)
                self._tree.remove(directory, _file_name(part), REMOVE_TREE)

    # ---- Inside

    def _touch(self, kind: str, key: str) -> None:
        if self.touched is not None:
            self.touched.append((kind, key))

    def _dir(self, kind: str) -> int | None:
        ino = self._dirs.get(kind)
        if ino is None:
            above, _, part = kind.rpartition("/")
            parent = self._dir(above) if above else ROOT_INO
            ino = None if parent is None else self._tree.find(parent, _file_name(part))
            if ino is not None and not above:
                self._dirs[kind] = ino
        return ino

    def _make_dir(self, kind: str) -> int:
        above, _, part = kind.rpartition("/")
        parent = (self._dir(above) or self._make_dir(above)) if above else ROOT_INO
        ino = self._tree.make(parent, _file_name(part), _DIR_MODE)
        if not above:
            self._dirs[kind] = ino
        return ino

    def _make(self, directory: int, name: bytes, what: str) -> int:
        try:
            return self._tree.make(directory, name, _FILE_MODE)
        except FileExistsError:
            raise ExistsError(f"{what} exists already") from None

    @staticmethod
    def _dump(document: Document) -> bytes:
        return _encode_json(document).encode("ascii")

    def _load(self, ino: int, kind: str, key: str) -> Document | None:
        data = self._tree.read(ino, 0, _READ_BYTES)
        if len(data) == _READ_BYTES:
            data = self._tree.read(ino, 0, self._tree.stat(ino).size)
        if not data:
            return None
        try:
            document = json.loads(data)
        except ValueError as error:
            raise CorruptError(f"the document {kind}/{key} is damaged: {error}") from None
        if not isinstance(document, dict):
            raise CorruptError(f"the document {kind}/{key} is damaged: not an object")
        return document
