# SPDX-License-Identifier: Apache-2.0
"""pycow snapshot."""

from __future__ import annotations

from typing import Any

from pycow.cli._app import Exit


def test_snapshots(box: Any) -> None:
    assert box("snapshot", "box", "first").lines == ["first"]
    box("snapshot", "box", "second")
    header, *rows = box("snapshot", "--list", "box").columns
    assert header == ["SNAPSHOT", "CREATED", "SIZE"]
    assert [row[0] for row in rows] == ["first", "second"]
    assert rows[0][2] == "0B"
    assert box("snapshot", "--rm", "box", "first").lines == ["first"]
    assert [value["name"] for value in box("snapshot", "--list", "box", "--json").json] == ["second"]


def test_errors(box: Any) -> None:
    box("snapshot", "box", "first")
    assert box.fails("snapshot", "box", "first").code == Exit.CONFLICT
    assert box.fails("snapshot", "--rm", "box", "none").code == Exit.NOT_FOUND
    assert box.fails("snapshot", "nothing", "first").code == Exit.NOT_FOUND
    assert box.fails("snapshot", "--list", "--rm", "box", "first").code == Exit.USAGE
    assert box.fails("snapshot", "--list", "box", "first").code == Exit.USAGE
    assert box.fails("snapshot", "box").code == Exit.USAGE
