# SPDX-License-Identifier: Apache-2.0
"""Command lines with names that nobody should use: one line of error, without control characters, and a code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

NAMES = [
    "",
    "a\nb",
    "\x1b[31mred",
    "..",
    "../x",
    "a b",
    "-",
    "n" * 5000,
    "\udcff\udcfe",
    "\udc9b31m",
    "a:b:c",
    "☃",
    "--",
    "\r",
]
COMMANDS = [
    ["history"],
    ["tag", "busybox"],
    ["rmi"],
    ["create"],
    ["create", "busybox", "--name"],
    ["fork", "box"],
    ["snapshot", "box"],
    ["rollback", "box"],
    ["rollback", "box", "one", "--store"],
    ["diff"],
    ["commit"],
    ["commit", "box"],
    ["quota"],
    ["quota", "box"],
    ["rm"],
    ["ls"],
    ["cat", "box"],
    ["cp", "box:/etc"],
    ["volume", "create"],
    ["volume", "rm"],
    ["inspect"],
    ["load", "-i"],
]


def is_plain(text: str) -> bool:
    """Without control characters; bytes that are no text are passed on, but for those that are C1 controls."""
    return all(c.isprintable() or 0xDCA0 <= ord(c) < 0xDD00 for c in text)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_names_that_nobody_should_use(box: Any, command: list[str], tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    box("snapshot", "box", "one")
    for name in NAMES:
        last = [f"--name={name}"] if command[-1] == "--name" else [name]
        words = command[:-1] if command[-1] == "--name" else command
        result = box.run("--store", box.store, *words, *last)
        assert "Traceback" not in result.err, name
        if result.code:
            assert result.err.startswith("pycow: "), (name, result.err)
            assert is_plain(result.err.rstrip("\n")), (name, result.err)
    assert box("check").code == 0


def test_control_characters_in_files_do_not_steer_the_terminal(box: Any, tmp_path: Path) -> None:
    name = "evil\x1b[2J\nname\r"
    (tmp_path / name).write_bytes(b"x")
    box("cp", tmp_path / name, "box:/")
    for words in (["ls", "box"], ["ls", "-l", "box"], ["diff", "box"]):
        text = box(*words).text
        assert "evil" in text
        assert all(line.isprintable() for line in text.split("\n")), words
    assert box("cat", f"box:/{name}").out == b"x"
    failed = box.fails("cat", f"box:/{name}x")
    assert failed.err.rstrip("\n").isprintable()
