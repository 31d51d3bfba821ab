# SPDX-License-Identifier: Apache-2.0
"""pycow commit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pycow.cli._app import Exit


def test_commit(box: Any, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"hello")
    box("cp", tmp_path / "f", "box:/f")
    (identifier,) = box("commit", "-m", "why", "-a", "who", "box", "acme/changed:1.0").lines
    assert identifier.startswith("sha256:")
    value = box("inspect", "acme/changed:1.0").json[0]
    assert value["Id"] == identifier
    assert len(value["RootFS"]["Layers"]) == 2
    newest = box("history", "acme/changed:1.0", "--json").json[0]
    assert (newest["comment"], newest["size"]) == ("why", 5)
    box("create", "--name", "next", "acme/changed:1.0")
    assert box("cat", "next:/f").out == b"hello"


def test_errors(box: Any) -> None:
    assert box.fails("commit", "nothing", "x").code == Exit.NOT_FOUND
    assert box.fails("commit", "box", "UPPER:case:twice").code == Exit.USAGE
    assert len(box("images", "--json").json) == 1
