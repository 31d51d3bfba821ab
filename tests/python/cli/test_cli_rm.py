# SPDX-License-Identifier: Apache-2.0
"""pycow rm."""

from __future__ import annotations

from typing import Any

from pycow.cli._app import Exit


def test_rm(box: Any) -> None:
    box("create", "--name", "other", "busybox")
    box("snapshot", "box", "first")
    assert box("rm", "box", "other").lines == ["box", "other"]
    assert box("ps", "-q").lines == []
    assert box("check").code == 0


def test_the_rest_is_removed_after_an_error(box: Any) -> None:
    result = box.fails("rm", "nothing", "box")
    assert result.code == Exit.NOT_FOUND
    assert result.lines == ["box"]
    assert box("ps", "-q").lines == []


def test_force(box: Any) -> None:
    assert box("rm", "-f", "nothing", "box").lines == ["box"]
    assert box("rm", "-f", "--json", "nothing").json == []
