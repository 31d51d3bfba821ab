# SPDX-License-Identifier: Apache-2.0
"""Times of the C calls themselves, without Python: what bench/c/hot_paths prints, as figures."""

from __future__ import annotations

import subprocess
from pathlib import Path

from pycow.bench.report import Figure

__all__ = ["c_figures"]

PROGRAM = Path(__file__).resolve().parents[2] / "build/c/bench/c/hot_paths"

_TITLES = {
    "rewrite": "rewrite of an owned 4 KiB block",
    "read": "read of an owned 4 KiB block",
    "read_shared": "read of a 4 KiB block of the base",
    "lookup": "look-up of a cached name",
    "walk": "walk of a path of 4 names, cached",
    "fork": "fork",
    "rollback": "rollback of one changed block",
    "first_write": "first 4 KiB write in a fresh container",
    "next_write": "further 4 KiB writes, each the first to its block",
    "chmod": "chmod of an untouched file",
    "create_file": "create a file and write 1,000 bytes",
    "delete": "delete a container with one changed block",
}
_READS = ("read", "read_shared", "lookup", "walk")


def c_figures(scratch: Path) -> list[Figure]:
    """Empty when the C tests have not been built (make test, or make bench-compare)."""
    if not PROGRAM.exists():
        return []
    done = subprocess.run([PROGRAM, scratch], check=True, stdout=subprocess.PIPE, text=True)
    found = []
    for line in done.stdout.splitlines():
        name, nanoseconds = line.split()
        mode = "" if name in _READS else "not committed"
        title = _TITLES.get(name, name)
        value = float(nanoseconds)
        found.append(Figure("C calls", f"c_{name}", title, "pycow", "ns", mode, False, value, value, value, 1))
    return found
