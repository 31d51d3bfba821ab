# SPDX-License-Identifier: Apache-2.0
"""pycow history."""

from __future__ import annotations

from typing import Any

from pycow.cli._app import Exit


def test_the_table(cli: Any) -> None:
    header, *rows = cli("history", "busybox").columns
    assert header == ["IMAGE", "CREATED", "CREATED BY", "SIZE", "COMMENT"]
    assert [row[3] for row in rows[:2]] == ["0B", "0B"]
    assert rows[0][2] == 'CMD ["sh"]'
    assert rows[2][3] == "262kB"
    assert len(rows[2][2]) == 45
    assert rows[2][2].endswith("…")
    assert len(rows[0][0]) == 12
    assert rows[1][0] == "<missing>"


def test_in_full(cli: Any) -> None:
    (image,) = cli("images", "--json").json
    rows = cli("history", "--no-trunc", "busybox").columns[1:]
    assert rows[0][0] == image["id"]
    assert "with a long name" in rows[2][2]


def test_ids(cli: Any) -> None:
    assert cli("history", "-q", "busybox").lines[1:] == ["<missing>", "<missing>"]
    assert cli("history", "-q", "busybox", "--json").json[1:] == ["<missing>", "<missing>"]


def test_json(cli: Any) -> None:
    newest, _, oldest = cli("history", "busybox", "--json").json
    assert newest["empty_layer"]
    assert newest["size"] == 0
    assert not oldest["empty_layer"]
    assert oldest["created"].startswith("2024-01-01T")


def test_no_such_image(cli: Any) -> None:
    assert cli.fails("history", "nothing").code == Exit.NOT_FOUND
