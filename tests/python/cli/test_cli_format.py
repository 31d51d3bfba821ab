# SPDX-License-Identifier: Apache-2.0
"""Sizes, times and tables as docker writes them."""

from __future__ import annotations

import pytest

from pycow.cli._format import (
    command_text,
    human_age,
    human_duration,
    human_size,
    iso_time,
    list_size,
    printable,
    short_id,
    size_column,
    split_tag,
    table,
    truncated,
)


@pytest.mark.parametrize(
    ("size", "three", "four"),
    [
        (0, "0B", "0B"),
        (5, "5B", "5B"),
        (999, "999B", "999B"),
        (1000, "1kB", "1kB"),
        (4096, "4.1kB", "4.096kB"),
        (74_812_345, "74.8MB", "74.81MB"),
        (999_950, "1MB", "1MB"),
        (999_949, "1MB", "999.9kB"),
        (1 << 30, "1.07GB", "1.074GB"),
        (5 << 40, "5.5TB", "5.498TB"),
        (1 << 90, "1.24e+03YB", "1238YB"),
    ],
)
def test_sizes(size: int, three: str, four: str) -> None:
    assert list_size(size) == three
    assert human_size(size) == four


def test_the_size_column() -> None:
    assert size_column(0, 117_000_000) == "0B (virtual 117MB)"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "Less than a second"),
        (1.9, "1 second"),
        (59, "59 seconds"),
        (60, "About a minute"),
        (119, "About a minute"),
        (120, "2 minutes"),
        (46 * 60, "46 minutes"),
        (3600, "About an hour"),
        (2 * 3600, "2 hours"),
        (47 * 3600, "47 hours"),
        (48 * 3600, "2 days"),
        (13 * 86400, "13 days"),
        (14 * 86400, "2 weeks"),
        (59 * 86400, "8 weeks"),
        (60 * 86400, "2 months"),
        (729 * 86400, "24 months"),
        (3 * 365 * 86400, "3 years"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert human_duration(seconds) == text


def test_ages() -> None:
    now = 1_700_000_000 * 10**9
    assert human_age(now - 2 * 3600 * 10**9, now) == "2 hours ago"
    assert human_age(now + 10**9, now) == "Less than a second ago"  # clocks differ
    assert human_age(0, now) == "N/A"


def test_times() -> None:
    assert iso_time(1_700_000_000_000_000_001) == "2023-11-14T22:13:20.000000001Z"
    assert iso_time(0) is None


def test_ids_and_names() -> None:
    assert short_id("sha256:" + "ab" * 32) == "abababababab"
    assert split_tag("registry:5000/a/b:1.0") == ("registry:5000/a/b", "1.0")


def test_commands() -> None:
    assert command_text(["sh"]) == '"sh"'
    assert command_text(["/bin/sh", "-c", "echo hello"]) == '"/bin/sh -c echo hel…"'
    assert command_text(["/bin/sh", "-c", "echo hello"], full=True) == '"/bin/sh -c echo hello"'
    assert command_text([]) == '""'


def test_cutting() -> None:
    assert truncated("abc", 3) == "abc"
    assert truncated("abcd", 3) == "ab…"


def test_control_characters_are_escaped() -> None:
    assert printable("häuser 字 \udcff") == "häuser 字 \udcff"
    assert printable("a\x1b[31m\n\u202e") == "a\\x1b[31m\\x0a\\u202e"


def test_tables() -> None:
    assert table(("A", "LONGER NAME", "LAST"), [("1", "2", "3"), ("eleven chars", "", "x  ")]).splitlines() == [
        "A              LONGER NAME   LAST",
        "1              2             3",
        "eleven chars                 x",
    ]
    assert table(("REPOSITORY", "TAG"), []) == "REPOSITORY   TAG"
