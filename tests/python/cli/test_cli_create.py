# SPDX-License-Identifier: Apache-2.0
"""pycow create."""

from __future__ import annotations

from typing import Any

from pycow.cli._app import Exit


def test_the_id_is_printed(cli: Any) -> None:
    (identifier,) = cli("create", "--name", "box", "busybox").lines
    assert len(identifier) == 64
    assert [value["id"] for value in cli("ps", "--json").json] == [identifier]


def test_a_name_is_made_up(cli: Any) -> None:
    assert "_" in cli("create", "--json", "busybox").json["name"]
    names = {cli("create", "busybox").text for _ in range(3)}
    assert len(names) == 3


def test_what_follows_the_image_is_the_command(cli: Any) -> None:
    value = cli("create", "-l", "a=1", "-l", "b", "--json", "busybox", "ls", "-l", "--json").json
    assert value["command"] == ["ls", "-l", "--json"]
    assert value["labels"] == {"a": "1", "b": ""}


def test_errors(box: Any) -> None:
    assert box.fails("create", "--name", "box", "busybox").code == Exit.CONFLICT
    assert box.fails("create", "nothing").code == Exit.NOT_FOUND
    assert box.fails("create", "-l", "=1", "busybox").code == Exit.USAGE
    assert box.fails("create", "--name", "?", "busybox").code == Exit.FAILED
    assert len(box("ps", "--json").json) == 1
