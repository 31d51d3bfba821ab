# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from pathlib import Path

from .conftest import Cli


def test_what_is_not_mounted(box: Cli, tmp_path: Path) -> None:
    """That it unmounts is tested with mount."""
    assert box.fails("umount", str(tmp_path)).code == 4
