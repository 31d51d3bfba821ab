# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pycow._cow import lib

from .conftest import Cli


@pytest.fixture
def point(tmp_path: Path) -> Path:
    path = tmp_path / "mnt"
    path.mkdir()
    return path


def needs_fuse() -> None:
    if lib.cow_mount_available() != 0 or not os.access("/dev/fuse", os.W_OK):
        pytest.skip("no FUSE here")


def test_a_signal_unmounts_and_commits(box: Cli, point: Path) -> None:
    needs_fuse()
    server = subprocess.Popen(
        [sys.executable, "-m", "pycow.cli", "--store", str(box.store), "mount", "box", str(point)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None
    assert server.stdout.readline() == f"box is mounted at {point}\n"
    (point / "out.txt").write_bytes(b"hello")
    assert box.fails("rm", "box").code == 5  # the store is held by the server
    server.send_signal(signal.SIGTERM)
    assert server.wait(30) == 0
    server.stdout.close()
    assert os.listdir(point) == []
    assert box("cat", "box:/out.txt").text == "hello"


def test_in_the_background(box: Cli, point: Path) -> None:
    needs_fuse()
    assert box("mount", "--detach", str(point)).text == f"{box.store} is mounted at {point}\n"
    (point / "containers" / "box" / "f").write_bytes(b"1")
    box("umount", str(point))
    assert box("cat", "box:/f").text == "1"
    assert box("mount", "-d", "-o", "ro", "box", str(point)).text == f"box is mounted at {point}\n"
    with pytest.raises(OSError):
        (point / "g").touch()
    box("umount", "--lazy", str(point))


def test_what_cannot_be_mounted(box: Cli, point: Path) -> None:
    needs_fuse()
    assert box.fails("mount", "nobody", str(point)).code == 3
    assert box.fails("mount", "-d", "nobody", str(point)).code == 3
    assert box.fails("mount", "-o", "nonsense", "box", str(point)).code == 2
    assert box.fails("mount", "box", str(point / "missing")).code == 3
