# SPDX-License-Identifier: Apache-2.0
"""A state machine runs the same operations on a store and on plain dictionaries; reopening and crashing are steps too.

A crash is what SIGKILL leaves: the host files as they are, without a closing commit. (Power cuts, where unsynced
writes are lost, torn or reordered, are enumerated by tests/c/test_crash.c.)
"""

from __future__ import annotations

import copy
import shutil
import tempfile
from pathlib import Path as HostPath

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

import pycow
from pycow._native import NativeStore, Tree
from pycow.fs import FileSystem

NAMES = ["a", "b", "c", "long-" + "n" * 200]
DIRS = ["/", "/d", "/d/e"]
Model = dict[str, bytes | None]  # path -> content; None = directory

names = st.sampled_from(NAMES)
dirs = st.sampled_from(DIRS)
which = st.integers(min_value=0, max_value=5)
contents = st.one_of(
    st.binary(max_size=40),
    st.builds(lambda n, b: bytes([b]) * n, st.integers(1000, 20000), st.integers(0, 255)),
)
offsets = st.integers(min_value=0, max_value=30000)


def join(folder: str, name: str) -> str:
    return folder.rstrip("/") + "/" + name


class StoreMachine(RuleBasedStateMachine):
    """Trees of a native store against dictionaries of paths."""

    def __init__(self) -> None:
        super().__init__()
        self.top = HostPath(tempfile.mkdtemp(prefix="pycow-model-"))
        self.generation = 0
        self.path = self.top / "0"
        self.store = self.open()
        self.trees: list[tuple[Tree, Model, bool]] = []
        self.committed: list[tuple[int, Model, bool]] = []

    def open(self) -> NativeStore:
        return NativeStore(str(self.path), readonly=False, create=True, commit_interval_ms=0)

    def teardown(self) -> None:
        self.close_trees()
        self.store.close()
        shutil.rmtree(self.top)

    def close_trees(self) -> None:
        for tree, _, _ in self.trees:
            tree.close()

    @initialize()
    def first_tree(self) -> None:
        self.trees.append((self.store.create_tree(), {}, False))

    def pick(self, index: int, *, writable: bool = True) -> tuple[FileSystem, Model] | None:
        choices = [(t, m) for t, m, sealed in self.trees if not (writable and sealed)]
        if not choices:
            return None
        tree, model = choices[index % len(choices)]
        return FileSystem(tree), model

    @rule(index=which, folder=dirs, name=names, data=contents)
    def write(self, index: int, folder: str, name: str, data: bytes) -> None:
        if not (picked := self.pick(index)):
            return
        fs, model = picked
        path = join(folder, name)
        if (folder != "/" and folder not in model) or model.get(path, b"") is None:
            try:
                (fs / path).write_bytes(data)
                raise AssertionError("a write without its directory worked")
            except (pycow.Error, OSError):
                return
        (fs / path).write_bytes(data)
        model[path] = data

    @rule(index=which, folder=dirs, name=names, offset=offsets, data=contents)
    def write_at(self, index: int, folder: str, name: str, offset: int, data: bytes) -> None:
        picked = self.pick(index)
        path = join(folder, name)
        if not picked or picked[1].get(path) is None:
            return
        fs, model = picked
        with fs.open(path, "r+b") as file:
            file.seek(offset)
            file.write(data)
        old = model[path]
        assert old is not None
        if data:
            old = old.ljust(offset, b"\0")
            model[path] = old[:offset] + data + old[offset + len(data) :]

    @rule(index=which, folder=dirs, name=names, size=offsets)
    def truncate(self, index: int, folder: str, name: str, size: int) -> None:
        picked = self.pick(index)
        path = join(folder, name)
        if not picked or picked[1].get(path) is None:
            return
        fs, model = picked
        (fs / path).truncate(size)
        old = model[path]
        assert old is not None
        model[path] = old[:size].ljust(size, b"\0")

    @rule(index=which, folder=st.sampled_from(DIRS[1:]))
    def mkdir(self, index: int, folder: str) -> None:
        if not (picked := self.pick(index)):
            return
        fs, model = picked
        parent = folder.rsplit("/", 1)[0]
        if folder in model or (parent and parent not in model):
            return
        (fs / folder).mkdir()
        model[folder] = None

    @rule(index=which, folder=dirs, name=names)
    def unlink(self, index: int, folder: str, name: str) -> None:
        picked = self.pick(index)
        path = join(folder, name)
        if not picked or picked[1].get(path) is None:
            return
        fs, model = picked
        (fs / path).unlink()
        del model[path]

    @rule(index=which, folder=st.sampled_from(DIRS[1:]))
    def rmtree(self, index: int, folder: str) -> None:
        picked = self.pick(index)
        if not picked or folder not in picked[1]:
            return
        fs, model = picked
        (fs / folder).rmtree()
        for path in [p for p in model if p == folder or p.startswith(folder + "/")]:
            del model[path]

    @rule(index=which, source=names, name=names, folder=dirs)
    def rename(self, index: int, source: str, name: str, folder: str) -> None:
        picked = self.pick(index)
        if not picked or picked[1].get("/" + source) is None or (folder != "/" and folder not in picked[1]):
            return
        fs, model = picked
        (fs / source).replace(join(folder, name))
        model[join(folder, name)] = model.pop("/" + source)

    @precondition(lambda self: len(self.trees) < 6)
    @rule(index=which, sealed=st.booleans(), base=st.booleans())
    def fork(self, index: int, sealed: bool, base: bool) -> None:
        tree, model, _ = self.trees[index % len(self.trees)]
        self.trees.append((tree.fork(sealed=sealed, base=base), copy.copy(model), sealed))

    @rule(index=which, source=which)
    def rollback(self, index: int, source: int) -> None:
        position = index % len(self.trees)
        tree, _, sealed = self.trees[position]
        other, model, _ = self.trees[source % len(self.trees)]
        if not sealed:
            tree.reset(other)
            self.trees[position] = (tree, copy.copy(model), sealed)

    @precondition(lambda self: len(self.trees) > 1)
    @rule(index=which)
    def delete(self, index: int) -> None:
        tree, _, _ = self.trees.pop(index % len(self.trees))
        tree.delete()
        tree.close()

    @rule()
    def commit(self) -> None:
        self.store.commit()
        self.committed = [(t.id, copy.copy(m), s) for t, m, s in self.trees]

    @rule(index=which, data=contents)
    def abort(self, index: int, data: bytes) -> None:
        """A transaction that is taken back leaves nothing."""
        self.begun = self.store.begin()
        if picked := self.pick(index):
            (picked[0] / "aborted").write_bytes(data)
        forked = self.trees[0][0].fork()
        self.store.end(self.begun, False)
        forked.close()

    @rule()
    def reopen(self) -> None:
        self.commit()
        self.close_trees()
        self.store.close()
        self.store = self.open()
        self.trees = [(self.store.open_tree(i), copy.copy(m), s) for i, m, s in self.committed]

    @precondition(lambda self: self.committed)
    @rule()
    def crash(self) -> None:
        self.generation += 1
        copied = self.top / str(self.generation)
        shutil.copytree(self.path, copied)
        self.close_trees()
        self.store.close()
        shutil.rmtree(self.path)
        self.path = copied
        self.store = self.open()
        self.trees = [(self.store.open_tree(i), copy.copy(m), s) for i, m, s in self.committed]
        report, problems = self.store.check(True)
        assert report["errors"] == 0, problems

    @invariant()
    def same(self) -> None:
        for tree, model, _ in self.trees:
            fs = FileSystem(tree)
            found: Model = {}
            apparent = 0
            for folder, folders, files in fs.root.walk():
                for path in folders:
                    found[str(folder / path)] = None
                for path in files:
                    found[str(folder / path)] = (folder / path).read_bytes()
            assert found == model
            assert tree.info().inodes == len(model) + 1
            for content in model.values():
                if content is not None:
                    apparent += len(content)
            assert tree.info().apparent_bytes <= apparent


def test_model() -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        StoreMachine,
        settings=settings(
            max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
