# SPDX-License-Identifier: Apache-2.0
"""What all commands share: where the store is, exit codes, errors, JSON."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import pycow
from pycow.cli import cli as program
from pycow.cli._app import App, Exit, default_store, exit_code, message_of


def test_the_store_is_named_before_or_after_the_command(cli: Any) -> None:
    assert cli.run("--store", cli.store, "images", "-q").lines == cli.run("images", "-q", "--store", cli.store).lines


def test_the_store_comes_from_the_environment_unless_it_is_named(
    cli: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PYCOW_STORE", str(cli.store))
    assert len(cli.run("images", "-q").lines) == 1
    monkeypatch.setenv("PYCOW_STORE", str(tmp_path / "elsewhere"))
    assert cli.run("images").code == Exit.NOT_FOUND
    assert len(cli.run("images", "-q", "--store", cli.store).lines) == 1
    assert cli.run("--store", cli.store, "volume", "ls").code == 0


def test_the_default_store_is_in_the_users_data_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert default_store() == tmp_path / "pycow" / "store"
    monkeypatch.setenv("XDG_DATA_HOME", "not/absolute")
    assert default_store() == Path.home() / ".local" / "share" / "pycow" / "store"
    monkeypatch.delenv("XDG_DATA_HOME")
    assert App().path == Path.home() / ".local" / "share" / "pycow" / "store"


def test_a_missing_store_is_not_made_by_reading(bare: Any) -> None:
    result = bare.fails("images")
    assert result.code == Exit.NOT_FOUND
    assert "pycow load" in result.err
    assert not bare.store.exists()


@pytest.mark.parametrize(
    "arguments",
    [("--nonsense",), ("nonsense",), ("images", "--nonsense"), ("history",), ("cp", "a", "b"), ("snapshot", "box")],
)
def test_wrong_command_lines_are_usage_errors(bare: Any, arguments: tuple[str, ...]) -> None:
    result = bare.fails(*arguments)
    assert result.code == Exit.USAGE
    assert "--help" in result.err


def test_version_and_help(bare: Any) -> None:
    assert bare.run("--version").text == f"pycow {pycow.__version__}\n"
    assert bare.run("--help").code == 0
    for name in program.commands:
        assert bare.run(name, "--help").code == 0
    assert bare.run().code == Exit.USAGE


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (pycow.NotFoundError("x"), 3),
        (FileNotFoundError(errno.ENOENT, "No such file", "x"), 3),
        (pycow.ExistsError("x"), 4),
        (pycow.InUseError("x"), 4),
        (pycow.NotEmptyError("x"), 4),
        (pycow.AmbiguousError("x"), 4),
        (pycow.LockedError("x"), 5),
        (pycow.CorruptError("x"), 6),
        (pycow.NoSpaceError("x"), 7),
        (pycow.QuotaError("x"), 7),
        (OSError(errno.ENOSPC, "No space"), 7),
        (pycow.BadReferenceError("x"), 2),
        (pycow.ImageError("x"), 1),
        (pycow.FormatError("x"), 1),
        (RuntimeError("x"), 1),
    ],
)
def test_exit_codes(error: BaseException, code: int) -> None:
    assert exit_code(error) == code


def test_messages_are_one_line_and_steer_no_terminal() -> None:
    assert message_of(pycow.ImageError("a\nb\x1b[2J")) == "a b\\x1b[2J"
    assert message_of(FileNotFoundError(errno.ENOENT, "No such file or directory", "/x")) == (
        "no such file or directory: /x"
    )


def test_a_locked_store(box: Any) -> None:
    script = "import pycow, sys\nwith pycow.open(sys.argv[1]) as s:\n print('open', flush=True)\n sys.stdin.read()\n"
    command = [sys.executable, "-c", script, str(box.store)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd="/") as other:
        assert other.stdin is not None
        assert other.stdout is not None
        try:
            other.stdout.readline()
            assert box.fails("create", "busybox").code == Exit.LOCKED
            assert len(box("ps", "-q").lines) == 1  # reading works beside a writer
        finally:
            other.stdin.close()
            other.wait()


def test_debug_shows_where(bare: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYCOW_DEBUG", "1")
    with pytest.raises(pycow.NotFoundError):
        bare.run("--store", bare.store, "images")


def test_a_closed_pipe_is_no_traceback(box: Any) -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "pycow.cli", "--store", str(box.store), "cat", "box:/big.bin"]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, cwd="/", check=False)
    os.close(write)
    assert done.stderr == b""
    assert done.returncode == Exit.OUTPUT_CLOSED


def test_every_command_speaks_json(box: Any, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"1")
    for arguments in (
        ["images"],
        ["history", "busybox"],
        ["inspect", "box"],
        ["tag", "busybox", "other"],
        ["ps", "-s"],
        ["cp", str(tmp_path / "f"), "box:/f"],
        ["diff", "box"],
        ["commit", "box", "new"],
        ["fork", "box", "twin"],
        ["snapshot", "box", "s1"],
        ["snapshot", "--list", "box"],
        ["rollback", "box", "s1"],
        ["ls", "box"],
        ["cat", "box", "/f"],
        ["rm", "twin"],
        ["rmi", "new"],
        ["volume", "create", "vol"],
        ["volume", "ls"],
        ["volume", "rm", "vol"],
        ["df"],
        ["check"],
    ):
        assert box(*arguments, "--json").json is not None
