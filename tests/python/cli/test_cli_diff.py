# SPDX-License-Identifier: Apache-2.0
"""pycow diff."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pycow
from pycow.cli._app import Exit


def test_diff(box: Any, tmp_path: Path) -> None:
    assert box("diff", "box").lines == []
    with pycow.open(box.store) as store:
        fs = store.containers.get("box").fs
        (fs / "out.txt").write_bytes(b"hello")
        (fs / "tmp").rmdir()
        with fs.open("/big.bin", "r+b") as file:
            file.pwrite(7 * 4096, b"x")
    assert box("diff", "box").lines == ["C /big.bin", "A /out.txt", "D /tmp"]
    changed = box("diff", "box", "--json").json[0]
    assert changed == {"kind": "C", "path": "/big.bin", "blocks": [{"first": 7, "count": 1}]}


def test_names_that_are_no_text(box: Any) -> None:
    with pycow.open(box.store) as store:
        (store.containers.get("box").fs / os.fsdecode(b"a\xff\n")).write_bytes(b"")
    assert box("diff", "box").out == b"A /a\xff\\x0a\n"
    assert box("diff", "box", "--json").json[0]["path"] == os.fsdecode(b"/a\xff\n")


def test_no_such_container(box: Any) -> None:
    assert box.fails("diff", "nothing").code == Exit.NOT_FOUND
