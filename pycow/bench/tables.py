# SPDX-License-Identifier: Apache-2.0
"""A report as tables: short ones for a terminal, whole ones in Markdown."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

from pycow.bench.report import NOT_ASKED, OWN, Figure, Report, human

__all__ = ["markdown", "ratio_text", "terminal_rows"]

HEADERS = ("WORK", "MODE", "UNIT", "PYCOW", "BEST PEER", "", "RATIO")


def ratio_text(ratio: float | None) -> str:
    """ "12x" better, or "0.40x" when it loses."""
    if ratio is None:
        return ""
    return f"{ratio:,.0f}x" if ratio >= 9.95 else f"{ratio:.1f}x" if ratio >= 0.995 else f"{ratio:.2f}x"


def terminal_rows(report: Report) -> Iterator[tuple[str, tuple[tuple[str, ...], ...]]]:
    """(topic, rows) with the columns of HEADERS."""
    for topic, works in _by_topic(report):
        rows = []
        for figures in works:
            first = figures[0]
            own = next((figure for figure in figures if figure.subject == OWN), None)
            if own is None:
                continue
            peer = report.best_peer(first.work)
            rows.append(
                (
                    first.title,
                    first.mode,
                    first.unit,
                    human(own.value),
                    human(peer.value) if peer else "",
                    peer.subject if peer else "",
                    ratio_text(report.ratio(first.work)),
                )
            )
        yield topic, tuple(rows)


def markdown(report: Report) -> str:
    """All figures: one table a topic, a column for each subject, the ratio to the best peer last."""
    parts = []
    for topic, works in _by_topic(report):
        every = list(itertools.chain.from_iterable(works))
        subjects = report.subjects(figure for figure in every if figure.value is not None)
        peers = any(not subject.startswith(OWN) for subject in subjects)
        head = [topic, "unit", *subjects, *(["against the best"] if peers else [])]
        lines = [_line(head), _line(["---"] * 2 + ["---:"] * (len(head) - 2))]
        notes = {(figure.note, figure.subject): None for figure in every if figure.value is None}
        for figures in works:
            first = figures[0]
            title = f"{first.title} *({first.mode})*" if first.mode else first.title
            cells = [title, first.unit, *(_cell(figures, subject) for subject in subjects)]
            lines.append(_line([*cells, *([_against(report, first.work)] if peers else [])]))
        parts.append("\n".join(lines) + "".join(f"\n\n{note}" for note in _notes(notes)))
    return "\n\n".join(parts) + "\n"


def _against(report: Report, work: str) -> str:
    ratio, peer = report.ratio(work), report.best_peer(work)
    if ratio is None or peer is None:
        return ""
    text = f"{ratio_text(ratio)} {peer.subject}"
    return f"**loses: {text}**" if ratio < 0.995 else text


def _cell(figures: Sequence[Figure], subject: str) -> str:
    return next((human(figure.value) for figure in figures if figure.subject == subject), "")


def _notes(notes: Iterable[tuple[str, str]]) -> list[str]:
    """One sentence for each reason."""
    by_reason: dict[str, list[str]] = {}
    for reason, subject in notes:
        if reason != NOT_ASKED:
            by_reason.setdefault(reason, []).append(subject)
    said = [f"{', '.join(subjects)}: {reason}" for reason, subjects in by_reason.items()]
    return ["Not measured: " + "; ".join(said) + "."] if said else []


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _by_topic(report: Report) -> Iterator[tuple[str, list[list[Figure]]]]:
    """Works keep the order of the run; topics that come back are joined."""
    topics: dict[str, dict[str, list[Figure]]] = {}
    for figure in report.figures:
        topics.setdefault(figure.topic, {}).setdefault(figure.work, []).append(figure)
    for topic, works in topics.items():
        yield topic, list(works.values())
