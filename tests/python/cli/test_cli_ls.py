# SPDX-License-Identifier: Apache-2.0
"""pycow ls."""

from __future__ import annotations

from typing import Any

from pycow.cli._app import Exit


def test_names(box: Any) -> None:
    assert box("ls", "box").lines == ["big.bin", "bin", "dev", "etc", "tmp"]
    assert box("ls", "box", "/bin").lines == box("ls", "box:bin").lines == ["ash", "link", "sh"]
    assert box("ls", "box:/etc/hostname").lines == ["hostname"]


def test_long(box: Any) -> None:
    lines = box("ls", "-l", "box:/bin").lines
    assert lines[0].startswith("-rwxr-xr-x 2 0 0 2 2023-11-14 22:13 ash")
    assert lines[1].startswith("lrwxrwxrwx")
    assert lines[1].endswith("link -> sh")
    assert "1, 3" in box("ls", "-l", "box:/dev").text


def test_json(box: Any) -> None:
    (value,) = box("ls", "box:/etc", "--json").json
    assert value["inode"] > 1
    del value["inode"]
    assert value == {
        "name": "hostname",
        "mode": "-rw-r--r--",
        "permissions": "0644",
        "links": 1,
        "uid": 7,
        "gid": 8,
        "size": 4,
        "modified": "2023-11-14T22:13:20.000000000Z",
    }
    assert box("ls", "box:/dev", "--json").json[0]["device"] == [1, 3]
    assert box("ls", "box:/bin", "--json").json[1]["target"] == "sh"


def test_errors(box: Any) -> None:
    assert box.fails("ls", "box:/none").code == Exit.NOT_FOUND
    assert box.fails("ls", "nothing").code == Exit.NOT_FOUND
    assert box.fails("ls", "box:/etc", "/etc").code == Exit.USAGE
