# SPDX-License-Identifier: Apache-2.0
"""copy_in and copy_out: the rules of docker cp, and that nothing is lost on the way."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

import pycow
from pycow import FileSystem


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A tree on the host with a bit of everything."""
    top = tmp_path / "host" / "src"
    (top / "sub" / "deep").mkdir(parents=True)
    (top / "f").write_bytes(b"content")
    (top / "sub" / "deep" / "g").write_bytes(os.urandom(100_000))
    os.link(top / "f", top / "sub" / "hard")
    os.symlink("../f", top / "sub" / "soft")
    os.symlink("/nowhere", top / "dangling")
    os.mkfifo(top / "fifo", 0o640)
    with open(top / "sparse", "wb") as f:
        f.seek(5 << 20)
        f.write(b"end")
    os.chmod(top / "f", 0o4711)
    os.chmod(top / "sub", 0o711)
    for path, _, names in os.walk(top, topdown=False):
        for name in (*names, "."):
            os.utime(os.path.join(path, name), ns=(10**18 + 5, 10**18 + 7), follow_symlinks=False)
    return top


def listing(top: Path) -> dict[str, tuple[object, ...]]:
    found: dict[str, tuple[object, ...]] = {}
    inodes: dict[int, str] = {}
    for path, dirs, names in os.walk(top):
        dirs.sort()
        for name in sorted([*dirs, *names, "."]):
            full = os.path.join(path, name)
            st = os.lstat(full)
            content: object = None
            if stat.S_ISREG(st.st_mode):
                content = Path(full).read_bytes()
            elif stat.S_ISLNK(st.st_mode):
                content = os.readlink(full)
            relative = os.path.relpath(full, top)
            first = inodes.setdefault(st.st_ino, relative)
            found[relative] = (st.st_mode, st.st_uid, st.st_gid, st.st_mtime_ns, content, first)
    return found


def test_there_and_back(fs: FileSystem, host: Path, tmp_path: Path) -> None:
    fs.copy_in(host, "/copy")
    assert (fs / "copy/f").stat().permissions == 0o4711
    assert (fs / "copy/sparse").stat().blocks * 512 <= 8192
    assert (fs / "copy/sub/hard").stat().ino == (fs / "copy/f").stat().ino
    fs.copy_out("/copy", tmp_path / "back")
    assert listing(tmp_path / "back") == listing(host)
    assert os.stat(tmp_path / "back" / "sparse").st_blocks * 512 < 1 << 20


def test_rules_of_copy_in(fs: FileSystem, host: Path) -> None:
    (fs / "d").mkdir()
    fs.copy_in(host, "/d")  # into a directory: below it
    assert (fs / "d/src/f").exists()
    fs.copy_in(f"{host}/.", "/d")  # its content
    assert (fs / "d/f").exists()
    fs.copy_in(host / "f", "/d/new")
    fs.copy_in(host / "f", "/d/sub")
    assert (fs / "d/sub/f").read_bytes() == b"content"
    fs.copy_in(host / "sub/deep/g", "/d/new")  # replaces
    assert (fs / "d/new").stat().size == 100_000
    with pytest.raises(NotADirectoryError):
        fs.copy_in(host, "/d/new")
    with pytest.raises(FileNotFoundError):
        fs.copy_in(host / "f", "/nope/")
    with pytest.raises(FileNotFoundError):
        fs.copy_in(host / "f", "/nope/f")
    with pytest.raises(FileNotFoundError):
        fs.copy_in(host / "nope", "/d")
    (fs / "link").symlink_to("d/new")
    fs.copy_in(host / "f", "/link")
    assert (fs / "link").is_symlink()
    assert (fs / "d/new").read_bytes() == b"content"


def test_rules_of_copy_out(fs: FileSystem, host: Path, tmp_path: Path) -> None:
    fs.copy_in(host, "/src")
    out = tmp_path / "out"
    out.mkdir()
    fs.copy_out("/src", out)
    assert (out / "src" / "f").read_bytes() == b"content"
    fs.copy_out("/src/.", out)
    assert (out / "f").read_bytes() == b"content"
    fs.copy_out("src/sub/soft", out / "link")
    assert os.readlink(out / "link") == "../f"
    fs.copy_out("/src/f", out / "sub")
    assert (out / "sub" / "f").read_bytes() == b"content"
    with pytest.raises(NotADirectoryError):
        fs.copy_out("/src", out / "f")
    with pytest.raises(FileNotFoundError):
        fs.copy_out("/nope", out)
    with pytest.raises(FileNotFoundError):
        fs.copy_out("/src/f", f"{out}/nope/")
    with pytest.raises(pycow.InvalidError):
        fs.copy_out("/", out)


def test_links_on_the_host_are_not_followed(fs: FileSystem, tmp_path: Path) -> None:
    (fs / "src/d").mkdir(parents=True)
    (fs / "src/f").write_bytes(b"new")
    (fs / "src/d/g").write_bytes(b"new")
    out, outside = tmp_path / "out", tmp_path / "outside"
    out.mkdir()
    outside.mkdir()
    (outside / "f").write_bytes(b"precious")
    os.symlink(outside / "f", out / "f")
    os.symlink(outside, out / "d")
    with pytest.raises(NotADirectoryError):
        fs.copy_out("/src/.", out)
    assert (outside / "f").read_bytes() == b"precious"
    assert not (outside / "g").exists()
