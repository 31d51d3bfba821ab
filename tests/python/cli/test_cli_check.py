# SPDX-License-Identifier: Apache-2.0
"""pycow check."""

from __future__ import annotations

from typing import Any

from pycow.cli._app import Exit


def test_a_sound_store(box: Any) -> None:
    (line,) = box("check").lines
    assert line.startswith("ok: ")
    assert box("check", "--no-data", "--json").json["ok"] is True


def test_damage(box: Any) -> None:
    segments = sorted((box.store / "segments").iterdir())
    damaged = False
    for path in segments:
        content = path.read_bytes()
        at = content.find(bytes(range(256)))
        if at >= 0:
            path.write_bytes(content[:at] + b"\xff" + content[at + 1 :])
            damaged = True
    assert damaged
    result = box.run("--store", box.store, "check")
    assert result.code == Exit.DAMAGED
    assert any(line.startswith("error: ") for line in result.lines)
    assert result.lines[-1].startswith("DAMAGED: ")
    assert box.run("--store", box.store, "check", "--no-data").code == 0
    assert box.fails("cat", "box:/big.bin").code == Exit.DAMAGED
