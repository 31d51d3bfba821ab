# SPDX-License-Identifier: Apache-2.0
"""pycow tag."""

from __future__ import annotations

from typing import Any

from pycow.cli._app import Exit


def test_tag(cli: Any) -> None:
    assert cli("tag", "busybox", "acme/box:1.0").lines == []
    (image,) = cli("images", "--json").json
    assert sorted(image["tags"]) == ["acme/box:1.0", "busybox:latest"]


def test_a_name_moves(box: Any) -> None:
    box("commit", "box", "other")
    box("tag", "other", "busybox")
    images = {tuple(sorted(image["tags"])) for image in box("images", "--json").json}
    assert images == {(), ("busybox:latest", "other:latest")}


def test_errors(cli: Any) -> None:
    assert cli.fails("tag", "nothing", "x").code == Exit.NOT_FOUND
    assert cli.fails("tag", "busybox", "UPPER:case:twice").code == Exit.USAGE
