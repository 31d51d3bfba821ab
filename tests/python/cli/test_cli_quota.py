# SPDX-License-Identifier: Apache-2.0
"""pycow quota, create --quota, and where a quota is shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pycow.cli._app import Exit
from pycow.cli._format import parsed_size


def test_a_quota_bounds_what_is_copied_in(cli: Any, tmp_path: Path) -> None:
    cli("create", "--name", "box", "--quota", "10kB", "busybox")
    (tmp_path / "f").write_bytes(bytes(10_001))
    failed = cli.fails("cp", tmp_path / "f", "box:/f")
    assert failed.code == Exit.NO_SPACE
    assert "quota of 10000 bytes" in failed.err
    (tmp_path / "f").write_bytes(bytes(10_000))
    cli("cp", tmp_path / "f", "box:/f")
    assert cli("quota", "box").lines == ["10kB of 10kB"]
    assert "(virtual" in cli("ps", "-s").text
    assert ", quota 10kB)" in cli("ps", "-s").text
    assert cli("ps", "-s", "--json").json[0]["quota"] == 10_000
    assert cli("inspect", "box").json[0]["Quota"] == 10_000


def test_show_and_set(box: Any) -> None:
    assert box("quota", "box").lines == ["0B of none"]
    assert box("quota", "box", "2GiB").lines == ["0B of 2.147GB"]
    assert box("quota", "box", "none", "--json").json["quota"] is None
    assert box("inspect", "box").json[0]["Quota"] is None


def test_errors(box: Any) -> None:
    assert box.fails("quota", "nothing").code == Exit.NOT_FOUND
    for size in ("x", "-1", "1.5GB", "0", "10XB", "1 GB", "99999999999999999TB"):
        assert box.fails("quota", "--", "box", size).code in (Exit.USAGE, Exit.FAILED), size
        assert box.fails("create", f"--quota={size}", "busybox").code in (Exit.USAGE, Exit.FAILED), size


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("4096", 4096), ("5B", 5), ("10kB", 10_000), ("10KiB", 10_240), ("2gb", 2 * 10**9), ("1TiB", 1 << 40)],
)
def test_sizes(text: str, size: int) -> None:
    assert parsed_size(text) == size
