# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pycow

ROOT = Path(__file__).resolve().parents[2]


def test_modules_use_only_what_lies_below() -> None:
    run = subprocess.run([sys.executable, ROOT / "tools" / "layering.py"], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout


def test_public_names() -> None:
    assert sorted(pycow.__all__) == sorted(set(pycow.__all__))
    for name in pycow.__all__:
        assert hasattr(pycow, name)
