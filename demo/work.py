# SPDX-License-Identifier: Apache-2.0
"""Mixed work in rounds that anybody can repeat: run as a program it does them in a container and acknowledges each one
after its commit, on standard output; imported, it says what the container must then hold.

    python work.py STORE CONTAINER FIRST_ROUND
"""

from __future__ import annotations

import dataclasses
import random
import sys
from typing import Any

import pycow

__all__ = ["TOP", "Operation", "Plain", "at_round", "do_round", "tree_state"]

TOP = "/work"
_OPERATIONS = 40
_FILES_MAX = 60
_BLOCK = 4096
_KINDS = (
    "write", "write", "patch", "patch", "append", "truncate", "rename", "link", "symlink", "chmod", "remove",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Operation:
    """One step of a round."""

    what: str  # one of _KINDS
    name: str
    other: str = ""
    offset: int = 0
    size: int = 0
    seed: int = 0


def content(seed: int, size: int) -> bytes:
    """Bytes that only depend on the numbers."""
    return random.Random(seed).randbytes(size)


@dataclasses.dataclass
class Node:
    """A file; several names may have it."""

    data: bytearray
    mode: int = 0o644


class Plain:
    """The same work on dictionaries: what a round must leave behind."""

    def __init__(self) -> None:
        self.files: dict[str, Node] = {}
        self.links: dict[str, str] = {}

    def plan(self, number: int) -> list[Operation]:
        """Plans round number and does it here."""
        dice = random.Random(f"round {number}")
        operations = []
        for i in range(_OPERATIONS):
            operation = self._pick(dice, f"f{number}-{i}")
            self._do(operation)
            operations.append(operation)
        return operations

    def _pick(self, dice: random.Random, new: str) -> Operation:
        names = sorted(self.files)
        seed = dice.randrange(1 << 32)
        if len(names) < 3:
            return Operation("write", new, size=dice.randrange(1, 5 * _BLOCK), seed=seed)
        name = dice.choice(names)
        if len(names) >= _FILES_MAX:
            return Operation("remove", name)
        size = len(self.files[name].data)
        kind = dice.choice(_KINDS)
        if kind == "write":
            return Operation(kind, new, size=dice.choice((5, 1000, 3 * _BLOCK, 20 * _BLOCK + 7)), seed=seed)
        if kind == "patch":
            return Operation(kind, name, offset=dice.randrange(size + 1), size=dice.randrange(1, 2 * _BLOCK), seed=seed)
        if kind == "append":
            return Operation(kind, name, size=dice.randrange(1, 2 * _BLOCK), seed=seed)
        if kind == "truncate":
            return Operation(kind, name, size=dice.randrange(size + 3 * _BLOCK))
        if kind == "rename":
            return Operation(kind, name, other=self._rename_target(dice, name) or new)
        if kind == "symlink":
            return Operation(kind, new, other=name)
        return Operation(kind, name, other=new, size=dice.choice((0o600, 0o644, 0o755)))

    def _rename_target(self, dice: random.Random, name: str) -> str | None:
        """Now and then a name that is taken, by another file."""
        others = [other for other in sorted(self.files) if self.files[other] is not self.files[name]]
        return dice.choice(others) if others and dice.random() < 0.3 else None

    def _do(self, op: Operation) -> None:
        if op.what == "write":
            self.files[op.name] = Node(bytearray(content(op.seed, op.size)))
            return
        if op.what == "symlink":
            self.links[op.name] = op.other
            return
        node = self.files[op.name]
        if op.what == "patch":
            node.data[op.offset : op.offset + op.size] = content(op.seed, op.size)
        elif op.what == "append":
            node.data += content(op.seed, op.size)
        elif op.what == "truncate":
            node.data[op.size :] = bytes(max(op.size - len(node.data), 0))
        elif op.what == "rename":
            self.files[op.other] = self.files.pop(op.name)
        elif op.what == "link":
            self.files[op.other] = node
        elif op.what == "chmod":
            node.mode = op.size
        else:
            del self.files[op.name]

    def state(self) -> dict[str, Any]:
        """As tree_state gives it."""
        files = {name: (node.mode, bytes(node.data)) for name, node in self.files.items()}
        return {**files, **self.links}


def at_round(number: int) -> Plain:
    """After all rounds up to number; 0 is before the first."""
    plain = Plain()
    for i in range(1, number + 1):
        plain.plan(i)
    return plain


def do_round(fs: pycow.FileSystem, operations: list[Operation]) -> None:
    """Does a planned round in a tree."""
    top = fs / TOP
    for op in operations:
        path = top / op.name
        if op.what == "write":
            path.write_bytes(content(op.seed, op.size))
        elif op.what == "patch":
            with path.open("r+b") as file:
                file.seek(op.offset)
                file.write(content(op.seed, op.size))
        elif op.what == "append":
            with path.open("ab") as file:
                file.write(content(op.seed, op.size))
        elif op.what == "truncate":
            path.truncate(op.size)
        elif op.what == "rename":
            path.rename(top / op.other)
        elif op.what == "link":
            (top / op.other).hardlink_to(path)
        elif op.what == "symlink":
            path.symlink_to(op.other)
        elif op.what == "chmod":
            path.chmod(op.size)
        else:
            path.unlink()


def tree_state(fs: pycow.FileSystem) -> dict[str, Any]:
    """{name: (permissions, content)} of files and {name: target} of symbolic links."""
    state: dict[str, Any] = {}
    for path in (fs / TOP).iterdir():
        attr = path.lstat()
        state[path.name] = path.readlink() if attr.is_symlink() else (attr.permissions, path.read_bytes())
    return state


def main() -> None:
    store_path, container, first = sys.argv[1], sys.argv[2], int(sys.argv[3])
    plain = at_round(first - 1)
    with pycow.open(store_path, create=False) as store:
        fs = store.containers.get(container).fs
        number = first
        while True:  # until somebody kills us
            with store.transaction():
                do_round(fs, plain.plan(number))
            print(number, flush=True)  # durable: the transaction was committed
            number += 1


if __name__ == "__main__":
    main()
