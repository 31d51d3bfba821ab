# SPDX-License-Identifier: Apache-2.0
"""Counts the instructions of the hot paths under callgrind and compares them with the bounds below.

    python3 bench/c/check.py PATH/TO/hot_paths [--print]

Instructions do not depend on how busy the machine is, so a path that grew is found where times would say nothing. A
bound is the count when it was last set, plus 30 % for other compilers and C libraries; lower it when a path got
shorter (--print says what it costs now), raise it only together with the reason. Exit codes: 0 all within, 1 a path is
above its bound, 77 (skipped) without valgrind or AVX2.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SLACK = 1.3
RUNS = 1000
SKIPPED = 77

#: Instructions of one operation, user space only (the kernel's part of a pwrite is not seen).
COUNTS = {
    "rewrite": 3632,
    "read": 2505,
    "lookup": 623,
    "fork": 1740,
    "first_write": 15394,
}


def instructions(program: str, name: str) -> float:
    """Of one operation."""
    with tempfile.TemporaryDirectory(prefix="pycow-hot-") as folder:
        command = ["valgrind", "--tool=callgrind", "--collect-atstart=no", "--toggle-collect=hot_run"]
        command += [f"--callgrind-out-file={folder}/out", program, f"{folder}/store", name, str(RUNS)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr}")
        summary = re.search(r"^(?:summary|totals): (\d+)", Path(folder, "out").read_text(), re.MULTILINE)
    if summary is None or int(summary[1]) == 0:
        raise SystemExit(f"callgrind counted nothing for {name}:\n{done.stderr}")
    return int(summary[1]) / RUNS


def main(program: str, *options: str) -> int:
    if shutil.which("valgrind") is None:
        print("skipped: valgrind is not installed")
        return SKIPPED
    if "avx2" not in Path("/proc/cpuinfo").read_text():
        print("skipped: the counts are those of a processor with AVX2, which hashes a block in fewer instructions")
        return SKIPPED
    failed = 0
    for name, count in COUNTS.items():
        now, bound = instructions(program, name), count * SLACK
        verdict = "ok" if now <= bound else "TOO MANY"
        failed += now > bound
        print(f"{name:12} {now:8.0f} instructions, {count} when the bound was set, at most {bound:.0f}: {verdict}")
    return 1 if failed and "--print" not in options else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
