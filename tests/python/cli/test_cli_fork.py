# SPDX-License-Identifier: Apache-2.0
"""pycow fork."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pycow.cli._app import Exit


def test_fork(box: Any, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"one")
    box("cp", tmp_path / "f", "box:/f")
    (identifier,) = box("fork", "box", "twin").lines
    (tmp_path / "f").write_bytes(b"two!")
    box("cp", tmp_path / "f", "twin:/f")
    assert box("cat", "box:/f").out == b"one"
    assert box("cat", "twin:/f").out == b"two!"
    twin, original = box("inspect", "twin", "box").json
    assert twin["Id"] == identifier
    assert twin["ForkedFrom"] == original["Id"]
    assert (twin["SizeRw"], original["SizeRw"]) == (4, 3)


def test_a_name_is_made_up(box: Any) -> None:
    assert box("fork", "box", "--json").json["name"] != "box"


def test_errors(box: Any) -> None:
    assert box.fails("fork", "box", "box").code == Exit.CONFLICT
    assert box.fails("fork", "nothing").code == Exit.NOT_FOUND
