# SPDX-License-Identifier: Apache-2.0
"""pycow df."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def test_the_table(box: Any, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"hello")
    box("cp", tmp_path / "f", "box:/f")
    lines = box("df").lines
    assert lines[0].split() == ["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"]
    assert lines[1].split() == ["Images", "1", "1", "262.1kB", "0B", "(0%)"]
    assert lines[2].split() == ["Containers", "1", "0", "5B", "5B", "(100%)"]
    assert lines[3].split() == ["Local", "Volumes", "0", "0", "0B", "0B"]
    assert lines[5].startswith("On disk: ")


def test_shared_layers_count_once(box: Any) -> None:
    box("commit", "box", "second")
    images = box("df", "--json").json[0]
    assert (images["total"], images["active"], images["reclaimable"]) == (2, 1, 0)
    assert images["size"] == box("inspect", "busybox").json[0]["Size"]


def test_the_disk(cli: Any) -> None:
    disk = cli("df", "--json").json[-1]
    assert disk["type"] == "Disk"
    assert disk["host"] >= disk["data"] > 0
