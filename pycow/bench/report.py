# SPDX-License-Identifier: Apache-2.0
"""What a run found: figures, the reasons for those that are missing, and the machine."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pycow

__all__ = ["NOT_ASKED", "OWN", "Figure", "Report", "human", "machine"]

OWN = "pycow"
NOT_ASKED = "not asked of it"


@dataclasses.dataclass(frozen=True)
class Figure:
    """One work of one subject. value is the median of samples, None when it could not be measured (note says why)."""

    topic: str
    work: str  # key
    title: str
    subject: str
    unit: str
    mode: str  # "not committed", "committed" (durable when it returns), or "" for what changes nothing
    more: bool  # more is better
    value: float | None
    low: float = 0.0
    high: float = 0.0
    samples: int = 0
    note: str = ""


@dataclasses.dataclass
class Report:
    machine: dict[str, str]
    parameters: dict[str, Any]
    figures: list[Figure] = dataclasses.field(default_factory=list)
    missing: dict[str, str] = dataclasses.field(default_factory=dict)  # peers that the machine cannot run: why

    def subjects(self, figures: Iterable[Figure] | None = None) -> list[str]:
        """In the order of the run."""
        return list(dict.fromkeys(figure.subject for figure in (self.figures if figures is None else figures)))

    def find(self, work: str, subject: str = OWN) -> Figure | None:
        for figure in self.figures:
            if (figure.work, figure.subject) == (work, subject):
                return figure
        return None

    def value(self, work: str, subject: str = OWN) -> float | None:
        figure = self.find(work, subject)
        return figure.value if figure is not None else None

    def best_peer(self, work: str) -> Figure | None:
        """The best figure of those that are not pycow's own."""
        others = [f for f in self.figures if f.work == work and f.value is not None and not f.subject.startswith(OWN)]
        if not others:
            return None
        return (max if others[0].more else min)(others, key=lambda figure: figure.value or 0.0)

    def ratio(self, work: str, peer: str | None = None) -> float | None:
        """How many times better pycow is than the peer (None: than the best one); below 1 it loses."""
        own = self.find(work)
        other = self.best_peer(work) if peer is None else self.find(work, peer)
        if own is None or other is None or not own.value or not other.value:
            return None
        return own.value / other.value if own.more else other.value / own.value

    def as_dict(self) -> dict[str, Any]:
        return {
            "machine": self.machine,
            "parameters": self.parameters,
            "missing": self.missing,
            "figures": [dataclasses.asdict(figure) for figure in self.figures],
        }

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(self.as_dict(), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Report:
        raw = json.loads(path.read_text(encoding="utf-8"))
        figures = [Figure(**figure) for figure in raw["figures"]]
        return cls(raw["machine"], raw["parameters"], figures, raw["missing"])


def human(value: float | None, unit: str = "") -> str:
    """Three digits that count: 0.123, 4.56, 78.9, 1,234."""
    if value is None:
        return "-"
    size = abs(value)
    if size >= 100:
        text = f"{value:,.0f}"
    elif size >= 10:
        text = f"{value:.1f}"
    elif size >= 1:
        text = f"{value:.2f}"
    else:
        text = f"{value:.3f}"
    return f"{text} {unit}".rstrip()


def machine(folder: Path) -> dict[str, str]:
    """What a reader must know of the machine."""
    return {
        "pycow": pycow.__version__,
        "cpu": f"{os.cpu_count()} x {_cpu()}",
        "memory": f"{_memory_gib():.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "host file system": _host_file_system(folder),
        "load at the start": " ".join(f"{load:.1f}" for load in os.getloadavg()),
    }


def _cpu() -> str:
    for line in _lines("/proc/cpuinfo"):
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _memory_gib() -> float:
    for line in _lines("/proc/meminfo"):
        if line.startswith("MemTotal"):
            return int(line.split()[1]) / (1 << 20)
    return 0.0


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def _host_file_system(folder: Path) -> str:
    best, kind = "", "unknown"
    where = str(folder.resolve())
    for line in _lines("/proc/self/mounts"):
        _, target, name, *_ = line.split()
        if (where + "/").startswith(target.rstrip("/") + "/") and len(target) > len(best):
            best, kind = target, name
    return kind
