# SPDX-License-Identifier: Apache-2.0
"""pycow inspect."""

from __future__ import annotations

from typing import Any

from pycow.cli._app import Exit


def test_an_image(cli: Any) -> None:
    (value,) = cli("inspect", "busybox").json
    assert value["Id"].startswith("sha256:")
    assert value["RepoTags"] == ["busybox:latest"]
    assert len(value["RootFS"]["Layers"]) == 1
    assert value["Config"]["Cmd"] == ["sh"]
    (by_id,) = cli("inspect", value["Id"][7:15]).json
    assert by_id == value


def test_a_container(cli: Any) -> None:
    cli("create", "--name", "box", "-l", "a=1", "busybox", "echo", "hi")
    cli("snapshot", "box", "first")
    image, box = cli("inspect", "busybox", "box").json
    assert box["Name"] == "/box"
    assert box["Image"] == image["Id"]
    assert box["Config"] == {"Image": "busybox:latest", "Cmd": ["echo", "hi"], "Labels": {"a": "1"}}
    assert (box["Path"], box["Args"]) == ("echo", ["hi"])
    assert box["SizeRw"] == 0
    assert box["SizeRootFs"] == image["Size"]
    assert [snapshot["Name"] for snapshot in box["Snapshots"]] == ["first"]


def test_what_is_there_is_printed_all_the_same(cli: Any) -> None:
    result = cli.fails("inspect", "busybox", "UPPER CASE")
    assert result.code == Exit.NOT_FOUND
    assert len(result.json) == 1
