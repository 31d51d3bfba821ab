# SPDX-License-Identifier: Apache-2.0
"""pycow ps."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def test_the_table(cli: Any) -> None:
    cli("create", "--name", "box", "busybox", "/bin/sh", "-c", "sleep 1000")
    (line,) = cli("ps", "-a").lines[1:]
    assert cli("ps").lines[0].split("  ")[0] == "CONTAINER ID"
    for cell in ("busybox:latest", '"/bin/sh -c sleep 10…"', "Created", "box"):
        assert cell in line


def test_sizes(box: Any, tmp_path: Path) -> None:
    assert box("ps", "-s").lines[1].endswith("0B (virtual 262kB)")
    (tmp_path / "f").write_bytes(b"hello")
    box("cp", tmp_path / "f", "box:/f")
    assert box("ps", "-s").lines[1].endswith("5B (virtual 262kB)")
    (value,) = box("ps", "-s", "--json").json
    assert value["size"] == 5
    assert "size" not in box("ps", "--json").json[0]


def test_ids(box: Any) -> None:
    (full,) = box("ps", "-q", "--no-trunc").lines
    assert box("ps", "-q").lines == [full[:12]]
    assert box("ps", "-q", "--json").json == [full]
    assert full in box("ps", "--no-trunc").lines[1]


def test_the_newest_comes_first(box: Any) -> None:
    box("create", "--name", "later", "busybox")
    assert [value["name"] for value in box("ps", "--json").json] == ["later", "box"]
