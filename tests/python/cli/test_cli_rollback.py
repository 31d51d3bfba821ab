# SPDX-License-Identifier: Apache-2.0
"""pycow rollback."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pycow.cli._app import Exit


def test_rollback(box: Any, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"one")
    box("cp", tmp_path / "f", "box:/f")
    box("snapshot", "box", "before")
    (tmp_path / "f").write_bytes(b"spoilt")
    box("cp", tmp_path / "f", "box:/f")
    assert box("rollback", "box", "before").lines == ["before"]
    assert box("cat", "box:/f").out == b"one"
    assert box("rollback", "box", "before", "--json").json["usage"]["size"] == 3
    assert box("check").code == 0


def test_errors(box: Any) -> None:
    assert box.fails("rollback", "box", "none").code == Exit.NOT_FOUND
    assert box.fails("rollback", "nothing", "none").code == Exit.NOT_FOUND
