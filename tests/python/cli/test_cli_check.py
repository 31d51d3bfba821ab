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


def test_repair(box: Any) -> None:
    assert box("check", "--repair").lines == ["ok: 0 found, 0 repaired, 0 lost, 0 stay damaged, 0 blocks unverified"]
    for half in ("journal.0", "journal.1"):
        journal = box.store / half
        content = journal.read_bytes()
        journal.write_bytes(content[:4100] + bytes(60) + content[4160:])
    assert box.run("--store", box.store, "check").code == Exit.DAMAGED
    result = box.run("--store", box.store, "check", "--repair")
    assert result.lines[0].startswith("repaired: the journal is damaged")
    assert box("check", "--whole").lines[-1].startswith("ok: ")
