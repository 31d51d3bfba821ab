# SPDX-License-Identifier: Apache-2.0
"""pycow bench. The measuring itself is in tests/python/test_bench.py; here it is replaced."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from pycow.bench.report import Figure, Report
from pycow.cli import cmd_bench


def figure(work: str, subject: str, value: float | None, *, more: bool = False) -> Figure:
    return Figure("Containers", work, f"{work} a thing", subject, "us", "committed", more, value, note="too slow")


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the command asked for."""
    asked: dict[str, Any] = {}

    def run(folder: Path, *, compare: bool, progress: Any) -> Report:
        asked.update(folder=folder, compare=compare)
        assert folder.parent.is_dir()
        figures = [figure("create", "pycow", 2.0), figure("create", "btrfs", 100.0), figure("fork", "pycow", None)]
        return Report({"cpu": "2 x fast"}, {}, figures, {"overlay, XFS": "mounting needs root"})

    monkeypatch.setattr(cmd_bench, "short_run", run)
    return asked


def test_the_table_has_the_ratio_and_says_what_is_missing(bare: Any, measured: dict[str, Any]) -> None:
    text = bare("bench").text
    row = next(line for line in text.splitlines() if line.startswith("create a thing"))
    assert row.split()[3:] == ["committed", "us", "2.00", "100", "btrfs", "50x"]
    assert "Not measured: overlay, XFS: mounting needs root" in text
    assert not measured["compare"]
    assert not measured["folder"].parent.exists()  # nothing is left, and no store was made
    assert not bare.store.exists()


def test_json(bare: Any, measured: dict[str, Any]) -> None:
    found = bare("bench", "--compare", "--json").json
    assert measured["compare"]
    assert found["machine"] == {"cpu": "2 x fast"}
    assert [(f["work"], f["subject"], f["value"]) for f in found["figures"]][1] == ("create", "btrfs", 100.0)
    assert found["missing"] == {"overlay, XFS": "mounting needs root"}


def test_the_folder(bare: Any, measured: dict[str, Any], tmp_path: Path) -> None:
    bare("bench", "--dir", tmp_path)
    assert measured["folder"].is_relative_to(tmp_path)


def test_plots_need_matplotlib(
    bare: Any, measured: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # its import fails
    failed = bare.fails("bench", "--plot", tmp_path / "plots")
    assert failed.code == 1
    assert "plots need matplotlib: pip install 'pycow[bench]'" in failed.err
    assert not measured  # said before anything was measured


def test_plots(bare: Any, measured: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    text = bare("bench", "--plot", tmp_path / "plots").text
    names = sorted(path.name for path in (tmp_path / "plots").iterdir())
    assert names == ["containers-us.png", "containers-us.svg"]
    assert "Wrote " in text
