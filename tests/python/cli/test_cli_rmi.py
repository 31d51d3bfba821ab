# SPDX-License-Identifier: Apache-2.0
"""pycow rmi."""

from __future__ import annotations

from typing import Any

from pycow.cli._app import Exit


def test_a_name_of_several_is_taken_off(cli: Any) -> None:
    cli("tag", "busybox", "other:1")
    assert any("other:1" in line for line in cli("rmi", "other:1").lines)
    assert len(cli("images", "--json").json) == 1


def test_the_last_name_takes_the_image_along(cli: Any) -> None:
    (image,) = cli("images", "--json").json
    lines = cli("rmi", "busybox").lines
    assert any(image["id"] in line for line in lines)
    assert cli("images", "--json").json == []
    assert cli("df", "--json").json[0]["size"] == 0
    assert cli("check").code == 0


def test_in_use(box: Any) -> None:
    assert box.fails("rmi", "busybox").code == Exit.CONFLICT
    box("rm", "box")
    assert box("rmi", "busybox", "--json").json


def test_errors(cli: Any) -> None:
    assert cli.fails("rmi", "nothing").code == Exit.NOT_FOUND
