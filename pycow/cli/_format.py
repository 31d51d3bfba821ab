# SPDX-License-Identifier: Apache-2.0
"""How things are written for people: docker's units, durations and tables. No store is needed here."""

from __future__ import annotations

import datetime
import json
import re
import time
from collections.abc import Iterable, Sequence

__all__ = [
    "command_text",
    "human_age",
    "human_duration",
    "human_size",
    "iso_time",
    "list_size",
    "parsed_size",
    "printable",
    "short_id",
    "size_column",
    "split_tag",
    "table",
    "truncated",
]

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB")
_SECOND_NS = 1_000_000_000
_SIZE = re.compile(r"([0-9]{1,18})(b|[kmgt]i?b|)", re.ASCII | re.IGNORECASE)
_COLUMN_MIN = 10
_COLUMN_GAP = 3


def human_size(size_bytes: int, digits: int = 4) -> str:
    """Bytes in decimal units with at most so many significant digits: 0B, 5B, 4.096kB, 1.074GB."""
    value, unit = float(size_bytes), 0
    while unit < len(_UNITS) - 1 and float(f"{value:.{digits}g}") >= 1000:
        value /= 1000
        unit += 1
    return f"{value:.{digits}g}{_UNITS[unit]}"


def list_size(size_bytes: int) -> str:
    """As in docker's lists, three digits: 0B, 5B, 4.1kB, 74.8MB, 1.07GB."""
    return human_size(size_bytes, 3)


def size_column(size_bytes: int, virtual_bytes: int, quota_bytes: int | None = None) -> str:
    """The SIZE column of ``ps -s``: "5B (virtual 117MB)", "5B (virtual 117MB, quota 1GB)"."""
    quota = "" if quota_bytes is None else f", quota {list_size(quota_bytes)}"
    return f"{list_size(size_bytes)} (virtual {list_size(virtual_bytes)}{quota})"


def parsed_size(text: str) -> int:
    """Bytes of "4096", "10kB" (1000s) or "10KiB" (1024s), up to TB and TiB; ValueError for anything else."""
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError(f"not a size: {text!r}")
    unit = match[2].lower()
    base = 1024 if "i" in unit else 1000
    power: int = base ** " kmgt".index(unit[0] if unit and unit != "b" else " ")
    return int(match[1]) * power


# Below so many hours, a duration is told in units of so many hours. Rounding is docker's: the hours to the nearest,
# all others down.
_SPANS = ((48, 1, "hours"), (14 * 24, 24, "days"), (60 * 24, 7 * 24, "weeks"), (730 * 24, 30 * 24, "months"))


def human_duration(seconds: float) -> str:
    """A duration as docker tells it: "Less than a second", "About a minute", "3 hours", "2 weeks"."""
    whole = int(seconds)
    if whole < 1:
        return "Less than a second"
    if whole < 60:
        return "1 second" if whole == 1 else f"{whole} seconds"
    if whole < 3600:
        return "About a minute" if whole < 120 else f"{whole // 60} minutes"
    hours = int(seconds / 3600 + 0.5)
    if hours == 1:
        return "About an hour"
    for limit, unit, name in _SPANS:
        if hours < limit:
            return f"{hours // unit} {name}"
    return f"{whole // (365 * 86400)} years"


def human_age(created_ns: int, now_ns: int | None = None) -> str:
    """The CREATED column: "2 hours ago", or "N/A" when nobody knows."""
    if created_ns <= 0:
        return "N/A"
    now = time.time_ns() if now_ns is None else now_ns
    return f"{human_duration(max(now - created_ns, 0) / _SECOND_NS)} ago"


def iso_time(time_ns: int) -> str | None:
    """RFC 3339 with nanoseconds in UTC; None for 0, the unknown time."""
    if time_ns == 0:
        return None
    seconds, rest = divmod(time_ns, _SECOND_NS)
    when = datetime.datetime.fromtimestamp(0, datetime.UTC) + datetime.timedelta(seconds=seconds)
    return f"{when:%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"


def short_id(identifier: str) -> str:
    """The first 12 hex digits of an id, with or without "sha256:"."""
    return identifier.removeprefix("sha256:")[:12]


def split_tag(reference: str) -> tuple[str, str]:
    """("registry:5000/busybox", "latest") of "registry:5000/busybox:latest"."""
    name, _, tag = reference.rpartition(":")
    return name, tag


def truncated(text: str, width: int) -> str:
    """At most width characters, the last of them an ellipsis when something is missing."""
    return text if len(text) <= width else text[: width - 1] + "…"


def command_text(command: Sequence[str], *, full: bool = False) -> str:
    """The COMMAND column: quoted, and cut after 20 characters."""
    text = " ".join(command)
    return json.dumps(text if full else truncated(text, 20), ensure_ascii=False)


def printable(text: str) -> str:
    """Text with control characters escaped: names come from images and must not steer a terminal."""
    if text.isprintable():
        return text
    return "".join(_escape(c) if _is_control(c) else c for c in text)


def _is_control(character: str) -> bool:
    code = ord(character)
    # C0, DEL, C1 (also as a byte that is no UTF-8), the marks that change the direction of text, half surrogate pairs
    return (
        code < 32
        or 127 <= code < 160
        or 0x202A <= code <= 0x202E
        or 0x2066 <= code <= 0x2069
        or 0xD800 <= code < 0xDCA0
        or 0xDD00 <= code < 0xE000
    )


def _escape(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code < 0xDCA0:
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns as docker aligns them: at least 10 wide, 3 blanks between, the last one as it is."""
    lines = [list(headers), *([printable(cell) for cell in row] for row in rows)]
    widths = [max(_COLUMN_MIN, *(len(line[i]) + _COLUMN_GAP for line in lines)) for i in range(len(headers) - 1)]
    return "\n".join(
        "".join([*(cell.ljust(width) for cell, width in zip(line, widths, strict=False)), line[-1]]).rstrip()
        for line in lines
    )
