# SPDX-License-Identifier: Apache-2.0
"""What is measured: a *subject* holds a base tree and makes containers ("boxes") over it.

pycow is one subject, each peer another. Works (:mod:`pycow.bench.works`) speak to these classes only, so every subject
does the same work. A subject that has no such operation raises :class:`Unsupported` with the reason, which ends up in
the report.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pycow.bench.base import Base

__all__ = ["BLOCK", "Blocks", "Box", "Open", "Subject", "Unsupported"]

BLOCK = 4096
Blocks = npt.NDArray[np.uint64]


class Unsupported(Exception):
    """The subject cannot do this, or not here; the text says why."""


class Open(abc.ABC):
    """An open file of a box, or a file of its own. Offsets and lengths are bytes."""

    @abc.abstractmethod
    def writer(self) -> Callable[[int, Any], Any]:
        """write(offset, data), with as little around it as the subject's API allows."""

    @abc.abstractmethod
    def reader(self) -> Callable[[int, Any], Any]:
        """read(offset, writable buffer)."""

    @abc.abstractmethod
    def write_many(self, blocks: Blocks, data: npt.NDArray[np.uint8]) -> None:
        """Blocks of 4096 bytes, data one row each."""

    @abc.abstractmethod
    def read_many(self, blocks: Blocks, out: npt.NDArray[np.uint8]) -> None: ...

    @abc.abstractmethod
    def sync(self) -> None:
        """fsync(2), or what stands for it."""

    @abc.abstractmethod
    def close(self) -> None: ...


class Box(abc.ABC):
    """A writable tree. Paths are relative: "etc/hosts"."""

    @abc.abstractmethod
    def fork(self) -> Box:
        """A second writable tree with the same content."""

    @abc.abstractmethod
    def snapshot(self) -> Any:
        """A read-only state to go back to."""

    @abc.abstractmethod
    def rollback(self, snapshot: Any) -> None: ...

    @abc.abstractmethod
    def drop(self, snapshot: Any) -> None: ...

    @abc.abstractmethod
    def delete(self) -> None: ...

    @abc.abstractmethod
    def changes(self) -> int:
        """Number of paths found to differ from the base."""

    @abc.abstractmethod
    def mkdir(self, path: str) -> None: ...

    @abc.abstractmethod
    def create(self, path: str, data: bytes) -> None:
        """A new file: create, write, close."""

    @abc.abstractmethod
    def read(self, path: str) -> bytes: ...

    @abc.abstractmethod
    def remove(self, path: str) -> None: ...

    @abc.abstractmethod
    def chmod(self, path: str, mode: int) -> None: ...

    @abc.abstractmethod
    def stat(self, path: str) -> Any: ...

    @abc.abstractmethod
    def list(self, path: str) -> int:
        """Lists a directory; returns the number of entries."""

    @abc.abstractmethod
    def walk(self) -> int:
        """Lists all directories with the attributes of each entry; returns the number of entries."""

    @abc.abstractmethod
    def read_all(self, path: str) -> int:
        """Reads all files below a directory; returns the bytes."""

    @abc.abstractmethod
    def open(self, path: str) -> Open: ...


class Subject(abc.ABC):
    """A place where boxes are made."""

    name: str
    #: How many containers it can make in the time of one run: those that copy everything make one or two.
    copies_all: bool = False

    def leaves_out(self, work: str) -> str:
        """Why this subject does not do a work; "" when it does."""
        return ""

    @abc.abstractmethod
    def prepare(self, base: Base) -> None:
        """Takes the base tree in."""

    @abc.abstractmethod
    def create(self) -> Box: ...

    @abc.abstractmethod
    def commit(self) -> None:
        """Makes everything done so far durable (syncfs(2) for the file systems)."""

    @abc.abstractmethod
    def disk_bytes(self) -> int:
        """What the subject takes on its disk now."""

    @abc.abstractmethod
    def import_tar(self, tar: Path) -> Any:
        """Unpacks a tar, plain or compressed, into a new tree; returns what forget() takes."""

    @abc.abstractmethod
    def export_tar(self, tree: Any, to: Path) -> None:
        """Writes a tree that import_tar made as an uncompressed tar."""

    @abc.abstractmethod
    def forget(self, tree: Any) -> None: ...

    @abc.abstractmethod
    def stack(self, depth: int) -> Box:
        """A container over depth layers, each with a file of its own; the lowest has usr/share/doc/copyright."""

    @abc.abstractmethod
    def close(self) -> None: ...
