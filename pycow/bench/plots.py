# SPDX-License-Identifier: Apache-2.0
"""Plots of a report, with matplotlib, which is optional: pip install 'pycow[bench]'."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pycow.bench.report import OWN, Report
from pycow.errors import Error

__all__ = ["need_matplotlib", "plot"]


class PlotError(Error):
    """matplotlib is missing."""


def need_matplotlib() -> Any:
    """matplotlib's pyplot, without a display. PlotError says how to get it."""
    try:
        import matplotlib
    except ImportError:
        raise PlotError("plots need matplotlib: pip install 'pycow[bench]'") from None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def plot(report: Report, folder: Path) -> list[Path]:
    """One plot for each topic and unit, as PNG and SVG; a bar for each subject. Returns the files."""
    pyplot = need_matplotlib()
    folder.mkdir(parents=True, exist_ok=True)
    groups: dict[tuple[str, str], list[str]] = {}
    titles = {}
    for figure in report.figures:
        if figure.value:
            works = groups.setdefault((figure.topic, figure.unit), [])
            titles[figure.work] = f"{figure.title}{f' ({figure.mode})' if figure.mode else ''}"
            if figure.work not in works:
                works.append(figure.work)
    written = []
    for (topic, unit), works in groups.items():
        drawn = _draw(pyplot, report, f"{topic}, {unit}", works, titles)
        name = "".join(c if c.isalnum() else "-" for c in f"{topic} {unit}".lower().replace("/", " per "))
        for suffix in ("png", "svg"):
            path = folder / f"{name}.{suffix}"
            drawn.savefig(path, dpi=120, bbox_inches="tight")
            written.append(path)
        pyplot.close(drawn)
    return written


def _draw(pyplot: Any, report: Report, title: str, works: list[str], titles: dict[str, str]) -> Any:
    subjects = report.subjects(figure for figure in report.figures if figure.work in works)
    height = 0.8 / len(subjects)
    drawn, axes = pyplot.subplots(figsize=(9, 1.2 + len(works) * (0.25 + 0.16 * len(subjects))))
    for i, subject in enumerate(subjects):
        places = [row + (i - (len(subjects) - 1) / 2) * height for row in range(len(works))]
        values = [report.value(work, subject) or 0 for work in works]
        bars = axes.barh(places, values, height, label=subject, color="black" if subject == OWN else None)
        axes.bar_label(bars, [f"{value:,.3g}" if value else "" for value in values], fontsize=6, padding=2)
    first = next(figure for figure in report.figures if figure.work == works[0])
    axes.set_xscale("log")
    axes.set_xlabel("more is better" if first.more else "less is better")
    axes.set_yticks(range(len(works)), [titles[work] for work in works], fontsize=7)
    axes.invert_yaxis()
    axes.set_title(title)
    axes.legend(fontsize=7)
    return drawn
