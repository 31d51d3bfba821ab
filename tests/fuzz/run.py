#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Builds and runs the fuzz targets: run.py [--seconds N] [--build DIR] [--target NAME]...

Each target first runs everything that was ever found (finds/TARGET), then fuzzes for so many seconds from the seeds
(seeds.py) and the corpus that earlier runs left in the build folder. Ends with 1 when a target found something; the
input lies in DIR/finds then, and `DIR/tests/fuzz/TARGET FILE` replays it. Without clang and libFuzzer nothing is done,
which is an error where CI=true.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
#: Bytes of one input; leaks are looked for at the end of each run only where all memory belongs to the run.
TARGETS = {"fuzz_format": (4200, 1), "fuzz_damage": (300, 1), "fuzz_operations": (3000, 1), "fuzz_tar": (8192, 0)}
ENVIRONMENT = {**os.environ, "UBSAN_OPTIONS": "print_stacktrace=1", "ASAN_OPTIONS": "allocator_may_return_null=1"}


def has_libfuzzer() -> bool:
    if shutil.which("clang") is None:
        return False
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "x.c")
        source.write_text("int LLVMFuzzerTestOneInput(const char *d, long n) { return d && n < 0; }\n")
        command = ["clang", "-fsanitize=fuzzer,address", "-o", f"{folder}/x", str(source)]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0


def build(folder: Path) -> None:
    options = ["-DPYCOW_FUZZ=ON", "-DCMAKE_C_COMPILER=clang"]
    subprocess.run(["cmake", "-S", ROOT, "-B", folder, *options], stdout=subprocess.DEVNULL, check=True)
    subprocess.run(
        ["cmake", "--build", folder, "-j", os.environ.get("JOBS", "2")], stdout=subprocess.DEVNULL, check=True
    )
    subprocess.run([sys.executable, HERE / "seeds.py", folder / "seeds"], check=True)


def executions(log: str) -> str:
    found = re.findall(r"^#(\d+)", log, re.MULTILINE) + re.findall(r"^Done (\d+) runs", log, re.MULTILINE)
    return found[-1] if found else "0"


def fuzz(target: str, folder: Path, seconds: int) -> bool:
    """True when nothing was found."""
    length, leaks = TARGETS[target]
    program = folder / "tests/fuzz" / target
    corpus, finds = folder / "corpus" / target, folder / "finds"
    for path in (corpus, finds):
        path.mkdir(parents=True, exist_ok=True)
    options = [
        f"-max_len={length}",
        f"-detect_leaks={leaks}",
        "-timeout=25",
        "-rss_limit_mb=2000",
        "-print_final_stats=1",
    ]
    options.append(f"-artifact_prefix={finds}/{target}-")
    known = sorted(str(path) for path in (HERE / "finds" / target).glob("*"))
    commands = [[program, *options, *known]] if known else []
    commands.append([program, *options, f"-max_total_time={seconds}", corpus, folder / "seeds" / target])
    for command in commands:
        done = subprocess.run(command, capture_output=True, check=False, env=ENVIRONMENT, errors="replace")
        if done.returncode != 0:
            print("\n".join(done.stderr.splitlines()[-60:]), file=sys.stderr)
            print(f"{target}: found something; replay: {program} FILE", file=sys.stderr)
            return False
    print(f"{target}: {executions(done.stderr)} executions, {len(known)} finds of before", flush=True)
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=int, default=10, help="for each target")
    parser.add_argument("--build", type=Path, default=ROOT / "build" / "fuzz")
    parser.add_argument("--target", action="append", choices=TARGETS)
    options = parser.parse_args()
    if not has_libfuzzer():
        print("fuzzing is left out: there is no clang with libFuzzer (Debian: clang, libclang-rt-dev)")
        return 1 if os.environ.get("CI") == "true" else 0
    build(options.build)
    results = [fuzz(target, options.build, options.seconds) for target in options.target or TARGETS]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
