# SPDX-License-Identifier: Apache-2.0
"""pycow volume."""

from __future__ import annotations

from typing import Any

from pycow.cli._app import Exit


def test_volumes(bare: Any) -> None:
    assert bare("volume", "create", "data").lines == ["data"]  # makes the store too
    header, row = bare("volume", "ls").columns
    assert header == ["VOLUME NAME", "CREATED", "SIZE"]
    assert (row[0], row[2]) == ("data", "0B")
    assert bare("volume", "ls", "-q").lines == ["data"]
    assert bare("volume", "ls", "--json").json[0]["name"] == "data"
    assert bare("volume", "rm", "data").lines == ["data"]
    assert bare("volume", "ls", "-q").lines == []


def test_errors(bare: Any) -> None:
    bare("volume", "create", "data")
    assert bare.fails("volume", "create", "data").code == Exit.CONFLICT
    assert bare.fails("volume", "rm", "none").code == Exit.NOT_FOUND
    assert bare.run("--store", bare.store, "volume").code == Exit.USAGE
