# SPDX-License-Identifier: Apache-2.0
"""Stores of released formats open for good; stores of other versions are refused with a message that helps."""

from __future__ import annotations

import importlib.util
import tarfile
from pathlib import Path
from types import ModuleType

import pytest

import pycow
from pycow.fs import FileSystem

COMPAT = Path(__file__).resolve().parent.parent / "compat"


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_store", COMPAT / "make_store.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def frozen(tmp_path: Path) -> Path:
    with tarfile.open(COMPAT / "v1.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path / "v1"


@pytest.mark.parametrize("mode", ["r", "rw"])
def test_a_store_of_version_1(frozen: Path, maker: ModuleType, mode: str) -> None:
    with pycow.open(frozen, mode, commit_interval=0) as store:  # type: ignore[arg-type]
        assert store.check(whole=True).errors == ()
        assert [volume.name for volume in store.volumes.list()] == ["data"]
        volume = store.volumes.get("data")
        old = FileSystem(store._native.open_tree(store.stats().trees + 1))  # the volume "gone" had an id as well
        for name, content in maker.contents().items():
            assert (old / name).read_bytes() == content
            assert (volume.fs / name).read_bytes() == (b"changed after the fork" if name == "d0/file 6" else content)
        assert (volume.fs / "link").readlink() == "d0/file 0" and len((volume.fs / "long").readlink()) == 3000
        assert (volume.fs / "hard").stat().nlink == 2
        assert (volume.fs / "d1" / "file 4").getxattr("user.colour") == b"green"
        sparse = (volume.fs / "sparse").read_bytes()
        assert sparse == bytes(1 << 20) + b"end"


def test_a_store_of_version_1_goes_on(frozen: Path) -> None:
    with pycow.open(frozen, commit_interval=0) as store:
        (store.volumes.get("data").fs / "new").write_bytes(b"new" * 10_000)
        store.volumes.create("more")
        store.commit()
        assert store.check(whole=True).errors == ()
    assert pycow.repair(frozen).found == 0


def everything(path: Path) -> dict[Path, bytes]:
    """All that is in a store but the lock file, which readers write to."""
    return {file: file.read_bytes() for file in path.rglob("*") if file.is_file() and file.name != "lock"}


@pytest.mark.parametrize(("version", "advice"), [(2, "a newer pycow"), (0, "the pycow that made it")])
def test_other_versions_are_refused(frozen: Path, version: int, advice: str) -> None:
    meta = frozen / "meta"
    content = bytearray(meta.read_bytes())
    for slot in (0, 4096):
        content[slot + 8 : slot + 12] = version.to_bytes(4, "little")
    meta.write_bytes(content)
    before = everything(frozen)
    for mode in ("r", "rw"):
        with pytest.raises(pycow.FormatError, match=f"format version {version}, .*{advice}"):
            pycow.open(frozen, mode)  # type: ignore[arg-type]
    with pytest.raises(pycow.FormatError):
        pycow.repair(frozen)
    assert everything(frozen) == before
