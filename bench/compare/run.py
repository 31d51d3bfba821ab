# SPDX-License-Identifier: Apache-2.0
"""Runs pycow and its peers side by side and prints Markdown; `make bench-compare` calls this as root.

    python bench/compare/run.py [--small] [--big-mib N] [--only WORD]... [--root DIR] [--dir DIR]
                                [--json FILE] [--from FILE] [--plot DIR] [--update FILE]

--update puts the machine, the tables and the targets between the marks of bench/README.md; --from takes the figures of
an earlier --json instead of a run. Mounts, loop devices and files are removed at the end, on Ctrl-C and SIGTERM too.
The measuring code is the package pycow.bench, which `pycow bench` uses as well.
"""

from __future__ import annotations

import argparse
import datetime
import sys
import tempfile
import time
from pathlib import Path

from c_calls import c_figures
from targets import targets_table

from pycow.bench.base import MIB, make_base
from pycow.bench.mounts import Workshop
from pycow.bench.plots import plot
from pycow.bench.report import Report
from pycow.bench.run import measure
from pycow.bench.tables import markdown
from pycow.bench.works import Scale, Work

BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"


def main() -> int:
    options = _options()
    report = Report.load(options.source) if options.source else _run(options)
    if options.json:
        report.save(options.json)
    if options.plot:
        plot(report, options.plot)
    text = document(report)
    if options.update:
        _update(options.update, text)
    else:
        print(text)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="pycow and its peers side by side")
    parser.add_argument("--small", action="store_true", help="the sizes of `pycow bench`")
    parser.add_argument("--big-mib", type=int, default=1024, help="size of the large file (1024)")
    parser.add_argument("--only", action="append", default=[], metavar="WORD", help="works whose key has this in it")
    parser.add_argument("--root", help='root file system: a directory, "synthetic", or "debian" (the default)')
    parser.add_argument("--dir", type=Path, help="work below this directory")
    parser.add_argument("--json", type=Path, help="keep the figures")
    parser.add_argument("--from", dest="source", type=Path, help="figures of an earlier run")
    parser.add_argument("--plot", type=Path, help="write plots there")
    parser.add_argument("--update", type=Path, help="rewrite the figures in this file")
    return parser.parse_args()


def _run(options: argparse.Namespace) -> Report:
    big_bytes = options.big_mib * MIB
    scale = Scale.small(big_bytes) if options.small else Scale(big_bytes=big_bytes)
    root = None if options.root == "synthetic" else options.root or "debian"
    started = time.monotonic()

    def progress(text: str) -> None:
        print(f"[{time.monotonic() - started:6.1f} s] {text}", file=sys.stderr, flush=True)

    def wanted(work: Work) -> bool:
        return not options.only or any(word in work.key for word in options.only)

    with tempfile.TemporaryDirectory(prefix="pycow-bench-", dir=options.dir) as scratch:
        c_part = c_figures(Path(scratch) / "c") if not options.only else []
        with Workshop(Path(scratch) / "work") as workshop:
            progress("the base tree")
            base = make_base(workshop.folder / "made", big_bytes=big_bytes, root=root)
            report = measure(workshop, base, scale, compare=True, only=wanted, progress=progress)
        report.figures += c_part
    report.parameters["seconds"] = round(time.monotonic() - started)
    report.parameters["day"] = datetime.date.today().isoformat()
    return report


def document(report: Report) -> str:
    machine = "\n".join(f"* {name}: {value}" for name, value in report.machine.items())
    sizes = report.parameters
    ran = (
        f"* base tree: {sizes['base']}, {sizes['base entries']:,} entries; file of {sizes['big_bytes'] // MIB:,} MiB\n"
        f"* run of {sizes['day']}, {sizes['seconds']} s"
    )
    load = float(report.machine["load at the start"].split()[0])
    if load > float(report.machine["cpu"].split()[0]):
        ran += (
            "\n* **the machine was busy with other work**: times are longer than on a quiet one, those of short loops "
            "most, and single figures jump; subjects took turns, so ratios are more to be trusted than times"
        )
    missing = "".join(f"\n* not run here: {name}: {reason}" for name, reason in report.missing.items())
    parts = {"Machine": f"{machine}\n{ran}{missing}\n", "Targets": targets_table(report), "Figures": markdown(report)}
    return "\n".join(f"### {title}\n\n{text}" for title, text in parts.items())


def _update(path: Path, text: str) -> None:
    before, _, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    if not rest or END not in rest:
        raise SystemExit(f"{path} lacks the marks {BEGIN} and {END}")
    after = rest.partition(END)[2]
    path.write_text(f"{before}{BEGIN}\n\n{text}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
