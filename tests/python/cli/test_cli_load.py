# SPDX-License-Identifier: Apache-2.0
"""pycow load."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pycow.cli._app import Exit


def test_load(bare: Any, archive: Path) -> None:
    assert bare("load", "-i", archive).lines == ["Loaded image: busybox:latest"]
    assert bare("load", archive).lines == ["Loaded image: busybox:latest"]  # again, as an argument
    assert len(bare("images", "--json").json) == 1


def test_json(bare: Any, archive: Path) -> None:
    (value,) = bare("load", "--json", archive).json
    assert value["tags"] == ["busybox:latest"]
    assert value["id"].startswith("sha256:")
    assert value["created"] == "2024-01-01T00:00:00.000000000Z"


def test_a_tag(bare: Any, archive: Path) -> None:
    assert "Loaded image: acme/box:1" in bare("load", "-t", "acme/box:1", "-i", archive).lines


def test_standard_input(bare: Any, archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for arguments in (("load", "-"), ("load",), ("load", "-i", "-")):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(archive.read_bytes())))
        assert bare(*arguments).lines == ["Loaded image: busybox:latest"]


def test_a_bad_archive_leaves_nothing_behind(bare: Any, tmp_path: Path, archive_of: Callable[..., Path]) -> None:
    bad = tmp_path / "bad.tar"
    bad.write_bytes(b"no tar at all" * 1000)
    assert bare.fails("load", bad).code == Exit.FAILED
    cut = archive_of("cut.tar")
    cut.write_bytes(cut.read_bytes()[:100_000])
    assert bare.fails("load", cut).code == Exit.FAILED
    assert bare("images", "--json").json == []
    assert bare("check").code == 0


def test_a_missing_archive(bare: Any, tmp_path: Path) -> None:
    assert bare.fails("load", tmp_path / "none.tar").code == Exit.NOT_FOUND
    assert not bare.store.exists()


def test_twice_given(bare: Any, archive: Path) -> None:
    assert bare.fails("load", "-i", archive, archive).code == Exit.USAGE
