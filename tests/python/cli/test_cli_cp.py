# SPDX-License-Identifier: Apache-2.0
"""pycow cp."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

from pycow.cli._app import Exit


def test_a_file_in_and_out(box: Any, tmp_path: Path) -> None:
    source = tmp_path / "tool"
    source.write_bytes(b"x" * 10_000)
    source.chmod(0o750)
    os.utime(source, ns=(10**18, 10**18 + 7))
    assert box("cp", source, "box:/tmp").lines == []  # into a directory
    box("cp", source, "box:/other")  # under another name
    assert [entry["name"] for entry in box("ls", "box:/tmp", "--json").json] == ["tool"]
    box("cp", "box:/other", tmp_path / "back")
    back = tmp_path / "back"
    assert back.read_bytes() == source.read_bytes()
    assert stat.S_IMODE(back.stat().st_mode) == 0o750
    assert back.stat().st_mtime_ns == 10**18 + 7


def test_a_tree_in_and_out(box: Any, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "a" / "b").mkdir(parents=True)
    (tree / "a" / "f").write_bytes(b"f")
    (tree / "l").symlink_to("a/f")
    box("cp", tree, "box:/tmp")
    box("cp", f"{tree}/.", "box:/etc")
    assert box("cat", "box:/tmp/tree/a/f").out == box("cat", "box:/etc/l").out == b"f"
    box("cp", "box:/tmp/tree", tmp_path / "copy")
    assert sorted(str(path.relative_to(tmp_path / "copy")) for path in (tmp_path / "copy").rglob("*")) == [
        "a",
        "a/b",
        "a/f",
        "l",
    ]
    assert (tmp_path / "copy" / "l").readlink() == Path("a/f")


def test_json(box: Any, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"")
    assert box("cp", "--json", tmp_path / "f", "box:/f").json["destination"] == "box:/f"


def test_errors(box: Any, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"")
    assert box.fails("cp", tmp_path / "f", tmp_path / "g").code == Exit.USAGE
    assert box.fails("cp", "box:/a", "box:/b").code == Exit.USAGE
    assert box.fails("cp", tmp_path / "none", "box:/f").code == Exit.NOT_FOUND
    assert box.fails("cp", "box:/none", tmp_path / "g").code == Exit.NOT_FOUND
    assert box.fails("cp", tmp_path / "f", "nothing:/f").code == Exit.NOT_FOUND
