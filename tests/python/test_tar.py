# SPDX-License-Identifier: Apache-2.0
"""Layers against other readers and writers: Python's tarfile, and a model of the OCI rules, written here once more in
the plainest way."""

from __future__ import annotations

import hashlib
import io
import random
import stat
import tarfile
from dataclasses import dataclass, field

import pytest

import pycow
from pycow._native import REMOVE_TREE, ROOT_INO, Tree

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
PREFIX = ".wh."


def apply(tree: Tree, data: bytes, *, layer: bool = True, step: int = 10_000) -> None:
    with tree.untar(layer=layer) as untar:
        for at in range(0, len(data), step):
            untar.feed(data[at : at + step])
        untar.finish()


def written(tree: Tree, old: Tree | None = None) -> bytes:
    return b"".join(tree.tar(old))


def add(tar: tarfile.TarFile, name: str, data: bytes = b"", *, kind: bytes = tarfile.REGTYPE, link: str = "") -> None:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, len(data), link
    info.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    info.mtime = 1_600_000_000
    tar.addfile(info, io.BytesIO(data))


def members(data: bytes) -> dict[str, tuple[object, ...]]:
    """What tarfile sees, by name."""
    seen: dict[str, tuple[object, ...]] = {}
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for m in tar:
            file = tar.extractfile(m) if m.isreg() else None
            digest = hashlib.sha256(file.read()).hexdigest() if file is not None else ""
            device = (m.devmajor, m.devminor) if m.isdev() else (0, 0)
            owner = (m.mode, m.uid, m.gid, m.mtime)
            seen[m.name.removeprefix("./")] = (m.type, owner, m.size, m.linkname, digest, device)
    return seen


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("step", [333, 1 << 20])
def test_tarfile_writes_and_reads(store: pycow.Store, name: str, step: int) -> None:
    rng = random.Random(7)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=FORMATS[name]) as tar:
        add(tar, ".", kind=tarfile.DIRTYPE)
        add(tar, "d", kind=tarfile.DIRTYPE)
        for n in range(60):
            add(tar, f"d/{n}", rng.randbytes(rng.choice([0, 1, 511, 512, 513, 5000, 70_000, 300_001])))
        add(tar, "d/hard", kind=tarfile.LNKTYPE, link="d/7")
        add(tar, "fifo", kind=tarfile.FIFOTYPE)
        add(tar, "sym", kind=tarfile.SYMTYPE, link="/etc/passwd")
        info = tarfile.TarInfo("null")
        info.type, info.devmajor, info.devminor = tarfile.CHRTYPE, 1, 3
        tar.addfile(info)
        if name != "ustar":
            add(tar, "l" * 200, b"long name")
            add(tar, "d/é" + "é" * 90, b"not ASCII")
            add(tar, "long", kind=tarfile.SYMTYPE, link="t" * 400)
            info = tarfile.TarInfo("large")
            info.size, info.uid, info.gid, info.mtime = 9_000_000, 5_000_000, 1 << 31, 5_000_000_000
            tar.addfile(info, io.BytesIO(b"x" * 9_000_000))
    tree = store._native.create_tree(temp=True)
    apply(tree, out.getvalue(), layer=False, step=step)
    again = written(tree)
    assert members(again) == members(out.getvalue())
    copy = store._native.create_tree(temp=True)
    apply(copy, again)
    assert written(copy) == again


@pytest.mark.parametrize(
    "name",
    ["../x", "/etc/passwd", "a/../../x", "d/..", "link/x", "d/.wh.", "d/.wh..", "d/.wh...", ".wh.d/x", "n" * 256],
)
def test_hostile_names_are_refused(store: pycow.Store, name: str) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
        add(tar, "d", kind=tarfile.DIRTYPE)
        add(tar, "link", kind=tarfile.SYMTYPE, link="/etc")
        info = tarfile.TarInfo("placeholder")
        info.name = name
        tar.addfile(info)
    tree = store._native.create_tree(temp=True)
    with pytest.raises(pycow.ImageError):
        apply(tree, out.getvalue())
    tree.delete()


# ---- A model of the rules


@dataclass
class Node:
    content: bytes | None  # None: a directory
    own: bool  # made or listed by the layer
    children: dict[str, Node] = field(default_factory=dict)

    @property
    def is_dir(self) -> bool:
        return self.content is None

    @property
    def holds(self) -> bool:
        return self.own or any(child.holds for child in self.children.values())


def hide(directory: Node, name: str) -> None:
    """Takes away what is not the layer's own."""
    node = directory.children.get(name)
    if node is None:
        return
    for below in list(node.children):
        hide(node, below)
    if not node.holds:
        del directory.children[name]


def apply_to_model(root: Node, data: bytes) -> None:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for m in tar:
            parts = [p for p in m.name.split("/") if p not in ("", ".")]
            if not parts:
                continue
            *way, name = parts
            whiteout = name.startswith(PREFIX)
            at: Node | None = root
            for part in way:
                assert at is not None and at.is_dir
                if part not in at.children and not whiteout:
                    at.children[part] = Node(None, True)
                at = at.children.get(part)
                if at is None:
                    break
            if at is None:
                continue
            if name == ".wh..wh..opq":
                for below in list(at.children):
                    hide(at, below)
            elif whiteout:
                hide(at, name.removeprefix(PREFIX))
            elif m.isdir():
                if name in at.children and at.children[name].is_dir:
                    at.children[name].own = True
                else:
                    at.children[name] = Node(None, True)
            else:
                file = tar.extractfile(m)
                assert file is not None
                at.children[name] = Node(file.read(), True)


def disown(node: Node) -> None:
    node.own = False
    for child in node.children.values():
        disown(child)


def model_paths(node: Node, path: str = "") -> dict[str, bytes | None]:
    found: dict[str, bytes | None] = {}
    for name, child in node.children.items():
        found[f"{path}/{name}"] = child.content
        found.update(model_paths(child, f"{path}/{name}"))
    return found


def tree_paths(tree: Tree, directory: int = ROOT_INO, path: str = "") -> dict[str, bytes | None]:
    found: dict[str, bytes | None] = {}
    for entry in tree.read_dir(directory):
        below = f"{path}/{entry.name}"
        attr = tree.stat(entry.ino)
        if stat.S_ISDIR(attr.mode):
            found[below] = None
            found.update(tree_paths(tree, entry.ino, below))
        else:
            found[below] = tree.read(entry.ino, 0, attr.size)
    return found


def random_layer(rng: random.Random, root: Node) -> bytes:
    """Members in any order; files never stand where a path leads through (that is refused)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for _ in range(rng.randrange(12)):
            at, way = root, []
            for _ in range(rng.randrange(3)):
                directories = sorted(n for n, c in at.children.items() if c.is_dir) + ["new"]
                way.append(rng.choice(directories))
                at = at.children.get(way[-1], Node(None, False))
                if not at.is_dir:
                    way.pop()
                    break
            name = rng.choice("abc")
            kind = rng.choice(["file", "dir", "whiteout", "opaque"])
            if kind == "dir":
                add(tar, "/".join([*way, "d" + name]), kind=tarfile.DIRTYPE)
            elif kind == "file":
                add(tar, "/".join([*way, name]), rng.randbytes(rng.choice([0, 10, 5000])))
            elif kind == "whiteout":
                add(tar, "/".join([*way, PREFIX + rng.choice(["", "d"]) + name]))
            else:
                add(tar, "/".join([*way, ".wh..wh..opq"]))
    return out.getvalue()


@pytest.mark.parametrize("seed", range(25))
def test_random_layers_follow_the_rules(store: pycow.Store, seed: int) -> None:
    rng = random.Random(seed)
    tree, model = store._native.create_tree(temp=True), Node(None, False)
    for _ in range(5):
        layer = random_layer(rng, model)
        tree = tree.fork(base=True, temp=True)
        apply(tree, layer, step=rng.choice([100, 512, 100_000]))
        disown(model)
        apply_to_model(model, layer)
        assert tree_paths(tree) == model_paths(model)


def random_change(rng: random.Random, tree: Tree) -> None:
    paths = tree_paths(tree)
    directories = [""] + sorted(p for p, content in paths.items() if content is None)
    name = rng.choice("abcdef")
    parent = rng.choice(directories)
    ino = tree.walk(parent or "/")
    there = f"{parent}/{name}" in paths
    action = rng.choice(["file", "dir", "remove", "write", "rename"])
    if action == "remove" and there:
        tree.remove(ino, name, REMOVE_TREE)
    elif action == "file" and not there:
        tree.write(tree.make(ino, name, stat.S_IFREG | 0o600), 0, rng.randbytes(rng.choice([1, 9000])))
    elif action == "dir" and not there:
        tree.make(ino, name, stat.S_IFDIR | 0o755)
    elif action == "write" and paths.get(f"{parent}/{name}") is not None:
        tree.write(tree.walk(f"{parent}/{name}"), rng.choice([0, 5000]), b"written")
    elif action == "rename" and there:
        target = rng.choice([d for d in directories if not (d + "/").startswith(f"{parent}/{name}/")])
        if f"{target}/{name}" not in paths:
            tree.rename(ino, name, tree.walk(target or "/"), name)


@pytest.mark.parametrize("seed", range(25))
def test_changes_as_a_layer(store: pycow.Store, seed: int) -> None:
    """old + tar(old -> new) = new, for this reader and for the model."""
    rng = random.Random(seed)
    old = store._native.create_tree(temp=True)
    for _ in range(30):
        random_change(rng, old)
    old.seal()
    new = old.fork(base=True, temp=True)
    for _ in range(15):
        random_change(rng, new)
    layer = written(new, old)
    assert layer == written(new, old)
    copy = old.fork(base=True, temp=True)
    apply(copy, layer)
    assert tree_paths(copy) == tree_paths(new)
    assert written(copy) == written(new)
    model = Node(None, False)
    apply_to_model(model, written(old))
    disown(model)
    apply_to_model(model, layer)
    assert model_paths(model) == tree_paths(new)


def test_no_change_is_an_empty_layer(store: pycow.Store) -> None:
    old = store._native.create_tree(temp=True)
    assert written(old.fork(base=True, temp=True), old) == bytes(1024)


def test_a_further_link_to_a_lower_file_stays_a_link(store: pycow.Store) -> None:
    native = store._native
    lower = native.create_tree()
    ino = lower.make(ROOT_INO, "a", 0o100644)
    lower.write(ino, 0, b"content")
    lower.seal()
    box = lower.fork(base=True)
    box.link(ROOT_INO, "b", ino)
    assert [(c.kind, c.path) for c in box.diff(lower)] == [("C", "/a"), ("A", "/b")]
    again = lower.fork(base=True)
    apply(again, written(box, lower))
    assert again.walk("/a") == again.walk("/b")
    assert again.stat(again.walk("/b")).st_nlink == 2
    for tree in (lower, box, again):
        tree.close()
