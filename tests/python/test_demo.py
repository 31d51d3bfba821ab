# SPDX-License-Identifier: Apache-2.0
"""The demo runs to its end, with a small image and a small large file."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

DEMO = Path(__file__).resolve().parents[2] / "demo"
MAKE_IMAGE = """
import random, sys
from pathlib import Path
import rootfs
folder = Path(sys.argv[1])
files = {"etc/hostname": (b"box", 0o644), "lib/libc.so": (random.Random(1).randbytes(3 << 20), 0o755)}
layer = rootfs.layer_of_files(folder / "layer.tar", files)
rootfs.docker_archive(folder / "image.tar", layer, "small:latest", ["sh"], "ADD")
"""


def demo(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    temporary = folder / "tmp"
    temporary.mkdir(exist_ok=True)
    return subprocess.run(
        [sys.executable, str(DEMO / "run.py"), *arguments],
        env={**os.environ, "TMPDIR": str(temporary)},
        cwd="/",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_the_demo(tmp_path: Path) -> None:
    command = [sys.executable, "-c", MAKE_IMAGE, str(tmp_path)]
    subprocess.run(command, env={**os.environ, "PYTHONPATH": str(DEMO)}, cwd="/", check=True)
    done = demo(tmp_path, "--image", str(tmp_path / "image.tar"), "--big-size", str(4 << 20))
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    assert "All 13 steps are as they should be" in done.stdout
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.slow
def test_a_step_that_fails_ends_the_demo_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "bad.tar").write_bytes(random.Random(1).randbytes(10_000))
    done = demo(tmp_path, "--image", str(tmp_path / "bad.tar"))
    assert done.returncode == 1
    assert "demo: FAILED: " in done.stderr
    assert list((tmp_path / "tmp").iterdir()) == []
