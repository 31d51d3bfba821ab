# SPDX-License-Identifier: Apache-2.0
"""pycow cat."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from pycow.cli._app import Exit


def test_bytes(box: Any, tmp_path: Path) -> None:
    content = bytes(range(256)) * 10_001
    (tmp_path / "f").write_bytes(content)
    box("cp", tmp_path / "f", "box:/f")
    assert box("cat", "box", "/f").out == box("cat", "box:f").out == content
    value = box("cat", "box:f", "--json").json
    assert base64.b64decode(value["content"]) == content
    assert value["path"] == "/f"


def test_errors(box: Any) -> None:
    assert box.fails("cat", "box:/none").code == Exit.NOT_FOUND
    assert box.fails("cat", "box:/etc").code == Exit.FAILED
    assert box.fails("cat", "box").code == Exit.USAGE
