# SPDX-License-Identifier: Apache-2.0
"""pycow scrub."""

from __future__ import annotations

from typing import Any

from pycow.cli._app import Exit


def test_a_sound_store(box: Any) -> None:
    (line,) = box("scrub").lines
    assert line.startswith("ok: ") and line.endswith(" read, 0 damaged blocks")
    assert box("scrub", "--rate", "100", "--json").json["damaged"] == 0


def test_damage(box: Any) -> None:
    for path in (box.store / "segments").iterdir():
        content = path.read_bytes()
        at = content.find(bytes(range(256)))
        if at >= 0:
            path.write_bytes(content[:at] + b"\xff" + content[at + 1 :])
    result = box.run("--store", box.store, "scrub")
    assert result.code == Exit.DAMAGED
    assert any(line.startswith("error: ") and "[/big.bin]" in line for line in result.lines)
    assert result.lines[-1].startswith("DAMAGED: ")


def test_a_wrong_rate(box: Any) -> None:
    assert box.fails("scrub", "--rate", "-1").code == Exit.USAGE
